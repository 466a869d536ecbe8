# SPDX-License-Identifier: Apache-2.0
"""Ratios, bars, tables, CSV and plots of GPU results. A figure is SIDE/OTHER, speeds as a ratio, more is better; OTHER is a
peer, `best` (the fastest peer), `beside` (the row named beside it, per FLOP), `copy` (bytes of K and V per second, of the
copy ceiling), `fp8_product` (FLOPs of e4m3 rows, of a matrix product on such numbers), `tflops` (TFLOP/s as they are)."""
from __future__ import annotations

import csv
import fnmatch
import pathlib

BAR_COLUMNS = ["row", "figure", "at_least", "aim"]
DEFAULT_BARS = pathlib.Path(__file__).resolve().parent / "bars_gpu.csv"


def is_peer(name: str, results: dict) -> bool:
    return name not in results["backends"]


def figures(row: dict, results: dict) -> dict:
    seconds = row["seconds"]
    ratios = {}
    peers = {name: s for name, s in seconds.items() if is_peer(name, results)}
    for name in results["backends"]:
        if name not in seconds:
            continue
        for peer, other in peers.items():
            ratios[f"{name}/{peer}"] = other / seconds[name]
        if peers:
            ratios[f"{name}/best"] = min(peers.values()) / seconds[name]
        ratios[f"{name}/copy"] = row["kv_bytes"] / seconds[name] / 1e9 / results["ceilings"]["copy_gbytes_per_second"]
        ratios[f"{name}/tflops"] = row["tflops"][name]
        if row["problem"].get("dtype") == "e4m3" and "fp8_product_tflops" in results["ceilings"]:
            ratios[f"{name}/fp8_product"] = row["tflops"][name] / results["ceilings"]["fp8_product_tflops"]
        for other in results["rows"]:
            if other["row"] == row["problem"].get("beside") and name in other["tflops"]:
                ratios[f"{name}/beside"] = row["tflops"][name] / other["tflops"][name]
    return ratios


def read_bars(file=DEFAULT_BARS) -> list:
    with open(file, encoding="utf-8", newline="") as stream:
        bars = list(csv.DictReader(stream))
    for number, bar in enumerate(bars, 2):
        if list(bar) != BAR_COLUMNS or bar["figure"].count("/") != 1:
            raise ValueError(f"{file}, line {number}: {bar}; accepted: the columns {','.join(BAR_COLUMNS)}, with figure as "
                             "BACKEND/OTHER")
        bar["at_least"], bar["aim"] = float(bar["at_least"]), float(bar["aim"]) if bar["aim"] else None
    return bars


def judged(results: dict, bars: list) -> list:
    """(row, figure, value or None, bar, verdict) of every bar whose backend was asked for."""
    answer = []
    for row in results["rows"]:
        own = figures(row, results)
        for bar in bars:
            if not fnmatch.fnmatchcase(row["row"], bar["row"]) or bar["figure"].split("/")[0] not in results["backends"]:
                continue
            value = own.get(bar["figure"])
            verdict = "not measured" if value is None else "pass" if value >= bar["at_least"] else "short"
            answer.append((row, bar["figure"], value, bar, verdict))
    return answer


def text(results: dict, bars: list) -> str:
    """Ratios to the peers first, then TFLOP/s, then what the host pays."""
    peers = list(dict.fromkeys(name for row in results["rows"] for name in row["seconds"] if is_peer(name, results)))
    table = [["row", "backend", "kernel", *(f"/ {peer}" for peer in peers), "TFLOP/s", "host us", "error"]]
    for row in results["rows"]:
        ratios = figures(row, results)
        for name in results["backends"]:
            if name not in row["seconds"]:
                table.append([row["row"], name, "refused: " + row["refused"].get(name, "")[:60]] + [""] * (len(peers) + 3))
                continue
            table.append([row["row"], name, row["kernels"][name],
                          *(f"{ratios[f'{name}/{p}']:.2f}" if f"{name}/{p}" in ratios else "-" for p in peers),
                          f"{row['tflops'][name]:.0f}", f"{row['host_seconds'][name] * 1e6:.1f}", f"{row['error'][name]:.1e}"])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
    counts = {"pass": 0, "short": 0, "not measured": 0}
    for row, figure, value, bar, verdict in judged(results, bars):
        counts[verdict] += 1
        if verdict == "short":
            lines.append(f"short: {row['row']} {figure} {value:.3f}, bar {bar['at_least']:g}")
    lines.append(f"bars: {counts['pass']} passed, {counts['short']} fall short, {counts['not measured']} not measured")
    return "\n".join(lines)


def write_csv(stream, results: dict) -> None:
    writer = csv.writer(stream)
    writer.writerow(["row", "problem", "side", "seconds", "tflops", "host_seconds", "error"])
    for row in results["rows"]:
        problem = " ".join(f"{k}={v}" for k, v in row["problem"].items())
        for name, seconds in row["seconds"].items():
            writer.writerow([row["row"], problem, name, seconds, row["tflops"][name],
                             row["host_seconds"][name], row["error"][name]])


def write_plots(file: str, results: dict) -> list:
    """One plot per family (the part of the rows' names before the first '_'), beside each other as FILE-FAMILY.EXT."""
    from matplotlib.figure import Figure
    path, written = pathlib.Path(file), []
    for family in dict.fromkeys(row["row"].split("_")[0] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["row"].split("_")[0] == family]
        sides = list(dict.fromkeys(name for row in rows for name in row["tflops"]))
        figure = Figure(figsize=(2 + 1.1 * len(rows), 4), layout="constrained")
        axes = figure.subplots()
        for number, side in enumerate(sides):
            at = [i + (number - len(sides) / 2) * 0.8 / len(sides) for i in range(len(rows))]
            axes.bar(at, [row["tflops"].get(side, 0) for row in rows], 0.8 / len(sides), align="edge", label=side)
        axes.set_xticks(range(len(rows)), [row["row"] for row in rows], rotation=30, ha="right")
        axes.set_ylabel("TFLOP/s")
        axes.set_title(f"{results['gpu']}: {family}")
        axes.legend(fontsize="small")
        written.append(path.with_name(f"{path.stem}-{family}{path.suffix}"))
        figure.savefig(written[-1])
    return written
