# SPDX-License-Identifier: Apache-2.0
"""torch.func: right, or refused."""

import pytest
import torch
import torch.nn.functional as F

import attnmux
from attnmux.torch import attention
from attnmux.torch import scaled_dot_product_attention as sdpa
from torch_state import clean_state  # noqa: F401

N = 3


def tensors():
    return (torch.randn(N, 2, 3, 4, 8), torch.randn(N, 2, 3, 5, 8), torch.randn(N, 2, 3, 5, 6))


def loss_of(function):
    return lambda q, k, v: function(q, k, v, is_causal=True).sin().sum()


def close(make):
    torch.testing.assert_close(make(sdpa), make(F.scaled_dot_product_attention))


def test_grad_and_vjp():
    q, k, v = (t[0] for t in tensors())
    close(lambda f: torch.func.grad(loss_of(f), (0, 1, 2))(q, k, v))
    close(lambda f: torch.func.vjp(loss_of(f), q, k, v)[1](torch.ones(())))
    close(lambda f: torch.func.jacrev(lambda q: f(q, k, v).sum(-1))(q))


def test_vmap_in_all_positions():
    q, k, v = tensors()
    for dims in ((0, 0, 0), (0, None, 0), (None, 0, None)):
        args = [t if d == 0 else t[0] for t, d in zip((q, k, v), dims)]
        close(lambda f: torch.vmap(f, dims)(*args))
    moved = q.movedim(0, 2)
    close(lambda f: torch.vmap(f, (2, 0, 0))(moved, k, v))
    masks = torch.rand(N, 4, 5) > 0.3
    close(lambda f: torch.vmap(f)(q, k, v, masks))
    per_entry, shared = torch.randn(N, 2, 1, 4, 5), torch.randn(2, 3, 4, 5)
    close(lambda f: torch.vmap(f)(q, k, v, per_entry))
    close(lambda f: torch.vmap(f, (0, 0, 0, None))(q, k, v, shared))


def test_vmap_of_vmap():
    q, k, v = (torch.stack([t, 2 * t]) for t in tensors())
    close(lambda f: torch.vmap(torch.vmap(f))(q, k, v))


def test_vmap_and_grad_both_ways():
    q, k, v = tensors()
    close(lambda f: torch.vmap(torch.func.grad(loss_of(f), (0, 1, 2)))(q, k, v))
    close(lambda f: torch.func.grad(lambda *a: torch.vmap(loss_of(f))(*a).sum(), (0, 1, 2))(q, k, v))


def test_vmap_of_tensors_that_require_grad():
    inputs = [t.requires_grad_() for t in tensors()]
    close(lambda f: torch.autograd.grad(torch.vmap(f)(*inputs).sin().sum(), inputs))


def test_second_derivatives():
    q, k, v = (t[0] for t in tensors())
    close(lambda f: torch.func.grad(lambda q: torch.func.grad(loss_of(f))(q, k, v).cos().sum())(q))


def test_vmap_of_lengths_padding_and_packed():
    q, k, v = (t.transpose(2, 3) for t in tensors())
    lengths = torch.tensor([[1, 2], [3, 4], [5, 0]], dtype=torch.int32)
    padding = torch.rand(N, 2, 5) > 0.3
    for keyword, value in (("key_lengths", lengths), ("key_padding", padding)):
        out = torch.vmap(lambda q, k, v, m: attention(q, k, v, **{keyword: m}))(q, k, v, value)
        expected = torch.stack([attention(q[i], k[i], v[i], **{keyword: value[i]}) for i in range(N)])
        torch.testing.assert_close(out, expected)
    packed = torch.randn(N, 6, 2, 8)
    cu = torch.tensor([0, 2, 6], dtype=torch.int32)
    out = torch.vmap(lambda x: attention(x, x, x, varlen=(cu, cu)))(packed)
    torch.testing.assert_close(out, torch.stack([attention(x, x, x, varlen=(cu, cu)) for x in packed]))


def test_vmap_and_dropout():
    q = torch.zeros(N, 1, 2, 4, 8)
    v = torch.ones(N, 1, 2, 4, 8)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda q, v: sdpa(q, q, v, dropout_p=0.5))(q, v)
    same = torch.vmap(lambda q, v: sdpa(q, q, v, dropout_p=0.5), randomness="same")(q, v)
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    different = torch.vmap(lambda q, v: sdpa(q, q, v, dropout_p=0.5), randomness="different")(q, v)
    assert not torch.equal(different[0], different[1])


def test_forward_mode_is_refused():
    q, k, v = (t[0] for t in tensors())
    for transform in (lambda f: torch.func.jvp(f, (q,), (q,)), lambda f: torch.func.jacfwd(f)(q)):
        with pytest.raises(attnmux.UnsupportedError, match="forward-mode"):
            transform(lambda q: sdpa(q, k, v))
