# SPDX-License-Identifier: Apache-2.0
"""PyTorch's FlashAttention backward, for problems on CUDA that it can take: what forward left behind, the output and the
log-sum-exp, is all that it needs, whatever kernel computed them. It is many times faster than _backward.py."""

from __future__ import annotations

import torch
from torch import Tensor

from attnmux.torch._math import Problem

_LARGEST_HEAD_DIM = 256


def takes(p: Problem, q: Tensor, k: Tensor, v: Tensor) -> bool:
    """No mask but causal from a corner that is the same on both sides, one head of keys per head of queries."""
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16) or q.dim() != 4:
        return False
    tensors = (p.bias, p.mask, p.key_padding, p.key_lengths, p.cu_seqlens_q)
    plain = all(t is None for t in tensors) and p.softcap == 0 and p.dropout_p == 0
    head_dim = q.shape[3]
    fits = head_dim == v.shape[3] and head_dim % 8 == 0 and head_dim <= _LARGEST_HEAD_DIM and q.shape[2] == k.shape[2]
    unwindowed = p.window_left < 0 and p.window_right < 0
    return (
        plain
        and fits
        and unwindowed
        and q.numel() != 0
        and k.numel() != 0
        and (not p.causal or q.shape[1] == k.shape[1])
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
    )


def backward(
    p: Problem, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    heads_first = [t.transpose(1, 2) for t in (grad_out, q, k, v, out)]
    unused = torch.empty((2,), dtype=torch.int64, device=q.device)  # the state of a dropout that there is not
    scale = q.shape[3] ** -0.5 if p.scale is None else p.scale
    grads = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        *heads_first, lse, None, None, q.shape[1], k.shape[1], 0.0, p.causal, unused, unused, scale=scale
    )
    return tuple(t.transpose(1, 2) for t in grads)
