# SPDX-License-Identifier: Apache-2.0
"""What torch.compile and torch.export know of the operators: shapes, dtypes and strides of the results.

Strides are those of the real outputs (bindings/torch/library.cpp), since inductor trusts them. Lengths may be symbols: no
int() and no .item() here, and what is refused early is refused by rank and dtype, which never are. All other checks are
the operator's own, when it runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attnmux._errors import invalid

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def _check(rank: tuple[int, ...], layout: str, **tensors: Tensor) -> None:
    for name, t in tensors.items():
        if t.dim() not in rank:
            raise invalid(f"{name} has {t.dim()} dimensions; accepted is {layout}")
        if t.device != tensors["query"].device:
            raise invalid(f"{name} is on {t.device} and query on {tensors['query'].device}; accepted is one device for all")
        if t.dtype not in _DTYPES:
            raise invalid(f"{name}.dtype is {t.dtype}; accepted are float32, float16, bfloat16 and float64")


def _new_like(q: Tensor, shape: tuple, swapped: bool) -> Tensor:
    """Contiguous, or contiguous but for the two middle dimensions."""
    if not swapped:
        return q.new_empty(shape)
    return q.new_empty((shape[0], shape[2], shape[1], shape[3])).transpose(1, 2)


def _broadcast(*extents):
    for extent in extents:
        if extent != 1:
            return extent
    return 1


def sdpa_inference(query, key, value, attn_mask, is_causal, scale, enable_gqa, backend):
    _check((4,), "(B, H, S, D)", query=query, key=key, value=value)
    batch = _broadcast(query.shape[0], key.shape[0], value.shape[0])
    heads = query.shape[1] if enable_gqa else _broadcast(query.shape[1], key.shape[1], value.shape[1])
    shape = (batch, heads, query.shape[2], value.shape[3])
    # With one head, its stride says nothing but how it would repeat: the operator sees 0 after broadcasting.
    heads_stride = 0 if query.shape[1] == 1 and heads != 1 else query.stride(1)
    return _new_like(query, shape, not heads_stride > query.stride(2))


def attention(query, key, value, *options):
    _check((3, 4), "(B, S, H, D), packed (T, H, D)", query=query, key=key, value=value)
    shape = (*query.shape[:-1], value.shape[-1])
    packed = query.dim() == 3
    out = query.new_empty(shape) if packed else _new_like(query, shape, query.stride(2) > query.stride(1))
    lse = (shape[1], shape[0]) if packed else (shape[0], shape[2], shape[1])
    return out, query.new_empty(lse, dtype=torch.float32)


def attention_backward(grad_out, grad_lse, needs_bias, out, lse, query, key, value, bias, *options):
    grads = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, key, value))
    grad_bias = bias.new_empty(bias.shape) if needs_bias else query.new_empty((0,))
    return (*grads, grad_bias)
