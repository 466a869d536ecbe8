# SPDX-License-Identifier: Apache-2.0
"""Loads libattnmux_torch.so once.

A process holds one set of `torch.ops.attnmux`. A second copy of the library, from another folder, would define the
operators again, and PyTorch ends the process for that; so what is there is looked at first.
"""

from __future__ import annotations

import os
import pathlib
import re

import torch

import attnmux
from attnmux._errors import Code, Error, error_of

NAME = "libattnmux_torch.so"
_OLDEST = (2, 9)


def library_path() -> pathlib.Path:
    """Beside libattnmux.so, which it needs."""
    return pathlib.Path(attnmux.__file__).parent / "_lib" / NAME


def load() -> None:
    path = library_path()
    _check_version()
    if _operators_exist():
        _accept_only(path)
        return
    if not path.exists():
        raise error_of(
            Code.UNAVAILABLE,
            f"[attention] attnmux was built without PyTorch: {path} does not exist. Install attnmux where PyTorch is "
            "installed: pip install --no-build-isolation .",
        )
    torch.ops.load_library(path)


def _check_version() -> None:
    numbers = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        raise error_of(
            Code.UNAVAILABLE,
            f"[attention] PyTorch is {torch.__version__}; attnmux.torch needs {_OLDEST[0]}.{_OLDEST[1]} or newer",
        )


def _operators_exist() -> bool:
    return hasattr(torch.ops.attnmux, "attention")


def _accept_only(path: pathlib.Path) -> None:
    """The operators are there already: fine if they are this file's."""
    loaded = loaded_copies()
    if path.exists() and any(os.path.samefile(path, other) for other in loaded):
        return
    where = ", ".join(loaded) or "an unknown file"
    raise Error(
        f"[attention] torch.ops.attnmux was registered by {where}; a second copy, {path}, would end the process, and the "
        "two may differ. Load one attnmux per process",
        Code.INTERNAL,
    )


def loaded_copies() -> list[str]:
    """Files named as the library that are mapped into this process."""
    try:
        maps = pathlib.Path("/proc/self/maps").read_text()
    except OSError:  # not Linux: what PyTorch was asked to load is known, what the linker loaded is not
        return sorted(p for p in torch.ops.loaded_libraries if pathlib.Path(p).name == NAME)
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.endswith(NAME)}
    return sorted(path for path in paths if os.path.exists(path))
