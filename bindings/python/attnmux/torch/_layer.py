# SPDX-License-Identifier: Apache-2.0
"""Which layer is running: the backend that set_attention_backend() pinned for the module whose forward this thread is in.

Of the same form as attnmux._scopes, for the same reason: torch.compile guards a plain threading.local() that is read by
getattr.
"""

from __future__ import annotations

import threading

running = threading.local()  # .backend: an id; absent or None outside of a module with a backend of its own


def backend() -> int | None:
    return getattr(running, "backend", None)


# CPython formats an AttributeError for every read of what is absent, which costs more than the rest of the read. Other
# threads than the importing one pay it.
running.backend = None
