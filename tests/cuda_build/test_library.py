#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the built library holds: machine code for sm80, PTX for newer GPUs, tensor cores where they were meant, and no
need of a CUDA library where it runs. Arguments: cuobjdump, the library."""
import os
import subprocess
import sys
import unittest

CUOBJDUMP, LIBRARY = sys.argv.pop(1), sys.argv.pop(1)
if not os.path.exists(CUOBJDUMP):
    print(f"skipped: there is no {CUOBJDUMP}")
    sys.exit(77)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Library(unittest.TestCase):
    def test_machine_code_and_ptx(self):
        self.assertIn("sm_80.cubin", output(CUOBJDUMP, "--list-elf", LIBRARY))
        self.assertIn("sm_90a.cubin", output(CUOBJDUMP, "--list-elf", LIBRARY))
        self.assertIn("sm_80.ptx", output(CUOBJDUMP, "--list-ptx", LIBRARY))

    def test_flash_uses_tensor_cores_and_asynchronous_copies(self):
        sass, function, found = output(CUOBJDUMP, "--dump-sass", LIBRARY), "", {}
        for line in sass.splitlines():
            if "Function :" in line:
                function = line.split(":")[1].strip()
                found[function] = set()
            for word in ("HMMA.16816", "LDGSTS", "LDSM"):
                if word in line:
                    found[function].add(word)
        flash = [used for name, used in found.items() if "flash_sm80_forward" in name]
        self.assertGreaterEqual(len(flash), 12)
        for used in flash:
            self.assertEqual(used, {"HMMA.16816", "LDGSTS", "LDSM"})

    def test_starts_without_a_driver(self):
        needed = output("readelf", "-d", LIBRARY)
        self.assertNotIn("libcuda", needed)
        self.assertNotIn("libcudart", needed)


if __name__ == "__main__":
    unittest.main()
