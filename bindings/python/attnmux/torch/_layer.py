# SPDX-License-Identifier: Apache-2.0
"""Which layer is running: the backend that set_attention_backend() pinned for the module whose forward this thread is in.

Of the same form as attnmux._scopes, for the same reasons: Dynamo guards a thread's own attribute that is read by getattr.
"""

from __future__ import annotations

import threading


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.backend: int | None = None  # an id; None outside of a module with a backend of its own


running = _PerThread()
