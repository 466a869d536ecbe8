# SPDX-License-Identifier: Apache-2.0
"""A drop-in for torch.nn.functional.scaled_dot_product_attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_variadic

from attnmux._errors import Code, error_of, invalid
from attnmux._scopes import resolve
from attnmux.torch import _autograd, _front, _ops
from attnmux.torch._errors import translated
from attnmux.torch._layer import running

_inference = _ops.sdpa_inference


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention, computed by attnmux: same arguments, same meaning.

    The backend is that of the layer (set_attention_backend), of the scope of this thread, or the process default.
    """
    if has_torch_function_variadic(query, key, value, attn_mask):
        return handle_torch_function(
            scaled_dot_product_attention, (query, key, value, attn_mask), query, key, value, attn_mask, dropout_p,
            is_causal, scale=scale, enable_gqa=enable_gqa,
        )  # fmt: skip
    return with_backend(
        resolve(None, getattr(running, "backend", None)), query, key, value, attn_mask, dropout_p, is_causal, scale,
        enable_gqa,
    )  # fmt: skip


def with_backend(backend, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa) -> Tensor:
    """The same for a backend that is already known. What is plain (four dimensions, no derivative, no dropout, no
    autocast, no torch.func transform, above which a tensor does not tell whether it requires grad) goes straight to its operator, which broadcasts and checks: a small problem takes microseconds."""
    if (
        dropout_p != 0
        or enable_gqa
        or (
            torch.is_grad_enabled()
            and (
                query.requires_grad
                or key.requires_grad
                or value.requires_grad
                or (attn_mask is not None and attn_mask.requires_grad)
            )
        )
        or not query.dim() == 4 == key.dim() == value.dim()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cuda" if query.is_cuda else "cpu")
    ):
        return _general(backend, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    try:
        return _inference(query, key, value, attn_mask, is_causal, scale, False, backend)
    except RuntimeError as error:
        _front.check_tensors(query, key, value)  # says it better where the dispatcher refused
        raise translated(error) from None


def _general(backend, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa) -> Tensor:
    _check(query, key, value, attn_mask, dropout_p, enable_gqa)
    query, key, value, attn_mask = _front.autocast(query, key, value, attn_mask)
    needs_grad = _front.needs_grad(query, key, value, attn_mask)
    if needs_grad:
        _autograd.refuse_without_backward(backend)
    vectors = query.dim() == key.dim() == value.dim() == 2  # no dimension of heads
    lead = torch.broadcast_shapes(*(t.shape[:-3] for t in (query, key, value)))
    q, k, v = (_four_dimensions(t, lead) for t in (query, key, value))
    mask = _mask(attn_mask, lead, vectors)
    try:
        if not needs_grad and dropout_p == 0 and not torch._C._are_functorch_transforms_active():
            out = _inference(q, k, v, mask, is_causal, scale, enable_gqa, backend)
        else:
            out = _differentiable(q, k, v, mask, dropout_p, is_causal, scale, enable_gqa, backend)
    except RuntimeError as error:
        raise translated(error) from None
    return out.reshape(out.shape[2:] if vectors else (*lead, *out.shape[1:]))


def _check(query, key, value, attn_mask, dropout_p, enable_gqa) -> None:
    _front.check_tensors(query, key, value)
    _front.refuse_forward_ad(attn_mask)
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.dim() < 2:
            raise invalid(f"{name} has {t.dim()} dimensions; accepted is (…, S, D), two or more")
    if not 0 <= dropout_p <= 1:
        raise invalid(f"dropout_p is {dropout_p}; accepted is 0 to 1")
    if not enable_gqa:
        return
    if query.dim() < 3 or key.dim() < 3 or value.dim() < 3:
        raise invalid("enable_gqa is True, but query, key or value has no dimension of heads: accepted is (…, H, S, D)")
    heads = query.shape[-3], key.shape[-3], value.shape[-3]
    if heads[1] == 0 or heads[2] == 0 or heads[0] % heads[1] or heads[0] % heads[2]:
        raise invalid(
            f"query has {heads[0]} heads, key {heads[1]} and value {heads[2]}; with enable_gqa=True the heads of key and "
            "value must divide those of query"
        )


def _four_dimensions(t: Tensor, lead: torch.Size) -> Tensor:
    """(…, H, S, D) to (B, H, S, D), where … is broadcast to `lead` first; (S, D) is one head."""
    if t.dim() == 2:
        t = t.unsqueeze(0)
    if len(lead) == 1 and t.dim() == 4:
        return t if t.shape[0] == lead[0] else t.expand(*lead, *t.shape[1:])
    return t.expand(*lead, *t.shape[-3:]).reshape(-1 if 0 not in t.shape[-3:] else _count(lead), *t.shape[-3:])


def _count(lead: torch.Size) -> int:
    number = 1
    for extent in lead:
        number = number * extent
    return number


def _mask(mask: Tensor | None, lead: torch.Size, vectors: bool) -> Tensor | None:
    """The mask for (B, H, Sq, Skv)."""
    if mask is None:
        return None
    most = 2 if vectors else len(lead) + 3
    if not 2 <= mask.dim() <= most:
        raise invalid(
            f"attn_mask has shape {tuple(mask.shape)}; accepted is what broadcasts to the {most} dimensions of the scores, "
            "of two dimensions at least"
        )
    if mask.dim() <= 3 or len(lead) == 1:
        return mask
    return mask.expand(*lead, *mask.shape[-3:]).reshape(_count(lead), *mask.shape[-3:])


def _differentiable(q, k, v, mask, dropout_p, is_causal, scale, enable_gqa, backend) -> Tensor:
    """By attnmux::attention, whose layout is (B, S, H, D); all operations on the way are views."""
    q, k, v = _common_heads(q, k, v, enable_gqa)
    keep, bias = (mask, None) if mask is None or mask.dtype == torch.bool else (None, mask)
    drop_all = dropout_p == 1  # the library's dropout is below 1
    seed = None
    if 0 < dropout_p < 1:
        if q.is_cuda and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing():
            raise error_of(
                Code.UNSUPPORTED,
                f"[attention] dropout_p is {dropout_p} while a CUDA graph is captured: every replay would drop what the "
                "capture dropped; accepted is 0, or attnmux.torch.attention with a seed of your own",
            )
        seed = torch.randint(2**62, (1,), dtype=torch.int64)
    out, _ = _ops.attention(
        _rows(q), _rows(k), _rows(v), bias, keep, None, None, None, None, seed, 0, 0, is_causal, -1, -1,
        1 if is_causal else 0, scale, 0.0, 0.0 if drop_all else dropout_p, backend,
    )  # fmt: skip
    out = out.transpose(1, 2)
    return torch.nn.functional.dropout(out, 1.0) if drop_all else out


def _rows(t: Tensor) -> Tensor:
    if t.shape[-1] > 1 and t.stride(-1) != 1:
        t = t.contiguous()
    return t.transpose(1, 2)


def _common_heads(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool):
    """Extents of 1 among the heads repeat, as in a batched matrix product; so do key heads with enable_gqa."""
    if enable_gqa:
        if k.shape[1] != v.shape[1]:
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        return q, k, v
    heads = max(q.shape[1], k.shape[1], v.shape[1])
    for name, t in (("query", q), ("key", k), ("value", v)):
        if t.shape[1] not in (1, heads):
            raise invalid(
                f"{name} has {t.shape[1]} heads of {heads}; accepted are equal numbers or 1 (enable_gqa=True lets key "
                "heads serve groups of query heads)"
            )
    if k.shape[1] == v.shape[1] == 1 and q.shape[1] == heads:
        return q, k, v  # one key head for all
    return tuple(t.expand(t.shape[0], heads, *t.shape[2:]) for t in (q, k, v))
