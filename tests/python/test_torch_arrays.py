# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch as arrays: what attnmux.attention does with them when it is given out= or a kernel, and what plan and
explain do with them always. Gradients, torch.compile and the drop-in are tested in the other test_torch_*.py."""

import gc
import weakref

import attnmux
import numpy as np
import pytest

torch = pytest.importorskip("torch")


def tensors(dtype=torch.float32, shape=(2, 8, 4, 16)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


def test_is_the_same_memory_and_the_same_numbers():
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors())
    out = torch.zeros(2, 4, 8, 16).transpose(1, 2)
    assert attnmux.attention(q, k, v, causal=True, out=out) is out
    assert np.array_equal(out.numpy(), attnmux.attention(q.numpy(), k.numpy(), v.numpy(), causal=True))


def test_bfloat16_and_lse():
    q, k, v = tensors(torch.bfloat16)
    out, lse = attnmux.attention(q, k, v, return_lse=True, kernel="cpu_math", backend="_native_math")
    assert (out.dtype, lse.dtype, lse.shape) == (torch.bfloat16, torch.float32, (2, 4, 8))
    scores = torch.einsum("bihd,bjhd->bhij", q.double(), k.double()) / 4
    torch.testing.assert_close(lse.double(), torch.logsumexp(scores, -1), rtol=1e-5, atol=1e-5)


def test_masks_lengths_and_bias():
    q, k, v = tensors()
    keep, lengths = torch.rand(8, 8) < 0.7, torch.tensor([8, 3], dtype=torch.int32)
    bias, out = torch.randn(1, 4, 8, 8), torch.empty_like(q)
    attnmux.attention(q, k, v, mask=keep, key_lengths=lengths, bias=bias, out=out)
    expected = attnmux.attention(
        *(x.numpy() for x in (q, k, v)), mask=keep.numpy(), key_lengths=lengths.numpy(), bias=bias.numpy()
    )
    assert np.array_equal(out.numpy(), expected)


def test_tensors_are_freed():
    q, k, v = tensors()
    out = torch.empty_like(q)
    dying = [weakref.ref(x) for x in (q, k, v, out)]
    attnmux.attention(q, k, v, out=out)
    with pytest.raises(attnmux.Error):
        attnmux.attention(q, k, v[:, :3], out=out)
    plan = attnmux.plan(q, k, v)
    del q, k, v, out
    gc.collect()
    assert [ref() for ref in dying] == [None] * 4 and plan.kernel


def test_a_lost_gradient_is_refused():
    q, k, v = tensors()
    q.requires_grad_()
    with pytest.raises(attnmux.InvalidArgumentError, match=r"q requires grad, and this call has no backward"):
        attnmux.attention(q, k, v, out=torch.empty_like(v))
    with torch.no_grad():
        attnmux.attention(q, k, v, out=torch.empty_like(v))
    attnmux.attention(q.detach(), k, v, out=torch.empty_like(v))
    assert attnmux.explain(q, k, v).kernel and attnmux.plan(q, k, v).kernel  # compute nothing


def test_without_the_operators_it_says_why(python):
    code = """
import torch, attnmux, sys
sys.modules["attnmux.torch"] = None  # as in a package that was built without
x = torch.ones(1, 4, 1, 8, requires_grad=True)
try: attnmux.attention(x, x, x)
except attnmux.InvalidArgumentError as error: print(error)
with torch.no_grad(): print(attnmux.attention(x, x, x).sum().item())
"""
    refused, total = python(code).splitlines()
    assert "attnmux.torch, which has one, is not there: " in refused and total == "32.0"


def test_bad_tensors_are_named():
    q, k, v = tensors()
    out = torch.empty_like(q)
    with pytest.raises(attnmux.InvalidArgumentError, match=r"q\.dtype is torch\.int64; accepted are"):
        attnmux.attention(q.long(), k, v, out=out)
    with pytest.raises(attnmux.InvalidArgumentError, match="k"):
        attnmux.attention(q, k.to_sparse(), v, out=out)
    with pytest.raises(attnmux.InvalidArgumentError, match="k"):
        attnmux.attention(q, k.to("meta"), v, out=out)
    with pytest.raises(attnmux.InvalidArgumentError, match="last dimension must be contiguous"):
        attnmux.attention(q.transpose(2, 3), k, v, out=out)


def test_numpy_and_torch_may_be_mixed():
    q, k, v = tensors()
    out = attnmux.attention(q.numpy(), k, v)
    assert isinstance(out, np.ndarray) and np.array_equal(out, attnmux.attention(q.numpy(), k.numpy(), v.numpy()))
