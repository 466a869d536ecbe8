# SPDX-License-Identifier: Apache-2.0
"""Masks of a model as what they mean, not as an Sq × Skv table.

transformers hands a mask from the model to its layers as one tensor, which models may move, slice or hand on as a finished
mask, if it has four dimensions. So a typed mask is a boolean tensor that says all in its shape: (B, kind, 1 + window, Skv),
True where a key may be attended, of stride 0 in the middle. It takes B·Skv bytes, or one byte where no key is padding. The
kind stands where a table has its heads, at a number that no model has.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST_KIND = 4096  # + 1 if causal, + 2 if top_left
_ALIGNMENTS = ("bottom_right", "top_left")


@dataclass(frozen=True)
class TypedMask:
    """alignment  where the diagonal ends: keys behind the queries' (bottom_right) or unused slots of a cache (top_left)
    window     a query attends its own position and the window - 1 before it; None without a window
    keys       bool (B, Skv), or None where every key may be attended
    """

    causal: bool
    alignment: str = "bottom_right"
    window: int | None = None
    keys: Tensor | None = None

    def encode(self, batch: int, kv_length: int, device: torch.device | str) -> Tensor:
        keys = self.keys
        if keys is None:
            keys = torch.ones((1, 1), dtype=torch.bool, device=device).expand(batch, kv_length)
        kind = _FIRST_KIND + self.causal + 2 * _ALIGNMENTS.index(self.alignment)
        return keys[:, None, None, :].expand(keys.shape[0], kind, 1 + (self.window or 0), keys.shape[1])


def is_typed(mask: Tensor | None) -> bool:
    return mask is not None and mask.dim() == 4 and mask.shape[1] >= _FIRST_KIND


def decode(mask: Tensor, kv_length: int) -> TypedMask:
    """What encode() was told. Keys beyond `kv_length` are cut off: a layer may hold fewer than the mask was made for."""
    kind, window = mask.shape[1] - _FIRST_KIND, mask.shape[2] - 1
    padded = mask.stride(-1) != 0 or mask.shape[-1] == 1
    return TypedMask(
        causal=bool(kind & 1),
        alignment=_ALIGNMENTS[kind >> 1],
        window=window or None,
        keys=mask[:, 0, 0, :kv_length] if padded else None,
    )
