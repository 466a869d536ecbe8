#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times attnmux on this CPU beside PyTorch's SDPA, OpenVINO's SDPA, an unfused softmax(QKᵀ)V and the instruction peaks.

    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON
    cmake --build build --target attnmux attnmux_peaks
    python3 -m venv bench-venv && bench-venv/bin/pip install -r benchmarks/requirements.txt
    bench-venv/bin/python benchmarks/cpu.py --json result.json
    bench-venv/bin/python benchmarks/cpu.py --rows 'd128_*' --processes 1 --seconds 0.3      # a quick look
    bench-venv/bin/python benchmarks/cpu.py --isa avx2 --rows '*_fp32'                       # all sides capped
    python3 benchmarks/cpu.py --threads 2 --peers none                                       # scaling; needs no package

In a process all sides of a row read the same tensors and take turns; a figure is the median of its rounds, and over the
processes the median of those. Ratios count, absolute figures move with the machine. FLOPs are 2·(D + Dv) per attended
(query, key) pair, counted exactly. A corpus is a CSV file with the columns row,B,Sq,Skv,Hq,Hkv,D,Dv,dtype,causal,window,
key_lengths,mask: causal empty, top_left or bottom_right; window LEFT:RIGHT, -1 is unlimited (LEFT:RIGHT:ALIGNMENT where
the alignment matters and causal names none); key_lengths a:b:…, one per batch entry; mask empty, padding (the second half
of the keys), dense or bias (random, shared by the heads), dense_heads or bias_heads (one per head). More columns, as one
likes: softcap, dropout, cache (cold: K and V come from memory in every call), beside (the row to be compared with).
"""
from __future__ import annotations

import argparse
import fnmatch
import json
import os
import pathlib
import subprocess
import sys

import report
from corpus import CorpusError, read_corpus
from peers import PEERS

HERE = pathlib.Path(__file__).resolve().parent
ISAS = ["baseline", "avx2", "avx512", "avx512_bf16", "amx"]

# What keeps a peer to an instruction set. ATEN_… is PyTorch's own kernels, ONEDNN_… its matrix products and OpenVINO,
# MKL_… the other matrix products of PyTorch.
CAPS = {
    "baseline": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "avx512_bf16": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
                    "MKL_ENABLE_INSTRUCTIONS": "AVX512_E3"},
    "amx": {},
}


class UsageError(Exception):
    pass


def find_library(given: str | None) -> pathlib.Path:
    if given:
        path = pathlib.Path(given)
        if not path.is_file():
            raise UsageError(f"--library: {given} is not a file; accepted: the path of a libattnmux.so")
        return path.resolve()
    found = sorted(HERE.parent.glob("build*/lib/libattnmux.so"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(f"there is no build*/lib/libattnmux.so in {HERE.parent}; build it, or name one with --library:\n"
                         "  cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON\n"
                         "  cmake --build build --target attnmux attnmux_peaks")
    return found[-1]


def find_peaks(given: str | None, library: pathlib.Path) -> pathlib.Path | None:
    if given:
        path = pathlib.Path(given)
        if not path.is_file():
            raise UsageError(f"--peaks: {given} is not a file; accepted: the path of a libattnmux_peaks.so")
        return path.resolve()
    path = library.parent / "libattnmux_peaks.so"
    if path.is_file():
        return path
    print(f"cpu.py: no instruction peaks, since there is no {path}: build the target attnmux_peaks", file=sys.stderr)
    return None


def commit() -> str:
    def git(*arguments):
        return subprocess.run(["git", "-C", HERE, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(isa: str | None, threads: int) -> dict:
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if isa:
        variables.update(CAPS[isa], ATTNMUX_MAX_CPU_ISA=isa)
    return variables


def run_process(spec: dict, variables: dict, label: str, names: list) -> tuple:
    """What one process says of itself and of every row."""
    lines = []
    with subprocess.Popen([sys.executable, HERE / "measure.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=variables) as process:
        process.stdin.write(json.dumps(spec))
        process.stdin.close()
        for line in process.stdout:
            lines.append(json.loads(line))
            if "error" in lines[-1]:
                raise UsageError(lines[-1]["error"])
            if sys.stderr.isatty():
                print(f"\r\33[K{label}: {[*names, 'done'][len(lines) - 1]}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\33[K", end="", file=sys.stderr)
    if process.returncode != 0 or len(lines) != 1 + len(spec["rows"]):
        raise UsageError(f"a measuring process ended with code {process.returncode} after {max(0, len(lines) - 1)} of "
                         f"{len(spec['rows'])} rows; what it said stands above")
    return lines[0], lines[1:]


def integer(least: int):
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}'; accepted: an integer of at least {least}")
        return int(text)

    return parse


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}'; accepted: seconds, 0 to 3600")
    return value


def peer_list(text: str) -> list:
    if text == "none":
        return []
    words = text.split(",")
    if any(word not in PEERS for word in words):
        raise argparse.ArgumentTypeError(f"'{text}'; accepted: none, or of {', '.join(PEERS)} with commas between them")
    return words


def parse(arguments: list) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="cpu.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--library", metavar="PATH", help="libattnmux.so; default: the newest build*/lib/libattnmux.so")
    parser.add_argument("--peaks", metavar="PATH", help="libattnmux_peaks.so; default: the one beside the library")
    parser.add_argument("--corpus", metavar="FILE", default=str(HERE / "corpus_cpu.csv"), help="default: %(default)s")
    parser.add_argument("--bars", metavar="FILE", default=str(report.DEFAULT_BARS), help="default: %(default)s")
    parser.add_argument("--rows", metavar="GLOB", action="append", help="rows whose name matches; may be repeated")
    parser.add_argument("--processes", type=integer(1), default=5, help="default: %(default)s")
    parser.add_argument("--rounds", type=integer(1), default=7, help="at least so many per process; default: %(default)s")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="per side, row and process; default: %(default)s")
    parser.add_argument("--threads", type=integer(1), default=1, help="of every side; default: %(default)s")
    parser.add_argument("--isa", choices=ISAS, help="cap attnmux and the peers to this instruction set")
    parser.add_argument("--peers", type=peer_list, default=list(PEERS),
                        help=f"none, or some of {','.join(PEERS)}; default: all")
    parser.add_argument("--backend", default="native", help="default: %(default)s")
    parser.add_argument("--kernel", metavar="NAME", help="one kernel of the backend")
    parser.add_argument("--json", metavar="FILE", help="the results; - is standard output")
    parser.add_argument("--csv", metavar="FILE", help="the results as a table; - is standard output")
    parser.add_argument("--plot", metavar="FILE", help="GFLOP/s as bars (.png, .svg, .pdf); needs matplotlib")
    return parser.parse_args(arguments)


def chosen(rows: list, globs: list | None) -> list:
    """Indices of the rows that a glob matches; all where there is none."""
    for glob in globs or []:
        if not any(fnmatch.fnmatchcase(row.row, glob) for row in rows):
            raise UsageError(f"--rows: '{glob}' matches no row; there are: {', '.join(row.row for row in rows)}")
    return [i for i, row in enumerate(rows) if not globs or any(fnmatch.fnmatchcase(row.row, glob) for glob in globs)]


def measure(options: argparse.Namespace):
    """Yields the results after every process, so that a run that is cut short leaves what it has."""
    rows = read_corpus(options.corpus)
    numbers = chosen(rows, options.rows)
    rows = [rows[number] for number in numbers]
    for row in rows:
        if row.packed:
            raise UsageError(f"--corpus: row {row.row} is packed, which only benchmarks/gpu.py times; leave it out with --rows")
    library = find_library(options.library)
    peaks = find_peaks(options.peaks, library)
    spec = {"library": str(library), "peaks": str(peaks) if peaks else None, "backend": options.backend,
            "kernel": options.kernel, "corpus": os.path.abspath(options.corpus), "threads": options.threads,
            "peers": options.peers, "rounds": options.rounds, "seconds": options.seconds, "rows": numbers}
    variables = environment(options.isa, options.threads)
    built_from, measured = commit(), []  # per process, per row
    for number in range(options.processes):
        label = f"process {number + 1} of {options.processes}"
        about, answers = run_process(spec, variables, label, [row.row for row in rows])
        if number == 0:
            for name, reason in about["missing"].items():
                print(f"cpu.py: {name} is not measured: {reason}", file=sys.stderr)
        measured.append(answers)
        yield {"cpu": about["cpu"], "isa": about["isa"], "isa_cap": options.isa, "threads": options.threads,
               "processes": len(measured), "peers": options.peers, "versions": about["versions"],
               "missing": about["missing"], "commit": built_from,
               "peak_gflops": {name: flops / 1e9 for name, flops in about["peaks"].items()},
               "rows": [report.sum_up(row, list(own), bool(options.peers)) for row, own in zip(rows, zip(*measured))]}


def write_to(file: str, write) -> None:
    if file == "-":
        write(sys.stdout)
        return
    with open(file, "w", encoding="utf-8", newline="") as stream:
        write(stream)


def write_json(stream, results: dict) -> None:
    stream.write(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def main(arguments: list) -> int:
    options = parse(arguments)
    try:
        if options.plot:
            import matplotlib  # noqa: F401  missed before the measuring, not after it
        bars = report.read_bars(options.bars)
        for results in measure(options):
            if options.json and options.json != "-":
                write_to(options.json, lambda stream, results=results: write_json(stream, results))
        terminal = sys.stderr if "-" in (options.json, options.csv) else sys.stdout
        counts = report.verdicts(results, bars)
        print(f"{results['cpu']}, {results['isa']}, {results['threads']} thread(s), median of {results['processes']} "
              f"process(es); ratios: more is better\n{report.text_table(results, bars)}\nbars: {counts['pass']} passed, "
              f"{counts['short']} fall short, {counts['not measured']} not measured", file=terminal)
        if options.json == "-":
            write_json(sys.stdout, results)
        if options.csv:
            write_to(options.csv, lambda stream: report.write_csv(stream, results))
        if options.plot:
            report.write_plot(options.plot, results)
        unequal = [row["row"] for row in results["rows"] if row.get("bitwise_equal_to_one_thread") is False]
        if unequal:
            raise UsageError(f"with {options.threads} threads the output differs from one thread's: {', '.join(unequal)}")
    except ImportError as error:
        print(f"cpu.py: --plot: {error.name} is not installed: pip install -r benchmarks/requirements.txt", file=sys.stderr)
        return 1
    except (CorpusError, UsageError, ValueError, OSError) as error:
        print(f"cpu.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
