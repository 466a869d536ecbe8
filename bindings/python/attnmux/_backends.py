# SPDX-License-Identifier: Apache-2.0
"""Backend names and their ids.

The table is the library's own, read once. Ids are append-only, because compiled and exported graphs store them. Looking a
known name up is one dict access: torch.compile traces it, and its guards see plain ints.
"""

from __future__ import annotations

from attnmux import _core

IDS: dict[str, int] = {}
NAMES: dict[int, str] = {}


def refresh() -> None:
    """Adds what the library has learnt since: the backends of plugins."""
    for name in _core.backend_names()[len(IDS) :]:
        IDS[name] = _core.find_backend(name)
        NAMES[IDS[name]] = name


def backend_id(backend: str | int) -> int:
    """The id of a backend; raises UnknownBackendError with the closest names if there is none. An id is its own."""
    if type(backend) is int:
        return backend
    found = IDS.get(backend)  # type: ignore[arg-type]  # a bool is no id
    return _look_up(backend) if found is None else found


def backend_name(backend: int) -> str:
    return NAMES[backend]


def _look_up(name: object) -> int:
    from attnmux._errors import invalid

    if not isinstance(name, str):
        raise invalid(f"backend is {name!r}; accepted is a backend's name, such as 'flash'")
    found = _core.backend_named(name)  # raises for a name that does not exist
    refresh()
    return found


refresh()
