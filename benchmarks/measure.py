# SPDX-License-Identifier: Apache-2.0
"""One process of a benchmark: reads what to do as JSON from standard input, times row by row, all sides of a row taking
turns, and writes one line of JSON per row. benchmarks/cpu.py starts it and sums up; nobody else needs to."""
from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time

import attnmux_ctypes as abi
import inputs as memory
import peers
from corpus import Row, beside, read_corpus
from peaks import PEAK_OF, SHORT, Peaks

COLD_AT_LEAST = 4  # times the last level cache, between two uses of the same K and V
SHORTEST = 300e-6  # seconds of a sample; shorter calls are repeated within it
PATIENCE = 4  # a peer that used so many times its share of time ends early, after a sample at least
OURS = ("attnmux", "attnmux_one_thread", "beside")  # never end early
LONG = 0.1  # seconds that a sample of the peak takes at most
FALLBACK_L3 = 32 << 20


class Inputs:
    """The buffers of one row."""

    def __init__(self, row: Row, l3_bytes: int):
        self.q = memory.normal(row.dtype, (row.B, row.Hq, row.Sq, row.D), 1, 1)[0]
        self.out = memory.Buffer(row.dtype, (row.B, row.Hq, row.Sq, row.Dv), 7)
        shapes = [(row.B, row.Hkv, row.Skv, d) for d in (row.D, row.Dv)]
        self.kv_bytes = sum(math.prod(shape) for shape in shapes) * abi.BYTES[row.dtype]
        copies = 1
        if row.cache == "cold":
            copies = 1 + math.ceil(COLD_AT_LEAST * l3_bytes / self.kv_bytes)
        self.ks, self.vs = (memory.normal(row.dtype, shape, seed, skew, copies)
                            for shape, seed, skew in zip(shapes, (2, 3), (3, 5)))
        self.mask = None
        if row.mask == "padding":
            data = b"".join(b"\1" * n + b"\0" * (row.Skv - n) for n in row.padded_lengths())
            self.mask = memory.Buffer("bool", (row.B, row.Skv), 9).write(data)
        elif row.mask:
            heads = row.Hq if row.mask.endswith("_heads") else 1
            shape = (1, heads, row.Sq, row.Skv)
            self.mask = (memory.normal(row.dtype, shape, 4, 9)[0] if row.mask.startswith("bias")
                         else memory.coin_flips(shape, 4, 9))
        self.lengths = None
        if row.key_lengths:
            self.lengths = memory.Buffer("int32", (row.B,), 11)
            self.lengths.write(b"".join(n.to_bytes(4, "little") for n in row.key_lengths))

    def options(self, row: Row) -> abi.Options:
        o = abi.Options()
        if row.causal:
            o.set |= abi.CAUSAL
            o.causal_align = abi.ALIGNMENTS[row.causal]
        if row.window:
            o.set |= abi.WINDOW
            o.window_left, o.window_right = row.window
            o.window_align = abi.ALIGNMENTS[row.window_align]
        if self.lengths is not None:
            o.set |= abi.KEY_LENGTHS
            o.key_lengths = self.lengths.view()
        if row.mask:
            kind, field = {"padding": (abi.KEY_PADDING, "key_padding"), "dense": (abi.DENSE, "dense_mask"),
                           "bias": (abi.BIAS, "bias")}[row.mask.split("_")[0]]
            o.set |= kind
            setattr(o, field, self.mask.view())
        if row.softcap:
            o.set |= abi.SOFTCAP
            o.softcap = row.softcap
        if row.dropout:
            o.set |= abi.DROPOUT
            o.dropout_p, o.dropout_seed = row.dropout, 42
        return o


