#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the Python layer costs: rows of the CPU corpus through attnmux.attention beside the same call of the C ABI.

Both sides call the same libattnmux.so in this process, with the same memory, threads and backend, in turn. The C side calls
attnmux_attention through ctypes with structs that are filled once, which itself costs a microsecond or two. Also timed is
the smallest problem, where the layer is all there is. Run it with the Python in which attnmux and NumPy are installed;
with PyTorch, its tensors are timed as well. Exits with 1 where a row is beyond --bar."""
from __future__ import annotations

import argparse
import ctypes
import json
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

ROWS = ["d64_1024_fp32", "keys_77_d64_fp32", "d128_2048_fp32", "odd_1023x1027_d128_fp32"]
SMALLEST = corpus.Row("smallest", 1, 4, 4, 1, 1, 8, 8, "fp32")


def arrays(row: corpus.Row) -> list:
    """q, k, v and out as (B, S, H, D) views of BHSD memory, which is what models have."""
    rng = np.random.default_rng(0)
    shapes = [(row.B, row.Hq, row.Sq, row.D), (row.B, row.Hkv, row.Skv, row.D), (row.B, row.Hkv, row.Skv, row.Dv)]
    made = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    made.append(np.empty((row.B, row.Hq, row.Sq, row.Dv), np.float32))
    return [x.transpose(0, 2, 1, 3) for x in made]


def view(x: np.ndarray) -> c_abi.Tensor:
    return c_abi.tensor(x.ctypes.data, "fp32", x.shape, tuple(s // x.itemsize for s in x.strides))


def c_call(library: c_abi.Library, tensors: list):
    """attnmux_attention with everything prepared."""
    structs = [*map(view, tensors), c_abi.Options(backend=library.backend), c_abi.Exec()]
    error = c_abi.Error()
    pointers = [ctypes.addressof(s) for s in (*structs, error)]
    function = library.c.attnmux_attention
    function.restype, function.argtypes = ctypes.c_int32, [ctypes.c_void_p] * 7

    def call(_kept=(structs, error)):
        if function(*pointers) != 0:
            raise c_abi.AttnmuxError(error.message.decode())

    return call


def sides(library: c_abi.Library, row: corpus.Row) -> dict:
    q, k, v, out = arrays(row)
    found = {
        "C ABI": c_call(library, [q, k, v, out]),
        "NumPy, out given": lambda: attnmux.attention(q, k, v, out=out),
        "NumPy": lambda: attnmux.attention(q, k, v),
    }
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        tq, tk, tv, tout = (torch.from_numpy(x) for x in (q, k, v, out))
        found["PyTorch, out given"] = lambda: attnmux.attention(tq, tk, tv, out=tout)
    return found


def timed(calls: dict, seconds: float) -> dict:
    """Medians in seconds per call: the sides run in turn, so that whatever else the machine does meets all of them."""
    for call in calls.values():
        call()
    begin = time.perf_counter()
    next(iter(calls.values()))()
    once = time.perf_counter() - begin
    repeat = max(1, int(2e-4 / max(once, 1e-9)))  # calls per sample: at least 0.2 ms
    samples = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["C ABI"]) < 9:
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repeat):
                call()
            samples[name].append((time.perf_counter() - begin) / repeat)
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default 3)")
    parser.add_argument("--bar", type=float, default=1.03, help="largest ratio to the C ABI with out given (default 1.03)")
    parser.add_argument("--attempts", type=int, default=3, help="a row is measured again where it is beyond the bar")
    parser.add_argument("--torch", action="store_true", help="also tensors of PyTorch")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.torch:
        import torch  # noqa: F401

    library = c_abi.Library(str(pathlib.Path(attnmux.__file__).parent / "_lib" / "libattnmux.so"))
    rows = {row.row: row for row in corpus.read_corpus(str(HERE / "corpus_cpu.csv"))}
    results, beyond = [], []
    for row in [SMALLEST, *(rows[name] for name in ROWS)]:
        calls = sides(library, row)
        for _ in range(arguments.attempts):
            medians = timed(calls, arguments.seconds)
            ratio = medians["NumPy, out given"] / medians["C ABI"]
            if row is SMALLEST or ratio <= arguments.bar:
                break
        else:
            beyond.append(row.row)
        results.append({"row": row.row, "seconds": medians, "ratio": ratio})
        if not arguments.json:
            base = medians["C ABI"]
            print(f"{row.row}: C ABI {base * 1e6:.2f} µs; " + "; ".join(
                f"{name} {value * 1e6:.2f} µs ({value / base:.4f})" for name, value in medians.items() if name != "C ABI"))
    if arguments.json:
        print(json.dumps(results, indent=2))
    for name in beyond:
        print(f"{name}: more than {arguments.bar} times the C ABI", file=sys.stderr)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
