# SPDX-License-Identifier: Apache-2.0
"""Tensor files with nothing but the standard library: a second opinion on the formats that the tool reads and writes."""
import ast
import json
import math
import struct

FORMATS = {"F64": "d", "F32": "f", "F16": "e", "I64": "q", "I32": "i", "U8": "B", "BOOL": "B"}
DESCRIPTIONS = {"<f8": "d", "<f4": "f", "<f2": "e", "<i8": "q", "<i4": "i", "|u1": "B", "|b1": "B"}


def write_safetensors(path, tensors):
    """tensors: name → (dtype, shape, flat values)."""
    header, body = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        data = struct.pack(f"<{math.prod(shape)}{FORMATS[dtype]}", *values)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


def read_safetensors(path):
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        data = content[8 + length + entry["data_offsets"][0] : 8 + length + entry["data_offsets"][1]]
        if entry["dtype"] == "BF16":  # the upper half of an F32
            data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
        code = FORMATS.get(entry["dtype"], "f")
        tensors[name] = (entry["dtype"], entry["shape"], list(struct.unpack(f"<{math.prod(entry['shape'])}{code}", data)))
    return tensors


def write_npy(path, descr, shape, values):
    text = repr({"descr": descr, "fortran_order": False, "shape": tuple(shape)})
    text += " " * (-(len(text) + 11) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
        file.write(struct.pack(f"<{math.prod(shape)}{DESCRIPTIONS[descr]}", *values))


def read_npy(path):
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<H", content, 8)
    header = ast.literal_eval(content[10 : 10 + length].decode())
    values = struct.unpack(f"<{math.prod(header['shape'])}{DESCRIPTIONS[header['descr']]}", content[10 + length :])
    return header["descr"], header["shape"], list(values)
