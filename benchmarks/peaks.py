# SPDX-License-Identifier: Apache-2.0
"""The instruction peaks and the read loop of peaks.cpp, built by CMake as libattnmux_peaks.so."""
from __future__ import annotations

import ctypes

# By the instruction set that a kernel runs on and by the dtype: what it could reach at most.
PEAK_OF = {
    "avx2": {"fp32": "avx2_fma", "fp16": "avx2_fma", "bf16": "avx2_fma"},
    "avx512": {"fp32": "avx512_fma", "fp16": "avx512_fma", "bf16": "avx512_fma"},
    "avx512_bf16": {"fp32": "avx512_fma", "fp16": "avx512_fma", "bf16": "avx512_bf16"},
    "amx": {"fp32": "avx512_fma", "fp16": "avx512_fma", "bf16": "amx_bf16"},
}

SHORT = 0.004  # seconds of a sample: long beside the clock and the start of a thread


class Peaks:
    def __init__(self, path: str):
        self.c = ctypes.CDLL(path)
        self.c.attnmux_peak_name.restype = ctypes.c_char_p
        self.c.attnmux_peak_flops_per_round.restype = ctypes.c_double
        self.c.attnmux_peak_seconds.restype = self.c.attnmux_read_seconds.restype = ctypes.c_double
        self.c.attnmux_peak_seconds.argtypes = [ctypes.c_int32, ctypes.c_int32, ctypes.c_int64]
        self.c.attnmux_read_seconds.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32]
        self.index = {}  # of those that this machine has
        index = 0
        while (name := self.c.attnmux_peak_name(index)) is not None:
            if self.c.attnmux_peak_usable(index):
                self.index[name.decode()] = index
            index += 1
        self.rounds = {name: self._rounds(name) for name in self.index}

    def _rounds(self, name: str) -> float:
        """So many take a second."""
        rounds = 1000
        while (taken := self.c.attnmux_peak_seconds(self.index[name], 1, rounds)) < SHORT:
            rounds *= 4
        return rounds / taken

    def flops_per_second(self, name: str, threads: int, about_seconds: float = SHORT) -> float:
        rounds = max(1, round(self.rounds[name] * about_seconds))
        seconds = self.c.attnmux_peak_seconds(self.index[name], threads, rounds)
        return rounds * threads * self.c.attnmux_peak_flops_per_round(self.index[name]) / seconds

    def read_seconds(self, address: int, nbytes: int, threads: int) -> float:
        return self.c.attnmux_read_seconds(address, nbytes, threads)
