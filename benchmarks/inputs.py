# SPDX-License-Identifier: Apache-2.0
"""Tensors that all sides of a benchmark read: plain memory with fixed contents, made with numpy where it is installed."""
from __future__ import annotations

import array
import ctypes
import math
import mmap
import random
import struct

from attnmux_ctypes import BYTES, Tensor, tensor

try:
    import numpy
except ImportError:
    numpy = None

PERIOD = 8191  # without numpy values repeat after so many (a prime: rows differ): drawing them is slow


class Buffer:
    """Contiguous elements in pages of their own. `skew` shifts the first element by so many cache lines, so that tensors
    whose sizes are multiples of a page do not all begin in the same cache set."""

    def __init__(self, dtype: str, shape: tuple, skew: int = 1):
        self.dtype, self.shape = dtype, tuple(shape)
        self.count = math.prod(shape)
        self.nbytes = self.count * BYTES[dtype]
        self.offset = 64 * skew
        self.map = mmap.mmap(-1, self.offset + max(1, self.nbytes))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + self.offset

    def write(self, data: bytes) -> Buffer:
        self.map[self.offset : self.offset + self.nbytes] = data
        return self

    def read(self) -> bytes:
        return self.map[self.offset : self.offset + self.nbytes]

    def view(self) -> Tensor:
        return tensor(self.address, self.dtype, self.shape, strides_of(self.shape))

    def bshd(self) -> Tensor:
        """(B, H, S, D) in memory as the (B, S, H, D) of the ABI: strides change places, no element moves."""
        (b, h, s, d), (sb, sh, ss, sd) = self.shape, strides_of(self.shape)
        return tensor(self.address, self.dtype, (b, s, h, d), (sb, ss, sh, sd))


def strides_of(shape: tuple) -> tuple:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def half_words(dtype: str, floats: bytes) -> bytes:
    """fp32 as bytes, rounded to nearest even fp16 or bf16, without numpy."""
    count = len(floats) // 4
    if dtype == "fp16":
        return struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", floats))
    words = array.array("I", floats)
    return array.array("H", ((w + 0x7FFF + (w >> 16 & 1)) >> 16 for w in words)).tobytes()


def normal(dtype: str, shape: tuple, seed: int, skew: int = 1, copies: int = 1) -> list:
    """Standard normal values from a fixed seed, in so many equal buffers."""
    count = math.prod(shape)
    if numpy is None:
        draw = random.Random(seed)
        floats = array.array("f", (draw.gauss(0, 1) for _ in range(min(count, PERIOD)))).tobytes()
        data = floats if dtype == "fp32" else half_words(dtype, floats)
        data = (data * (count // PERIOD + 1))[: count * BYTES[dtype]]
    else:
        floats = numpy.random.default_rng(seed).standard_normal(count, dtype=numpy.float32)
        if dtype == "bf16":
            words = floats.view(numpy.uint32)
            data = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(numpy.uint16).tobytes()
        else:
            data = floats.astype({"fp32": numpy.float32, "fp16": numpy.float16}[dtype]).tobytes()
    return [Buffer(dtype, shape, skew).write(data) for _ in range(copies)]


def coin_flips(shape: tuple, seed: int, skew: int = 1) -> Buffer:
    """bool; seven of eight are true, and the first of each row is, so that no row is empty."""
    count, width = math.prod(shape), shape[-1]
    table = bytes(1 if byte & 7 else 0 for byte in range(256))
    data = bytearray(random.Random(seed).getrandbits(8 * count).to_bytes(count, "little").translate(table))
    data[::width] = b"\1" * len(data[::width])
    return Buffer("bool", shape, skew).write(bytes(data))
