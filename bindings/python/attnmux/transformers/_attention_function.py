# SPDX-License-Identifier: Apache-2.0
"""What transformers' layers call: registered in AttentionInterface for every name of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import attnmux.torch
from attnmux._errors import invalid
from attnmux.transformers._typed_masks import TypedMask, decode, is_typed

# What models pass down that says nothing about attention itself.
_NOISE = frozenset({
    "cache_position", "deterministic", "encoder_hidden_states", "max_length_k", "max_length_q", "num_items_in_batch",
    "output_hidden_states", "output_router_logits", "position_embeddings", "position_ids", "return_dict", "seq_idx",
    "sliding_window", "token_type_ids", "use_cache",
})  # fmt: skip


def attention_for(backend: int | None) -> Callable[..., tuple[Tensor, None]]:
    """The attention function of one backend; None follows the scope of the calling thread."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        position_bias: Tensor | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        cu_seq_lens_q: Tensor | None = None,
        cu_seq_lens_k: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """query (B,Hq,Sq,D), key and value (B,Hkv,Skv,D) → (B,Sq,Hq,D). s_aux: one more logit per head, without a value."""
        _refuse_unknown(others)
        arguments = _masks(module, query, key, attention_mask, is_causal, others.get("sliding_window"))
        arguments.update(scale=scaling, softcap=softcap, backend=backend)
        if position_bias is not None:
            added = arguments.get("bias")
            arguments["bias"] = position_bias if added is None else position_bias + added
        if dropout:
            arguments.update(dropout=dropout, seed=torch.randint(0, 2**63 - 1, (1,), dtype=torch.int64))
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        packed = cu_seq_lens_q is not None and q.shape[0] == 1 and "mask" not in arguments and "key_padding" not in arguments
        if packed:
            q, k, v = q[0], k[0], v[0]
            # The longest lengths that models send may lie on the device. That of all sequences together bounds them.
            cu_seq_lens_k = cu_seq_lens_q if cu_seq_lens_k is None else cu_seq_lens_k
            arguments["varlen"] = (cu_seq_lens_q.int(), cu_seq_lens_k.int(), q.shape[0], k.shape[0])
        out = _with_sinks(q, k, v, s_aux, arguments) if s_aux is not None else attnmux.torch.attention(q, k, v, **arguments)
        return (out[None] if packed else out), None

    return attention


def _refuse_unknown(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if name in _NOISE or value is None or value is False:
            continue
        if name == "output_attentions":
            raise invalid("output_attentions is True; no fused backend has the weights; accepted is attn_implementation='eager'")
        raise invalid(
            f"{name} is a {type(value).__name__}, which attnmux does not know; it would have to be dropped, so it is refused"
        )


def _masks(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool | None, window: int | None
) -> dict[str, Any]:
    """The mask of a call as arguments of attnmux.torch.attention."""
    q_length, kv_length = query.shape[2], key.shape[2]
    if is_typed(mask):
        return _typed(decode(mask, kv_length), q_length)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if window is not None and not causal and (mask is None or mask.dim() == 2):
        raise invalid(f"sliding_window is {window} for a layer that is not causal and has no table of it in attention_mask")
    if mask is None:
        # transformers' rule for a layer that was given no mask: causal from the first key on, but for one query.
        return _typed(TypedMask(causal and q_length > 1, "top_left", window), q_length)
    if mask.dim() == 2:
        return _typed(TypedMask(causal and q_length > 1, "bottom_right", window, mask != 0), q_length)
    if mask.dim() != 4:
        raise invalid(f"attention_mask has {mask.dim()} dimensions; accepted are (B,Skv) and (B,H,Sq,Skv)")
    mask = mask[..., :kv_length]
    # A table holds causality and windows already, unless the layer was told to be causal on top of it (CLIP's text encoder).
    arguments: dict[str, Any] = {"causal": "top_left"} if is_causal and q_length > 1 else {}
    arguments["mask" if mask.dtype == torch.bool else "bias"] = mask
    return arguments


def _typed(mask: TypedMask, q_length: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if mask.causal and (q_length > 1 or mask.alignment == "top_left"):
        arguments["causal"] = mask.alignment
    if mask.window is not None:
        arguments["window"] = (mask.window - 1, 0, mask.alignment)
    if mask.keys is not None:
        arguments["key_padding"] = mask.keys
    return arguments


def _with_sinks(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, arguments: dict[str, Any]) -> Tensor:
    """A sink adds exp(s) to the softmax's denominator and nothing to the sum: out · exp(lse) / (exp(lse) + exp(s))."""
    out, lse = attnmux.torch.attention(q, k, v, return_lse=True, **arguments)
    share = torch.sigmoid(lse - sinks.float()[:, None])  # (…, H, S), 0 for a row without keys
    return out * share.transpose(-1, -2)[..., None].to(out.dtype)
