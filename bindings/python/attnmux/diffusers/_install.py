# SPDX-License-Identifier: Apache-2.0
"""Puts attnmux behind the backend names of Diffusers, and takes it away again.

Diffusers reads its registry, and the two functions that look for packages, at the time of a call: so entries of the
registry and names of that module are replaced, and none of its files. dispatch_attention_fn stays as it is.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import diffusers
from diffusers.models import attention_dispatch, modeling_utils

import attnmux.torch
from attnmux import _core
from attnmux._backends import IDS
from attnmux._errors import Code, Error, UnavailableError, invalid
from attnmux.diffusers import _active
from attnmux.diffusers._served import EveryName, serve

_OLDEST, _NEWEST_SEEN = (0, 35), "0.42.1"
_REGISTRY = ("_backends", "_constraints", "_supported_arg_names", "_active_backend", "get_active_backend")
_MODULE = ("AttentionBackendName", "_AttentionBackendRegistry", "_check_attention_backend_requirements", "attention_backend")

_undo: list[Callable[[], None]] = []
_served: frozenset[str] = frozenset()


def install(leave: Iterable[str] = ()) -> None:
    """From now on the backends of Diffusers whose names attnmux knows are attnmux's. Calling it again does nothing.

    leave   names that stay Diffusers' own, such as {"sage"} where the package of that name is installed and wanted
    """
    global _served
    if _undo:
        return
    _refuse_unknown_versions()
    registry = attention_dispatch._AttentionBackendRegistry
    members = {member.value: member for member in attention_dispatch.AttentionBackendName}
    left = set(leave)
    for name in left:
        if name not in members:
            raise invalid(f"leave has {name!r}, which Diffusers {diffusers.__version__} does not know; it knows {', '.join(members)}")
    _served = frozenset(name for name in members if name in IDS and name not in left)
    try:
        _serve_all(registry, members)
        _active_per_thread(registry, members)
        _replace(attention_dispatch, "_check_attention_backend_requirements", _check_requirements)
        _replace(attention_dispatch, "_maybe_download_kernel_for_backend", _fetch_nothing)
        _replace(modeling_utils.ModelMixin, "set_attention_backend", _set_attention_backend)
        _replace(modeling_utils.ModelMixin, "reset_attention_backend", _reset_attention_backend)
    except BaseException:
        uninstall()
        raise


def uninstall() -> None:
    """Diffusers is as it was. Models keep the names that were set on them; these are Diffusers' own again."""
    global _served
    while _undo:
        _undo.pop()()
    _served = frozenset()


def served_names() -> list[str]:
    """The names of Diffusers behind which attnmux stands now."""
    return [name for name in IDS if name in _served]


def _refuse_unknown_versions() -> None:
    version = tuple(int(part) for part in diffusers.__version__.split(".")[:2])
    missing = [name for name in _MODULE if not hasattr(attention_dispatch, name)]
    if not missing:
        missing = [f"registry.{n}" for n in _REGISTRY if not hasattr(attention_dispatch._AttentionBackendRegistry, n)]
    if version < _OLDEST or missing:
        raise Error(
            f"[attention] diffusers is {diffusers.__version__}; attnmux fits into 0.35 to {_NEWEST_SEEN}"
            + (f", and this one lacks {', '.join(missing)}" if missing else ""),
            Code.UNAVAILABLE,
        )


def _serve_all(registry: Any, members: dict[str, Any]) -> None:
    for name in sorted(_served):
        member = members[name]
        original = registry._backends.get(member)
        splits = name in getattr(registry, "_supports_context_parallel", ())
        _put(registry._backends, member, serve(name, IDS[name], original if splits else None))
        _put(registry._constraints, member, [])
        _put(registry._supported_arg_names, member, EveryName())


def _active_per_thread(registry: Any, members: dict[str, Any]) -> None:
    """Under its name in every module that holds the registry: models import it too."""
    _active.start(registry._active_backend, members)
    per_thread = _active.registry_per_thread(registry)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("diffusers.") and vars(module).get("_AttentionBackendRegistry") is registry:
            _replace(module, "_AttentionBackendRegistry", per_thread)


def _replace(owner: Any, name: str, new: Any) -> None:
    """What the new function stands for is kept in _originals, under its name."""
    if name not in vars(owner):
        return
    before = vars(owner)[name]
    _originals[name] = getattr(owner, name)
    setattr(owner, name, new)
    _undo.append(lambda: setattr(owner, name, before))


def _put(table: dict[Any, Any], key: Any, new: Any) -> None:
    if key in table:
        before = table[key]
        _undo.append(lambda: table.__setitem__(key, before))
    else:
        _undo.append(lambda: table.pop(key, None))
    table[key] = new


_originals: dict[str, Any] = {}


def _check_requirements(backend: Any) -> None:
    """Called by Diffusers' setter and context manager: can this backend run here at all? If not, why, and what can."""
    if backend.value not in _served:
        _originals["_check_attention_backend_requirements"](backend)
        return
    try:
        _core.check_available(IDS[backend.value])
    except UnavailableError as error:
        hint = f'; attnmux.diffusers.install(leave={{"{backend.value}"}}) keeps Diffusers\' own'
        raise UnavailableError(str(error) + hint, error.code) from None


def _fetch_nothing(backend: Any) -> None:
    if backend.value not in _served:
        _originals["_maybe_download_kernel_for_backend"](backend)


def _has_processors_to_set(model: Any) -> bool:
    return any(hasattr(getattr(module, "processor", None), "_attention_backend") for module in model.modules())


@functools.wraps(modeling_utils.ModelMixin.set_attention_backend)
def _set_attention_backend(self: Any, backend: str) -> None:
    """Diffusers' setter, without its change of the process; for models whose processors call PyTorch's attention directly
    (SD 1.5, SDXL, SD 3.5, VAEs), attnmux.torch.set_attention_backend, since Diffusers' setter would do nothing."""
    if _has_processors_to_set(self):
        with _active.Setting():
            _originals["set_attention_backend"](self, backend)
        return
    name = backend.lower()
    if name not in _served:
        raise invalid(
            f"backend is {backend!r} for a {type(self).__name__}, whose attention processors Diffusers cannot set; accepted are "
            f"{', '.join(served_names())}"
        )
    _check_requirements(attention_dispatch.AttentionBackendName(name))
    attnmux.torch.set_attention_backend(self, name)


@functools.wraps(modeling_utils.ModelMixin.reset_attention_backend)
def _reset_attention_backend(self: Any) -> None:
    if _has_processors_to_set(self):
        _originals["reset_attention_backend"](self)
    else:
        attnmux.torch.reset_attention_backend(self)
