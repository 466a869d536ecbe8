# SPDX-License-Identifier: Apache-2.0
"""Run in a virtual environment that holds nothing but the wheel: it imports, computes and brings its tool along."""

import array
import importlib.util
import math
import subprocess
import sys

import attnmux

for name in ("numpy", "torch"):
    assert importlib.util.find_spec(name) is None, f"{name} is here: this environment is not empty"


def buffer(values, shape):
    return memoryview(array.array("f", values)).cast("B").cast("f", shape)


# Two queries, two keys, one head: the second query sees both keys with the same score, so it averages.
q, k, v = (buffer(values, (1, 2, 1, 2)) for values in ([1, 0, 1, 0], [1, 0, 1, 0], [2, 4, 6, 8]))
out = buffer([0] * 4, (1, 2, 1, 2))
attnmux.attention(q, k, v, out=out, causal=True)
assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(memoryview(out).cast("B").cast("f"), [2, 4, 4, 6])), (
    out.tolist()
)
assert attnmux.explain(q, k, v).kernel.startswith("cpu_")
assert any(b.available for b in attnmux.list_backends())
try:
    attnmux.attention(q, k, v)
except attnmux.InvalidArgumentError as error:
    assert "give out=" in str(error)
else:
    raise AssertionError("an output cannot be allocated without an array library")
try:
    import attnmux.torch
except (ImportError, attnmux.Error) as error:
    print("attnmux.torch:", str(error).splitlines()[0])
else:
    raise AssertionError("attnmux.torch was imported without PyTorch")
listed = subprocess.run([sys.executable, "-m", "attnmux", "list"], capture_output=True, text=True, check=True).stdout
assert "_native_math" in listed, listed
print("alone: ok")
