# SPDX-License-Identifier: Apache-2.0
"""What transformers calls to build a model's mask: registered in AttentionMaskInterface for every name of ours.

Without an entry there, transformers drops the mask in silence and the model attends to its padding.

A mask that is causal, bidirectional or a sliding window, with or without padding, becomes a typed mask: nothing of size
Sq × Skv, and no wait for the device. Anything else (packed sequences, blocks of images, chunks, user functions) becomes the
table that transformers itself would build for SDPA.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils

from attnmux.transformers._typed_masks import TypedMask


def attention_mask(
    batch_size: int,
    q_length: int | None = None,
    kv_length: int = 0,
    q_offset: int | Tensor | None = 0,
    kv_offset: int = 0,
    mask_function: Any = masking_utils.causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    **others: Any,
) -> Tensor:
    """The signature that transformers calls: from 4.56 to 4.57 with cache_position, later with q_length and q_offset."""
    cache_position = others.get("cache_position")
    if cache_position is not None:
        q_length, q_offset = cache_position.shape[0], _first(cache_position, kv_length)
    kind = _kind(mask_function, local_size)
    alignment = _alignment(kind, q_length, kv_length, q_offset) if kind is not None and _whole(kv_offset) else None
    if alignment is None:
        return _table(
            batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, local_size, others
        )
    causal, window = kind
    keys = _padding(attention_mask, kv_length)
    device = others.get("device") or (keys.device if keys is not None else getattr(cache_position, "device", "cpu"))
    return TypedMask(causal, alignment, window, keys).encode(batch_size, kv_length, device)


def _first(cache_position: Tensor, kv_length: int) -> int | Tensor | None:
    """Where the queries start. None where only the device knows: reading it there would wait for it."""
    if cache_position.shape[0] == kv_length:
        return 0
    if cache_position.device.type == "cpu" and not torch.compiler.is_compiling():
        return int(cache_position[0])
    return None


def _whole(kv_offset: Any) -> bool:
    return isinstance(kv_offset, int) and kv_offset == 0


def _kind(mask_function: Any, local_size: int | None) -> tuple[bool, int | None] | None:
    """(causal, window) of a mask function that we know, or None."""
    if local_size is None:
        if mask_function is masking_utils.causal_mask_function:
            return True, None
        if mask_function is getattr(masking_utils, "bidirectional_mask_function", None):
            return False, None
        return None
    # Under Dynamo a closure cannot be looked into.
    if torch.compiler.is_compiling():
        return None
    if _same(mask_function, masking_utils.sliding_window_causal_mask_function(local_size)):
        return True, local_size
    return None


def _same(left: Any, right: Any) -> bool:
    """Do two closures have the same code over the same values?"""
    if isinstance(left, types.FunctionType) and isinstance(right, types.FunctionType):
        return left.__code__ is right.__code__ and _same(
            [cell.cell_contents for cell in left.__closure__ or ()],
            [cell.cell_contents for cell in right.__closure__ or ()],
        )
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right))
    return type(left) is type(right) and isinstance(left, int) and left == right


def _alignment(kind: tuple[bool, int | None], q_length: int, kv_length: int, q_offset: Any) -> str | None:
    """Which of the two diagonals this is; None if neither, or if it cannot be known here."""
    causal, _ = kind
    if not causal:
        return "bottom_right"
    if not isinstance(q_offset, int):
        return None
    if q_offset + q_length == kv_length:
        return "bottom_right"
    return "top_left" if q_offset == 0 else None


def _padding(attention_mask: Tensor | None, kv_length: int) -> Tensor | None:
    """The padding mask as bool (B, kv_length). Slots of a cache that no token has reached yet are no keys."""
    if attention_mask is None:
        return None
    keys = attention_mask if attention_mask.dtype == torch.bool else attention_mask != 0
    missing = kv_length - keys.shape[-1]
    if missing > 0:
        keys = torch.nn.functional.pad(keys, (0, missing))
    return keys[:, :kv_length]


def _table(
    batch_size: int,
    q_length: int | None,
    kv_length: int,
    q_offset: Any,
    kv_offset: Any,
    mask_function: Any,
    attention_mask: Tensor | None,
    local_size: int | None,
    others: dict[str, Any],
) -> Tensor:
    """transformers' own table. It may not be left out, since None would say nothing of offsets and windows."""
    others = {**others, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    if others.get("cache_position") is None:
        others.update(q_length=q_length, q_offset=q_offset)
    return masking_utils.sdpa_mask(
        batch_size=batch_size,
        kv_length=kv_length,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        **others,
    )
