# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch go to attnmux.torch, which has gradients, autocast and torch.compile. Where the package was built
without it, they are arrays like any other: read through DLPack, refused where they require grad."""

from __future__ import annotations

import sys
from typing import Any

_tensor: type | None = None  # torch.Tensor, once attnmux.torch works; plain globals, so that Dynamo can guard on them
_attention: Any = None
_tried = False
why_not = ""  # why attnmux.torch is not used, once it was tried


def takes(array: Any) -> bool:
    if not _tried:
        _try(array)
    return _tensor is not None and isinstance(array, _tensor)


def attention(*arguments: Any, **options: Any) -> Any:
    return _attention(*arguments, **options)


def _try(array: Any) -> None:
    """Loads attnmux.torch when the first tensor of PyTorch comes. It was not loaded before: importing attnmux must not
    import PyTorch."""
    global _tensor, _attention, _tried, why_not
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, getattr(torch, "Tensor", ())):
        return
    _tried = True
    from attnmux._errors import Error

    try:
        from attnmux.torch import attention as found
    except (ImportError, Error) as error:
        why_not = str(error)
        return
    _tensor, _attention = torch.Tensor, found
