# SPDX-License-Identifier: Apache-2.0
"""From an operator's RuntimeError to attnmux.Error."""

from __future__ import annotations

from attnmux._errors import Error, error_of

_MARK = "attnmux:"


def translated(error: Exception) -> Exception:
    """Only text crosses the boundary of an operator: "attnmux:<code>:[attention] …". Others' errors stay what they are."""
    text = str(error)
    if isinstance(error, Error) or not text.startswith(_MARK):
        return error
    code, message = text[len(_MARK) :].split(":", 1)
    return error_of(int(code), message.rstrip("\n"))
