#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants a spill and an ignored setmaxnreg (warning C7508), and sees tools/checked_nvcc fail. Argument: nvcc."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

NVCC = sys.argv.pop(1)
TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "checked_nvcc"

CLEAN = "__global__ void clean(float* x) { x[threadIdx.x] *= 2; }\n"
# More values alive at once than the registers that -maxrregcount leaves.
SPILL = """__global__ void spilling(float* x) {
  float v[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) v[i] = x[i * 32 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 32 + threadIdx.x] = v[i] * v[63 - i] + v[(i * 7) % 64];
}
"""
# Without __launch_bounds__ ptxas does not know the registers at entry, ignores the instruction and warns.
IGNORED = """__global__ void ignored(float* x) {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
  x[threadIdx.x] *= 2;
}
"""


class CheckedNvcc(unittest.TestCase):
    def compile(self, source, *flags, allow=None, arch="80"):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "a.cu").write_text(source)
            command = [sys.executable, str(TOOL)]
            if allow is not None:
                (folder / "allow.txt").write_text(allow)
                command += ["--allow", str(folder / "allow.txt")]
            command += [NVCC, "-gencode", f"arch=compute_{arch},code=sm_{arch}", "-Xptxas=-v", *flags, "-c", str(folder / "a.cu"),
                        "-o", str(folder / "a.o")]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            return run.returncode, run.stderr, (folder / "a.o").exists()

    def test_clean_code_passes_in_silence(self):
        self.assertEqual(self.compile(CLEAN), (0, "", True))

    def test_a_spill_fails_and_leaves_no_object(self):
        code, text, made = self.compile(SPILL, "-maxrregcount=24")
        self.assertNotEqual(code, 0)
        self.assertIn("error: spilling(float*): ", text)
        self.assertIn("bytes spill stores", text)
        self.assertFalse(made)

    def test_an_ignored_setmaxnreg_fails(self):
        code, text, made = self.compile(IGNORED, arch="90a")
        self.assertNotEqual(code, 0, text)
        self.assertIn("C7508", text)
        self.assertFalse(made)

    def test_a_permitted_function_passes(self):
        code, text, made = self.compile(SPILL, "-maxrregcount=24", allow="# comment\nspilling # planted by a test\n")
        self.assertEqual((code, made), (0, True), text)

    def test_permitting_another_function_does_not_help(self):
        code, _, _ = self.compile(SPILL, "-maxrregcount=24", allow="spilling_other # planted by a test\n")
        self.assertNotEqual(code, 0)

    def test_a_permission_needs_a_reason(self):
        code, text, _ = self.compile(CLEAN, allow="spilling\n")
        self.assertNotEqual(code, 0)
        self.assertIn("allow.txt:1", text)

    def test_errors_of_nvcc_pass_through(self):
        code, text, _ = self.compile("__global__ void broken( {}")
        self.assertNotEqual(code, 0)
        self.assertIn("error", text)


if __name__ == "__main__":
    unittest.main()
