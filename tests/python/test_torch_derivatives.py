# SPDX-License-Identifier: Apache-2.0
"""Gradients: right for every option that forward has, or refused in words."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import attnmux
from attnmux.torch import _autograd, _philox, attention
from attnmux.torch import scaled_dot_product_attention as sdpa
from torch_state import clean_state  # noqa: F401


def rows(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


INT32 = torch.int32
OPTIONS = {
    "plain": {},
    "causal, bottom right": {"causal": "bottom_right"},
    "causal and window": {"causal": "top_left", "window": (1, -1)},
    "window": {"window": (1, 0, "bottom_right")},
    "softcap": {"softcap": 1.5, "scale": 0.7},
    "scale of 0": {"scale": 0.0},
    "dropout": {"dropout": 0.4, "seed": 3},
    "lengths": {"key_lengths": torch.tensor([0, 2], dtype=INT32), "causal": "bottom_right"},
    "padding": {"key_padding": torch.tensor([[True, False, True], [False, True, True]])},
    "mask": {"mask": torch.tensor([True, True, False, True, False, True, True, True, True, False, False, False]).view(4, 3)},
    "mask per head": {"mask": torch.arange(2 * 4 * 3).view(2, 4, 1, 3) % 5 != 0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_first_and_second_derivatives(name):
    inputs = rows(2, 4, 4, 2), rows(2, 3, 2, 2), rows(2, 3, 2, 1)

    def function(q, k, v):
        return attention(q, k, v, **OPTIONS[name])

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (4, 1), (1, 4, 1, 3), (2, 4, 4, 3), (2, 1, 1, 1)])
def test_derivative_of_the_bias(shape):
    inputs = rows(2, 4, 4, 2), rows(2, 3, 2, 2), rows(2, 3, 2, 1), rows(*shape)
    assert gradcheck(lambda q, k, v, bias: attention(q, k, v, bias=bias), inputs, fast_mode=True)


def test_derivative_through_lse():
    def function(q, k, v):
        out, lse = attention(q, k, v, return_lse=True, causal="bottom_right")
        return out, lse.double()

    # lse is float32, so its derivative is checked against autograd instead of differences.
    q, k, v = rows(1, 4, 2, 5), rows(1, 6, 2, 5), rows(1, 6, 2, 3)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * 5**-0.5
    scores = scores.masked_fill(~torch.ones(4, 6, dtype=torch.bool).tril(2), -torch.inf)
    expected = torch.autograd.grad(scores.logsumexp(-1).sin().sum(), (q, k))
    got = torch.autograd.grad(function(q, k, v)[1].sin().sum(), (q, k))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)  # sin of a float32


def test_derivative_of_packed_sequences():
    cu_q, cu_kv = torch.tensor([0, 1, 1, 4], dtype=INT32), torch.tensor([0, 3, 4, 4], dtype=INT32)
    inputs = rows(4, 4, 2), rows(4, 2, 2), rows(4, 2, 1)
    for options in ({}, {"dropout": 0.3, "seed": 5}, {"causal": "bottom_right"}):
        assert gradcheck(lambda q, k, v: attention(q, k, v, varlen=(cu_q, cu_kv), **options), inputs)


def test_dropout_mask_is_the_librarys():
    """out = P∘D v with P uniform and v the identity shows the mask itself."""
    n, p, seed = 23, 0.4, 12345678901234567890
    q = torch.zeros(2, 5, 3, 4)
    k, v = torch.zeros(2, n, 3, 4), torch.eye(n).expand(2, 3, n, n).transpose(1, 2).contiguous()
    shown = attention(q, k, v, dropout=p, seed=seed).transpose(1, 2).reshape(6, 5, n) > 0
    mask = _philox.keep(seed, p, torch.arange(6), torch.arange(5), n)
    assert torch.equal(shown, mask) and 0 < mask.float().mean() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["native", "_native_math", "flash", "xformers"])
def test_every_backend_has_the_gradient_of_exact_attention(backend, dtype):
    q, k, v = (torch.randn(2, 3, s, 16, dtype=dtype, requires_grad=True) for s in (40, 50, 50))
    weight = torch.randn(2, 3, 40, 16).to(dtype).float()  # what the output's gradient is rounded to
    with attnmux.attention_backend(backend):
        got = torch.autograd.grad((sdpa(q, k, v, is_causal=True) * weight).sum(), (q, k, v))
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad((F.scaled_dot_product_attention(*wide, is_causal=True) * weight).sum(), wide)
    unit = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    for a, b in zip(got, expected):
        # Computed in fp32 from the same inputs, rounded once; fp32: sums of 50 products of 16, each rounded.
        bound = (unit if dtype != torch.float32 else 64 * unit) * b.abs().max()
        assert (a.double() - b).abs().max() <= bound


def test_blocks_of_queries_add_up(monkeypatch):
    from attnmux.torch import _backward

    inputs = rows(1, 50, 2, 4), rows(1, 9, 1, 4), rows(1, 9, 1, 4)
    bias = rows(50, 9)

    def gradients():
        out = attention(*inputs, bias=bias, causal="top_left", dropout=0.2, seed=1)
        return torch.autograd.grad(out.sin().sum(), (*inputs, bias))

    whole = gradients()
    monkeypatch.setitem(_backward._BLOCK_BYTES, "cpu", 1)
    torch.testing.assert_close(gradients(), whole)


def test_garbage_behind_the_last_key_does_not_matter():
    q, k, v = (torch.randn(1, 4, 2, 8, requires_grad=True) for _ in range(3))
    lengths = torch.tensor([2], dtype=INT32)
    dirty = [t.detach().clone() for t in (k, v)]
    for t in dirty:
        t[:, 2:] = torch.nan
        t.requires_grad_()
    clean = torch.autograd.grad(attention(q, k, v, key_lengths=lengths).sum(), (q, k, v))
    got = torch.autograd.grad(attention(q, *dirty, key_lengths=lengths).sum(), (q, *dirty))
    torch.testing.assert_close(got, clean)


def test_drop_in_gradients_equal_pytorchs():
    for shapes, keywords in (
        (((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 3)), {"enable_gqa": True}),
        (((5, 8), (7, 8), (7, 3)), {}),
        (((2, 1, 5, 8), (1, 3, 7, 8), (2, 3, 7, 3)), {"is_causal": True}),
        (((2, 2, 3, 5, 8),) * 3, {"attn_mask": torch.rand(2, 1, 1, 5, 5) > 0.3}),
        (((2, 3, 5, 8),) * 3, {"dropout_p": 1.0}),
        (((2, 3, 0, 8), (2, 3, 4, 8), (2, 3, 4, 8)), {}),
        (((2, 3, 4, 8), (2, 3, 0, 8), (2, 3, 0, 8)), {}),
    ):
        inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
        out, expected = sdpa(*inputs, **keywords), F.scaled_dot_product_attention(*inputs, **keywords)
        weight = torch.randn_like(expected)
        torch.testing.assert_close(
            torch.autograd.grad(out, inputs, weight), torch.autograd.grad(expected, inputs, weight)
        )


def test_no_grad_means_no_graph():
    q = torch.randn(1, 2, 4, 8, requires_grad=True)
    with torch.no_grad():
        assert not sdpa(q, q, q).requires_grad
    with torch.inference_mode():
        assert sdpa(q, q, q).is_inference()
    assert sdpa(q, q, q).requires_grad


def test_quantized_backends_refuse(monkeypatch):
    native = attnmux._backends.backend_id("_native_math")
    monkeypatch.setattr(_autograd, "_refused", _autograd._refused | {native})
    q = torch.randn(1, 2, 4, 8, requires_grad=True)
    with attnmux.attention_backend("_native_math"):
        for function in (sdpa, attention):
            with pytest.raises(attnmux.UnsupportedError, match="no backward"):
                function(q, q, q)
            with torch.no_grad():
                function(q, q, q)
        with pytest.raises(attnmux.UnsupportedError, match="no backward"):  # who calls the operator itself
            torch.ops.attnmux.attention(*(q,) * 3, *(None,) * 7, 0, 0, False, -1, -1, 0, None, 0.0, 0.0, native)
    assert {attnmux._backends.backend_id(n) for n in ("sage", "_sage_qk_int8_pv_fp16_cuda")} <= _autograd._refused


def test_a_forced_backend_counts(python):
    program = """
import torch, attnmux.torch
q = torch.randn(1, 2, 4, 8, requires_grad=True)
try:
    attnmux.torch.scaled_dot_product_attention(q, q, q)
except attnmux.UnsupportedError as error:
    print(error)
"""
    assert '"sage" is quantized' in python(program, ATTNMUX_FORCE_BACKEND="sage")


def test_forward_mode_is_refused():
    q = torch.randn(1, 2, 4, 8)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(q, torch.ones_like(q))
        for function in (sdpa, attention):
            with pytest.raises(attnmux.UnsupportedError, match="forward-mode"):
                function(q, dual, q)
        torch.testing.assert_close(sdpa(q, q, q), F.scaled_dot_product_attention(q, q, q))
