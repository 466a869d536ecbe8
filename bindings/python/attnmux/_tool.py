# SPDX-License-Identifier: Apache-2.0
"""The command line tool as the package carries it: the executable `attnmux`, run in a process of its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from typing import Any

from attnmux import _core
from attnmux._errors import Code, error_of


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
        raise error_of(Code.UNAVAILABLE, f"[attention] {path} is not there: this package was built without the tool")
    return path


def verify(**flags: Any) -> dict[str, Any]:
    """Checks the numerics of backends on this machine, as `attnmux verify --json`: a keyword is a flag, so
    verify(backend="flash", dtype="fp16") is `--backend flash --dtype fp16`. `passed` of the answer is the verdict."""
    return json.loads(_run(["verify", "--json", *_flags(flags)]))


def bench(**flags: Any) -> list[dict[str, Any]]:
    """Measures backends on one problem, as `attnmux bench --json`: bench(seqlen_q=512, heads_q=8, backend=["flash"]). One
    row per backend that can run it."""
    return json.loads(_run(["bench", "--json", *_flags(flags)]))


def _flags(flags: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            arguments.append(flag)
        elif name in ("backend", "plugin") and isinstance(value, (list, tuple)):
            arguments += [f"{flag}={one}" for one in value]
        else:
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            arguments.append(f"{flag}={text}")
    return arguments


def _run(arguments: list[str]) -> str:
    """What the tool prints. 1 is a verdict (a promise was not kept), and then there is an answer, too."""
    done = subprocess.run([executable(), *arguments], capture_output=True, text=True)
    if done.returncode == 0 or (done.returncode == 1 and done.stdout):
        return done.stdout
    codes = {2: Code.INVALID_ARGUMENT, 3: Code.UNAVAILABLE}
    words = done.stderr.strip().removeprefix("attnmux: ") or f"'attnmux {arguments[0]}' ended with {done.returncode}"
    raise error_of(codes.get(done.returncode, Code.INTERNAL), "[attention] " + words)
