# SPDX-License-Identifier: Apache-2.0
"""scaled_dot_product_attention against PyTorch's over the space of its arguments."""

import inspect
import math

import pytest
import torch_tolerance as tolerance
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import attnmux
from attnmux.torch import scaled_dot_product_attention as sdpa
from torch_state import clean_state  # noqa: F401

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@st.composite
def problems(draw):
    """q, k, v and the other arguments, with leading dimensions that broadcast, strides of all kinds and masks of all shapes."""
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    dtype = draw(st.sampled_from(DTYPES))
    rank = draw(st.sampled_from([2, 3, 4, 4, 4, 5]))
    sq, skv = draw(st.sampled_from([0, 1, 2, 5, 17])), draw(st.sampled_from([0, 1, 3, 5, 33]))
    dim, dim_v = draw(st.sampled_from([1, 8, 13, 64])), draw(st.sampled_from([1, 8, 24]))
    lead = [draw(st.sampled_from([1, 2, 3])) for _ in range(rank - 2)]
    gqa = rank >= 3 and draw(st.booleans()) and draw(st.booleans())

    def extents(heads_factor=1):
        shape = [1 if draw(st.integers(0, 5)) == 0 and not gqa else n for n in lead]
        if shape:
            shape[-1] *= heads_factor
        return shape

    def tensor(shape):
        layout = draw(st.sampled_from(["contiguous", "transposed", "columns", "padded", "expanded"]))
        if layout == "transposed" and len(shape) >= 3:
            t = torch.randn([*shape[:-3], shape[-2], shape[-3], shape[-1]], generator=generator).transpose(-2, -3)
        elif layout == "columns":
            t = torch.randn([*shape[:-2], shape[-1], shape[-2]], generator=generator).transpose(-1, -2)
        elif layout == "padded":
            t = torch.randn([*shape[:-1], shape[-1] + 3], generator=generator)[..., 1:-2]
        elif layout == "expanded" and len(shape) >= 3:
            t = torch.randn([*shape[:-3], 1, *shape[-2:]], generator=generator).expand(shape)
        else:
            t = torch.randn(shape, generator=generator)
        return t if dtype == torch.float32 else t.to(dtype)  # .to keeps strides of dense tensors

    heads = draw(st.sampled_from([1, 2, 4])) if gqa else 1
    q, k, v = tensor([*extents(heads), sq, dim]), tensor([*extents(), skv, dim]), tensor([*extents(), skv, dim_v])
    full = [*torch.broadcast_shapes(q.shape[:-2] if not gqa else q.shape[:-2], *([] if gqa else [k.shape[:-2], v.shape[:-2]]))]
    mask = None
    kind = draw(st.sampled_from(["none", "none", "bool", "float", "float32", "rows"]))
    if kind != "none":
        shape = [*full, sq, skv][draw(st.integers(0, len(full))) :]
        shape = [n if i >= len(shape) - 2 and draw(st.integers(0, 3)) else draw(st.sampled_from([1, n])) for i, n in enumerate(shape)]
        if kind == "bool":
            mask = torch.rand(shape, generator=generator) < 0.7
        elif kind == "rows":  # whole rows without a key
            mask = (torch.rand([*shape[:-1], 1], generator=generator) < 0.5).expand(shape)
        else:
            mask = torch.randn(shape, generator=generator)
            mask = mask.masked_fill(torch.rand(shape, generator=generator) < 0.2, -math.inf)
            mask = mask.to(dtype if kind == "float" else torch.float32)
    causal = draw(st.booleans()) and draw(st.booleans())
    scale = draw(st.sampled_from([None, None, 0.3, 1, 0.0, -0.5]))
    return q, k, v, mask, causal, scale, gqa, full


