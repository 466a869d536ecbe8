# SPDX-License-Identifier: Apache-2.0
"""attnmux: one attention call, every kernel. See docs/python.md.

Importing this needs neither NumPy nor PyTorch.
"""

from __future__ import annotations

from attnmux import _core
from attnmux._arrays import bfloat16_bits
from attnmux._attention import Plan, attention, plan
from attnmux._errors import (
    BadEnvironmentError,
    Code,
    Error,
    InvalidArgumentError,
    OutOfMemoryError,
    UnavailableError,
    UnknownBackendError,
    UnsupportedError,
)
from attnmux._explain import Explanation, explain
from attnmux._options import Varlen
from attnmux._process import load_plugin, num_threads, release_workspace, set_num_threads
from attnmux._scopes import (
    attention_backend,
    capture,
    default_attention_backend,
    restore,
    scoped,
    set_default_attention_backend,
)
from attnmux._tool import BackendInfo, bench, list_backends, verify

__version__: str = _core.version()

__all__ = [
    "BackendInfo",
    "BadEnvironmentError",
    "Code",
    "Error",
    "Explanation",
    "InvalidArgumentError",
    "OutOfMemoryError",
    "Plan",
    "UnavailableError",
    "UnknownBackendError",
    "UnsupportedError",
    "Varlen",
    "attention",
    "attention_backend",
    "bench",
    "bfloat16_bits",
    "capture",
    "default_attention_backend",
    "explain",
    "list_backends",
    "load_plugin",
    "num_threads",
    "plan",
    "release_workspace",
    "restore",
    "scoped",
    "set_default_attention_backend",
    "set_num_threads",
    "verify",
]
