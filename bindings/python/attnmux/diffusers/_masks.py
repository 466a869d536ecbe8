# SPDX-License-Identifier: Apache-2.0
"""Attention masks as models of Diffusers send them, as arguments of attnmux.torch.attention.

Boolean masks keep keys where True; floating ones are added to the scores. (B,1,1,Skv), with holes or without, is a key
padding mask. Diffusers documents (B,Sq,Skv) for three dimensions, unlike PyTorch's broadcasting, which would take the first
for the heads. Two dimensions are (Sq,Skv) or, for what models send, (B,Skv): where both fit, nothing is guessed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnmux._errors import invalid

_ACCEPTED = "accepted are (Sq,Skv), (B,Skv), (B,Sq,Skv) and (B,H,Sq,Skv), each but Skv also 1"


def mask_arguments(attn_mask: Any, query: Tensor, key: Tensor) -> dict[str, Tensor]:
    """mask=, key_padding= or bias= for query (B,Sq,H,D) and key (B,Skv,H,D)."""
    if attn_mask is None:
        return {}
    if not isinstance(attn_mask, Tensor):
        attn_mask = _dense(attn_mask, query, key)
    mask = _four_dimensional(attn_mask, query.shape[0], query.shape[1], key.shape[1])
    if mask.dtype != torch.bool:
        return {"bias": mask}
    if mask.shape[1] == 1 and mask.shape[2] == 1:
        keys = mask[:, 0, 0, :]
        return {"key_padding": keys.expand(query.shape[0], keys.shape[1])}
    return {"mask": mask}


def _four_dimensional(mask: Tensor, batch: int, q_length: int, kv_length: int) -> Tensor:
    shape = tuple(mask.shape)
    if not 2 <= mask.dim() <= 4 or shape[-1] != kv_length:
        raise invalid(f"attn_mask has shape {shape} with Skv={kv_length}; {_ACCEPTED}")
    if mask.dim() == 4:
        return mask
    if mask.dim() == 3:
        if shape[0] not in (1, batch) or shape[1] not in (1, q_length):
            raise invalid(f"attn_mask has shape {shape} with B={batch}, Sq={q_length}; {_ACCEPTED}")
        return mask[:, None]
    per_batch, per_query = shape[0] == batch, shape[0] == q_length
    if shape[0] == 1 or (per_batch and not per_query):
        return mask[:, None, None]
    if per_query and not per_batch:
        return mask[None, None]
    if per_batch:
        raise invalid(
            f"attn_mask has shape {shape}, which is (B,Skv) and (Sq,Skv) at once; accepted is one with four dimensions: "
            "mask[:, None, None] or mask[None, None]"
        )
    raise invalid(f"attn_mask has shape {shape} with B={batch}, Sq={q_length}; {_ACCEPTED}")


def _dense(mask: Any, query: Tensor, key: Tensor) -> Tensor:
    """A BlockMask of FlexAttention, which some models make where they see the name "flex", as the table that it stands for."""
    mask_mod = getattr(mask, "mask_mod", None)
    if mask_mod is None:
        raise invalid(f"attn_mask is a {type(mask).__name__}; accepted are tensors and FlexAttention's BlockMask")
    from torch.nn.attention.flex_attention import create_mask

    batch, heads = mask.kv_num_blocks.shape[:2]
    return create_mask(mask_mod, batch, heads, query.shape[1], key.shape[1], device=query.device)