class Bench:
    def __init__(self, spec: dict):
        self.spec, self.threads = spec, spec["threads"]
        self.library = abi.Library(spec["library"], spec["backend"], spec["kernel"])
        self.machine = self.library.describe(abi.DESCRIBE_MACHINE)
        self.l3_bytes = self.machine["l3_bytes"] or FALLBACK_L3
        self.peaks = Peaks(spec["peaks"]) if spec["peaks"] else None
        self.rows = read_corpus(spec["corpus"])
        self.missing, self.torch, self.openvino = {}, None, None
        wanted = spec["peers"]
        if "pytorch" in wanted or "unfused" in wanted:
            self.torch = self._peer(peers.Torch, [name for name in ("pytorch", "unfused") if name in wanted])
        if "openvino" in wanted:
            self.openvino = self._peer(peers.OpenVino, ["openvino"])

    def _peer(self, kind, names: list):
        try:
            return kind(self.threads)
        except peers.Unavailable as reason:
            self.missing.update({name: str(reason) for name in names})
            return None

    def about(self) -> dict:
        versions = {"attnmux": self.library.version(), "python": sys.version.split()[0]}
        if self.torch:
            versions["pytorch"] = self.torch.version()
        if self.openvino:
            versions["openvino"] = self.openvino.version()
        peaks = {}
        for name in self.peaks.index if self.peaks else ():
            peaks[name] = statistics.median(self.peaks.flops_per_second(name, self.threads) for _ in range(7))
        return {"cpu": self.machine["cpu"], "isa": self.machine["isa"], "l3_bytes": self.l3_bytes, "versions": versions,
                "missing": self.missing, "peaks": peaks}

    def ours(self, row: Row, given: Inputs, threads: int):
        """(the kernel's name, a function of the index of the copy of K and V)."""
        prepared = [self.library.prepare(given.q.bshd(), k.bshd(), v.bshd(), given.out.bshd(), given.options(row), threads)
                    for k, v in zip(given.ks, given.vs)]
        calls = [call for _, call in prepared]
        return prepared[0][0], (lambda i, _kept=given: calls[i]())  # the views of the calls hold no memory

    def sides(self, row: Row, given: Inputs, answer: dict) -> dict:
        """All that is timed for a row: name → function of the index of the copy of K and V."""
        answer["kernel"], ours = self.ours(row, given, self.threads)
        result = {"attnmux": ours}
        if self.threads > 1:
            single = self.ours(row, given, 1)[1]
            single(0)
            expected = given.out.read()
            ours(0)
            answer["bitwise_equal_to_one_thread"] = expected == given.out.read()
            result["attnmux_one_thread"] = single
        ours(0)
        for name, build in [("pytorch", self._pytorch), ("openvino_f32_typed", self._openvino("fp32")),
                            ("openvino_bf16_typed", self._openvino("bf16")), ("unfused", self._unfused)]:
            try:
                made = build(row, given)
            except peers.Unavailable as reason:
                answer["refused"][name] = str(reason)
                continue
            if made is None:
                continue
            run, output = made
            run(0)
            apart = peers.difference(self._floats(given.out), output())
            accepted = peers.SAME[row.dtype]
            if not apart <= accepted:
                answer["refused"][name] = f"its output differs by {apart:.2g} of the largest; accepted: {accepted}"
                continue
            answer["difference"][name] = apart
            result[name] = run
        if row.beside:
            other = beside(self.rows, row)
            result["beside"] = self.ours(other, Inputs(other, self.l3_bytes), self.threads)[1]
        return result

    def _floats(self, buffer):
        if self.torch:
            return self.torch.floats(self.torch.view(buffer))
        return self.openvino.floats(self.openvino.tensor(buffer, buffer.dtype))

    def _of_torch(self, run):
        last = []

        def keep(i):
            last[:] = [run(i)]

        return keep, lambda: self.torch.floats(last[0])

    def _pytorch(self, row, given):
        return self._of_torch(self.torch.sdpa(row, given)) if self.torch and "pytorch" in self.spec["peers"] else None

    def _unfused(self, row, given):
        return self._of_torch(self.torch.unfused(row, given)) if self.torch and "unfused" in self.spec["peers"] else None

    def _openvino(self, typed):
        def build(row, given):
            if self.openvino is None or (typed == "bf16" and row.dtype != "bf16"):
                return None
            return self.openvino.sdpa(row, given, typed)

        return build

    def measure(self, row: Row) -> dict:
        given = Inputs(row, self.l3_bytes)
        answer = {"row": row.row, "refused": {}, "difference": {}, "kv_bytes": given.kv_bytes}
        answer["flops"] = row.flops(given.mask.read() if row.mask.startswith("dense") else None)
        if row.beside:
            other = beside(self.rows, row)
            dense = Inputs(other, self.l3_bytes).mask.read() if other.mask.startswith("dense") else None
            answer["beside_flops"] = other.flops(dense)
        sides = self.sides(row, given, answer)
        isa = next((name for name in sorted(PEAK_OF, key=len, reverse=True) if answer["kernel"].endswith("_" + name)),
                   self.machine["isa"])
        peak = PEAK_OF.get(isa, {}).get(row.dtype)
        if self.peaks is None or peak not in self.peaks.index:
            peak = None
        answer["peak"] = peak
        clock = Clock(sides, len(given.ks), PATIENCE * max(self.spec["seconds"], 0.1))
        peak_rates, read_times = {}, []
        rounds, begin = 0, time.perf_counter()
        budget = self.spec["seconds"] * len(sides)
        while rounds < self.spec["rounds"] or time.perf_counter() - begin < budget:
            clock.round(rounds)
            for threads in sorted({1, self.threads}) if peak else ():
                # As long as the row itself: on a busy machine both are then disturbed alike.
                seconds = min(max(SHORT, clock.times["attnmux"][-1]), LONG)
                peak_rates.setdefault(threads, []).append(self.peaks.flops_per_second(peak, threads, seconds))
            if self.peaks and row.cache == "cold":
                i = clock.next_copy()
                read_times.append(sum(self.peaks.read_seconds(x.address, x.nbytes // 1024 * 1024, self.threads)
                                      for x in (given.ks[i], given.vs[i])))
            rounds += 1
        answer["rounds"] = rounds
        answer["seconds"] = {name: statistics.median(times) for name, times in clock.times.items()}
        rates = {threads: statistics.median(values) for threads, values in peak_rates.items()}
        if peak:
            answer["peak_flops"], answer["peak_flops_one_thread"] = rates[self.threads], rates[1]
        if read_times:
            answer["seconds"]["read"] = statistics.median(read_times)
        return answer


class Clock:
    """Lets the sides take turns. Every call takes the next copy of K and V, whoever calls, so that with enough copies
    none finds its keys in a cache."""

    def __init__(self, sides: dict, copies: int, most_seconds: float):
        self.sides, self.copies, self.copy, self.most_seconds = list(sides.items()), copies, 0, most_seconds
        self.times = {name: [] for name in sides}
        self.repeats = {}
        for name, run in self.sides:
            taken = self._sample(run, 1)
            if taken < self.most_seconds:  # else warm enough
                taken = self._sample(run, 1)
            self.repeats[name] = max(1, math.ceil(SHORTEST / max(1e-9, taken)))

    def next_copy(self) -> int:
        self.copy = (self.copy + 1) % self.copies
        return self.copy

    def _sample(self, run, repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            run(self.next_copy())
        return (time.perf_counter() - begin) / repeats

    def round(self, number: int) -> None:
        """One sample of each; the one that begins changes, so that nobody always runs after the same neighbour."""
        for j in range(len(self.sides)):
            name, run = self.sides[(j + number) % len(self.sides)]
            if name not in OURS and sum(self.times[name]) * self.repeats[name] > self.most_seconds:
                continue
            self.times[name].append(self._sample(run, self.repeats[name]))


def main() -> None:
    spec = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints must not be taken for results
    try:
        bench = Bench(spec)
        print(json.dumps(bench.about()), file=out, flush=True)
        for number in spec["rows"]:
            print(json.dumps(bench.measure(bench.rows[number])), file=out, flush=True)
    except abi.AttnmuxError as error:
        print(json.dumps({"error": str(error)}), file=out, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
