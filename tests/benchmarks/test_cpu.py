#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests benchmarks/cpu.py with nothing but the standard library: corpus, FLOPs, bars, messages, a run of attnmux alone.

    test_cpu.py --library LIBATTNMUX.SO --peaks LIBATTNMUX_PEAKS.SO [--objdump PROGRAM]
"""
import argparse
import csv
import fnmatch
import io
import json
import math
import os
import pathlib
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import attnmux_ctypes as abi  # noqa: E402
import corpus  # noqa: E402
import inputs  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402

LIBRARY = PEAKS = OBJDUMP = None
HEAD = "row,B,Sq,Skv,Hq,Hkv,D,Dv,dtype,causal,window,key_lengths,mask,softcap,dropout,cache,beside"
NAMES = HEAD.split(",")


def line(**fields) -> str:
    plain = dict(zip(NAMES, "plain,1,8,8,2,1,16,16,fp32,,,,,,,,".split(",")))
    return ",".join(str(value) for value in {**plain, **fields}.values())


class Folder(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file_of(self, *lines, head=HEAD) -> str:
        path = self.folder / "corpus.csv"
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        return str(path)

    def row(self, **fields) -> corpus.Row:
        return corpus.read_corpus(self.file_of(line(**fields)))[0]


class Corpus(Folder):
    def test_every_column_is_read(self):
        text = ("x,2,16,24,4,2,64,32,bf16,bottom_right,-1:7,24:3,dense_heads,2.5,0.25,cold,plain")
        row, plain = corpus.read_corpus(self.file_of(text, line()))
        self.assertEqual((row.row, row.B, row.Sq, row.Skv, row.Hq, row.Hkv, row.D, row.Dv), ("x", 2, 16, 24, 4, 2, 64, 32))
        self.assertEqual((row.dtype, row.causal, row.window, row.window_align), ("bf16", "bottom_right", (-1, 7), "bottom_right"))
        self.assertEqual((row.key_lengths, row.mask, row.softcap, row.dropout), ((24, 3), "dense_heads", 2.5, 0.25))
        self.assertEqual((row.cache, row.beside, plain.cache, plain.beside), ("cold", "plain", "warm", ""))

    def test_the_columns_of_others_are_enough_and_may_stand_in_any_order(self):
        head = ",".join(reversed(corpus.COLUMNS))
        text = ",".join(reversed("plain,1,8,8,2,1,16,16,fp32,,,,".split(",")))
        self.assertEqual(corpus.read_corpus(self.file_of(text, "", head=head)), [self.row()])

    def test_wrong_values_name_file_line_column_value_and_what_is_accepted(self):
        for column, value, accepted in [
            ("row", "a\7b", "a name of"), ("row", "", "a name of"), ("B", "0", "at least 1"), ("B", "-1", "integer"),
            ("Sq", "1.5", "integer"), ("Skv", "", "integer"), ("Skv", "٣", "integer"), ("Hq", "two", "integer"),
            ("Hkv", "3", "a divisor of Hq = 2"), ("D", "0x10", "integer"), ("Dv", "9" * 30, "integer"),
            ("dtype", "fp64", "fp32, bf16, fp16"), ("dtype", "", "fp32"), ("causal", "true", "empty, top_left, bottom_right"),
            ("window", "5", "LEFT:RIGHT"), ("window", "-2:1", "-1 is unlimited"), ("window", "1:2:middle", "top_left"),
            ("key_lengths", "8:8", "B = 1 lengths"), ("key_lengths", "9", "Skv = 8"), ("key_lengths", "-1", "0 to Skv"),
            ("mask", "padded", "padding, dense"), ("softcap", "-1", "a number in [0"), ("softcap", "nan", "a number"),
            ("dropout", "1", "[0, 1)"), ("cache", "hot", "empty, warm, cold"), ("beside", "nothing", "another row"),
            ("beside", "plain", "another row"),
        ]:
            with self.subTest(column=column, value=value), self.assertRaises(corpus.CorpusError) as raised:
                self.row(**{column: value})
            message = str(raised.exception)
            for part in ("corpus.csv, line 2, ", f"column {column}:", f"'{value}'", "accepted: ", accepted):
                self.assertIn(part, message)

    def test_an_alignment_is_asked_for_where_it_matters(self):
        for fields in ({"Skv": 9, "window": "1:1"}, {"window": "1:1", "key_lengths": "5"}):
            with self.assertRaisesRegex(corpus.CorpusError, "column window.*alignment is needed"):
                self.row(**fields)
        self.assertEqual(self.row(Skv=9, window="1:1:bottom_right").window_align, "bottom_right")
        with self.assertRaisesRegex(corpus.CorpusError, "the alignment of column causal, top_left"):
            self.row(window="1:1:bottom_right", causal="top_left")

    def test_a_name_may_stand_once_per_dtype(self):
        rows = corpus.read_corpus(self.file_of(line(), line(dtype="bf16"), line(row="x", dtype="bf16", beside="plain")))
        self.assertEqual(corpus.beside(rows, rows[2]), rows[1])

    def test_wrong_files_say_what_is_wrong(self):
        for lines, head, message in [
            ([], HEAD, "no rows"), ([line()], HEAD.replace("dtype", "type"), "column 'type': unknown"),
            ([line()], HEAD.replace(",Hq", ""), "without column Hq"), ([line()], HEAD + ",B", "column B: given twice"),
            ([line() + ",7"], HEAD, "line 2: 18 fields; accepted: 17"), ([line(), line()], HEAD, "line 2 has it already"),
            (['"open'], HEAD, "line 2"),
        ]:
            with self.subTest(message), self.assertRaisesRegex(corpus.CorpusError, re.escape(message)):
                corpus.read_corpus(self.file_of(*lines, head=head))
        (self.folder / "empty.csv").write_text("")
        (self.folder / "binary.csv").write_bytes(b"\xff\xfe\x00")
        for name, message in [("empty.csv", "empty; accepted"), ("none.csv", "No such file"), ("binary.csv", "UTF-8")]:
            with self.assertRaisesRegex(corpus.CorpusError, f"{name}.*{message}"):
                corpus.read_corpus(str(self.folder / name))

    def test_the_committed_corpus_has_every_row_of_the_bars(self):
        rows = corpus.read_corpus(str(BENCHMARKS / "corpus_cpu.csv"))
        for bar in report.read_bars():
            self.assertTrue(any(fnmatch.fnmatchcase(row.row, bar["row"]) for row in rows), bar)
        for row in rows:
            self.assertTrue(row.row.endswith("_" + row.dtype), row.row)


def attends(row: corpus.Row, i: int, j: int, length: int) -> bool:
    """The contract, pair by pair (docs/numerics.md), without the random mask."""
    def position(align):
        return i + (length - row.Sq if align == "bottom_right" else 0)

    if j >= length or (row.mask == "padding" and j >= row.Skv // 2) or (row.causal and j > position(row.causal)):
        return False
    left, right = row.window or (-1, -1)
    middle = position(row.window_align)
    return (left < 0 or j >= middle - left) and (right < 0 or j <= middle + right)


class Flops(Folder):
    def test_pairs_are_counted_as_the_contract_says(self):
        counts = set()
        for causal in ("", "top_left", "bottom_right"):
            for sq, skv, lengths in [(8, 8, "8:3"), (5, 12, "0:12"), (12, 5, "5:4"), (7, 7, "")]:
                for window in ("", "2:1", "0:0", "-1:3", "4:-1"):
                    for mask in ("", "padding", "dense", "dense_heads"):
                        align = ":bottom_right" if window and not causal else ""
                        row = self.row(B=2, Sq=sq, Skv=skv, Hq=4, Hkv=2, causal=causal, key_lengths=lengths, mask=mask,
                                       window=window + align)
                        dense = heads = None
                        if mask.startswith("dense"):
                            heads = 4 if mask == "dense_heads" else 1
                            dense = inputs.coin_flips((1, heads, sq, skv), 5).read()
                        expected = sum(attends(row, i, j, length) and (dense is None or dense[(h % heads * sq + i) * skv + j])
                                       for length in row.lengths() for h in range(4) for i in range(sq) for j in range(skv))
                        self.assertEqual(row.attended(dense), expected, row)
                        self.assertEqual(row.flops(dense), 2 * (16 + 16) * expected)
                        counts.add(expected)
        self.assertGreater(len(counts), 20)

    def test_a_plain_row_counts_all(self):
        self.assertEqual(self.row(B=3, Sq=10, Skv=20, Hq=6, Hkv=2, D=64, Dv=32).flops(), 2 * 96 * 3 * 6 * 10 * 20)


def attention(row: corpus.Row, given: measure.Inputs) -> list:
    """softmax(QKᵀ)V of one row in fp32, pair by pair, in the order of the output (B, Hq, Sq, Dv)."""
    q, k, v = (struct.unpack(f"<{x.count}f", x.read()) for x in (given.q, given.ks[0], given.vs[0]))
    kind = row.mask.split("_")[0]
    mask = given.mask.read() if kind == "dense" else ()
    bias = struct.unpack(f"<{given.mask.count}f", given.mask.read()) if kind == "bias" else ()
    heads, out = row.Hq if row.mask.endswith("_heads") else 1, []
    for b, h, i in ((b, h, i) for b in range(row.B) for h in range(row.Hq) for i in range(row.Sq)):
        scores = {}
        first = (b * row.Hkv + h // (row.Hq // row.Hkv)) * row.Skv  # of the keys of this head
        for j in range(row.Skv):
            pair = (h % heads * row.Sq + i) * row.Skv + j
            if attends(row, i, j, row.lengths()[b]) and (not mask or mask[pair]):
                s = sum(q[((b * row.Hq + h) * row.Sq + i) * row.D + d] * k[(first + j) * row.D + d] for d in range(row.D))
                s /= row.D**0.5
                s = row.softcap * math.tanh(s / row.softcap) if row.softcap else s
                scores[j] = s + (bias[pair] if bias else 0)
        most = max(scores.values(), default=0)
        weights = {j: math.exp(s - most) for j, s in scores.items()}
        total = sum(weights.values()) or 1
        out += [sum(w * v[(first + j) * row.Dv + d] for j, w in weights.items()) / total for d in range(row.Dv)]
    return out


class Problems(Folder):
    def test_a_row_is_computed_as_its_columns_say(self):
        library = abi.Library(LIBRARY)
        outputs = set()
        for fields in [{}, {"Dv": 8}, {"causal": "top_left"}, {"causal": "bottom_right"}, {"window": "3:1:bottom_right"},
                       {"window": "-1:1:top_left"}, {"key_lengths": "11:4"}, {"softcap": 0.5}, {"cache": "cold"},
                       *({"mask": mask} for mask in corpus.MASKS),
                       {"mask": "dense_heads", "causal": "bottom_right", "window": "4:0", "key_lengths": "9:12"}]:
            row = self.row(**{"B": 2, "Sq": 5, "Skv": 12, "Hq": 4, "Hkv": 2, **fields})
            given = measure.Inputs(row, 1024)
            _, call = library.prepare(*(x.bshd() for x in (given.q, given.ks[-1], given.vs[-1], given.out)),
                                      given.options(row), 1)
            call()
            for ours, expected in zip(struct.unpack(f"<{given.out.count}f", given.out.read()), attention(row, given)):
                # Sums of 16 and 12 terms of size 1, each rounded to 6e-8: 1e-5 is ten times what they add up to.
                self.assertAlmostEqual(ours, expected, delta=1e-5, msg=fields)
            outputs.add(given.out.read())
        self.assertEqual(len(outputs), 14)  # all differ, but for the plain row read from a copy


class Inputs(unittest.TestCase):
    def test_rounding_without_numpy(self):
        values = [1.0, -2.5, 1 + 2**-8, 1 + 3 * 2**-8, 65504.0, 3.1415927]
        floats = struct.pack("<6f", *values)
        expected = (0x3F80, 0xC020, 0x3F80, 0x3F82, 0x4780, 0x4049)
        self.assertEqual(struct.unpack("<6H", inputs.half_words("bf16", floats)), expected)
        self.assertEqual(inputs.half_words("fp16", floats), struct.pack("<6e", *values))

    def test_values_are_fixed_and_standard_normal_with_numpy_and_without(self):
        numpy = inputs.numpy
        try:
            for installed in [None] + ([numpy] if numpy else []):
                inputs.numpy = installed
                first, second = inputs.normal("fp32", (3, 10000), 1, copies=2)
                self.assertEqual(first.read(), second.read())
                self.assertNotEqual(first.read(), inputs.normal("fp32", (3, 10000), 2)[0].read())
                values = struct.unpack("<30000f", first.read())
                self.assertAlmostEqual(statistics.fmean(values), 0, delta=0.06)  # 5 sigma of the 8191 that differ
                self.assertAlmostEqual(statistics.pstdev(values), 1, delta=0.05)
                rounded = inputs.normal("bf16", (3, 10000), 1)[0].read()
                self.assertEqual(rounded, inputs.half_words("bf16", first.read()))
        finally:
            inputs.numpy = numpy

    def test_buffers_begin_at_cache_lines_of_their_own(self):
        offsets = {inputs.Buffer("bf16", (1000,), skew).address % 4096 for skew in (1, 3, 5)}
        self.assertEqual(offsets, {64, 192, 320})

    def test_no_row_of_a_random_mask_is_empty(self):
        data = inputs.coin_flips((1, 2, 50, 40), 3).read()
        self.assertTrue(all(data[start] == 1 for start in range(0, len(data), 40)))
        self.assertAlmostEqual(data.count(1) / len(data), 7 / 8, delta=0.03)
        self.assertEqual(set(data), {0, 1})


class Bars(unittest.TestCase):
    ONE = {"kernel": "k", "flops": 1000, "beside_flops": 500, "peak": "p", "peak_flops": 4000.0, "peak_flops_one_thread": 4000.0,
           "kv_bytes": 64, "rounds": 7, "difference": {"pytorch": 0.1}, "refused": {}}
    ROW = corpus.Row("d128_2048_fp32", 1, 1, 1, 1, 1, 1, 1, "fp32")

    def process(self, ours, **others):
        return {**self.ONE, "seconds": {"attnmux": ours, **others}}

    def results(self, isa="avx512_bf16", threads=1, peers=("openvino", "pytorch"), **seconds):
        rows = [report.sum_up(self.ROW, [self.process(1.0, **seconds)], bool(peers))]
        return {"rows": rows, "isa": isa, "threads": threads, "peers": list(peers)}

    def test_a_figure_is_the_median_over_processes(self):
        row = report.sum_up(self.ROW, [self.process(1.0, pytorch=2.0, beside=1.0, read=0.5),
                                       self.process(4.0, pytorch=4.0, beside=2.0, read=1.0),
                                       self.process(2.0, pytorch=6.0, beside=3.0, read=1.5)], True)
        self.assertEqual(row["seconds"], {"attnmux": 2.0, "pytorch": 4.0, "beside": 2.0, "read": 1.0})
        self.assertEqual(row["ratios"], {"pytorch": 2.0, "peak": 0.125, "bandwidth": 0.5, "beside_seconds": 1.0,
                                         "beside_gflops": 2.0})
        self.assertEqual(row["gflops"]["pytorch"], 1000 / 4.0 / 1e9)
        self.assertEqual(row["gflops"]["beside"], 500 / 2.0 / 1e9)

    def test_openvino_is_the_faster_of_its_models(self):
        row = report.sum_up(self.ROW, [self.process(1.0, openvino_f32_typed=3.0, openvino_bf16_typed=2.0)], True)
        self.assertEqual(row["ratios"]["openvino"], 2.0)

    def test_a_bar_holds_from_its_value_on(self):
        bar = {"at_least": 1.08}
        self.assertEqual([report.judge(v, bar) for v in (1.08, 1.0799, None)], ["pass", "short", "not measured"])
        self.assertEqual(report.judge(1.0, None), "")
        self.assertEqual([report.shown(v, bar) for v in (1.0799, 1.08, 1.05)], ["1.080", "1.08", "1.05"])

    def test_bars_follow_row_dtype_and_instruction_set(self):
        bars = report.read_bars()
        verdicts = {figure: verdict for _, figure, _, _, verdict in report.judged(self.results(openvino_f32_typed=1.07), bars)}
        self.assertEqual(verdicts, {"openvino": "short", "pytorch": "not measured", "peak": "short"})
        capped = {figure: bar["at_least"] for _, figure, _, bar, _ in report.judged(self.results(isa="avx2"), bars) if bar}
        self.assertEqual(capped, {"pytorch": 1.2, "peak": 0.85})
        alone = {figure for _, figure, _, bar, _ in report.judged(self.results(peers=()), bars) if bar}
        self.assertEqual(alone, {"peak"})

    def test_threads_are_judged_by_scaling_and_only_without_peers(self):
        bars = report.read_bars()
        alone = report.judged(self.results(threads=2, peers=(), attnmux_one_thread=1.9), bars)
        self.assertEqual([(one[1], one[4]) for one in alone if one[3]], [("scaling_of_peak", "pass")])
        beside = report.judged(self.results(threads=2, attnmux_one_thread=1.9), bars)
        self.assertEqual([(one[1], one[4]) for one in beside if one[3]], [("scaling_of_peak", "not measured")])

    def test_csv_has_a_column_per_figure(self):
        text = io.StringIO()
        report.write_csv(text, self.results(pytorch=3.0))
        (row,) = csv.DictReader(io.StringIO(text.getvalue()))
        self.assertEqual([row[name] for name in ("row", "dtype", "ratios.pytorch", "seconds.pytorch")],
                         ["d128_2048_fp32", "fp32", "3.0", "3.0"])


class Run(Folder):
    """The script as its user runs it, where neither numpy nor any peer is installed."""

    def cpu(self, *arguments):
        for name in ("numpy", "torch", "openvino", "matplotlib"):
            (self.folder / f"{name}.py").write_text(f"raise ImportError('hidden by the test', name='{name}')\n")
        variables = {k: v for k, v in os.environ.items() if not k.startswith("ATTNMUX_")}
        variables.update(PYTHONPATH=str(self.folder), PYTHONDONTWRITEBYTECODE="1")
        return subprocess.run([sys.executable, BENCHMARKS / "cpu.py", *map(str, arguments)], capture_output=True, text=True,
                              encoding="utf-8", env=variables, stdin=subprocess.DEVNULL, timeout=300)

    def results(self, *arguments):
        result = self.cpu("--library", LIBRARY, "--peaks", PEAKS, "--seconds", 0, "--rounds", 2, "--json", "-", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout), result.stderr

    def test_attnmux_alone(self):
        rows = [line(row="plain", Sq=32, Skv=32), line(row="half", dtype="fp16", beside="plain"),
                line(row="bf16", dtype="bf16", Dv=24),
                line(row="causal", causal="bottom_right", Sq=4), line(row="window", window="3:0"),
                line(row="lengths", B=2, key_lengths="8:3"), line(row="softcap", softcap=20), line(row="dropout", dropout=0.1),
                line(row="cold", cache="cold", Sq=1, Skv=4096, D=128, Dv=128, dtype="bf16")]
        rows += [line(row=mask, mask=mask) for mask in corpus.MASKS]
        results, _ = self.results("--corpus", self.file_of(*rows), "--peers", "none", "--processes", 2)
        self.assertEqual([row["row"] for row in results["rows"]], [text.split(",")[0] for text in rows])
        self.assertEqual((results["threads"], results["processes"], results["peers"]), (1, 2, []))
        self.assertRegex(results["commit"], r"\A(unknown|[0-9a-f]{40}(-dirty)?)\Z")
        self.assertEqual(results["versions"].keys(), {"attnmux", "python"})
        self.assertIn(results["isa"], ("baseline", "avx2", "avx512", "avx512_bf16", "amx"))
        for row in results["rows"]:
            self.assertGreater(row["seconds"]["attnmux"], 0)
            self.assertAlmostEqual(row["gflops"]["attnmux"], row["flops"] / row["seconds"]["attnmux"] / 1e9)
            self.assertEqual("peak" in row["ratios"], results["isa"] != "baseline" and bool(results["peak_gflops"]))
        by_name = {row["row"]: row for row in results["rows"]}
        self.assertEqual(by_name["plain"]["flops"], 2 * 32 * 2 * 32 * 32)
        self.assertEqual(by_name["lengths"]["flops"], 2 * 32 * 2 * 8 * 11)
        self.assertIn("beside_gflops", by_name["half"]["ratios"])
        self.assertIn("bandwidth", by_name["cold"]["ratios"])
        self.assertEqual(by_name["window"]["problem"]["window"], "3:0")

    def test_two_threads_scale_beside_the_peak(self):
        file = self.file_of(line(Sq=256, Skv=256, D=64, Dv=64))
        results, _ = self.results("--corpus", file, "--peers", "none", "--processes", 1, "--threads", 2)
        (row,) = results["rows"]
        self.assertTrue(row["bitwise_equal_to_one_thread"])
        self.assertEqual("scaling_of_peak" in row["ratios"], "peak" in row["ratios"])
        self.assertAlmostEqual(row["ratios"]["scaling"], row["seconds"]["attnmux_one_thread"] / row["seconds"]["attnmux"])

    def test_a_cap_holds(self):
        results, _ = self.results("--corpus", self.file_of(line()), "--peers", "none", "--processes", 1, "--isa", "baseline")
        self.assertEqual((results["isa"], results["isa_cap"]), ("baseline", "baseline"))
        self.assertEqual(results["rows"][0]["kernel"], "cpu_flash_baseline")
        self.assertNotIn("peak", results["rows"][0]["ratios"])

    def test_peers_that_are_not_there_are_named(self):
        results, said = self.results("--corpus", self.file_of(line()), "--processes", 1)
        self.assertEqual(results["missing"].keys(), {"pytorch", "openvino", "unfused"})
        for name in results["missing"]:
            self.assertRegex(said, rf"cpu.py: {name} is not measured: .* is not installed: pip install")

    def refused(self, *arguments, says):
        result = self.cpu(*arguments)
        self.assertNotEqual(result.returncode, 0, arguments)
        self.assertEqual(result.stdout, "", arguments)
        self.assertNotIn("Traceback", result.stderr, arguments)
        for part in says:
            self.assertIn(part, result.stderr, arguments)

    def test_mistakes_are_named(self):
        ours, few = ["--library", LIBRARY, "--peaks", PEAKS], ["--processes", "1", "--peers", "none"]
        good = ["--corpus", self.file_of(line())]
        self.refused("--library", "/nowhere.so", *good, says=["--library", "/nowhere.so", "libattnmux.so"])
        self.refused("--library", sys.executable, *good, *few, says=[os.path.realpath(sys.executable)])
        self.refused(*ours, *good, "--rows", "x*", says=["'x*' matches no row", "plain"])
        self.refused(*ours, *good, *few, "--kernel", "cpu_flsh", says=["no kernel 'cpu_flsh'"])
        self.refused(*ours, *good, *few, "--backend", "_flash_3", says=["_flash_3", "Hopper"])
        self.refused(*ours, *good, "--peers", "tourch", says=["--peers", "'tourch'", "pytorch, openvino, unfused"])
        self.refused(*ours, *good, "--processes", "0", says=["--processes", "'0'", "at least 1"])
        self.refused(*ours, *good, "--seconds", "nan", says=["--seconds", "'nan'", "0 to 3600"])
        self.refused(*ours, *good, "--isa", "sse", says=["--isa", "avx512_bf16"])
        self.refused(*ours, *good, "--plot", "x.png", says=["--plot", "matplotlib is not installed"])
        self.refused(*ours, "--corpus", self.file_of(line(D="x")), says=["corpus.csv, line 2, column D: 'x'; accepted"])


class Binding(unittest.TestCase):
    def test_structs_are_the_librarys(self):
        described = abi.Library(LIBRARY).describe(abi.DESCRIBE_ABI)
        for name, struct_type in abi.STRUCTS.items():
            self.assertEqual(described[name]["size"], abi.ctypes.sizeof(struct_type), name)
            offsets = {field: getattr(struct_type, field).offset for field, _ in struct_type._fields_}
            told = described[name]["fields"]
            self.assertEqual({field: offsets[field] for field in told if field in offsets}, told, name)


@unittest.skipUnless(platform.machine() == "x86_64", "peaks are x86-64 code")
class PeakLoops(unittest.TestCase):
    """A peak is one if its loop multiplies, adds, counts, and does nothing else."""

    def test_loops_hold_independent_multiply_adds_and_a_counter(self):
        for name, operation, accumulators in [
            ("avx2_fma", r"vfmadd\d+ps", 12), ("avx512_fma", r"vfmadd\d+ps", 24), ("avx512_bf16", r"vdpbf16ps", 24),
            ("amx_bf16", r"tdpbf16ps", 6),
        ]:
            text = subprocess.run([OBJDUMP, "-d", "--no-show-raw-insn", f"--disassemble=attnmux_peak_{name}", PEAKS],
                                  capture_output=True, text=True, check=True).stdout
            code = re.findall(r"^ +[0-9a-f]+:\s+(.*)$", text, re.M)
            of_interest = [i for i, line in enumerate(code) if re.match(operation, line)]
            self.assertEqual(len(of_interest), accumulators, name)
            last = of_interest[-1]
            jump = next(i for i, line in enumerate(code) if i > last and line.startswith("j"))
            loop = code[of_interest[0] : jump]
            others = [line for line in loop if not re.match(operation + r"|(add|dec|sub|cmp|inc|test)\b", line)]
            self.assertEqual(others, [], name)
            written = {re.search(r"%([xyzt]mm\d+)$", code[i]).group(1) for i in of_interest}
            read = {register for i in of_interest for register in re.findall(r"%([xyzt]mm\d+),", code[i])}
            self.assertEqual(len(written), accumulators, name)
            self.assertFalse(written & read, name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True)
    parser.add_argument("--peaks", required=True)
    parser.add_argument("--objdump", default="objdump")
    known, rest = parser.parse_known_args()
    LIBRARY, PEAKS, OBJDUMP = known.library, known.peaks, known.objdump
    unittest.main(argv=[sys.argv[0], *rest])
