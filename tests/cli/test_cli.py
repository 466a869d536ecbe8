#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the built command line tool, right and wrong, and checks exit codes, JSON, files and messages.

    test_cli.py ATTNMUX [--data minilm_attention.safetensors] [--plugin libskeleton_kernel.so]
"""
import argparse
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import unittest

from tensor_files import read_npy, read_safetensors, write_npy, write_safetensors

PUBLIC_NAMES = [
    "native", "_native_math", "_native_flash", "_native_efficient", "_native_cudnn", "_native_xla", "_native_npu",
    "flex", "flash", "flash_varlen", "_flash_3", "_flash_varlen_3", "_flash_3_hub", "sage", "sage_varlen",
    "_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp16_triton", "_sage_qk_int8_pv_fp8_cuda",
    "_sage_qk_int8_pv_fp8_cuda_sm90", "xformers",
]
CLASSES = {"exact", "16-bit", "quantized", "approximate"}
ISAS = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"}
SUBCOMMANDS = ["list", "explain", "run", "bench", "verify", "doctor", "completion"]
SMALL = ["--seqlen-q", "64", "--heads-q", "2", "--head-dim", "32"]
BINARY = DATA = PLUGIN = None


def environment(**variables):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ATTNMUX_")}
    return {**clean, **variables}


def attnmux(*arguments, **variables):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8",
                          env=environment(**variables), stdin=subprocess.DEVNULL, timeout=600)


class CliTest(unittest.TestCase):
    maxDiff = None

    def run_ok(self, *arguments, **variables):
        result = attnmux(*arguments, **variables)
        self.assertEqual(result.returncode, 0, f"{arguments}: {result.stderr}")
        return result

    def json_of(self, *arguments, code=0, **variables):
        result = attnmux(*arguments, **variables)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stderr}")
        return json.loads(result.stdout)

    def refused(self, code, *arguments, says=(), **variables):
        """Ends with `code`, nothing on stdout, and one line on stderr that holds all of `says`."""
        result = attnmux(*arguments, **variables)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout[:300]}{result.stderr}")
        self.assertEqual(result.stdout, "", arguments)
        self.assertRegex(result.stderr, r"\Aattnmux: [^\n]+\n\Z", arguments)
        for part in says:
            self.assertIn(part, result.stderr, arguments)


class Usage(CliTest):
    def test_help_has_examples(self):
        for subcommand in [None, *SUBCOMMANDS]:
            result = self.run_ok(*([subcommand] if subcommand else []), "--help")
            self.assertIn("Examples:", result.stdout)
            self.assertIn("Usage: attnmux", result.stdout)
            self.assertEqual(result.stderr, "")
            self.assertLessEqual(max(len(line) for line in result.stdout.splitlines() if not line.startswith("  attnmux")), 130)

    def test_help_names_every_flag_of_a_problem(self):
        flags = ("--batch --seqlen-q --seqlen-kv --heads-q --heads-kv --head-dim --head-dim-v --dtype --causal --window "
                 "--softcap --scale --dropout --seed --key-lengths --lse --backend --device --threads").split()
        for subcommand in ("explain", "run", "bench", "verify"):
            text = self.run_ok(subcommand, "--help").stdout
            for flag in flags:
                self.assertRegex(text, rf"(?m)^  {flag}\b", subcommand)

    def test_version(self):
        self.assertRegex(self.run_ok("--version").stdout, r"\Aattnmux \d+\.\d+\.\d+\n\Z")

    def test_no_subcommand_is_a_usage_error(self):
        result = attnmux()
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stdout, "")
        self.assertIn("Subcommands:", result.stderr)

    def test_unknown_words_suggest_the_nearest(self):
        self.refused(2, "lst", says=['"lst"', "list"])
        self.refused(2, "explain", "--hed-dim", 3, says=['"--hed-dim"', "--head-dim"])
        self.refused(2, "list", "--jsn", says=["--json"])
        self.refused(2, "list", "extra", says=['"extra"', "attnmux list --help"])
        self.refused(2, "explain", "--causal", "bottom_right", says=["--causal=bottom_right"])

    def test_full_disk_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "w") as full:
            result = subprocess.run([BINARY, "list"], stdout=full, stderr=subprocess.PIPE, env=environment())
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"standard output", result.stderr)


class Flags(CliTest):
    def test_bad_values_name_flag_value_and_what_is_accepted(self):
        for flag, value, accepted in [
            ("--batch", "-1", "at least 0"), ("--batch", "two", "integer"), ("--batch", "", "integer"),
            ("--batch", "99999999999999999999", "integer"), ("--seqlen-q", "1.5", "integer"),
            ("--seqlen-q", " 5", "integer"), ("--seqlen-kv", "0x10", "integer"), ("--head-dim", "+4", "integer"),
            ("--dtype", "fp8", "fp32, fp16, bf16 or fp64"), ("--dtype", "BF16", "bf16"),
            ("--window", "5", "LEFT,RIGHT"), ("--window", "5,5,up", "top_left"), ("--window", "-2,3", "at least -1"),
            ("--window", "1,2,top_left,3", "LEFT,RIGHT"), ("--window", ",", "integer"),
            ("--scale", "nan", "finite"), ("--scale", "1,5", "finite"), ("--scale", "inf", "finite"),
            ("--softcap", "-1", "at least 0"), ("--softcap", "x", "finite"),
            ("--dropout", "1", "below 1"), ("--dropout", "-0.1", "below 1"), ("--seed", "-1", "18446744073709551615"),
            ("--device", "gpu", "cuda:N"), ("--device", "cuda:x", "cuda:N"), ("--device", "cuda:-1", "cuda:N"), ("--device", "cuda:", "cuda:N"),
            ("--threads", "0", "1 to 4096"), ("--threads", "5000", "1 to 4096"),
        ]:
            named = {"5,5,up": "up", "-2,3": "-2", ",": ""}.get(value, value)  # of a list, the part that is wrong
            self.refused(2, "explain", flag, value, says=[flag, f'"{named}"', accepted])
        self.refused(2, "explain", "--causal=left", says=["--causal", '"left"', "top_left", "bottom_right"])

    def test_missing_repeated_and_superfluous_values(self):
        self.refused(2, "explain", "--head-dim", says=["--head-dim needs a value"])
        self.refused(2, "explain", "--head-dim", 1, "--head-dim", 2, says=["--head-dim is given more than once"])
        self.refused(2, "explain", "--lse=3", says=["--lse takes no value"])
        self.refused(2, "explain", "--backend", "flash", "--backend", "native", says=["--backend"])
        self.refused(2, "explain", "--causal", "--causal=top_left", says=["--causal"])

    def test_key_lengths(self):
        self.refused(2, "explain", "--key-lengths", "5,6", says=["--key-lengths", "2 lengths", "batch of 1"])
        self.refused(2, "explain", "--seqlen-q", 10, "--key-lengths", "11", says=["--key-lengths", "11", "0 to 10"])
        self.refused(2, "explain", "--key-lengths", "-1", says=["--key-lengths", "-1"])
        self.refused(2, "explain", "--batch", 2, "--key-lengths", "5,", says=["--key-lengths"])
        self.run_ok("explain", "--batch", 2, "--seqlen-q", 10, "--key-lengths", "0,10")

    def test_dropout_needs_a_seed(self):
        self.refused(2, "explain", "--dropout", "0.1", says=["--dropout", "--seed"])
        self.run_ok("explain", "--dropout", "0.1", "--seed", 18446744073709551615)

    def test_invalid_problems(self):
        self.refused(2, "explain", "--head-dim", 0, says=["head_dim"])
        self.refused(2, "explain", "--heads-q", 3, "--heads-kv", 2, says=["3", "2"])
        self.refused(2, "explain", "--batch", 2**62, "--seqlen-q", 2**62, says=["overflow"])
        self.refused(2, "explain", "--causal", "--seqlen-kv", 20, says=["top_left", "bottom_right"])
        self.refused(2, "explain", "--causal=top_left", "--window", "1,1,bottom_right", says=["top_left", "bottom_right"])
        self.refused(2, "explain", "--backend", "flsh", says=['"flsh"', '"flash"'])
        self.refused(2, "explain", "--kernel", "cpu_nothing", says=["kernel"])

    def test_valid_problems_explain_with_0(self):
        for flags in (["--batch", 0], ["--seqlen-q", 0], ["--scale", "-0.5"], ["--scale", "0"], ["--window", "-1,0"],
                      ["--causal=bottom_right", "--seqlen-kv", 20], ["--device", "cuda"], ["--device", "cuda:7"],
                      ["--dtype", "fp64", "--backend", "flash"], ["--backend", "_flash_3"], ["--backend", "auto"],
                      ["--window", "8,0,top_left", "--causal", "--seqlen-kv", 20], ["--softcap", "0"], ["--threads", 3]):
            self.run_ok("explain", *flags)

    def test_scale_takes_a_negative_number_as_the_next_argument(self):
        self.assertEqual(self.run_ok("explain", "--scale", "-0.5").stdout, self.run_ok("explain", "--scale=-0.5").stdout)


class Environment(CliTest):
    BAD = {"ATTNMUX_BACKEND": "flsh", "ATTNMUX_FORCE_BACKEND": "nothing", "ATTNMUX_NUM_THREADS": "x",
           "ATTNMUX_MAX_CPU_ISA": "sse9", "ATTNMUX_VERBOSE": "loud", "ATTNMUX_CHECK": "maybe"}

    def test_every_subcommand_checks_it_first(self):
        for variable, value in self.BAD.items():
            for command in (["list"], ["list", "--json"], ["explain"], ["bench"], ["verify"], ["doctor"],
                            ["completion", "bash"], ["run", "nofile.safetensors"]):
                self.refused(2, *command, says=[variable, f'"{value}"'], **{variable: value})

    def test_default_and_forced_backend(self):
        answer = self.json_of("explain", "--json", ATTNMUX_BACKEND="_native_math")
        self.assertEqual(answer["backend"], "_native_math")
        answer = self.json_of("explain", "--json", "--backend", "flash", ATTNMUX_FORCE_BACKEND="_native_math")
        self.assertEqual(answer["backend"], "_native_math")
        bench = attnmux("bench", *SMALL, "--seconds", 0, "--json", "--backend", "flash", ATTNMUX_FORCE_BACKEND="_native_math")
        self.assertEqual(json.loads(bench.stdout)[0]["kernel"], "cpu_math")
        self.assertIn("ATTNMUX_FORCE_BACKEND", bench.stderr)

    def test_isa_cap(self):
        self.assertEqual(self.json_of("doctor", "--json", ATTNMUX_MAX_CPU_ISA="baseline")["isa"], "baseline")
        bench = self.json_of("bench", *SMALL, "--seconds", 0, "--json", "--backend", "flash", ATTNMUX_MAX_CPU_ISA="baseline")
        self.assertEqual((bench[0]["kernel"], bench[0]["isa"]), ("cpu_flash_baseline", "baseline"))

    def test_json_does_not_depend_on_the_locale(self):
        for locale in ("C", "de_DE.UTF-8", "C.UTF-8"):
            self.json_of("bench", *SMALL, "--seconds", 0, "--json", "--backend", "native", LC_ALL=locale)


class List(CliTest):
    def test_json(self):
        rows = self.json_of("list", "--json")
        self.assertEqual([row["name"] for row in rows], [*PUBLIC_NAMES, "auto"])
        for row in rows:
            self.assertIsInstance(row["available"], bool)
            self.assertTrue(row["family"])
            self.assertTrue(row["promise"])
            self.assertEqual(row["reason"] == "", row["available"], row)
            self.assertIsInstance(row["kernels"], list)
            self.assertIsInstance(row["accuracy"], dict)
            self.assertLessEqual(set(row["accuracy"].values()), CLASSES)
            if row["available"]:
                self.assertTrue(row["kernels"] and row["accuracy"])
        available = {row["name"] for row in rows if row["available"]}
        self.assertGreaterEqual(available, {"native", "_native_math", "_native_flash", "_native_efficient", "flash",
                                            "flash_varlen", "xformers"})
        self.assertNotIn("auto", available)

    def test_text(self):
        text = self.run_ok("list").stdout
        for name in PUBLIC_NAMES:
            self.assertRegex(text, rf"(?m)^  {name} ")
        self.assertNotIn("\x1b", text)


class Explain(CliTest):
    def test_first_line_starts_with_the_backend(self):
        self.assertTrue(self.run_ok("explain").stdout.startswith("native → "))
        self.assertTrue(self.run_ok("explain", "--backend", "_flash_3").stdout.startswith("_flash_3 → "))

    def test_json_holds_everything(self):
        answer = self.json_of("explain", "--json", "--key-lengths", "100", "--lse")
        self.assertEqual(answer["backend"], "native")
        self.assertTrue(answer["kernel"].startswith("cpu_"))
        self.assertGreaterEqual(set(answer["precedence"]), {"call", "layer", "scope", "process_default", "force"})
        for kernel in answer["kernels"]:
            self.assertTrue(kernel["runs"] or kernel["reason"])
        self.assertEqual({b["backend"] if "backend" in b else b["name"] for b in answer["backends"]},
                         set(PUBLIC_NAMES + ["auto"]) - {"native"})
        self.assertIsNone(self.json_of("explain", "--json", "--backend", "_flash_3")["kernel"])

    def test_all_adds_the_others(self):
        brief, everything = self.run_ok("explain").stdout, self.run_ok("explain", "--all").stdout
        self.assertNotIn("_sage_qk_int8_pv_fp16_triton", brief)
        for name in PUBLIC_NAMES:
            self.assertIn(name, everything)


class Bench(CliTest):
    def test_json(self):
        rows = self.json_of("bench", *SMALL, "--batch", 3, "--dtype", "fp32", "--seconds", 0, "--threads", 1, "--json")
        self.assertGreaterEqual({row["backend"] for row in rows}, {"native", "_native_math", "flash"})
        for row in rows:
            self.assertTrue(row["kernel"].startswith("cpu_"))
            self.assertTrue(0 < row["min_s"] <= row["median_s"])
            self.assertEqual(row["threads"], 1)
            self.assertIn(row["isa"], ISAS)
            self.assertEqual((row["problem"]["batch"], row["problem"]["seqlen_kv"], row["problem"]["dtype"]), (3, 64, "fp32"))
            flops = 2 * (32 + 32) * 3 * 2 * 64 * 64
            self.assertAlmostEqual(row["gflops"] * row["median_s"] * 1e9, flops, delta=flops * 1e-9)

    def test_flops_count_attended_pairs(self):
        def pairs(*flags):
            row = self.json_of("bench", "--seqlen-q", 40, "--heads-q", 1, "--head-dim", 8, "--seconds", 0, "--json",
                               "--backend", "_native_math", *flags)[0]
            return round(row["gflops"] * row["median_s"] * 1e9 / (2 * (8 + 8)))
        self.assertEqual(pairs(), 1600)
        self.assertEqual(pairs("--causal"), 820)
        self.assertEqual(pairs("--key-lengths", "10"), 400)
        self.assertEqual(pairs("--seqlen-kv", 100, "--causal=bottom_right"), sum(61 + i for i in range(40)))
        self.assertEqual(pairs("--window", "1,2"), sum(min(40, i + 3) - max(0, i - 1) for i in range(40)))
        self.assertEqual(pairs("--window", "9223372036854775807,-1"), 1600)

    def test_backends_named(self):
        rows = self.json_of("bench", *SMALL, "--seconds", 0, "--backend", "flash", "--backend", "_native_math", "--json")
        self.assertEqual({row["backend"] for row in rows}, {"flash", "_native_math"})
        rows = self.json_of("bench", *SMALL, "--seconds", 0, "--backend", "flash", "--kernel", "cpu_flash_baseline", "--json")
        self.assertEqual(rows[0]["kernel"], "cpu_flash_baseline")

    def test_empty_problems(self):
        for flags in (["--batch", 0], ["--seqlen-q", 0], ["--seqlen-kv", 0], ["--heads-q", 0]):
            rows = self.json_of("bench", *flags, "--seconds", 0, "--json", "--backend", "native")
            self.assertEqual(rows[0]["gflops"], 0)

    def test_text(self):
        text = self.run_ok("bench", *SMALL, "--seconds", 0).stdout
        self.assertRegex(text, r"(?m)^  native +cpu_\w+ +(exact|16-bit) .*×$")
        self.assertIn("GFLOP/s", text)

    def test_exit_codes(self):
        self.refused(2, "bench", "--backend", "flsh", says=['"flsh"', '"flash"'])
        self.refused(2, "bench", "--backend", "native", "--head-dim", 0)
        self.refused(3, "bench", "--backend", "_flash_3", says=['"_flash_3"'])
        self.refused(3, "bench", "--backend", "auto", says=['"auto"'])
        self.refused(3, "bench", "--backend", "flash", "--dtype", "fp64", says=["fp64"])
        self.refused(3, "bench", "--backend", "native", "--device", "cuda", says=["cuda:0"])
        self.refused(2, "bench", "--backend", "native", "--seqlen-q", 10**9, "--heads-q", 64, says=["memory"])
        self.refused(2, "bench", "--seconds", "x", says=["--seconds"])


class Verify(CliTest):
    def test_one_problem(self):
        report = self.json_of("verify", "--json", *SMALL, "--causal", "--lse", "--dtype", "fp16")
        self.assertTrue(report["passed"])
        self.assertEqual(report["problems"], 1)
        rows = {(r["backend"], r["kernel"]): r for r in report["results"]}
        self.assertIn(("native", "cpu_math"), rows)
        for row in report["results"]:
            self.assertTrue(row["passed"] and row["deterministic"])
            self.assertLessEqual(row["share_of_tolerance"], 1)
            self.assertEqual((row["checked"], row["refused"]), (1, 0))
            for key in ("max_error", "rel_l2", "max_error_vs_plain", "rel_l2_vs_plain", "lse_error"):
                self.assertTrue(0 <= row[key] < 0.01, (key, row))
        self.assertEqual({u["backend"] for u in report["unavailable"]} & {"_flash_3", "native"}, {"_flash_3"})

    def test_the_built_in_problems(self):
        report = self.json_of("verify", "--backend", "_native_math", "--backend", "flash", "--json")
        self.assertTrue(report["passed"])
        self.assertGreater(report["problems"], 100)
        math_row = next(r for r in report["results"] if r["backend"] == "_native_math")
        self.assertEqual((math_row["checked"], math_row["refused"]), (report["problems"], 0))
        self.assertEqual(set(math_row["by_dtype"]), {"fp32", "fp16", "bf16", "fp64"})
        for row in report["results"]:
            self.assertEqual(row["checked"] + row["refused"], report["problems"])
            self.assertEqual(sum(r["count"] for r in row["refusals"]), row["refused"])
            self.assertTrue(all(r["reason"] for r in row["refusals"]))

    def test_text(self):
        text = self.run_ok("verify", *SMALL, "--backend", "_native_math").stdout
        self.assertRegex(text, r"(?m)^  _native_math\n    cpu_math .* same +kept$")

    def test_exit_codes(self):
        self.refused(2, "verify", "--backend", "flsh")
        self.refused(2, "verify", "--kernel", "nothing", says=['"nothing"'])
        self.refused(2, "verify", *SMALL, "--heads-kv", 3)
        self.refused(3, "verify", "--backend", "_flash_3", says=['"_flash_3"'])
        self.refused(3, "verify", "--kernel", "cpu_flash_avx2", says=["cpu_flash_avx2"], ATTNMUX_MAX_CPU_ISA="baseline")


class Doctor(CliTest):
    def test_text(self):
        text = self.run_ok("doctor").stdout
        for word in ("CPU", "ISA", "memory", "threads", "GPU", "ATTNMUX_BACKEND", "native", "_flash_3"):
            self.assertIn(word, text)

    def test_json(self):
        report = self.json_of("doctor", "--json")
        self.assertIn(report["isa"], ISAS)
        self.assertGreaterEqual(report["num_threads"], 1)
        self.assertEqual(len(report["backends"]), len(PUBLIC_NAMES) + 1)

    def test_abi(self):
        layout = self.json_of("doctor", "--abi", "--json")
        self.assertEqual(layout["attnmux_tensor"]["fields"]["shape"], 24)
        self.assertEqual(layout["attnmux_tensor"]["size"], 88)
        self.assertIn("attnmux_options", self.run_ok("doctor", "--abi").stdout)


class Completion(CliTest):
    def test_scripts_hold_every_subcommand_and_flag(self):
        for shell in ("bash", "zsh", "fish"):
            script = self.run_ok("completion", shell).stdout
            for word in [*SUBCOMMANDS, *PUBLIC_NAMES, "head-dim", "key-lengths", "bf16"]:
                self.assertIn(word, script, shell)
        self.refused(2, "completion", "tcsh", says=['"tcsh"', "bash, zsh or fish"])
        self.refused(2, "completion")

    def complete(self, *words):
        script = self.run_ok("completion", "bash").stdout
        setup = f"COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words)}; " if not words[-1].endswith("…") else \
            f"COMP_WORDS=({' '.join(words)[:-1]}); COMP_CWORD={len(words) - 1}; "
        result = subprocess.run(["bash", "-c", script + setup + '_attnmux; printf "%s\\n" "${COMPREPLY[@]}"'],
                                capture_output=True, text=True, env=environment())
        self.assertEqual(result.stderr, "")
        return result.stdout.split()

    def test_bash(self):
        self.assertGreaterEqual(set(self.complete("attnmux")), set(SUBCOMMANDS))
        self.assertEqual(self.complete("attnmux", "ex…"), ["explain"])
        self.assertEqual(self.complete("attnmux", "bench", "--head…"), ["--heads-q", "--heads-kv", "--head-dim", "--head-dim-v"])
        self.assertEqual(self.complete("attnmux", "bench", "--dtype"), ["fp32", "fp16", "bf16", "fp64"])
        self.assertEqual(self.complete("attnmux", "bench", "--backend", "xf…"), ["xformers"])
        self.assertEqual(self.complete("attnmux", "completion"), ["bash", "zsh", "fish"])


class Run(CliTest):
    SHAPE = (2, 5, 2, 4)

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        count = math.prod(self.SHAPE)
        self.q, self.k, self.v = ([math.sin(i * step + 1) for i in range(count)] for step in (0.7, 1.3, 2.1))
        self.tensors = {
            "q": ("F32", self.SHAPE, self.q), "k": ("F32", self.SHAPE, self.k), "v": ("F32", self.SHAPE, self.v),
            "lengths": ("I32", (2,), [5, 2]), "lengths64": ("I64", (2,), [5, 2]), "too_long": ("I64", (2,), [5, 6]),
            "padding": ("BOOL", (2, 5), [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]),
            "mask": ("BOOL", (5, 5), [int(j <= i) for i in range(5) for j in range(5)]),
            "bias": ("F32", (1, 1, 5, 5), [0.1 * i for i in range(25)]),
            "ints": ("I32", self.SHAPE, range(count)), "flat": ("F32", (8, 10), [0.0] * 80),
        }
        self.file = self.path("in.safetensors")
        write_safetensors(self.file, self.tensors)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def attention(self, attends=lambda b, i, j: True, bias=lambda i, j: 0.0):
        """The textbook, in Python's double precision."""
        batch, seqlen, heads, dim = self.SHAPE
        at = lambda values, b, s, h: [values[((b * seqlen + s) * heads + h) * dim + d] for d in range(dim)]
        out, lse = [], {}
        for b in range(batch):
            for i in range(seqlen):
                for h in range(heads):
                    scores = [sum(x * y for x, y in zip(at(self.q, b, i, h), at(self.k, b, j, h))) / dim**0.5 + bias(i, j)
                              if attends(b, i, j) else -math.inf for j in range(seqlen)]
                    weights = [math.exp(s) for s in scores]
                    total = sum(weights)
                    lse[b, h, i] = math.log(total)
                    out += [sum(w * at(self.v, b, j, h)[d] for j, w in enumerate(weights)) / total for d in range(dim)]
        return out, [lse[b, h, i] for b in range(batch) for h in range(heads) for i in range(seqlen)]

    def close(self, values, expected):
        self.assertEqual(len(values), len(expected))
        for a, b in zip(values, expected):
            self.assertAlmostEqual(a, b, delta=2e-6)

    def out(self, *flags):
        target = self.path("out.safetensors")
        self.run_ok("run", self.file, "--out", target, "--seconds", 0, *flags)
        return read_safetensors(target)

    def test_output(self):
        for backend in ("native", "_native_math", "flash", "xformers"):
            tensors = self.out("--backend", backend)
            self.assertEqual(set(tensors), {"out"})
            dtype, shape, values = tensors["out"]
            self.assertEqual((dtype, tuple(shape)), ("F32", self.SHAPE))
            self.close(values, self.attention()[0])

    def test_lse(self):
        tensors = self.out("--lse")
        self.assertEqual(tensors["lse"][:2], ("F32", [2, 2, 5]))
        self.close(tensors["lse"][2], self.attention()[1])

    def test_masks_and_bias(self):
        two = lambda b, i, j: b == 0 or j < 2
        for flags in (["--key-lengths", "5,2"], ["--key-lengths", "lengths"], ["--key-lengths", "lengths64"], ["--key-padding", "padding"]):
            self.close(self.out(*flags)["out"][2], self.attention(two)[0])
        for flags in (["--mask", "mask"], ["--causal"], ["--window", "-1,0"]):
            self.close(self.out(*flags)["out"][2], self.attention(lambda b, i, j: j <= i)[0])
        self.close(self.out("--bias", "bias")["out"][2], self.attention(bias=lambda i, j: 0.1 * (5 * i + j))[0])

    def test_all(self):
        target = self.path("all.safetensors")
        result = self.json_of("run", self.file, "--all", "--out", target, "--seconds", 0, "--json", "--lse")
        rows = {row["backend"]: row for row in result["results"]}
        self.assertEqual(list(rows), [*PUBLIC_NAMES, "auto"])
        ran = [name for name, row in rows.items() if row["ran"]]
        self.assertEqual(set(read_safetensors(target)), {f"{kind}.{name}" for name in ran for kind in ("out", "lse")})
        self.assertTrue(all(row["reason"] for row in rows.values() if not row["ran"]))
        for name in ran:
            self.assertTrue(rows[name]["passed"] and rows[name]["median_s"] > 0)
            self.assertLess(rows[name]["max_error"], 1e-5)
        text = self.run_ok("run", self.file, "--all", "--seconds", 0).stdout
        for name in PUBLIC_NAMES:
            self.assertRegex(text, rf"(?m)^  {name} ")
        self.assertIn("error vs fp64", text)
        self.assertIn("vs _native_math", text)

    def test_npy(self):
        for name, values in (("q", self.q), ("k", self.k), ("v", self.v)):
            write_npy(self.path(name + ".npy"), "<f4", self.SHAPE, values)
        write_npy(self.path("lengths.npy"), "<i8", (2,), [5, 2])
        inputs = [word for name in "qkv" for word in (f"--{name}", self.path(name + ".npy"))]
        target = self.path("out.npy")
        self.run_ok("run", *inputs, "--out", target, "--seconds", 0, "--key-lengths", self.path("lengths.npy"))
        descr, shape, values = read_npy(target)
        self.assertEqual((descr, shape), ("<f4", self.SHAPE))
        self.close(values, self.attention(lambda b, i, j: b == 0 or j < 2)[0])
        self.refused(2, "run", *inputs, "--out", target, "--lse", says=["--out", ".safetensors"])
        self.refused(2, "run", *inputs, "--out", target, "--all", says=["--out", ".safetensors"])
        self.refused(2, "run", self.path("q.npy"), says=["--q"])
        self.refused(2, "run", *inputs[:4], says=["--v"])

    def test_dtype_converts(self):
        for dtype, name in (("fp16", "F16"), ("bf16", "BF16"), ("fp64", "F64")):
            written, _, values = self.out("--dtype", dtype)["out"]
            self.assertEqual(written, name)
            for a, b in zip(values, self.attention()[0]):
                self.assertAlmostEqual(a, b, delta=0.02)

    def test_expect(self):
        right = self.attention()[0]
        wrong = list(right)
        wrong[7] += 1e-3
        not_a_number = [*right[:-1], math.nan]
        write_safetensors(self.path("expect.safetensors"), {
            **self.tensors, "right": ("F32", self.SHAPE, right), "right64": ("F64", self.SHAPE, right),
            "wrong": ("F32", self.SHAPE, wrong), "nan": ("F32", self.SHAPE, not_a_number), "short": ("F32", (2, 5, 2, 2), right[:40])})
        file = self.path("expect.safetensors")
        for name in ("right", "right64"):
            result = self.json_of("run", file, "--expect", name, "--seconds", 0, "--json")
            self.assertEqual(result["compared_with"], "expect")
            self.assertTrue(result["results"][0]["passed"])
        for name in ("wrong", "nan"):
            result = self.json_of("run", file, "--expect", name, "--seconds", 0, "--json", code=1)
            self.assertFalse(result["results"][0]["passed"])
        self.assertEqual(attnmux("run", file, "--expect", "wrong", "--all", "--seconds", 0).returncode, 1)
        self.refused(2, "run", file, "--expect", "short", says=["--expect", "(2, 5, 2, 2)", "(2, 5, 2, 4)"])

    def test_exit_codes(self):
        refused = lambda code, *flags, says=(): self.refused(code, "run", self.file, *flags, says=says)
        self.refused(2, "run", says=["FILE"])
        self.refused(2, "run", self.path("nothing.safetensors"), says=["nothing.safetensors"])
        refused(2, "--v", "w", says=["--v", '"w"', '"v"'])
        refused(2, "--q", "flat", says=["--q", "(8, 10)"])
        refused(2, "--q", "ints", says=["int32"])
        refused(2, "--mask", "bias")
        refused(2, "--key-lengths", "too_long", says=["--key-lengths", "6"])
        refused(2, "--key-lengths", "q", says=["--key-lengths", "int32"])
        refused(2, "--key-lengths", "nothing", says=["--key-lengths"])
        refused(2, "--head-dim", 8, says=["--head-dim", "8", "4"])
        refused(2, "--backend", "flsh", says=['"flash"'])
        refused(2, "--backend", "flash", "--all", says=["--all"])
        refused(2, "--out", self.path("out.txt"), says=["--out", ".safetensors"])
        refused(2, "--out", self.file, says=["--out", "input"])
        refused(2, "--out", self.path("no/such/folder/out.safetensors"))
        refused(3, "--backend", "_flash_3", says=['"_flash_3"'])
        refused(3, "--backend", "flash", "--dtype", "fp64", says=["fp64"])
        refused(3, "--device", "cuda:1", says=["cuda:1"])
        self.assertEqual(attnmux("run", self.file, "--all", ATTNMUX_FORCE_BACKEND="_flash_3").returncode, 3)

    def test_broken_files(self):
        with open(self.file, "rb") as file:
            whole = file.read()
        broken = self.path("broken.safetensors")
        for content in (b"", whole[:5], whole[:100], whole[:-1], struct.pack("<Q", 2**60) + whole[8:], b"\xff" * 64):
            with open(broken, "wb") as file:
                file.write(content)
            self.refused(2, "run", broken, says=["broken.safetensors"])


