#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ATTNMUX_CUDA and ATTNMUX_CUDNN: AUTO goes on without and says why, ON fails with the reason. Arguments: cmake, source, generator."""
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

CMAKE, SOURCE, GENERATOR = sys.argv[1:4]
del sys.argv[1:4]


class Switch(unittest.TestCase):
    def configure(self, cuda, *flags, nvcc="Cuda compilation tools, release 12.8, V12.8.93"):
        """The exit code and the text of a configuration with an nvcc that only knows its version."""
        with tempfile.TemporaryDirectory() as folder:
            fake = pathlib.Path(folder, "nvcc")
            fake.write_text(f"#!/bin/sh\necho '{nvcc}'\n")
            fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
            run = subprocess.run(
                [CMAKE, "-S", SOURCE, "-B", f"{folder}/build", "-G", GENERATOR, f"-DATTNMUX_CUDA={cuda}", f"-DCMAKE_CUDA_COMPILER={fake}",
                 "-DATTNMUX_BUILD_APPS=OFF", "-DATTNMUX_BUILD_TESTS=OFF", "-DATTNMUX_BUILD_EXAMPLES=OFF", "-DATTNMUX_INSTALL=OFF", *flags],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=dict(os.environ, LC_ALL="C"))
            return run.returncode, " ".join(run.stdout.split())

    def test_auto_says_why_it_is_off(self):
        code, text = self.configure("AUTO")
        self.assertEqual(code, 0, text)
        self.assertIn("CUDA kernels: no, ", text)
        self.assertIn("is version 12.8; 13.0 or newer is needed", text)

    def test_on_fails_with_the_reason(self):
        code, text = self.configure("ON")
        self.assertNotEqual(code, 0)
        self.assertIn("ATTNMUX_CUDA=ON, but ", text)
        self.assertIn("is version 12.8; 13.0 or newer is needed", text)

    def test_off_does_not_look(self):
        code, text = self.configure("OFF")
        self.assertEqual(code, 0, text)
        self.assertNotIn("CUDA kernels", text)

    def test_a_compiler_that_does_not_compile(self):
        code, text = self.configure("ON", nvcc="Cuda compilation tools, release 13.0, V13.0.88")
        self.assertNotEqual(code, 0)
        self.assertIn("ATTNMUX_CUDA=ON, but ", text)

    def test_sanitizers_have_no_cuda(self):
        code, text = self.configure("AUTO", "-DATTNMUX_SANITIZE=address")
        self.assertEqual(code, 0, text)
        self.assertIn("CUDA kernels: no, sanitizers", text)

    def test_another_value_is_refused(self):
        for arguments in (["MAYBE"], ["OFF", "-DATTNMUX_CUDNN=MAYBE"]):
            code, text = self.configure(*arguments)
            self.assertNotEqual(code, 0)
            self.assertIn("is 'MAYBE'; accepted are AUTO, ON and OFF", text)

    def test_cudnn_without_cuda_is_off(self):
        code, text = self.configure("OFF", "-DATTNMUX_CUDNN=AUTO")
        self.assertEqual(code, 0, text)
        self.assertNotIn("cuDNN kernel", text)
        code, text = self.configure("OFF", "-DATTNMUX_CUDNN=ON")
        self.assertNotEqual(code, 0)
        self.assertIn("ATTNMUX_CUDNN=ON, but this build has no CUDA kernels", text)


if __name__ == "__main__":
    unittest.main()
