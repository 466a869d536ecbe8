# SPDX-License-Identifier: Apache-2.0
"""attnmux for transformers: after install(), attn_implementation="attnmux" and one name per backend. See docs/transformers.md.

    import attnmux.transformers
    attnmux.transformers.install()
    model = AutoModel.from_pretrained(path, attn_implementation="attnmux")      # the scope decides
    model.set_attn_implementation("attnmux_fa")                                 # FlashAttention-2
"""

from __future__ import annotations

import transformers
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from attnmux._backends import IDS
from attnmux._errors import Code, Error
from attnmux.transformers._attention_function import attention_for
from attnmux.transformers._mask_function import attention_mask

__all__ = ["implementation_name", "install", "installed_names", "uninstall"]

_AMBIENT = "attnmux"
_OLDEST = (4, 56)

_installed: dict[str, object] = {}


def implementation_name(backend: str | None = None) -> str:
    """What to write as attn_implementation for a backend: "_native_flash" → "attnmux_native_fa". None: the ambient name.

    transformers takes every name that contains "flash" for its own FlashAttention, so it is written "fa".
    """
    return _AMBIENT if backend is None else f"{_AMBIENT}_{backend.lstrip('_').replace('flash', 'fa')}"


def installed_names() -> list[str]:
    """The names that install() registered, in the order of attnmux.list_backends(); empty before it and after uninstall()."""
    return list(_installed)


def install() -> None:
    """Registers "attnmux" and a name for every backend, each for attention and for masks. Calling it again does nothing."""
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if version < _OLDEST:
        raise Error(
            f"[attention] transformers is {transformers.__version__}; attnmux needs 4.56 or newer, whose registry of masks "
            "it fills",
            Code.UNAVAILABLE,
        )
    for backend, number in [(None, None), *IDS.items()]:
        name = implementation_name(backend)
        if name not in _installed:
            function = attention_for(number)
            AttentionInterface.register(name, function)
            AttentionMaskInterface.register(name, attention_mask)
            _installed[name] = function


def uninstall() -> None:
    """Takes the names out again. Models that still use one raise KeyError when they run: give them another first."""
    for name, function in _installed.items():
        if AttentionInterface._global_mapping.get(name) is function:
            del AttentionInterface._global_mapping[name]
            AttentionMaskInterface._global_mapping.pop(name, None)
    _installed.clear()
