#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests what of benchmarks/gpu.py needs no GPU and no PyTorch: corpus, FLOPs, planning, turns, figures, bars, messages."""
import contextlib
import fnmatch
import io
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import corpus  # noqa: E402
import gpu  # noqa: E402
import gpu_inputs  # noqa: E402
import gpu_report  # noqa: E402
import gpu_sides  # noqa: E402
import gpu_timing  # noqa: E402

HEAD = "row,B,Sq,Skv,Hq,Hkv,D,Dv,dtype,causal,window,key_lengths,mask,packed,beside"


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file_of(self, text: str, name: str = "file.csv") -> str:
        (self.folder / name).write_text(text, encoding="utf-8")
        return str(self.folder / name)

    def rows(self, *lines) -> list:
        return corpus.read_corpus(self.file_of("\n".join([HEAD, *lines]) + "\n"))


class Corpus(Folder):
    def test_the_default_corpus_is_read_and_every_bar_has_its_row(self):
        names = {row.row for row in corpus.read_corpus(str(BENCHMARKS / "corpus.csv"))}
        bars = gpu_report.read_bars()
        self.assertGreater(len(bars), 40)
        for bar in bars:
            self.assertTrue(any(fnmatch.fnmatchcase(name, bar["row"]) for name in names), bar)

    def test_packed_rows_count_each_sequence_alone(self):
        row, causal = self.rows("a,3,4,4,2,1,8,8,bf16,,,4:1:2,,yes,", "b,3,4,4,2,1,8,8,bf16,top_left,,4:1:2,,yes,")
        self.assertEqual(row.flops(), 2 * 16 * 2 * (16 + 1 + 4))
        self.assertEqual(causal.flops(), 2 * 16 * 2 * (10 + 1 + 3))

    def test_packed_rows_are_checked(self):
        for line in ("a,2,4,4,2,1,8,8,bf16,,,,,yes,", "a,2,4,5,2,1,8,8,bf16,,,4:1,,yes,",
                     "a,2,4,4,2,1,8,8,bf16,,,4:0,,yes,", "a,2,4,4,2,1,8,8,bf16,,,4:1,padding,yes,"):
            with self.assertRaisesRegex(corpus.CorpusError, "line 2, column packed: 'yes'; accepted: empty, no, or yes with"):
                self.rows(line)

    def test_cpu_py_refuses_packed_rows(self):
        import cpu
        file = self.file_of(f"{HEAD}\na,2,4,4,2,1,8,8,bf16,,,4:1,,yes,\n")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(cpu.main(["--corpus", file, "--library", __file__]), 1)
        self.assertIn("row a is packed", said.getvalue())


class Planning(Folder):
    def test_inputs_rotate_beyond_the_cache(self):
        small, large = self.rows("a,1,64,64,1,1,64,64,bf16,,,,,,", "b,1,32760,32760,40,40,128,128,bf16,,,,,,")
        self.assertEqual(gpu_inputs.copies_for(small, 50 << 20), 8)
        self.assertEqual(gpu_inputs.copies_for(large, 50 << 20), 2)

    def test_short_launches_are_many(self):
        self.assertGreaterEqual(gpu_timing.launches_for(1e-5), 20)
        self.assertGreaterEqual(gpu_timing.launches_for(1.9e-3), 20)
        self.assertEqual(gpu_timing.launches_for(35e-3), 4)

    def test_sides_take_turns(self):
        order = []

        class Graph:
            def __init__(self, name):
                self.name = name

            def replay(self):
                order.append(self.name)

        class Cuda:
            synchronize = staticmethod(lambda: None)

            class Event:
                def __init__(self, enable_timing):
                    assert enable_timing

                record = synchronize = lambda self: None

                def elapsed_time(self, other):
                    return {"a": 4.0, "b": 8.0}[order[-1]]

        class Torch:
            cuda = Cuda

        found = gpu_timing.rotate(Torch, {"a": (Graph("a"), 2), "b": (Graph("b"), 4)}, 3, 0)
        self.assertEqual(found, {"a": 2e-3, "b": 2e-3})
        self.assertEqual(order, ["a", "b", "a", "b", "b", "a", "a", "b"])


def results():
    def row(name, seconds, **problem):
        return {"row": name, "problem": {"dtype": "bf16", **problem}, "kv_bytes": 10**9, "seconds": seconds,
                "tflops": {side: 1 / s for side, s in seconds.items()}, "kernels": {"flash": "cuda_x"}, "refused": {},
                "host_seconds": dict.fromkeys(seconds, 5e-6), "error": dict.fromkeys(seconds, 1e-3)}

    rows = [row("plain", {"flash": 1.0, "pytorch_flash": 1.5, "pytorch_cudnn": 0.5}),
            row("masked", {"flash": 2.0}, beside="plain")]
    return {"gpu": "Imagined", "backends": ["flash"], "ceilings": {"copy_gbytes_per_second": 4.0}, "rows": rows}


