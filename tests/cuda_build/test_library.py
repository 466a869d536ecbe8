#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the built library holds: machine code for sm80, PTX for newer GPUs, tensor cores where they were meant, and no
need of a CUDA library where it runs. Arguments: cuobjdump, the library."""
import functools
import os
import re
import subprocess
import sys
import unittest

CUOBJDUMP, LIBRARY = sys.argv.pop(1), sys.argv.pop(1)
if not os.path.exists(CUOBJDUMP):
    print(f"skipped: there is no {CUOBJDUMP}")
    sys.exit(77)


@functools.cache  # disassembling the library takes a minute
def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def innermost_loops(lines):
    """The instructions between the target of a branch backwards and the branch, where no shorter such loop has products."""
    code = [(int(m[1], 16), m[2]) for m in (re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", x) for x in lines) if m]
    index = {address: i for i, (address, _) in enumerate(code)}
    loops = []
    for i, (address, text) in enumerate(code):
        branch = re.search(r"\bBRA\S*\s.*?0x([0-9a-f]+)", text)
        if branch and int(branch[1], 16) < address:
            body = [x for _, x in code[index[int(branch[1], 16)]:i + 1]]
            if sum("GMMA" in x for x in body) > 1:
                loops.append(body)
    return [min(loops, key=len)] if loops else []


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

    def test_flash_3_multiplies_by_warpgroups_and_copies_by_tensor_maps(self):
        functions, name = {}, ""
        for line in output(CUOBJDUMP, "--dump-sass", LIBRARY).splitlines():
            if "Function :" in line:
                name = line.split(":")[1].strip()
            elif "flash_sm90_forward" in name or "flash_sm90_wide" in name or "flash_sm90_fp8" in name:
                functions.setdefault(name, []).append(line)
        self.assertGreaterEqual(len(functions), 48)  # tiles, dtypes, sets of features
        for name, lines in functions.items():
            lines = [x for x in lines if not ("joint" in name and "HMMA" in x and "HGMMA" not in x)]  # multiply_again
            words = set(re.findall(r"\b(HGMMA|QGMMA|UTMALDG|WARPGROUP\.DEPBAR|HMMA|LDL|STL)\b", "\n".join(lines)))
            products = "QGMMA" if "flash_sm90_fp8" in name else "HGMMA"
            self.assertEqual(words, {products, "UTMALDG", "WARPGROUP.DEPBAR"}, name)

    # A step overlaps only if the wait for P·V stands behind its exponentials: nothing warns where the assembler moves it.
    def test_flash_3_waits_behind_its_exponentials(self):
        loops = 0
        name, lines = "", []
        for line in output(CUOBJDUMP, "--dump-sass", LIBRARY).splitlines() + ["Function : end"]:
            if "Function :" not in line:
                lines.append(line)
                continue
            if "flash_sm90_forward" in name and "Features)3" not in name and "FeaturesE3" not in name:
                for body in innermost_loops(lines):
                    waits = [i for i, x in enumerate(body) if "WARPGROUP.DEPBAR" in x]
                    if not waits:
                        continue
                    loops += 1
                    self.assertEqual(len(waits), 2, name)
                    self.assertEqual([x for x in body[waits[-1]:] if "MUFU.EX2" in x], [], name)
                    self.assertGreater(len([x for x in body[waits[0]:waits[1]] if "MUFU.EX2" in x]), 30, name)
            name, lines = line.split(":")[1].strip(), []
        self.assertGreaterEqual(loops, 36)

    def test_starts_without_a_driver(self):
        needed = output("readelf", "-d", LIBRARY)
        self.assertNotIn("libcuda", needed)
        self.assertNotIn("libcudart", needed)


if __name__ == "__main__":
    unittest.main()
