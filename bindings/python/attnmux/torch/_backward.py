# SPDX-License-Identifier: Apache-2.0
"""The backward pass of `attnmux::attention`: probabilities are computed again from the inputs, block of queries by block.

It knows nothing of the kernel that ran forward: a backend at 16-bit accuracy or better differs from exact attention by
rounding only, and the gradient is that of exact attention. Quantized backends have none (see _autograd.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from attnmux.torch import _math
from attnmux.torch._math import Problem

Results = tuple[Tensor, Tensor, Tensor, Tensor | None]

_BLOCK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}  # of one matrix of scores


def backward(
    p: Problem, q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor, grad_lse: Tensor | None, needs_bias: bool
) -> Results:
    """Gradients of q, k, v and, if asked for, bias, in their dtypes. Differentiable itself."""
    if p.cu_seqlens_q is not None:
        return _packed(p, q, k, v, grad_out, grad_lse)
    dtype = _math.accumulation_dtype(q.dtype)
    valid = _math.valid_keys(p, k.shape[1], q.device)
    if valid is not None:  # what lies behind the last key may be anything, NaN included
        hidden = ~valid[:, :, None, None]
        k, v = k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
    num_heads_kv = k.shape[2]
    queries, grads = (_math.group_queries(t, num_heads_kv, dtype) for t in (q, grad_out))
    keys, values = (_math.group_keys(t, dtype) for t in (k, v))
    if grad_lse is not None:
        grad_lse = grad_lse.to(dtype).unflatten(1, (num_heads_kv, -1)) if num_heads_kv else grad_lse[:, :, None]
    grad_q, grad_bias = [], []
    grad_k, grad_v = torch.zeros_like(keys), torch.zeros_like(values)
    for rows in _blocks(q.shape, k.shape[1], dtype, q.device):
        part = _math.gradients(
            p,
            queries[..., rows, :],
            keys,
            values,
            grads[..., rows, :],
            None if grad_lse is None else grad_lse[..., rows],
            rows,
            q.shape[1],
        )
        grad_q.append(part.q)
        grad_k, grad_v = grad_k + part.k, grad_v + part.v
        if needs_bias:
            grad_bias.append(part.scores.flatten(1, 2))
    return (
        _ungroup(torch.cat(grad_q, dim=-2), q.dtype),
        _ungroup(grad_k, k.dtype),
        _ungroup(grad_v, v.dtype),
        _bias_gradient(grad_bias, p.bias) if needs_bias else None,
    )


def _blocks(shape_q: torch.Size, num_keys: int, dtype: torch.dtype, device: torch.device) -> list[slice]:
    batch, num_queries, num_heads, _ = shape_q
    row_bytes = max(batch * num_heads * num_keys * dtype.itemsize, 1)
    step = max(_BLOCK_BYTES.get(device.type, 1 << 22) // row_bytes, 16)
    starts = range(0, num_queries, step) if num_queries else [0]
    return [slice(start, min(start + step, num_queries)) for start in starts]


def _ungroup(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, Hkv, G, S, D) to (B, S, Hkv·G, D)."""
    return x.flatten(1, 2).transpose(1, 2).to(dtype)


def _bias_gradient(parts: list[Tensor], bias: Tensor) -> Tensor:
    broadcast_rows = bias.dim() < 2 or bias.shape[-2] == 1
    if broadcast_rows:
        total = parts[0].sum(dim=-2, keepdim=True)
        for part in parts[1:]:
            total = total + part.sum(dim=-2, keepdim=True)
    else:
        total = torch.cat(parts, dim=-2)
    return _math.sum_to(total, bias.shape).to(bias.dtype)


def _packed(p: Problem, q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor, grad_lse: Tensor | None) -> Results:
    """Sequence by sequence; each is a batch of one."""
    bounds_q, bounds_kv = p.cu_seqlens_q.tolist(), p.cu_seqlens_kv.tolist()
    parts = []
    for b in range(len(bounds_q) - 1):
        queries, keys = slice(bounds_q[b], bounds_q[b + 1]), slice(bounds_kv[b], bounds_kv[b + 1])
        lengths = None if p.key_lengths is None else p.key_lengths[b : b + 1]
        parts.append(
            backward(
                p.dense(key_lengths=lengths, first_batch=b),
                q[None, queries],
                k[None, keys],
                v[None, keys],
                grad_out[None, queries],
                None if grad_lse is None else grad_lse[None, :, queries],
                False,
            )[:3]
        )
    empty = [t[:0] for t in (q, k, v)]
    grad_q, grad_k, grad_v = (
        torch.cat([start, *(part[i][0] for part in parts)]) for i, start in enumerate(empty)
    )
    return grad_q, grad_k, grad_v, None
