# SPDX-License-Identifier: Apache-2.0
"""The options of a call: from Python's keywords to what attnmux._core takes."""

from __future__ import annotations

import numbers
import operator
from typing import Any, Literal, NamedTuple, Optional, Union

from attnmux import _core
from attnmux._errors import invalid

Causal = Union[bool, Literal["top_left", "bottom_right"]]
Window = Union[tuple[int, int], tuple[int, int, Literal["top_left", "bottom_right"]]]

_ALIGNMENTS = {"top_left": 1, "bottom_right": 2}
_UNLIMITED = -1


class Varlen(NamedTuple):
    """Packed sequences: q is (T, H, D), cu_seqlens are (B+1) int32 that rise from 0 to T. The maxima are upper bounds of
    the lengths; 0 is the number of packed tokens."""

    cu_seqlens_q: Any
    cu_seqlens_kv: Any
    max_seqlen_q: int = 0
    max_seqlen_kv: int = 0


class Options(NamedTuple):
    """What a call asks for besides tensors, and its optional tensors, in the order that _core takes."""

    scalars: _core.Scalars
    arrays: Optional[tuple[Any, Any, Any, Any, Any, Any]]


_PLAIN = _core.Scalars()  # of calls without options
NO_OPTIONS = Options(_PLAIN, None)


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise invalid(f"{name} is {value!r}; accepted is an int from {low} to {high}")
    return number


def _number(name: str, value: Any) -> float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    try:
        return float(value.item())  # a number of an array library
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise invalid(f"{name} is {value!r}; accepted is a number") from None


def _causal(causal: Any) -> int | None:
    if causal is False or causal is None:
        return None
    if causal is True:
        return 0  # the library refuses it where the two alignments differ
    align = _ALIGNMENTS.get(causal) if isinstance(causal, str) else None
    if align is None:
        raise invalid(f"causal is {causal!r}; accepted are False, True, 'top_left' and 'bottom_right'")
    return align


def _window(window: Any) -> tuple[int, int, int] | None:
    if window is None:
        return None
    if not isinstance(window, (tuple, list)) or len(window) not in (2, 3):
        raise invalid(
            f"window is {window!r}; accepted are (left, right) and (left, right, 'top_left' or 'bottom_right')"
        )
    left, right = (_integer(f"window[{i}]", window[i], _UNLIMITED, 2**62) for i in (0, 1))
    if len(window) == 2:
        return left, right, 0
    align = _ALIGNMENTS.get(window[2]) if isinstance(window[2], str) else None
    if align is None:
        raise invalid(f"window[2] is {window[2]!r}; accepted are 'top_left' and 'bottom_right'")
    return left, right, align


def _varlen(varlen: Any) -> Varlen:
    if not isinstance(varlen, tuple) or len(varlen) not in (2, 4):
        raise invalid(
            f"varlen is a {type(varlen).__name__}; accepted is attnmux.Varlen(cu_seqlens_q, cu_seqlens_kv, "
            "max_seqlen_q, max_seqlen_kv), or a tuple like it"
        )
    made = Varlen(*varlen)
    if made.cu_seqlens_q is None or made.cu_seqlens_kv is None:
        raise invalid("varlen has no cu_seqlens_q or no cu_seqlens_kv; packed sequences need both")
    return made


def make(
    mask: Any,
    key_padding: Any,
    key_lengths: Any,
    bias: Any,
    causal: Any,
    window: Any,
    scale: Any,
    softcap: Any,
    dropout: Any,
    seed: Any,
    varlen: Any,
    allow_lossy: bool,
    kernel: str,
) -> Options:
    """Checks the types of keywords; their values and how they go together are the library's to check."""
    if varlen is None:
        cu_q = cu_kv = None
        max_q = max_kv = 0
    else:
        cu_q, cu_kv, max_q, max_kv = _varlen(varlen)
    arrays = (mask, key_padding, key_lengths, bias, cu_q, cu_kv)
    scalars = _core.Scalars(
        causal_align=_causal(causal),
        window=_window(window),
        scale=None if scale is None else _number("scale", scale),
        softcap=0.0 if softcap is None else _number("softcap", softcap),
        dropout_p=_number("dropout", dropout),
        seed=None if seed is None else _integer("seed", seed, 0, 2**64 - 1),
        max_seqlen_q=_integer("varlen.max_seqlen_q", max_q, 0, 2**62),
        max_seqlen_kv=_integer("varlen.max_seqlen_kv", max_kv, 0, 2**62),
        allow_lossy=bool(allow_lossy),
        kernel=kernel or "",
    )
    return Options(scalars, None if all(array is None for array in arrays) else arrays)