class Report(Folder):
    def test_figures_are_speeds_relative_to_others(self):
        r = results()
        self.assertEqual(gpu_report.figures(r["rows"][0], r), {"flash/pytorch_flash": 1.5, "flash/pytorch_cudnn": 0.5,
                                                               "flash/best": 0.5, "flash/copy": 0.25, "flash/tflops": 1.0})
        self.assertEqual(gpu_report.figures(r["rows"][1], r), {"flash/copy": 0.125, "flash/beside": 0.5, "flash/tflops": 0.5})
        r["rows"][0]["problem"]["dtype"] = "e4m3"
        r["ceilings"]["fp8_product_tflops"] = 2.0
        self.assertEqual(gpu_report.figures(r["rows"][0], r)["flash/fp8_product"], 0.5)

    def test_bars_pass_fall_short_or_were_not_measured(self):
        bars = gpu_report.read_bars(self.file_of("row,figure,at_least,aim\nplain,flash/pytorch_flash,1.5,\n"
                                                 "plain,flash/best,0.51,1\nmasked,flash/best,1,\n*,other/best,9,\n"))
        r = results()
        self.assertEqual([(row["row"], verdict) for row, _, _, _, verdict in gpu_report.judged(r, bars)],
                         [("plain", "pass"), ("plain", "short"), ("masked", "not measured")])
        text = gpu_report.text(r, bars)
        self.assertIn("short: plain flash/best 0.500, bar 0.51", text)
        self.assertIn("bars: 1 passed, 1 fall short, 1 not measured", text)

    def test_a_wrong_bar_is_named(self):
        with self.assertRaisesRegex(ValueError, r"line 2: .*accepted: the columns row,figure,at_least,aim, with figure as"):
            gpu_report.read_bars(self.file_of("row,figure,at_least,aim\nplain,flash,1.5,\n"))

    def test_csv_has_a_line_per_side(self):
        stream = io.StringIO()
        gpu_report.write_csv(stream, results())
        lines = stream.getvalue().splitlines()
        self.assertEqual(len(lines), 1 + 3 + 1)
        self.assertEqual(lines[1], "plain,dtype=bf16,flash,1.0,1.0,5e-06,0.001")


class CommandLine(Folder):
    def said(self, *arguments) -> str:
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = gpu.main(list(arguments))
            except SystemExit as stop:
                code = stop.code
        self.assertNotEqual(code, 0)
        return errors.getvalue()

    def test_what_is_wrong_is_named(self):
        self.assertIn("'cudnn'; accepted: none, or of pytorch_flash", self.said("--peers", "cudnn"))
        self.assertIn("'few'; accepted: an integer of at least 1", self.said("--rounds", "few"))
        self.assertIn("--rows: 'nothing*' matches no row; there are: d128_qwen_4352", self.said("--rows", "nothing*"))
        self.assertIn("--library: nowhere.so is not a file", self.said("--library", "nowhere.so"))
        self.assertIn("without column row", self.said("--corpus", self.file_of("B,Sq\n1,2\n")))

    def test_no_gpu_is_said(self):
        said = self.said("--library", __file__)
        self.assertRegex(said, r"gpu.py: (PyTorch is not installed; gpu.py needs one with CUDA|PyTorch .* sees no CUDA GPU|.* cannot be loaded)")

    def test_a_peer_file_is_checked(self):
        for text, message in ((None, "is not a file"), ("name = 'x'\n", "defines no `attention`"),
                              ("def attention(): pass\n", "defines no `name`")):
            path = "missing.py" if text is None else self.file_of(text, "peer.py")
            with self.assertRaisesRegex(ValueError, message):
                gpu_sides.File(path)

    def test_a_peer_may_not_implement_a_row(self):
        text = "name = 'mine'\ndef attention(q, k, v, **o):\n    raise NotImplementedError('no ' + str(o['causal']))\n"
        side = gpu_sides.peers(None, [], [self.file_of(text, "peer.py")])["mine"]
        [row] = self.rows("a,1,8,8,1,1,16,16,bf16,top_left,,,,,")
        launch = side.make(gpu_inputs.Inputs(row, [0], [0], [0]))
        with self.assertRaisesRegex(gpu_sides.Refused, "no top_left"):
            launch(0)


if __name__ == "__main__":
    unittest.main()
