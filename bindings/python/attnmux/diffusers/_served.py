# SPDX-License-Identifier: Apache-2.0
"""The function that Diffusers calls for one backend name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import attnmux.torch
from attnmux._errors import invalid
from attnmux.diffusers._masks import mask_arguments

# Where Sq ≠ Skv, causal means what the library behind the name means by it.
_TOP_LEFT_FAMILIES = ("native", "flex", "xformers")


class EveryName(set):
    """Diffusers passes a backend only the arguments whose names are in such a set, and drops the others in silence. This one
    says yes to every name, so that ours can refuse those it does not know."""

    def __contains__(self, name: object) -> bool:
        return True


def serve(name: str, backend: int, original: Callable[..., Any] | None) -> Callable[..., Any]:
    """attnmux's function for Diffusers' backend `name`. Context-parallel calls go to `original`, Diffusers' own, if any."""
    causal = "top_left" if name.lstrip("_").startswith(_TOP_LEFT_FAMILIES) else "bottom_right"

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        return_lse: bool = False,
        window_size: tuple[int, int] | None = None,
        softcap: float | None = None,
        _parallel_config: Any = None,
        **others: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """query (B,Sq,H,D), key and value (B,Skv,Hkv,D) → (B,Sq,H,Dv), and the LSE as fp32 (B,H,Sq) if asked for."""
        for unknown, given in others.items():
            raise invalid(f"{unknown} is {given!r}, which attnmux does not know; it would have to be dropped, so it is refused")
        if _parallel_config is not None:
            if original is None:
                raise invalid(
                    f"_parallel_config is set for backend {name!r}, which attnmux does not split over devices; accepted are "
                    "the backends that Diffusers itself splits and that are installed"
                )
            return original(
                query=query, key=key, value=value, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale,
                enable_gqa=enable_gqa, return_lse=return_lse, _parallel_config=_parallel_config,
                **_given(window_size=window_size, softcap=softcap),
            )  # fmt: skip
        if enable_gqa is False and key.shape[2] != query.shape[2] and causal == "top_left":
            raise invalid(f"enable_gqa is False with {query.shape[2]} heads of query and {key.shape[2]} of key; accepted is True")
        arguments: dict[str, Any] = mask_arguments(attn_mask, query, key)
        if is_causal:
            arguments["causal"] = causal if query.shape[1] != key.shape[1] else True
        if window_size is not None and tuple(window_size) != (-1, -1):
            arguments["window"] = (*window_size, causal)
        if dropout_p:
            arguments.update(dropout=dropout_p, seed=torch.randint(0, 2**63 - 1, (1,), dtype=torch.int64))
        return attnmux.torch.attention(
            query, key, value, scale=scale, softcap=softcap, return_lse=return_lse, backend=backend, **arguments
        )

    attention.__name__ = f"attnmux_{name}"
    return attention


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
