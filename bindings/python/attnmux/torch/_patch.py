# SPDX-License-Identifier: Apache-2.0
"""attnmux under torch.nn.functional.scaled_dot_product_attention: for the process (activate), or for the modules that
have a backend of their own (_models.py).

PyTorch's own registry of flash implementations reaches less: it replaces kernels behind one of PyTorch's choices, on CUDA,
for half precision without a mask, and has no way back. So the function itself is replaced, wherever a module of the process
holds it under any name, by one that asks who is calling. Where nobody asked for attnmux it calls the original. Dynamo
guards on what it reads, so compiled code follows. uninstall() puts every name back.

What it cannot reach: the function as a value inside objects and closures, TorchScript, and PyTorch's C++ code.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from attnmux._errors import Code, Error
from attnmux._scopes import resolve
from attnmux.torch import _sdpa
from attnmux.torch._layer import running

_NAME = "scaled_dot_product_attention"

original = torch.nn.functional.scaled_dot_product_attention
installed = False
_active = False  # for the process
_fast_path = True  # what torch.backends.mha said before activate()
_lock = threading.RLock()
pinned: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # modules with a backend of their own


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
    """torch.nn.functional.scaled_dot_product_attention while attnmux is active: see attnmux.torch.activate."""
    layer = getattr(running, "backend", None)
    if layer is None and not _active:
        return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if has_torch_function_variadic(query, key, value, attn_mask):
        return handle_torch_function(
            scaled_dot_product_attention, (query, key, value, attn_mask), query, key, value, attn_mask, dropout_p,
            is_causal, scale=scale, enable_gqa=enable_gqa,
        )  # fmt: skip
    return _sdpa.with_backend(
        resolve(None, layer), query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
    )


def install() -> None:
    global installed, original
    with _lock:
        if installed:
            return
        original = torch.nn.functional.scaled_dot_product_attention
        _replace(original, scaled_dot_product_attention)
        installed = True


def uninstall_if_unused() -> None:
    """Takes the replacement away once nobody needs it."""
    global installed
    with _lock:
        if not installed or _active or len(pinned) != 0:
            return
        present = torch.nn.functional.scaled_dot_product_attention
        if present is not scaled_dot_product_attention:
            raise Error(
                f"[attention] torch.nn.functional.{_NAME} was replaced by {present!r} after attnmux replaced it; undo that "
                "first, then this",
                Code.INTERNAL,
            )
        _replace(scaled_dot_product_attention, original)
        installed = False


def _replace(before: Any, after: Any) -> None:
    """In every module that holds `before` under a name of its own: `from torch.nn.functional import …` makes such names.
    PyTorch's own modules, apart from the public place, keep theirs: torch.overrides and Dynamo look the function up."""
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if not isinstance(name, str) or module is sys.modules[__name__]:
            continue
        if name.partition(".")[0] == "torch" and module is not torch.nn.functional:
            continue
        names = vars(module) if hasattr(module, "__dict__") else {}
        for key in [key for key, value in list(names.items()) if value is before]:
            names[key] = after


class Activation:
    """What activate() returns: a context manager, for who wants one. Leaving it deactivates if it was what activated."""

    def __init__(self, changed: bool):
        self._changed = changed

    def __enter__(self) -> Activation:
        return self

    def __exit__(self, *error: object) -> None:
        if self._changed:
            deactivate()


def activate() -> Activation:
    """Puts attnmux under torch.nn.functional.scaled_dot_product_attention for the whole process, every thread.

    Each call uses the backend of its layer, else of the thread's scope, else the process default. A call that attnmux
    cannot compute (a nested tensor, another device than cpu and cuda, a forward-mode derivative) raises. Fused fast paths
    of torch.nn.MultiheadAttention and TransformerEncoderLayer, which bypass the function, are switched off meanwhile.
    """
    global _active, _fast_path
    with _lock:
        if _active:
            return Activation(False)
        install()
        _fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        _active = True
        return Activation(True)


def deactivate() -> None:
    """Undoes activate(), however often that was called: everything is as it was. Models with a backend of their own
    (set_attention_backend) keep it."""
    global _active
    with _lock:
        if not _active:
            return
        _active = False
        try:
            uninstall_if_unused()
        except Error:
            _active = True
            raise
        torch.backends.mha.set_fastpath_enabled(_fast_path)


def is_active() -> bool:
    return _active