class RealData(CliTest):
    def test_every_case_within_tolerance(self):
        if DATA is None:
            self.skipTest("no --data")
        for case, layer in (("page", 2), ("sentences", 0), ("sentences", 5)):
            names = [word for n in "qkv" for word in (f"--{n}", f"{case}.{layer}.{n}")]
            result = self.json_of("run", DATA, *names, "--key-lengths", f"{case}.key_lengths", "--expect", f"{case}.{layer}.out",
                                  "--all", "--json", "--seconds", 0)
            self.assertTrue(all(row["passed"] for row in result["results"] if row["ran"]))
        # The padding matters: without the lengths the result is another one.
        names = [word for n in "qkv" for word in (f"--{n}", f"sentences.0.{n}")]
        self.json_of("run", DATA, *names, "--expect", "sentences.0.out", "--json", "--seconds", 0, code=1)


class Plugins(CliTest):
    def test_a_plugin_is_listed_run_and_verified(self):
        if PLUGIN is None:
            self.skipTest("no --plugin")
        names = [row["name"] for row in self.json_of("list", "--plugin", PLUGIN, "--json")]
        added = [name for name in names if name not in PUBLIC_NAMES and name != "auto"]
        self.assertTrue(added and all("." in name for name in added))
        self.assertIn(added[0], self.run_ok("--plugin", PLUGIN, "list").stdout)
        rows = self.json_of("bench", *SMALL, "--dtype", "fp32", "--plugin", PLUGIN, "--backend", added[0], "--seconds", 0, "--json")
        self.assertEqual(rows[0]["backend"], added[0])
        self.assertTrue(self.json_of("verify", "--plugin", PLUGIN, "--backend", added[0], "--json")["passed"])
        self.assertEqual(self.json_of("explain", "--plugin", PLUGIN, "--json", ATTNMUX_BACKEND=added[0])["backend"], added[0])

    def test_a_file_that_is_none(self):
        self.refused(2, "--plugin", "/nonexistent.so", "list", says=["--plugin", "/nonexistent.so"])
        self.refused(2, "list", "--plugin", __file__, says=["--plugin"])
        self.refused(2, "list", "--plugin", says=["--plugin needs a value"])


