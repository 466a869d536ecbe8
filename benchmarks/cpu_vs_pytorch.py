#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times attnmux against PyTorch's scaled_dot_product_attention on the CPU, through the C ABI.

    benchmarks/cpu_vs_pytorch.py build/lib/libattnmux.so [--shape 1,4,2048,2048,128[,causal]] [--dtype fp32] [--json FILE]

Both sides get the same tensors, run in one process, take turns, and are judged by the median of many rounds; a ratio
above 1 means that attnmux is faster. FLOPs are 4·D per attended (query, key) pair. PyTorch picks its own kernel. The
largest difference of the outputs, relative to the largest output, tells that both computed the same thing.
"""
import argparse
import ctypes
import json
import statistics
import sys
import time

import torch

DTYPES = {"fp32": (1, torch.float32), "fp16": (2, torch.float16), "bf16": (3, torch.bfloat16)}
TOP_LEFT = 1
MASK_CAUSAL = 1 << 0
DEFAULT_SHAPES = ("1,4,2048,2048,128", "1,4,2048,2048,64")


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("device_type", ctypes.c_int32),
                ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32), ("shape", ctypes.c_int64 * 4),
                ("strides", ctypes.c_int64 * 4)]


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("backend", ctypes.c_uint16), ("layer_backend", ctypes.c_uint16),
                ("kernel", ctypes.c_uint16), ("reserved", ctypes.c_uint16 * 3), ("layer_role", ctypes.c_char * 16),
                ("set", ctypes.c_uint64), ("conflicts", ctypes.c_uint64), ("scale", ctypes.c_double),
                ("softcap", ctypes.c_double), ("dropout_p", ctypes.c_double), ("dropout_seed", ctypes.c_uint64),
                ("dropout_offset", ctypes.c_uint64), ("window_left", ctypes.c_int64), ("window_right", ctypes.c_int64),
                ("causal_align", ctypes.c_int32), ("window_align", ctypes.c_int32), ("max_seqlen_q", ctypes.c_int64),
                ("max_seqlen_kv", ctypes.c_int64), ("key_lengths", Tensor), ("key_padding", Tensor),
                ("dense_mask", Tensor), ("bias", Tensor), ("lse", Tensor), ("cu_seqlens_q", Tensor),
                ("cu_seqlens_kv", Tensor)]


class Exec(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("num_threads", ctypes.c_int32), ("set", ctypes.c_uint64),
                ("stream", ctypes.c_void_p), ("workspace", ctypes.c_void_p), ("workspace_bytes", ctypes.c_size_t),
                ("parallel_for", ctypes.c_void_p), ("pool", ctypes.c_void_p)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int32), ("length", ctypes.c_uint32), ("message", ctypes.c_char * 504)]


class Library:
    def __init__(self, path: str, backend: str, kernel: str | None):
        self.c = ctypes.CDLL(path)
        self.c.attnmux_plan_kernel.restype = ctypes.c_char_p
        self.c.attnmux_plan_kernel.argtypes = [ctypes.c_void_p]
        self.c.attnmux_plan_release.argtypes = [ctypes.c_void_p]
        self.c.attnmux_backend_find.restype = self.c.attnmux_kernel_find.restype = ctypes.c_uint16
        self.c.attnmux_backend_find.argtypes = self.c.attnmux_kernel_find.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        self.backend = self.c.attnmux_backend_find(backend.encode(), len(backend))
        self.kernel = self.c.attnmux_kernel_find(kernel.encode(), len(kernel)) if kernel else 0
        if not self.backend or (kernel and not self.kernel):
            sys.exit(f"{path} knows no {'kernel ' + str(kernel) if self.backend else 'backend ' + backend}")

    @staticmethod
    def view(x: torch.Tensor, dtype: str) -> Tensor:
        """(B, H, S, D) of PyTorch as (B, S, H, D): strides change places, no element moves."""
        b, h, s, d = x.shape
        sb, sh, ss, sd = x.stride()
        return Tensor(x.data_ptr(), DTYPES[dtype][0], 1, 0, 4, (b, s, h, d), (sb, ss, sh, sd))

    def call(self, q, k, v, out, dtype: str, causal: bool, threads: int):
        """Returns (the name of the kernel, a function that runs it)."""
        options = Options(struct_size=ctypes.sizeof(Options), backend=self.backend, kernel=self.kernel)
        if causal:
            options.set |= MASK_CAUSAL
            options.causal_align = TOP_LEFT
        execution = Exec(struct_size=ctypes.sizeof(Exec), num_threads=threads)
        error = Error()
        arguments = [ctypes.byref(self.view(x, dtype)) for x in (q, k, v, out)]
        arguments += [ctypes.byref(options), ctypes.byref(execution)]

        def checked(code):
            if code != 0:
                sys.exit(error.message.decode())

        plan = ctypes.c_void_p()
        checked(self.c.attnmux_plan_create(*arguments, ctypes.byref(plan), ctypes.byref(error)))
        name = self.c.attnmux_plan_kernel(plan).decode()
        self.c.attnmux_plan_release(plan)
        return name, lambda: checked(self.c.attnmux_attention(*arguments, ctypes.byref(error)))


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(library: Library, shape: str, dtype: str, rounds: int, threads: int) -> dict:
    words = shape.split(",")
    causal = words[-1] == "causal"
    b, h, sq, skv, d = (int(w) for w in words[:5])
    torch.manual_seed(0)
    q, k, v = (torch.randn(b, h, s, d).to(DTYPES[dtype][1]) for s in (sq, skv, skv))
    out = torch.empty_like(q)
    kernel, ours = library.call(q, k, v, out, dtype, causal, threads)

    def theirs():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    expected = theirs().float()
    ours()
    difference = ((out.float() - expected).abs().max() / expected.abs().max()).item()
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    attended = sum(min(i + 1, skv) for i in range(sq)) if causal else sq * skv
    flops = 4 * d * b * h * attended
    mine, other = (statistics.median(column) for column in zip(*times))
    return {"shape": shape, "dtype": dtype, "kernel": kernel, "attnmux_gflops": flops / mine / 1e9,
            "pytorch_gflops": flops / other / 1e9, "ratio": statistics.median(o / m for m, o in times),
            "difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", help="path of libattnmux.so")
    parser.add_argument("--shape", action="append", help="B,H,Sq,Skv,D or B,H,Sq,Skv,D,causal; may be repeated")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="may be repeated; default: all")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--kernel", help="one kernel of the backend")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="also write the results there; - is standard output")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    library = Library(arguments.library, arguments.backend, arguments.kernel)
    rows = []
    report = sys.stderr if arguments.json == "-" else sys.stdout
    print(f"{'B,H,Sq,Skv,D':26} {'dtype':5} {'kernel':22} {'attnmux':>8} {'PyTorch':>8} {'ratio':>6}   GFLOP/s, median of "
          f"{arguments.rounds}, {arguments.threads} thread(s), PyTorch {torch.__version__}", file=report)
    for shape in arguments.shape or DEFAULT_SHAPES:
        for dtype in arguments.dtype or DTYPES:
            row = compare(library, shape, dtype, arguments.rounds, arguments.threads)
            rows.append(row)
            print(f"{shape:26} {dtype:5} {row['kernel']:22} {row['attnmux_gflops']:8.0f} {row['pytorch_gflops']:8.0f} "
                  f"{row['ratio']:6.2f}   difference {row['difference']:.1e}", file=report, flush=True)
    if arguments.json:
        text = json.dumps({"pytorch": torch.__version__, "threads": arguments.threads, "results": rows}, indent=2) + "\n"
        if arguments.json == "-":
            sys.stdout.write(text)
        else:
            with open(arguments.json, "w", encoding="utf-8") as file:
                file.write(text)


if __name__ == "__main__":
    main()
