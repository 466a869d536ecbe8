#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the Python layer costs: rows of the corpus through attnmux.attention beside the same call of the C ABI.

Both sides call the same libattnmux.so in this process, with the same memory, threads and backend, in turn. The C side
calls attnmux_attention through ctypes with structs that are filled once, which itself costs a microsecond or two. Also
timed is the smallest problem, where the layer is all there is. Run it with the Python in which attnmux and NumPy are
installed (--device cuda: and PyTorch). Ratios are medians over rounds in which every side ran once, with the interval
that holds the true median with 95 %. Exits with 1 where the whole interval of a row is beyond --bar: a busy machine makes
it wide, and proves nothing."""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import attnmux  # noqa: E402
import attnmux_ctypes as c_abi  # noqa: E402
import corpus  # noqa: E402
import numpy as np  # noqa: E402

CORPUS = {
    "cpu": ("corpus_cpu.csv", ["d64_1024_fp32", "keys_77_d64_fp32", "d128_2048_fp32", "odd_1023x1027_d128_fp32"]),
    "cuda": ("corpus.csv", ["d128_short_512", "d128_4x4096", "d128_qwen_4352", "d128_wan_cross_512"]),
}
SMALLEST = corpus.Row("smallest", 1, 4, 4, 1, 1, 8, 8, "fp32")
LEGACY_STREAM = 1


def cpu_tensors(row: corpus.Row) -> list:
    """q, k, v and out as (B, S, H, D) views of BHSD memory, which is what models have."""
    rng = np.random.default_rng(0)
    shapes = [(row.B, row.Hq, row.Sq, row.D), (row.B, row.Hkv, row.Skv, row.D), (row.B, row.Hkv, row.Skv, row.Dv)]
    made = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    made.append(np.empty((row.B, row.Hq, row.Sq, row.Dv), np.float32))
    return [x.transpose(0, 2, 1, 3) for x in made]


def cuda_tensors(torch, row: corpus.Row) -> list:
    shapes = [(row.B, row.Sq, row.Hq, row.D), (row.B, row.Skv, row.Hkv, row.D), (row.B, row.Skv, row.Hkv, row.Dv)]
    shapes.append((row.B, row.Sq, row.Hq, row.Dv))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[row.dtype]
    return [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]


def view(x, row: corpus.Row) -> c_abi.Tensor:
    if isinstance(x, np.ndarray):
        return c_abi.tensor(x.ctypes.data, row.dtype, x.shape, tuple(s // x.itemsize for s in x.strides))
    return c_abi.tensor(x.data_ptr(), row.dtype, tuple(x.shape), x.stride(), cuda=0)


def c_call(library: c_abi.Library, row: corpus.Row, tensors: list, stream: int | None):
    """attnmux_attention with everything prepared."""
    structs = [*(view(x, row) for x in tensors), c_abi.Options(backend=library.backend), c_abi.Exec(stream=stream)]
    error = c_abi.Error()
    pointers = [ctypes.addressof(s) for s in (*structs, error)]
    function = library.c.attnmux_attention
    function.restype, function.argtypes = ctypes.c_int32, [ctypes.c_void_p] * 7

    def call(_kept=(structs, error)):
        if function(*pointers) != 0:
            raise c_abi.AttnmuxError(error.message.decode())

    return call


def sides(library: c_abi.Library, row: corpus.Row, device: str = "cpu") -> dict:
    torch = sys.modules.get("torch")
    if device == "cuda":
        q, k, v, out = cuda_tensors(torch, row)
        return {
            "C ABI": c_call(library, row, [q, k, v, out], LEGACY_STREAM),
            "out given": lambda: attnmux.attention(q, k, v, out=out),
            "PyTorch": lambda: attnmux.attention(q, k, v),
        }
    q, k, v, out = cpu_tensors(row)
    found = {
        "C ABI": c_call(library, row, [q, k, v, out], None),
        "out given": lambda: attnmux.attention(q, k, v, out=out),
        "NumPy": lambda: attnmux.attention(q, k, v),
    }
    if torch is not None:
        tq, tk, tv, tout = (torch.from_numpy(x) for x in (q, k, v, out))
        found["PyTorch, out given"] = lambda: attnmux.attention(tq, tk, tv, out=tout)
    return found


def timed(calls: dict, seconds: float, synchronize=lambda: None) -> dict:
    """Seconds per call, one for each round: the sides run in turn, so that what the machine does meets all of them."""

    def sample(call, repeat: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeat):
            call()
        synchronize()
        return (time.perf_counter() - begin) / repeat

    for call in calls.values():
        sample(call, 1)
    repeat = max(1, int(2e-4 / sample(calls["C ABI"], 1)))  # a sample takes at least 0.2 ms
    samples = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["C ABI"]) < 9:
        for name, call in calls.items():
            samples[name].append(sample(call, repeat))
    return samples


def ratios(values: list, base: list) -> tuple:
    """The median ratio of the rounds, and the order statistics around it that hold the true median with 95 %."""
    found = sorted(a / b for a, b in zip(values, base))
    half, reach = len(found) / 2, 1.96 * math.sqrt(len(found)) / 2  # of a binomial variable with p = 1/2
    return (
        statistics.median(found),
        found[max(0, int(half - reach))],
        found[min(len(found) - 1, math.ceil(half + reach))],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=list(CORPUS), default="cpu")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default 3)")
    parser.add_argument("--bar", type=float, default=1.03, help="largest ratio with out given (default 1.03)")
    parser.add_argument("--attempts", type=int, default=3, help="a row is measured again where it is beyond the bar")
    parser.add_argument("--torch", action="store_true", help="on the CPU: also tensors of PyTorch")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    synchronize = lambda: None  # noqa: E731
    if arguments.torch or arguments.device == "cuda":
        import torch

        if arguments.device == "cuda":
            synchronize = torch.cuda.synchronize

    library = c_abi.Library(str(pathlib.Path(attnmux.__file__).parent / "_lib" / "libattnmux.so"))
    file, names = CORPUS[arguments.device]
    rows = {row.row: row for row in corpus.read_corpus(str(HERE / file))}
    results, beyond = [], []
    for row in [SMALLEST, *(rows[name] for name in names)]:
        calls = sides(library, row, arguments.device)
        for _ in range(arguments.attempts):
            samples = timed(calls, arguments.seconds, synchronize)
            if row is SMALLEST or ratios(samples["out given"], samples["C ABI"])[1] <= arguments.bar:
                break
        else:
            beyond.append(row.row)
        result = {"row": row.row, "rounds": len(samples["C ABI"]), "sides": {}}
        for name, values in samples.items():
            ratio, low, high = ratios(values, samples["C ABI"])
            result["sides"][name] = {"seconds": statistics.median(values), "ratio": ratio, "interval": [low, high]}
        results.append(result)
        if not arguments.json:
            print(f"{row.row}, {result['rounds']} rounds")
            for name, side in result["sides"].items():
                low, high = side["interval"]
                print(f"  {name:18} {side['seconds'] * 1e6:10.2f} µs   {side['ratio']:.4f} ({low:.4f} … {high:.4f})")
    if arguments.json:
        print(json.dumps(results, indent=2))
    for name in beyond:
        print(f"{name}: more than {arguments.bar} times the C ABI", file=sys.stderr)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