def exact(q, k, v, mask, causal, scale, gqa, full):
    """The textbook in fp64, by PyTorch operations: F.scaled_dot_product_attention does not take every combination."""
    sq, skv = q.shape[-2], k.shape[-2]
    keep, bias = None, None
    if mask is not None:
        keep, bias = (mask, None) if mask.dtype == torch.bool else (None, mask)
    if causal:
        diagonal = torch.ones(sq, skv, dtype=torch.bool).tril()
        keep = diagonal if keep is None else keep & diagonal
    if gqa:
        k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) for t in (k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    reference, scores = tolerance.plain(q.double(), k.double(), v.double(), bias, keep, scale, torch.float64)
    inner = torch.float64 if q.dtype == torch.float64 else torch.float32
    textbook, _ = tolerance.plain(q, k, v, bias, keep, scale, inner)
    return reference, textbook, scores


@settings(max_examples=150)
@given(problems())
def test_equals_exact_attention(problem):
    q, k, v, mask, causal, scale, gqa, full = problem
    out = sdpa(q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=gqa)
    reference, textbook, scores = exact(*problem)
    tolerance.check(out, reference, textbook, scores, q.dtype)


@settings(max_examples=40)
@given(problems())
def test_equals_pytorch_in_fp64(problem):
    """PyTorch itself as the oracle, where it takes the arguments."""
    q, k, v, mask, causal, scale, gqa, full = problem
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.double()
    arguments = [q.double(), k.double(), v.double(), mask]
    try:
        expected = F.scaled_dot_product_attention(*arguments, is_causal=causal, scale=scale, enable_gqa=gqa)
    except (RuntimeError, IndexError):
        return
    if expected.isnan().any():
        return  # PyTorch multiplies a mask's -inf by a scale of 0
    if expected.numel() == 0 or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return  # PyTorch's CPU kernel takes the shape of the query and does not broadcast; test_equals_exact_attention does
    out = sdpa(*arguments, is_causal=causal, scale=scale, enable_gqa=gqa)
    reference, textbook, scores = exact(*arguments, causal, scale, gqa, full)
    tolerance.check(out, expected, textbook, scores, torch.float64)


def test_signature_is_pytorchs():
    ours = list(inspect.signature(sdpa).parameters.values())
    schema = torch.ops.aten.scaled_dot_product_attention.default._schema.arguments
    assert [p.name for p in ours] == [a.name for a in schema]
    assert [p.kind == p.KEYWORD_ONLY for p in ours] == [a.kwarg_only for a in schema]
    assert [p.default for p in ours[3:]] == [a.default_value for a in schema[3:]]


@pytest.mark.parametrize("training", [False, True])
def test_strides_follow_the_query(training):
    for q in (torch.randn(2, 3, 4, 8), torch.randn(2, 4, 3, 8).transpose(1, 2)):
        q.requires_grad_(training)
        expected = F.scaled_dot_product_attention(q, q, q)
        assert sdpa(q, q, q).stride() == expected.stride()


def test_inputs_are_not_written():
    q, k, v = torch.randn(3, 2, 2, 5, 8).unbind()
    mask = torch.rand(5, 5) > 0.5
    before = [t.clone() for t in (q, k, v, mask)]
    sdpa(q, k, v, mask)
    assert all(torch.equal(a, b) for a, b in zip((q, k, v, mask), before))


def test_dropout_statistics_and_generator():
    q, k = torch.zeros(1, 2, 64, 8), torch.zeros(1, 2, 512, 8)
    v = torch.ones(1, 2, 512, 1)
    p = 0.3
    torch.manual_seed(5)
    out = sdpa(q, k, v, dropout_p=p)
    again = sdpa(q, k, v, dropout_p=p)
    torch.manual_seed(5)
    assert torch.equal(sdpa(q, k, v, dropout_p=p), out)
    assert not torch.equal(out, again)
    # Each output is a mean of n = 512 kept-or-not, scaled by 1/(1-p): mean 1, variance p/((1-p)·n); 128 of them.
    deviation = math.sqrt(p / (1 - p) / 512)
    assert abs(out.mean().item() - 1) < 5 * deviation / math.sqrt(out.numel())
    assert 0.7 < out.std().item() / deviation < 1.3  # of 128 samples: 1/sqrt(256) is 6 %
    assert torch.equal(sdpa(q, k, v, dropout_p=1.0), torch.zeros(1, 2, 64, 1))
    assert torch.equal(sdpa(q, k, v, dropout_p=0.0), torch.ones(1, 2, 64, 1))


BAD = {
    "one dimension": (lambda: (torch.randn(4),) * 3, {}, "query has 1 dimensions"),
    "dtypes": (lambda: (torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8).double(), torch.randn(1, 2, 4, 8)), {}, "key.dtype is torch.float64"),
    "integers": (lambda: (torch.ones(1, 2, 4, 8, dtype=torch.int32),) * 3, {}, "accepted are fp32, fp16, bf16, fp64"),
    "head_dim": (lambda: (torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 6), torch.randn(1, 2, 4, 8)), {}, "k has shape"),
    "lengths of k and v": (lambda: (torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 5, 8)), {}, "v has shape"),
    "heads": (lambda: (torch.randn(1, 4, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8)), {}, "enable_gqa"),
    "gqa": (lambda: (torch.randn(1, 3, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8)), {"enable_gqa": True}, "must divide"),
    "mask shape": (lambda: (torch.randn(1, 2, 4, 8),) * 3, {"attn_mask": torch.ones(3, 4)}, "does not broadcast"),
    "mask rank": (lambda: (torch.randn(1, 2, 4, 8),) * 3, {"attn_mask": torch.ones(4)}, "attn_mask has"),
    "mask dtype": (lambda: (torch.randn(1, 2, 4, 8),) * 3, {"attn_mask": torch.ones(4, 4, dtype=torch.int32)}, "bool"),
    "dropout": (lambda: (torch.randn(1, 2, 4, 8),) * 3, {"dropout_p": 1.5}, "dropout_p is 1.5"),
    "device": (lambda: (torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8, device="meta"), torch.randn(1, 2, 4, 8)), {}, "key is on meta"),
    "sparse": (lambda: (torch.randn(2, 4).to_sparse(),) * 3, {}, "layout"),
    "nested": (lambda: (torch.nested.nested_tensor([torch.randn(2, 4, 8), torch.randn(2, 3, 8)]),) * 3, {}, "nested tensor"),
}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_the_argument(name, requires_grad):
    make, keywords, text = BAD[name]
    tensors = make()
    if requires_grad:
        if not tensors[0].is_floating_point() or tensors[0].is_nested or tensors[0].layout != torch.strided:
            return
        tensors = [t.detach().requires_grad_() for t in tensors]
    with pytest.raises(attnmux.Error) as caught:
        sdpa(*tensors, **keywords)
    assert text in str(caught.value) and str(caught.value).startswith("[attention] ")
    assert caught.value.code == attnmux.Code.INVALID_ARGUMENT


