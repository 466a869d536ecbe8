# SPDX-License-Identifier: Apache-2.0
"""Diffusers' active backend, per thread.

Diffusers keeps one for the whole process, in a class attribute: a context manager on one thread changes all others, and
torch.compile before 2.13 does not see it change. Here it is an attribute that every thread has of its own, which Dynamo
guards, over a default of the process; and where no context manager of Diffusers is open, the scope of
attnmux.attention_backend counts.
"""

from __future__ import annotations

import threading
from typing import Any

from attnmux import _scopes
from attnmux._backends import NAMES

class _PerThread(threading.local):
    def __init__(self) -> None:
        self.active: Any = None  # a member of AttentionBackendName
        self.setting = False  # inside a model's setter


_thread = _PerThread()
_default: Any = None  # what DIFFUSERS_ATTN_BACKEND said, or native
_members: dict[str, Any] = {}  # by value


def start(default: Any, members: dict[str, Any]) -> None:
    global _default, _members
    _default, _members = default, members


def get() -> Any:
    active = _thread.active
    if active is not None:
        return active
    scope = getattr(_scopes._scope, "backend", None)
    if scope is not None and NAMES[scope] in _members:
        return _members[NAMES[scope]]
    return _default


def put(backend: Any) -> None:
    """From a context manager: a member of AttentionBackendName, or what saved() gave. A model's setter changes that model and
    nothing else, although it comes here too."""
    if not _thread.setting:
        _thread.active = backend if backend is None else _members.get(backend, backend)


def saved() -> Any:
    return _thread.active


class Setting:
    """Inside of a model's setter."""

    def __enter__(self) -> None:
        self._before = _thread.setting
        _thread.setting = True

    def __exit__(self, *_: object) -> None:
        _thread.setting = self._before


class _Properties(type):
    """Diffusers' context manager saves and restores the class attribute `_active_backend`, in old versions by plain
    assignment. In a class of this metaclass that is a property."""

    @property
    def _active_backend(cls) -> Any:
        return saved()

    @_active_backend.setter
    def _active_backend(cls, backend: Any) -> None:
        put(backend)


def registry_per_thread(registry: type) -> type:
    """A registry with the tables of Diffusers' own, to stand under its name."""

    class AttentionBackendRegistry(registry, metaclass=_Properties):
        @classmethod
        def get_active_backend(cls) -> tuple[Any, Any]:
            backend = get()
            return backend, cls._backends[backend]

        @classmethod
        def set_active_backend(cls, backend: Any) -> None:
            put(backend)

    return AttentionBackendRegistry
