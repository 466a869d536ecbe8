# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries: new outputs made by the library of the inputs, current streams, and dtypes that neither the
buffer protocol nor DLPack can say. No library is imported here that the caller has not imported."""

from __future__ import annotations

import sys
from typing import Any

from attnmux import _torch_layer
from attnmux._errors import invalid

_LEGACY_DEFAULT_STREAM = 1
_DTYPES = {"f4": 1, "f2": 2, "f8": 4, "b1": 5, "u1": 6, "i4": 7}  # ids of c/types.h by array-interface letters
_BFLOAT16 = 3


class Bfloat16Bits:
    """A uint16 array whose elements are the bits of bfloat16 numbers; made by bfloat16_bits()."""

    __slots__ = ("array",)

    def __init__(self, array: Any):
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def __repr__(self) -> str:
        return f"attnmux.bfloat16_bits({self.array!r})"


def bfloat16_bits(array: Any) -> Bfloat16Bits:
    """Says that a NumPy uint16 array holds bfloat16 numbers. NumPy has no such dtype; arrays of ml_dtypes.bfloat16 need
    nothing said. Outputs are uint16 arrays of NumPy again."""
    interface = getattr(array, "__array_interface__", None)
    if interface is None or interface["typestr"] not in ("<u2", "|u2"):
        raise invalid(f"bfloat16_bits was given {_describe(array)}; accepted is a NumPy array of uint16")
    return Bfloat16Bits(array)


def describe(array: Any, name: str) -> tuple[int, int, tuple[int, ...], tuple[int, ...], bool]:
    """Pointer, dtype id, shape, strides in elements and read-only, for what the C++ side cannot read by itself. Id 0 is
    a dtype that attnmux does not know; it is refused there, where the accepted ones are known."""
    bits = isinstance(array, Bfloat16Bits)
    source = array.array if bits else array
    interface = getattr(source, "__array_interface__", None)
    if interface is None or not isinstance(interface.get("data"), tuple):
        raise invalid(
            f"{name} is {_describe(array)}; accepted are arrays with __dlpack__ (PyTorch, CuPy, JAX), the buffer "
            "protocol or __array_interface__ (NumPy)"
        )
    letters = interface["typestr"]
    size = int(letters[2:])
    if bits or str(getattr(source, "dtype", "")) == "bfloat16":
        dtype = _BFLOAT16
    else:
        dtype = _DTYPES.get(letters[1:], 0) if letters[0] in "<|" else 0
    shape = tuple(interface["shape"])
    strides = interface.get("strides")
    if strides is None:
        elements = [1] * len(shape)
        for i in range(len(shape) - 2, -1, -1):
            elements[i] = elements[i + 1] * shape[i + 1]
    else:
        for i, stride in enumerate(strides):
            if stride % size and shape[i] > 1:
                raise invalid(f"{name}.strides[{i}] is {stride} bytes; it must be a multiple of the element's {size}")
        elements = [stride // size for stride in strides]
    pointer, read_only = interface["data"]
    return pointer, dtype, shape, tuple(elements), read_only


def library_of(array: Any) -> str:
    """The top-level package of an array's type: "numpy", "torch", "cupy", "jaxlib", …"""
    return type(array).__module__.partition(".")[0]


def current_stream(array: Any) -> int:
    """The stream that the array's library would use now, as an int of DLPack. Libraries without streams of their own
    wait for the legacy default stream, by DLPack's rules."""
    if library_of(array) == "cupy":
        return sys.modules["cupy"].cuda.get_current_stream().ptr or _LEGACY_DEFAULT_STREAM
    if library_of(array) == "torch":  # before 2.10, which tells it without Python
        return sys.modules["torch"].cuda.current_stream(array.device).cuda_stream or _LEGACY_DEFAULT_STREAM
    return _LEGACY_DEFAULT_STREAM


def new_output(q: Any, v: Any) -> Any:
    """An array for out: q's dtype, device and library, and the shape of q with v's last extent."""
    try:
        shape = (*q.shape[:-1], *v.shape[-1:])
    except (AttributeError, TypeError):
        name, array = ("v", v) if hasattr(q, "shape") else ("q", q)
        raise invalid(f"{name} is {_describe(array)}; accepted are arrays, such as those of NumPy or PyTorch") from None
    return _empty(q, shape, None)


def new_lse(q: Any) -> Any:
    """An array for lse: float32 (B, Hq, Sq), packed (Hq, T)."""
    shape = tuple(q.shape)
    order = {4: (0, 2, 1), 3: (1, 0)}.get(len(shape), ())  # another rank is refused by the call, in its own words
    return _empty(q, tuple(shape[i] for i in order), "float32")


def finish(result: Any, q: Any) -> Any:
    """The output as the caller gets it: JAX's arrays are immutable, so its outputs are made by NumPy and handed over."""
    if isinstance(result, Bfloat16Bits):
        return result.array
    if library_of(q) not in ("jax", "jaxlib"):
        return result
    import jax  # type: ignore[import-not-found]

    return jax.dlpack.from_dlpack(result)


def refuse_immutable(name: str, array: Any) -> None:
    if library_of(array) in ("jax", "jaxlib"):
        raise invalid(f"{name} is an array of JAX, which is immutable; leave {name} out and use what is returned")


def refuse_grad(array: Any, name: str) -> None:
    """For a tensor that requires grad: its gradient would be lost in silence."""
    torch = sys.modules.get("torch")
    if torch is None or torch.is_grad_enabled():
        way = "attnmux.torch.attention has one (it takes no out=, stream=, kernel= and allow_lossy=)"
        if _torch_layer.why_not:
            way = f"attnmux.torch, which has one, is not there: {_torch_layer.why_not}"
        raise invalid(
            f"{name} requires grad, and this call has no backward; accepted are {name}.detach() and calls under "
            f"torch.no_grad(); {way}"
        )


def _empty(like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
    library = library_of(like)
    if library == "numpy":
        return sys.modules["numpy"].empty(shape, dtype or like.dtype)
    if isinstance(like, Bfloat16Bits):
        array = _empty(like.array, shape, dtype)
        return array if dtype else Bfloat16Bits(array)
    if hasattr(like, "new_empty"):  # PyTorch
        return like.new_empty(shape) if dtype is None else like.new_empty(shape, dtype=sys.modules["torch"].float32)
    if library == "cupy":
        with like.device:
            return sys.modules["cupy"].empty(shape, dtype or like.dtype)
    if library in ("jax", "jaxlib"):
        import numpy

        if like.__dlpack_device__()[0] != 1:
            raise invalid(
                "q is an array of JAX on a GPU, whose outputs attnmux cannot allocate; accepted are JAX's arrays on the "
                "CPU, and on a GPU arrays of PyTorch or CuPy, which share JAX's memory through DLPack"
            )
        return numpy.empty(shape, dtype or like.dtype)
    namespace = getattr(like, "__array_namespace__", None)
    if namespace is None:
        raise invalid(f"q is {_describe(like)}, whose library makes no outputs; give out=, and no return_lse")
    xp = namespace()
    return xp.empty(shape, dtype=like.dtype if dtype is None else xp.float32, device=like.device)


def _describe(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    kind = type(value).__name__
    return f"a {kind}" if dtype is None else f"a {kind} of {dtype}"
