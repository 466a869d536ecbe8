# SPDX-License-Identifier: Apache-2.0
"""Exceptions: the code and the message of the C library, as Python classes."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """Result codes of the C ABI (include/attnmux/c/types.h)."""

    INVALID_ARGUMENT = 1
    UNKNOWN_BACKEND = 2
    UNAVAILABLE = 3
    UNSUPPORTED = 4
    BAD_ENVIRONMENT = 5
    OUT_OF_MEMORY = 6
    DEVICE_ERROR = 7
    EXECUTOR_FAILED = 8
    INTERNAL = 9


class Error(RuntimeError):
    """What attnmux raises. `code` says which kind; the text names the argument, its value and what is accepted."""

    def __init__(self, message: str, code: int = Code.INTERNAL):
        super().__init__(message)
        self.code = Code(code)

    def __reduce__(self):
        return (type(self), (self.args[0], int(self.code)))


class InvalidArgumentError(Error, ValueError):
    """The call itself is wrong, for every backend."""


class UnknownBackendError(Error, ValueError):
    """No backend has this name; the text has the closest ones."""


class UnavailableError(Error):
    """The backend cannot run on this machine or in this build."""


class UnsupportedError(Error, NotImplementedError):
    """The backend runs here, but not this problem."""


class BadEnvironmentError(Error):
    """An ATTNMUX_* variable has a value that is not accepted."""


class OutOfMemoryError(Error, MemoryError):
    """A workspace could not be allocated."""


_CLASSES = {
    Code.INVALID_ARGUMENT: InvalidArgumentError,
    Code.UNKNOWN_BACKEND: UnknownBackendError,
    Code.UNAVAILABLE: UnavailableError,
    Code.UNSUPPORTED: UnsupportedError,
    Code.BAD_ENVIRONMENT: BadEnvironmentError,
    Code.OUT_OF_MEMORY: OutOfMemoryError,
}


def error_of(code: int, message: str) -> Error:
    """The exception for a code and a message of the C library. A code of a newer library counts as internal."""
    known = Code(code) if code in Code._value2member_map_ else Code.INTERNAL
    return _CLASSES.get(known, Error)(message, known)


def invalid(message: str) -> InvalidArgumentError:
    """A wrong argument that is seen here, before the library is asked; worded as the library words it."""
    return InvalidArgumentError("[attention] " + message, Code.INVALID_ARGUMENT)
