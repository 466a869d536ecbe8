# SPDX-License-Identifier: Apache-2.0
"""The command line tool as the package carries it: the executable `attnmux`, run in a process of its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from typing import Any

from attnmux import _core
from attnmux._backends import backend_id
from attnmux._errors import Code, Error


class BackendInfo:
    """One row of list_backends(): attributes are those of the library's own description."""

    __slots__ = ("name", "id", "family", "available", "reason", "promise", "kernels", "features", "accuracy", "plugin")

    def __init__(self, description: dict[str, Any]):
        for field in self.__slots__:
            setattr(self, field, description[field])

    name: str
    id: int
    family: str
    available: bool
    reason: str  # why it is not available
    promise: str
    kernels: list[str]
    features: list[str]
    accuracy: dict[str, str]
    plugin: bool

    def __repr__(self) -> str:
        return f"{self.name}: {', '.join(self.kernels) if self.available else self.reason}"


def list_backends() -> list[BackendInfo]:
    """Every backend: those that run on this machine, and why the others do not."""
    return [BackendInfo(description) for description in json.loads(_core.describe(_core.DESCRIBE_BACKENDS))]


def executable() -> pathlib.Path:
    """The path of the tool."""
    path = pathlib.Path(__file__).with_name("_bin") / "attnmux"
    if not os.access(path, os.X_OK):
        raise Error(f"[attention] {path} is not there: this package was built without the tool", Code.UNAVAILABLE)
    return path


def _run(arguments: list[str]) -> str:
    done = subprocess.run([executable(), *arguments], capture_output=True, text=True)
    if done.returncode not in (0, 1) or (done.returncode == 1 and not done.stdout):
        words = done.stderr.strip() or f"attnmux {' '.join(arguments)} ended with {done.returncode}"
        raise Error(words, Code.INVALID_ARGUMENT if done.returncode == 2 else Code.INTERNAL)
    return done.stdout
