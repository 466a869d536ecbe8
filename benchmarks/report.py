# SPDX-License-Identifier: Apache-2.0
"""Sums up the processes of a benchmark, holds the ratios to the bars, and writes tables, CSV and a plot."""
from __future__ import annotations

import csv
import fnmatch
import pathlib
import statistics

from peers import PEERS

# Ratios, all so that more is better. Names of the columns in tables, and what they are.
FIGURES = {
    "openvino": ("/ OpenVINO", "speed relative to OpenVINO's SDPA"),
    "pytorch": ("/ PyTorch", "speed relative to PyTorch's SDPA"),
    "unfused": ("/ unfused", "speed relative to matrix product, softmax, matrix product in PyTorch"),
    "peak": ("of peak", "share of the instruction peak of the same rounds"),
    "bandwidth": ("of read", "share of the bandwidth of a plain read loop over the same keys and values"),
    "beside_seconds": ("/ beside", "time of the row named beside it, divided by this row's"),
    "beside_gflops": ("/ beside, per FLOP", "GFLOP/s relative to the row named beside it"),
    "scaling": ("scaling", "time of one thread divided by the time of all"),
    "scaling_of_peak": ("of peak's scaling", "scaling relative to that of the instruction peak"),
}
BAR_COLUMNS = ["row", "dtype", "isa", "figure", "at_least", "aim"]
DEFAULT_BARS = pathlib.Path(__file__).resolve().parent / "bars_cpu.csv"


def figures(one: dict, with_peers: bool) -> dict:
    """The ratios of one row in one process."""
    seconds = one["seconds"]
    ours = seconds["attnmux"]
    ratios = {name: seconds[name] / ours for name in ("openvino", "pytorch", "unfused") if name in seconds}
    if one.get("peak"):
        ratios["peak"] = one["flops"] / ours / one["peak_flops"]
    if "read" in seconds:
        ratios["bandwidth"] = seconds["read"] / ours
    if "beside" in seconds:
        ratios["beside_seconds"] = seconds["beside"] / ours
        ratios["beside_gflops"] = one["flops"] / ours / (one["beside_flops"] / seconds["beside"])
    if "attnmux_one_thread" in seconds:
        ratios["scaling"] = seconds["attnmux_one_thread"] / ours
        if one.get("peak") and not with_peers:  # peers' threads in the process would spin against ours
            ratios["scaling_of_peak"] = ratios["scaling"] / (one["peak_flops"] / one["peak_flops_one_thread"])
    return ratios


def sum_up(row, processes: list, with_peers: bool) -> dict:
    """One row of the results from what each process measured for it: medians over the processes."""
    for one in processes:
        typed = [s for name, s in one["seconds"].items() if name.startswith("openvino_")]
        if typed:
            one["seconds"]["openvino"] = min(typed)
    first = processes[0]
    median = statistics.median

    def over(pick):
        return {name: median(pick(one)[name] for one in processes if name in pick(one))
                for name in dict.fromkeys(name for one in processes for name in pick(one))}

    result = {"row": row.row, "problem": row.problem(), "kernel": first["kernel"], "flops": first["flops"]}
    result["ratios"] = over(lambda one: figures(one, with_peers))
    result["seconds"] = over(lambda one: one["seconds"])
    flops_of = {name: first["beside_flops"] if name == "beside" else first["flops"]
                for name in result["seconds"] if name != "read"}
    result["gflops"] = {name: flops / result["seconds"][name] / 1e9 for name, flops in flops_of.items()}
    if first["peak"]:
        result["peak"] = first["peak"]
        result["gflops"]["peak"] = median(one["peak_flops"] for one in processes) / 1e9
    if "read" in result["seconds"]:
        result["gbytes_per_second"] = {name: first["kv_bytes"] / result["seconds"][name] / 1e9
                                       for name in ("attnmux", "read")}
    result["rounds"] = sum(one["rounds"] for one in processes)
    result["difference"] = {name: max(one["difference"].get(name, 0) for one in processes) for name in first["difference"]}
    result["refused"] = first["refused"]
    if "bitwise_equal_to_one_thread" in first:
        result["bitwise_equal_to_one_thread"] = all(one["bitwise_equal_to_one_thread"] for one in processes)
    return result


def read_bars(file=DEFAULT_BARS) -> list:
    with open(file, encoding="utf-8", newline="") as stream:
        bars = list(csv.DictReader(stream))
    for number, bar in enumerate(bars, 2):
        if list(bar) != BAR_COLUMNS or bar["figure"] not in FIGURES:
            raise ValueError(f"{file}, line {number}: {bar}; accepted: the columns {','.join(BAR_COLUMNS)}, with figure one "
                             f"of {', '.join(FIGURES)}")
        bar["at_least"], bar["aim"] = float(bar["at_least"]), float(bar["aim"]) if bar["aim"] else None
    return bars


def bars_of(row: dict, isa: str, bars: list) -> dict:
    """figure → bar for one row of the results; a bar of another dtype or instruction set is none."""
    def among(words, word):
        return words == "*" or word in words.split()

    return {bar["figure"]: bar for bar in bars if fnmatch.fnmatchcase(row["row"], bar["row"])
            and among(bar["dtype"], row["problem"]["dtype"]) and among(bar["isa"], isa)}


