# SPDX-License-Identifier: Apache-2.0
"""Which backend a call uses: call > layer > scope of this thread > process default > ATTNMUX_BACKEND > native.

Python decides this itself and passes an explicit id to the library, so a call from Python never asks the C++ scopes.

What torch.compile guards on dictates the form. Dynamo guards a read of a thread's own attribute of a threading.local() and
of a module's global; it guards no class attribute of a subclass of threading.local, before torch 2.13 none at all, and it
breaks the graph at a ContextVar. So: attributes of the thread, reads by getattr, plain ints, a generator as context manager.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Generator, Iterator
from typing import Any, TypeVar

from attnmux import _core
from attnmux._backends import IDS, NAMES, backend_id
from attnmux._errors import BadEnvironmentError, Code, UnknownBackendError

Result = TypeVar("Result")


class _PerThread(threading.local):
    """The attribute is there on every thread from the start. Dynamo's guards tell an absent attribute from None, so code
    that one thread compiled would be compiled anew for another; and CPython formats an error, in about 1 µs, for every read
    of what is absent."""

    def __init__(self) -> None:
        self.backend: int | None = None  # the id of the innermost scope of this thread


_scope = _PerThread()
_default = 0  # the process default; 0 while ATTNMUX_BACKEND has no meaning, see refresh_default


def resolve(call: str | int | None = None, layer: str | int | None = None) -> int:
    """The id of the backend that a call with these requests uses. Never 0: without any request it is native's id."""
    if call is not None:
        return backend_id(call)
    if layer is not None:
        return backend_id(layer)
    scope = getattr(_scope, "backend", None)
    if scope is not None:
        return scope
    if _default == 0:
        _refuse_default()
    return _default


def requested_by(call: str | None = None) -> str:
    """Who decides, in words, for explain()."""
    if call is not None:
        return "the call"
    return "a scope of this thread" if getattr(_scope, "backend", None) is not None else "the process default"


@contextlib.contextmanager
def attention_backend(backend: str | int) -> Iterator[None]:
    """Calls of this thread inside the block use `backend`. Scopes nest; other threads are not affected."""
    chosen = backend_id(backend)
    before = getattr(_scope, "backend", None)
    _scope.backend = chosen
    try:
        yield
    finally:
        _scope.backend = before


class Captured:
    """The scope that a thread stood in, as a value for another thread."""

    __slots__ = ("_id",)

    def __init__(self, scope: int | None):
        self._id = scope

    @property
    def backend(self) -> str | None:
        return None if self._id is None else NAMES[self._id]

    def __repr__(self) -> str:
        return f"attnmux.Captured({self.backend!r})"


def capture() -> Captured:
    """The scope of this thread, to be restored on a worker thread."""
    return Captured(getattr(_scope, "backend", None))


@contextlib.contextmanager
def restore(captured: Captured) -> Iterator[None]:
    """Calls of this thread inside the block see the captured scope, also where that is no scope at all."""
    before = getattr(_scope, "backend", None)
    _scope.backend = captured._id
    try:
        yield
    finally:
        _scope.backend = before


class _Scoped(Awaitable[Result]):
    """An awaitable whose every step runs in a scope of its own, so that no other task of the thread ever sees it."""

    def __init__(self, backend: str, awaitable: Awaitable[Result]):
        self._inside: int | None = backend_id(backend)
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, Result]:
        steps = self._awaitable.__await__()
        # A generator's own iterator protocol, with the scope swapped around each step.
        advance: Any = steps.__next__
        argument: tuple[Any, ...] = ()
        while True:
            outside = getattr(_scope, "backend", None)
            _scope.backend = self._inside
            try:
                pending = advance(*argument)
            except StopIteration as done:
                return done.value
            finally:
                self._inside = getattr(_scope, "backend", None)  # a scope that is open across this await is kept
                _scope.backend = outside
            try:
                sent = yield pending
            except GeneratorExit:
                close = getattr(steps, "close", None)
                if close is not None:
                    close()
                raise
            except BaseException as thrown:  # cancellation, among others, belongs to the awaited
                throw = getattr(steps, "throw", None)
                if throw is None:
                    raise
                advance, argument = throw, (thrown,)
            else:
                advance, argument = (steps.__next__, ()) if sent is None else (steps.send, (sent,))


def scoped(backend: str, awaitable: Awaitable[Result]) -> Awaitable[Result]:
    """`await scoped("flash", f())`: f and what it awaits see the scope, other tasks of this thread never do.

    A `with attention_backend(...)` that is open across an `await` would be seen by whatever task runs meanwhile.
    """
    return _Scoped(backend, awaitable)


def set_default_attention_backend(backend: str | None) -> None:
    """The backend of calls that neither call, layer nor scope decides. None: ATTNMUX_BACKEND, else native."""
    _core.set_default_backend(0 if backend is None else backend_id(backend))
    refresh_default()


def default_attention_backend() -> str:
    """The backend of calls that nothing else decides."""
    if _default == 0:
        _refuse_default()
    return NAMES[_default]


def refresh_default() -> None:
    """Takes over the library's default; called when something it depends on has changed. There is none while
    ATTNMUX_BACKEND names a plugin that is not loaded yet: calls without a request are then refused. Another bad value of
    a variable is reported by every call, as the library does."""
    global _default
    try:
        _default = _core.default_backend()
    except UnknownBackendError:
        _default = 0
    except BadEnvironmentError:
        _default = IDS["native"]


def _refuse_default() -> None:
    """Raises the library's own words; a plugin that C++ loaded meanwhile is found instead."""
    refresh_default()
    if _default == 0:
        _core.default_backend()
        raise UnknownBackendError("[attention] ATTNMUX_BACKEND names no backend", Code.UNKNOWN_BACKEND)


refresh_default()
