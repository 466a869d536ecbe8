#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the seeds of safetensors_fuzz and npy_fuzz: the goldens of tests/io, their headers alone, and a few lies."""
import os
import shutil
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDENS = os.path.join(HERE, "..", "io", "goldens")


def seed(target, name, data):
    with open(os.path.join(HERE, "corpus", target, name), "wb") as f:
        f.write(data)


def main():
    for target in ("safetensors_fuzz", "npy_fuzz"):
        folder = os.path.join(HERE, "corpus", target)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)

    for name in ("usable.safetensors", "nothing.safetensors"):
        data = open(os.path.join(GOLDENS, name), "rb").read()
        seed("safetensors_fuzz", name, data)
        seed("safetensors_fuzz", name + ".header", data[8:8 + struct.unpack("<Q", data[:8])[0]])
    entry = b'"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s]}'
    for name, header, data in (
            ("misaligned", entry % (b"a", b"U8", b"1", b"0,1") + b"," + entry % (b"b", b"F64", b"1", b"1,9"), b"123456789"),
            ("unusable", entry % (b"q", b"I64", b"1,1", b"0,8"), b"12345678"),
            ("overflow", entry % (b"q", b"F32", b"4294967296,4294967296", b"0,0"), b""),
            ("metadata", b'"__metadata__":{"a":"\\u00e9\\n"}', b"")):
        header = b"{" + header + b"}"
        seed("safetensors_fuzz", name, struct.pack("<Q", len(header)) + header + data)

    for name in ("f8", "f2", "b1", "i4", "scalar", "empty", "fortran", "version2", "version3", "i8", "record"):
        data = open(os.path.join(GOLDENS, name + ".npy"), "rb").read()
        seed("npy_fuzz", name, data)
    seed("npy_fuzz", "header", b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n")
    header = b"{'descr':'<f4','fortran_order':False,'shape':(1,)}"
    seed("npy_fuzz", "misaligned", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"1234")


if __name__ == "__main__":
    main()