class Terminal(CliTest):
    """On a terminal there is colour, unless NO_COLOR is set."""

    def on_terminal(self, *arguments, **variables):
        controller, terminal = pty.openpty()
        process = subprocess.Popen([BINARY, *arguments], stdout=terminal, stderr=terminal, stdin=subprocess.DEVNULL,
                                   env=environment(TERM="xterm", **variables))
        os.close(terminal)
        text = b""
        try:
            while chunk := os.read(controller, 65536):
                text += chunk
        except OSError:  # Linux reports the end of a terminal so
            pass
        os.close(controller)
        self.assertEqual(process.wait(), 0)
        return text.decode()

    def test_colour(self):
        self.assertIn("\x1b[", self.on_terminal("list"))
        self.assertNotIn("\x1b[", self.on_terminal("list", NO_COLOR="1"))
        self.assertNotIn("\x1b[", self.run_ok("list").stdout)

    def test_columns_align(self):
        lines = self.run_ok("list").stdout.splitlines()[1:]
        column = lines[0].index("family")
        for line in lines:
            self.assertTrue(line[column - 1] == " " and line[column] != " ", line)
        self.assertIsNone(re.search(r"(?m) $", "\n".join(lines)))


def main():
    global BINARY, DATA, PLUGIN
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--data")
    parser.add_argument("--plugin")
    arguments, rest = parser.parse_known_args()
    BINARY, DATA, PLUGIN = os.path.abspath(arguments.binary), arguments.data, arguments.plugin
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
