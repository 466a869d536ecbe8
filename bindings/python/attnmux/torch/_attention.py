# SPDX-License-Identifier: Apache-2.0
"""attnmux.attention for torch tensors, with autograd, torch.compile and autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnmux._errors import invalid
from attnmux._scopes import resolve
from attnmux.torch import _autograd, _front, _ops
from attnmux.torch._errors import translated
from attnmux.torch._layer import running

_ALIGNMENTS = {"top_left": 1, "bottom_right": 2}


def _alignment(name: str, value: Any) -> int:
    found = _ALIGNMENTS.get(value) if isinstance(value, str) else None
    if found is None:
        raise invalid(f"{name} is {value!r}; accepted are 'top_left' and 'bottom_right'")
    return found


def _diagonal(causal: Any, window: Any) -> tuple[bool, int, int, int]:
    """causal, left, right and the corner of both."""
    align = 0 if isinstance(causal, bool) else _alignment("causal", causal)
    if window is None:
        return causal is not False, -1, -1, align
    if not isinstance(window, (tuple, list)) or len(window) not in (2, 3):
        raise invalid(f"window is {window!r}; accepted are (left, right) and (left, right, 'top_left' or 'bottom_right')")
    if len(window) == 3:
        corner = _alignment("window[2]", window[2])
        if align not in (0, corner):
            raise invalid(f"causal is {causal!r} and window[2] is {window[2]!r}; accepted is one alignment for both")
        align = corner
    return causal is not False, window[0], window[1], align


def _seed(dropout: float, seed: int | Tensor | None) -> Tensor | None:
    if dropout == 0:
        return None
    if seed is None:
        raise invalid(f"seed is None with dropout={dropout}; dropout needs a seed, an int or a tensor of one int64")
    if isinstance(seed, Tensor):
        return seed
    return torch.tensor([seed if seed < 2**63 else seed - 2**64], dtype=torch.int64)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    key_padding: Tensor | None = None,
    key_lengths: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool | str = False,
    window: tuple | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    return_lse: bool = False,
    varlen: tuple | None = None,
    backend: str | int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(mask(scale · q kᵀ) + bias) v with q (B, Sq, Hq, D), k (B, Skv, Hkv, D), v (B, Skv, Hkv, Dv).

    The arguments are those of attnmux.attention. The result is differentiable in q, k, v and bias, lse as well; a
    quantized backend raises where a gradient would be needed. Under autocast the inputs are cast as PyTorch casts those
    of its own attention. Views of any strides are read as they lie, as long as the last dimension is contiguous.
    """
    backend = resolve(backend, getattr(running, "backend", None))
    is_causal, left, right, align = _diagonal(causal, window)
    cu_q, cu_kv, max_q, max_kv = (None, None, 0, 0) if varlen is None else (*varlen, 0, 0)[:4]
    try:
        _front.refuse_forward_ad(q, k, v, bias)
        q, k, v, bias = _front.autocast(q, k, v, bias)
        operator = _ops.attention_inference
        if _front.needs_grad(q, k, v, bias):
            _autograd.refuse_without_backward(backend)
            operator = _ops.attention
        elif torch._C._are_functorch_transforms_active():  # above one, a tensor does not tell whether it requires grad
            operator = _ops.attention
        out, lse = operator(
            q, k, v, bias, mask, key_padding, key_lengths, cu_q, cu_kv, _seed(dropout, seed), max_q, max_kv, is_causal,
            left, right, align, scale, softcap or 0.0, dropout, backend,
        )  # fmt: skip
    except (RuntimeError, AttributeError) as error:
        _front.check_tensors(q, k, v)  # says it better where PyTorch refused
        raise translated(error) from None
    return (out, lse) if return_lse else out