def test_autocast_casts_as_pytorch_does():
    q, k, v = torch.randn(3, 2, 3, 5, 8).unbind()
    bias = torch.randn(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = sdpa(q, k, v, bias)
        expected = F.scaled_dot_product_attention(q, k, v, bias)
        assert out.dtype == expected.dtype == torch.bfloat16
        assert attnmux.torch.attention(q, k, v).dtype == torch.bfloat16
        assert sdpa(q.double(), k.double(), v.double()).dtype == torch.float64
        mixed = sdpa(q.half(), k, v)
        assert mixed.dtype == torch.bfloat16
    cast = sdpa(*(t.bfloat16() for t in (q, k, v, bias)))
    assert torch.equal(out, cast)


def test_tensor_subclasses_and_modes_see_the_call():
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    q = torch.randn(1, 2, 4, 8)
    with Mode():
        sdpa(q, q, q)
    assert seen[0] is sdpa
    parameter = torch.nn.Parameter(q)
    assert sdpa(parameter, q, q).requires_grad


@pytest.mark.parametrize("backend", ["native", "_native_math", "_native_flash", "flash", "xformers"])
def test_scopes_and_defaults_choose(backend):
    q = torch.randn(1, 2, 40, 8)
    expected = F.scaled_dot_product_attention(q, q, q)
    with attnmux.attention_backend(backend):
        torch.testing.assert_close(sdpa(q, q, q), expected)
    with attnmux.attention_backend("flex"), pytest.raises(attnmux.UnavailableError, match="flex"):
        sdpa(q, q, q)
