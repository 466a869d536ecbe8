# SPDX-License-Identifier: Apache-2.0
"""Settings of the process, and its end."""

from __future__ import annotations

import atexit
import os
import threading

from attnmux import _backends, _core, _scopes


def set_num_threads(threads: int) -> None:
    """Threads of the library's pool; 0: one per core. Results do not depend on it."""
    _core.set_num_threads(threads)


def num_threads() -> int:
    """Threads of the library's pool."""
    return _core.num_threads()


def release_workspace() -> None:
    """Frees the cached workspaces that no call is using."""
    _core.release_workspace()


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Loads a plugin of the C ABI (docs/adding_a_kernel.md); its backends have names with a dot."""
    _core.load_plugin(os.fsdecode(path))
    _backends.refresh()
    _scopes.refresh_default()


def _end() -> None:
    """Daemon threads that compute while the interpreter ends must not ask for the GIL any more; see src/gil.h."""
    _core.prepare_exit(threading.active_count() > 1)


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.forget_threads)
