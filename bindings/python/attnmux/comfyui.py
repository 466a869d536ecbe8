# SPDX-License-Identifier: Apache-2.0
"""attnmux for ComfyUI: an attention function under its public registry, and an override for one model.

    import attnmux.comfyui
    attnmux.comfyui.install()                                        # "attnmux" and "attnmux_<backend>" by name
    options = model.model_options["transformer_options"]
    options["optimized_attention_override"] = attnmux.comfyui.override("flash")      # this model only

See docs/comfyui.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import attnmux.torch
from attnmux._backends import IDS, backend_id
from attnmux._errors import Code, Error, invalid

__all__ = ["attention_function", "install", "override"]

# Said about how to compute, or about the node graph; nothing that a result depends on.
_NOISE = frozenset({"attn_precision", "transformer_options", "_inside_attn_wrapper", "low_precision_attention"})


def attention_function(backend: str | None = None) -> Callable[..., Tensor]:
    """ComfyUI's attention(q, k, v, heads, mask=None, …) by one backend; None follows the scope of the calling thread."""
    chosen = None if backend is None else backend_id(backend)

    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        mask: Tensor | None = None,
        *,
        skip_reshape: bool = False,
        skip_output_reshape: bool = False,
        enable_gqa: bool = False,
        scale: float | None = None,
        **others: Any,
    ) -> Tensor:
        """q, k, v (B,S,H·D), or (B,H,S,D) with skip_reshape → (B,S,H·D), or (B,H,S,D) with skip_output_reshape."""
        for name, value in others.items():
            if name not in _NOISE and value is not None and value is not False:
                raise invalid(f"{name} is a {type(value).__name__}, which attnmux does not know; it would have to be dropped")
        if skip_reshape:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        else:
            head_dim = q.shape[-1] // heads
            q, k = (x.unflatten(-1, (-1, head_dim)) for x in (q, k))
            v = v.unflatten(-1, (k.shape[2], -1))
        if not enable_gqa and k.shape[2] != q.shape[2]:
            raise invalid(f"enable_gqa is False with {q.shape[2]} heads of q and {k.shape[2]} of k; accepted is True")
        out = attnmux.torch.attention(q, k, v, scale=scale, backend=chosen, **_mask(mask, q.shape[1], k.shape[1]))
        return out.transpose(1, 2) if skip_output_reshape else out.flatten(2)

    attention.__name__ = "attention_attnmux" if backend is None else f"attention_attnmux_{backend.lstrip('_')}"
    return attention


def _mask(mask: Tensor | None, q_length: int, kv_length: int) -> dict[str, Tensor]:
    """ComfyUI's masks: (Sq,Skv), (B,Sq,Skv) and (B,H,Sq,Skv), bool or added to the scores."""
    if mask is None:
        return {}
    if not 2 <= mask.dim() <= 4 or mask.shape[-1] != kv_length or mask.shape[-2] not in (1, q_length):
        raise invalid(
            f"mask has shape {tuple(mask.shape)} with Sq={q_length}, Skv={kv_length}; accepted are (Sq,Skv), (B,Sq,Skv) and "
            "(B,H,Sq,Skv)"
        )
    if mask.dim() < 4:
        mask = mask[None, None] if mask.dim() == 2 else mask[:, None]
    return {"mask" if mask.dtype == torch.bool else "bias": mask}


def override(backend: str) -> Callable[..., Tensor]:
    """The value of transformer_options["optimized_attention_override"] that gives one model a backend of its own."""
    function = attention_function(backend)

    def attention_override(_original: Callable[..., Tensor], *arguments: Any, **options: Any) -> Tensor:
        return function(*arguments, **options)

    return attention_override


def install() -> None:
    """Registers "attnmux" and "attnmux_<backend>" with ComfyUI. To be called inside ComfyUI, from a custom node."""
    try:
        from comfy.ldm.modules.attention import register_attention_function
    except ImportError as error:
        raise Error(
            f"[attention] ComfyUI's register_attention_function cannot be imported here ({error}); install() belongs into a "
            "custom node of a ComfyUI that has it",
            Code.UNAVAILABLE,
        ) from error
    for backend in (None, *IDS):
        name = "attnmux" if backend is None else f"attnmux_{backend.lstrip('_')}"
        register_attention_function(name, attention_function(backend))