def judge(value, bar) -> str:
    """'', 'pass', 'short' or 'not measured'. What is shown rounded is judged unrounded."""
    if bar is None:
        return ""
    if value is None:
        return "not measured"
    return "pass" if value >= bar["at_least"] else "short"


def judged(results: dict, bars: list) -> list:
    """(index of the row, figure, value or None, bar or None, verdict) of everything that has a value or a bar. A run of
    several threads is judged by how it scales, one of a single thread by all else; one that left the peers out, not by
    them."""
    answer = []
    for number, row in enumerate(results["rows"]):
        own = bars_of(row, results["isa"], bars)
        for figure in FIGURES:
            value, bar = row["ratios"].get(figure), own.get(figure)
            wanted = figure not in PEERS or figure in results["peers"]
            if not wanted or (figure == "scaling_of_peak") != (results["threads"] > 1):
                bar = None
            if value is not None or bar is not None:
                answer.append((number, figure, value, bar, judge(value, bar)))
    return answer


def verdicts(results: dict, bars: list) -> dict:
    counts = {"pass": 0, "short": 0, "not measured": 0}
    for *_, verdict in judged(results, bars):
        if verdict:
            counts[verdict] += 1
    return counts


def shown(value, bar) -> str:
    """Two digits, and a third where a value just below its bar would look like it."""
    if value is None:
        return "–"
    text = f"{value:.2f}"
    return f"{value:.3f}" if bar and value < bar["at_least"] <= float(text) else text


def cell(value, bar, verdict) -> str:
    if bar is None:
        return shown(value, bar)
    return f"{shown(value, bar)} {'ok' if verdict == 'pass' else verdict.upper()} {bar['at_least']:g}"


def text_table(results: dict, bars: list) -> str:
    """Ratios first, absolute figures behind them."""
    cells = {}
    for number, figure, value, bar, verdict in judged(results, bars):
        cells.setdefault(number, {})[figure] = cell(value, bar, verdict)
    columns = [f for f in FIGURES if any(f in one for one in cells.values())]
    table = [["row"] + [FIGURES[f][0] for f in columns] + ["GFLOP/s", "peak", "kernel"]]
    several = len({row["row"] for row in results["rows"]}) < len(results["rows"])
    for number, row in enumerate(results["rows"]):
        gflops = row["gflops"]
        name = f"{row['row']} {row['problem']['dtype']}" if several else row["row"]
        table.append([name] + [cells.get(number, {}).get(f, "") for f in columns] +
                     [f"{gflops['attnmux']:.1f}", f"{gflops['peak']:.0f}" if "peak" in gflops else "–", row["kernel"]])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in table)


def write_csv(file, results: dict) -> None:
    problem = list(dict.fromkeys(name for row in results["rows"] for name in row["problem"]))
    groups = [(group, list(dict.fromkeys(name for row in results["rows"] for name in row[group])))
              for group in ("ratios", "seconds", "gflops")]
    writer = csv.writer(file)
    writer.writerow(["row", *problem, "kernel", *(f"{group}.{name}" for group, names in groups for name in names)])
    for row in results["rows"]:
        writer.writerow([row["row"], *(row["problem"].get(name, "") for name in problem), row["kernel"],
                         *(row[group].get(name, "") for group, names in groups for name in names)])


def write_plot(file: str, results: dict) -> None:
    """Grouped bars, one group per row: GFLOP/s of each side and the peak as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sides = [s for s in ("attnmux", "openvino", "pytorch", "unfused") if any(s in r["gflops"] for r in results["rows"])]
    dtypes = list(dict.fromkeys(row["problem"]["dtype"] for row in results["rows"]))
    most = max(sum(row["problem"]["dtype"] == d for row in results["rows"]) for d in dtypes)
    size = (max(8, 2 + 0.6 * most), 0.6 + 3.4 * len(dtypes))
    figure, axes = plt.subplots(len(dtypes), 1, figsize=size, squeeze=False, layout="constrained")
    for dtype, axis in zip(dtypes, axes[:, 0]):
        rows = [row for row in results["rows"] if row["problem"]["dtype"] == dtype]
        for j, side in enumerate(sides):
            axis.bar([i + (j - len(sides) / 2 + 0.5) * 0.8 / len(sides) for i in range(len(rows))],
                     [row["gflops"].get(side, 0) for row in rows], 0.8 / len(sides), label=side)
        for i, row in enumerate(rows):
            if "peak" in row["gflops"]:
                label = "" if i else "instruction peak"
                axis.plot([i - 0.45, i + 0.45], [row["gflops"]["peak"]] * 2, "k--", lw=1, label=label)
        names = [row["row"].removesuffix("_" + dtype) for row in rows]
        axis.set_xticks(range(len(rows)), names, rotation=35, ha="right")
        axis.set_ylabel(f"{dtype} GFLOP/s")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    figure.suptitle(f"{results['cpu']}, {results['isa']}, {results['threads']} thread(s)")
    figure.savefig(file, dpi=120)
    plt.close(figure)
