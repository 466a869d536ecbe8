#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the files in goldens/ with the reference implementations of both formats.

Needs: pip install numpy safetensors
Element i of a tensor is (i - 3) / 2 for floating dtypes, i - 3 for int32 and int64, i for uint8, i % 2 for bool.
"""
import os

import numpy as np
from safetensors import TensorSpec, serialize_file

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "goldens")


def values(dtype, shape):
    i = np.arange(int(np.prod(shape, dtype=np.int64)))
    if dtype == np.bool_:
        i = i % 2
    elif np.issubdtype(dtype, np.floating):
        i = (i - 3) / 2
    elif np.issubdtype(dtype, np.signedinteger):
        i = i - 3
    return i.astype(dtype).reshape(shape)


def write(file, tensors, metadata):
    specs = {name: TensorSpec(dtype=dtype, shape=a.shape, data_ptr=a.ctypes.data, data_len=a.nbytes)
             for name, (dtype, a) in tensors.items()}
    serialize_file(specs, os.path.join(HERE, file), metadata)


def bfloat16(array):
    return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # exact for these values


def safetensors():
    f32 = np.float32
    tensors = {
        "f64": ("float64", values(np.float64, (2, 3))),
        "f32": ("float32", values(f32, (2, 3, 1, 2))),
        "f16": ("float16", values(np.float16, (5,))),
        "bf16": ("bfloat16", bfloat16(values(f32, (3, 3)))),
        "bool": ("bool", values(np.bool_, (3,))),
        "u8": ("uint8", values(np.uint8, (2, 2))),
        "i32": ("int32", values(np.int32, (7,))),
        "i64": ("int64", values(np.int64, (2,))),
        "scalar": ("float32", values(f32, ())),
        "empty": ("float32", values(f32, (0, 4))),
        "größe \"x\"\n": ("int32", values(np.int32, (1,))),
        "rank8": ("uint8", values(np.uint8, (1, 2, 1, 2, 1, 2, 1, 1))),
    }
    write("all_dtypes.safetensors", tensors, {"made by": "make_goldens.py"})
    del tensors["i64"]
    write("usable.safetensors", tensors, {"made by": "make_goldens.py"})
    write("nothing.safetensors", {}, None)


def npy():
    def save(name, array, version=None):
        with open(os.path.join(HERE, name + ".npy"), "wb") as f:
            np.lib.format.write_array(f, array, version=version)

    for name, dtype in (("f8", np.float64), ("f4", np.float32), ("f2", np.float16), ("b1", np.bool_), ("u1", np.uint8),
                        ("i4", np.int32)):
        save(name, values(dtype, (2, 3, 4)))
    save("scalar", values(np.float32, ()))
    save("vector", values(np.float32, (5,)))
    save("empty", values(np.float32, (0, 3)))
    save("version2", values(np.float32, (2, 3)), (2, 0))
    save("version3", values(np.float32, (2, 3)), (3, 0))
    save("fortran", np.asfortranarray(values(np.float32, (2, 3, 4))))
    save("fortran_i4", np.asfortranarray(values(np.int32, (3, 2))))
    # Refused, each with its reason.
    save("i8", values(np.int64, (2,)))
    save("big_endian", values(np.float32, (2,)).astype(">f4"))
    save("complex", np.zeros(2, np.complex64))
    save("record", np.zeros(2, [("a", "<f4"), ("b", "<i4")]))
    save("void2", values(np.float16, (2,)).view("V2"))  # what numpy makes of a bfloat16 array


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    safetensors()
    npy()
