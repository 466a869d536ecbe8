# SPDX-License-Identifier: Apache-2.0
"""No argument is dropped: each is honoured, against PyTorch in fp64, or refused by name."""

from __future__ import annotations

import inspect

import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

import attnmux

B, SQ, SKV, H, D = 2, 5, 7, 4, 16
MASKS = {
    "(Sq,Skv)": (SQ, SKV),
    "(B,Skv)": (B, SKV),
    "(1,Skv)": (1, SKV),
    "(B,Sq,Skv)": (B, SQ, SKV),
    "(1,Sq,Skv)": (1, SQ, SKV),
    "(B,1,1,Skv)": (B, 1, 1, SKV),
    "(B,H,1,Skv)": (B, H, 1, SKV),
    "(1,1,Sq,Skv)": (1, 1, SQ, SKV),
    "(B,H,Sq,Skv)": (B, H, SQ, SKV),
}


def tensors(heads_of_k: int = H):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, s, h, D, generator=generator) for s, h in ((SQ, H), (SKV, heads_of_k), (SKV, heads_of_k))]


def expected(q, k, v, mask=None, causal=None, scale=None):
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.mT * (D**-0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if causal is not None:
        rows, columns = torch.arange(SQ)[:, None], torch.arange(SKV)[None]
        scores = scores.masked_fill(columns > rows + (SKV - SQ if causal == "bottom_right" else 0), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).float(), scores.logsumexp(-1).float()


def as_four(mask):
    if mask.dim() == 2:
        return mask[:, None, None] if mask.shape[0] in (1, B) else mask[None, None]
    return mask[:, None] if mask.dim() == 3 else mask


@pytest.mark.parametrize("kind", ["bool", "additive"])
@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("backend", ["native", "flash", "flash_varlen", "xformers", "_native_math"])
def test_every_form_of_mask(shape, kind, backend):
    generator = torch.Generator().manual_seed(1)
    mask = torch.randn(MASKS[shape], generator=generator)
    if kind == "bool":
        mask = mask > -0.3
        mask[..., 0] = True
        mask[..., 2] = False  # a hole
    q, k, v = tensors()
    try:
        actual = dispatch_attention_fn(q, k, v, attn_mask=mask, backend=backend)
    except attnmux.UnsupportedError as error:
        assert backend in str(error)  # a refusal by name is an answer
        return
    torch.testing.assert_close(actual, expected(q, k, v, as_four(mask))[0], atol=2e-5, rtol=1e-4)


def test_a_mask_that_could_mean_two_things_is_refused():
    q = torch.randn(3, 3, 2, 8)
    with pytest.raises(attnmux.Error, match=r"attn_mask has shape \(3, 3\).*at once"):
        dispatch_attention_fn(q, q, q, attn_mask=torch.ones(3, 3, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(SKV,), (4, SKV), (3, SQ, SKV), (B, SQ, SKV - 1), (1, 1, B, SQ, SKV)])
def test_a_mask_of_a_wrong_shape_is_refused(shape):
    q, k, v = tensors()
    with pytest.raises(attnmux.Error, match="attn_mask has shape"):
        dispatch_attention_fn(q, k, v, attn_mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize(("backend", "causal"), [("native", "top_left"), ("flash", "bottom_right"), ("xformers", "top_left")])
def test_causal_means_what_the_name_means(backend, causal):
    q, k, v = tensors()
    actual = dispatch_attention_fn(q, k, v, is_causal=True, backend=backend)
    torch.testing.assert_close(actual, expected(q, k, v, causal=causal)[0], atol=2e-5, rtol=1e-4)


def test_causal_with_a_mask_is_both():
    q, k, v = tensors()
    mask = torch.ones(B, 1, 1, SKV, dtype=torch.bool)
    mask[1, ..., 1] = False
    actual = dispatch_attention_fn(q, k, v, attn_mask=mask, is_causal=True)
    torch.testing.assert_close(actual, expected(q, k, v, mask, "top_left")[0], atol=2e-5, rtol=1e-4)


def test_scale_lse_and_grouped_heads():
    q, k, v = tensors(heads_of_k=2)
    out, lse = dispatch_attention_fn(q, k, v, scale=0.5, enable_gqa=True, attention_kwargs={"return_lse": True})
    want, want_lse = expected(q, k, v, scale=0.5)
    torch.testing.assert_close(out, want, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(lse, want_lse, atol=2e-5, rtol=1e-4)
    with pytest.raises(attnmux.Error, match="enable_gqa is False"):
        dispatch_attention_fn(q, k, v)


def test_dropout_drops_and_follows_the_seed_of_pytorch():
    q, k, v = tensors()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(dispatch_attention_fn(q, k, v, dropout_p=0.5))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_an_unknown_argument_is_refused_by_name():
    q, k, v = tensors()
    with pytest.raises(attnmux.Error, match="block_table is 3"):
        dispatch_attention_fn(q, k, v, attention_kwargs={"block_table": 3})


def test_window_and_softcap_are_honoured():
    q, k, v = tensors()
    plain = dispatch_attention_fn(q, k, v, backend="flash")
    narrow = dispatch_attention_fn(q, k, v, backend="flash", attention_kwargs={"window_size": (1, 0)})
    capped = dispatch_attention_fn(q, k, v, backend="flash", attention_kwargs={"softcap": 0.5})
    rows, columns = torch.arange(SQ)[:, None] + SKV - SQ, torch.arange(SKV)[None]
    mask = ((columns <= rows) & (columns >= rows - 1))[None, None]
    torch.testing.assert_close(narrow, expected(q, k, v, mask)[0], atol=2e-5, rtol=1e-4)
    assert not torch.allclose(capped, plain)


def test_gradients_are_those_of_pytorch():
    q, k, v = (x.requires_grad_() for x in tensors())
    dispatch_attention_fn(q, k, v, backend="flash").square().sum().backward()
    ours = [x.grad.clone() for x in (q, k, v)]
    for x in (q, k, v):
        x.grad = None
    expected(q, k, v)[0].square().sum().backward()
    for mine, theirs in zip(ours, (q.grad, k.grad, v.grad)):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_a_context_parallel_call_is_not_computed_as_if_it_were_whole():
    q, k, v = tensors()
    if "parallel_config" in inspect.signature(dispatch_attention_fn).parameters:
        parallel = {"parallel_config": object()}
    else:
        parallel = {"attention_kwargs": {"_parallel_config": object()}}
    with pytest.raises(attnmux.Error, match="_parallel_config"):
        dispatch_attention_fn(q, k, v, backend="xformers", **parallel)


def test_a_block_mask_is_the_table_that_it_stands_for():
    from torch.nn.attention.flex_attention import create_block_mask

    q, k, v = tensors()
    block_mask = create_block_mask(lambda b, h, i, j: j <= i + 1, B, H, SQ, SKV, device="cpu")
    rows, columns = torch.arange(SQ)[:, None], torch.arange(SKV)[None]
    actual = dispatch_attention_fn(q, k, v, attn_mask=block_mask)
    torch.testing.assert_close(actual, expected(q, k, v, (columns <= rows + 1)[None, None])[0], atol=2e-5, rtol=1e-4)
