#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times attnmux on a CUDA GPU beside PyTorch's attention kernels, in one process and on the same tensors.

    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DATTNMUX_CUDA=ON
    cmake --build build --target attnmux
    python3 benchmarks/gpu.py --json result.json
    python3 benchmarks/gpu.py --rows 'd128_*' --backend flash --backend _flash_3 --peers pytorch_flash,pytorch_cudnn
    python3 benchmarks/gpu.py --peer my_kernel.py                                    # one more peer, from a file

Needs a PyTorch with CUDA. Every side of a row is checked against fp64 on sampled queries, then captured in a CUDA graph of
at least 20 launches (4 where one takes longer than 2 ms) whose inputs rotate; the graphs are replayed in turn, and a figure
is the median. What a call costs the host is measured apart. FLOPs are 2·(D + Dv) per attended (query, key) pair. A corpus
has the columns of benchmarks/cpu.py, and packed (yes: key_lengths are those of B packed sequences). A peer file defines
`name` and `attention(q, k, v, *, causal, window, key_lengths, mask, bias, scale)` on (B, S, H, D) CUDA tensors, returns the
output and raises NotImplementedError for what it cannot do.
"""
from __future__ import annotations

import argparse
import json
import sys

import gpu_report
import gpu_inputs
import gpu_sides
import gpu_timing
from attnmux_ctypes import AttnmuxError
from corpus import CorpusError, read_corpus
from cpu import HERE, UsageError, chosen, commit, find_library, integer, seconds, write_json, write_to

# Beyond this an output is something else: a few roundings of the dtype, relative to the largest output.
SAME = {"fp32": 2e-5, "fp16": 4e-3, "bf16": 3e-2, "e4m3": 0.1}


def peer_list(text: str) -> list:
    words = [] if text == "none" else text.split(",")
    if any(word not in gpu_sides.PEERS for word in words):
        raise argparse.ArgumentTypeError(f"'{text}'; accepted: none, or of {', '.join(gpu_sides.PEERS)} with commas between "
                                         "them")
    return words


def parse(arguments: list) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="gpu.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--library", metavar="PATH", help="libattnmux.so; default: the newest build*/lib/libattnmux.so")
    parser.add_argument("--corpus", metavar="FILE", default=str(HERE / "corpus.csv"), help="default: %(default)s")
    parser.add_argument("--bars", metavar="FILE", default=str(gpu_report.DEFAULT_BARS), help="default: %(default)s")
    parser.add_argument("--rows", metavar="GLOB", action="append", help="rows whose name matches; may be repeated")
    parser.add_argument("--backend", action="append", help="may be repeated; default: native")
    parser.add_argument("--peers", type=peer_list, default=[p for p in gpu_sides.PEERS if p not in ("flex", "pytorch_math")],
                        help="none, or some of " + ",".join(gpu_sides.PEERS) + "; default: all but flex (which compiles for "
                             "every row) and pytorch_math")
    parser.add_argument("--peer", metavar="FILE.py", action="append", default=[], help="a further peer; may be repeated")
    parser.add_argument("--rounds", type=integer(1), default=5, help="at least so many; default: %(default)s")
    parser.add_argument("--seconds", type=seconds, default=0.1, help="per side and row; default: %(default)s")
    parser.add_argument("--commit", help="what the library was built from, where this is no checkout")
    parser.add_argument("--json", metavar="FILE", help="the results; - is standard output")
    parser.add_argument("--csv", metavar="FILE", help="the results as a table; - is standard output")
    parser.add_argument("--plot", metavar="FILE", help="TFLOP/s as bars, one file per family; needs matplotlib")
    return parser.parse_args(arguments)


def load_torch():
    try:
        import torch
    except ImportError:
        raise UsageError("PyTorch is not installed; gpu.py needs one with CUDA") from None
    if not torch.cuda.is_available():
        raise UsageError(f"PyTorch {torch.__version__} sees no CUDA GPU here")
    import torch.nn.attention  # noqa: F401  not imported by torch itself
    torch.set_grad_enabled(False)
    return torch


def measure_row(torch, row, sides: dict, options) -> dict:
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    inputs = gpu_inputs.make(torch, row, gpu_inputs.copies_for(row, cache))
    width = inputs.k[0].element_size()
    answer = {"row": row.row, "problem": row.problem(), "flops": inputs.attended_flops,
              "kv_bytes": width * (inputs.k[0].numel() + inputs.v[0].numel()), "kernels": {}, "refused": {}, "error": {},
              "host_seconds": {}}
    graphs, launches = {}, {}  # a launch owns memory that its graph uses
    for name, side in sides.items():
        try:
            launches[name] = launch = side.make(inputs)
            out = launch(0)
            torch.cuda.synchronize()
            error = gpu_inputs.error_of(torch, inputs, out)
            if not error <= SAME[row.dtype]:
                raise gpu_sides.Refused(f"its output is wrong: relative error {error:.1e}, accepted {SAME[row.dtype]:.0e}")
            graphs[name] = gpu_timing.capture(torch, launch, len(inputs.q))
            answer["host_seconds"][name] = gpu_timing.host_seconds(torch, launch)
        except (gpu_sides.Refused, RuntimeError, AttnmuxError) as refusal:
            graphs.pop(name, None)
            answer["refused"][name] = str(refusal).splitlines()[0] if str(refusal) else type(refusal).__name__
            continue
        answer["error"][name] = error
        if hasattr(launch, "kernel"):
            answer["kernels"][name] = launch.kernel
    answer["seconds"] = gpu_timing.rotate(torch, graphs, options.rounds, options.seconds) if graphs else {}
    answer["tflops"] = {name: inputs.attended_flops / s / 1e12 for name, s in answer["seconds"].items()}
    return answer


def measure(options) -> dict:
    rows = read_corpus(options.corpus)
    rows = [rows[number] for number in chosen(rows, options.rows)]
    library = find_library(options.library)
    torch = load_torch()
    backends = options.backend or ["native"]
    sides = {name: gpu_sides.Attnmux(torch, str(library), name) for name in backends}
    sides.update(gpu_sides.peers(torch, options.peers, options.peer))
    version = next(iter(sides.values())).library.version()
    device = torch.cuda.get_device_properties(0)
    results = {"gpu": device.name, "multiprocessors": device.multi_processor_count, "driver": driver_version(),
               "versions": {"attnmux": version, "pytorch": torch.__version__, "cuda": torch.version.cuda,
                            "cudnn": str(torch.backends.cudnn.version())},
               "commit": options.commit or commit(), "backends": backends, "ceilings": gpu_timing.ceilings(torch), "rows": []}
    for row in rows:
        results["rows"].append(measure_row(torch, row, sides, options))
        torch.cuda.empty_cache()
        if options.json and options.json != "-":  # a run that is cut short leaves what it has
            write_to(options.json, lambda stream: write_json(stream, results))
    return results


def driver_version() -> str:
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as stream:
            return next(word for word in stream.readline().split() if word[0].isdigit() and "." in word)
    except (OSError, StopIteration):
        return "unknown"


def main(arguments: list) -> int:
    options = parse(arguments)
    try:
        if options.plot:
            import matplotlib  # noqa: F401  missed before the measuring, not after it
        bars = gpu_report.read_bars(options.bars)
        results = measure(options)
        terminal = sys.stderr if "-" in (options.json, options.csv) else sys.stdout
        top = ", ".join(f"{name} {value:.0f}" for name, value in results["ceilings"].items())
        print(f"{results['gpu']}, {top}; ratios: more is better\n{gpu_report.text(results, bars)}", file=terminal)
        if options.json == "-":
            write_json(sys.stdout, results)
        if options.csv:
            write_to(options.csv, lambda stream: gpu_report.write_csv(stream, results))
        if options.plot:
            gpu_report.write_plots(options.plot, results)
    except ImportError as error:
        print(f"gpu.py: --plot: {error.name} is not installed: pip install -r benchmarks/requirements.txt", file=sys.stderr)
        return 1
    except (CorpusError, UsageError, AttnmuxError, ValueError, OSError) as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
