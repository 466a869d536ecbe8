# SPDX-License-Identifier: Apache-2.0
"""The operators in a process: loading them once, what they export, threads, fork, leaks, and what a call costs."""

import pathlib
import re
import shutil
import statistics
import subprocess
import threading
import time

import torch
import torch.nn.functional as F
from torch_state import clean_state  # noqa: F401

import attnmux
from attnmux.torch import _load
from attnmux.torch import scaled_dot_product_attention as sdpa


def symbols(option):
    return subprocess.run(
        ["nm", "-D", option, str(_load.library_path())], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_only_the_stable_abi_is_used():
    """No C++ symbol of PyTorch: its C functions, of which one set serves every version from 2.9 on."""
    undefined = [line.split()[-1].split("@")[0] for line in symbols("--undefined-only")]
    theirs = [s for s in undefined if re.search(r"at\d*|c10|torch", s) and not s.startswith("_ZNKSt") and "torch" in s or "c10" in s]
    assert any(s == "aoti_torch_library_impl" for s in theirs)
    assert all(re.fullmatch(r"(aoti_)?torch_\w+", s) for s in theirs), theirs
    # What came after 2.9 is asked for weakly, so that 2.9 can load the file.
    newer = [line for line in symbols("--undefined-only") if line.split()[-1] == "torch_get_num_threads"]
    assert [line.split()[0] for line in newer] == ["w"]
    assert not [s for s in theirs if s.startswith("torch_") and s != "torch_get_num_threads"]


def test_nothing_is_exported():
    assert not [line for line in symbols("--defined-only") if "attnmux" in line.lower()]


def test_a_second_copy_is_noticed(python, tmp_path):
    """Left alone, PyTorch would end the process."""
    copy = tmp_path / "other" / "attnmux"
    shutil.copytree(pathlib.Path(attnmux.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    program = f"""
import torch, sys
torch.ops.load_library({str(_load.library_path())!r})
sys.path.insert(0, {str(copy.parent)!r})
import attnmux
assert attnmux.__file__.startswith({str(copy)!r})
try:
    import attnmux.torch
except attnmux.Error as error:
    print(error)
"""
    printed = python(program)
    assert "second copy" in printed and str(copy) in printed and str(_load.library_path().resolve()) in printed


def test_the_same_file_twice_is_fine(python):
    python(f"import torch; torch.ops.load_library({str(_load.library_path())!r}); import attnmux.torch")


def test_a_package_without_the_operators_says_so(python, tmp_path):
    copy = tmp_path / "bare" / "attnmux"
    shutil.copytree(
        pathlib.Path(attnmux.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", _load.NAME)
    )
    printed = python(
        f"""
import sys
sys.path.insert(0, {str(copy.parent)!r})
import attnmux
try:
    import attnmux.torch
except attnmux.UnavailableError as error:
    print(error)
"""
    )
    assert "built without PyTorch" in printed


def test_threads_with_different_backends():
    q = torch.randn(2, 3, 65, 16)
    backends = ["native", "_native_math", "flash", "xformers"] * 2
    expected = {}
    for backend in backends:
        with attnmux.attention_backend(backend):
            expected[backend] = sdpa(q, q, q, is_causal=True)
    failures = []

    def run(backend):
        with attnmux.attention_backend(backend):
            for _ in range(50):
                if not torch.equal(sdpa(q, q, q, is_causal=True), expected[backend]):
                    failures.append(backend)

    threads = [threading.Thread(target=run, args=(b,)) for b in backends]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_backward_on_another_thread_knows_its_problem():
    q = torch.randn(1, 2, 9, 8, requires_grad=True)
    with attnmux.attention_backend("flash"):
        out = sdpa(q, q, q).sum()
    grads = []
    thread = threading.Thread(target=lambda: grads.append(torch.autograd.grad(out, q)[0]))
    thread.start()
    thread.join()
    torch.testing.assert_close(grads[0], torch.autograd.grad(F.scaled_dot_product_attention(q, q, q).sum(), q)[0])


def test_fork(python):
    program = """
import os, torch, attnmux.torch
q = torch.randn(2, 4, 300, 16)
f = attnmux.torch.scaled_dot_product_attention
expected = f(q, q, q)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(f(q, q, q), expected) else 1)
print(os.waitpid(child, 0)[1])
"""
    assert python(program).strip() == "0"


def test_threads_of_torch_are_a_cap(python):
    program = """
import torch, attnmux, attnmux.torch, os
attnmux.set_num_threads(4)
torch.set_num_threads(1)
q = torch.randn(4, 8, 400, 32)
before = len(os.listdir("/proc/self/task"))
attnmux.torch.scaled_dot_product_attention(q, q, q)
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert python(program).strip() == "0"


def test_nothing_leaks(python):
    """An output is 1 MiB, so what every call kept would be 90 MiB and more; the heap itself moves by some 15 MiB. In a process
    of its own: others' heaps grow."""
    program = """
import gc, pathlib, weakref
import torch, attnmux
from attnmux.torch import attention, scaled_dot_product_attention as sdpa

torch.set_num_threads(1)
q, k, v = (torch.randn(2, 8, 256, 64) for _ in range(3))
mask = torch.zeros(256, 256)

def work():
    sdpa(q, k, v, mask)
    try:
        sdpa(q, k, v, mask[:5])
    except attnmux.Error:
        pass
    inputs = [t.detach().requires_grad_() for t in (q, k, v)]
    out = sdpa(*inputs, is_causal=True)
    out.sum().backward()
    attention(*(t.transpose(1, 2) for t in (q, k, v)), return_lse=True)
    return weakref.ref(out), weakref.ref(inputs[0])

def resident():
    gc.collect()
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

for _ in range(10):
    refs = work()
gc.collect()
assert all(ref() is None for ref in refs)
before = resident()
for _ in range(90):
    work()
print(resident() - before)
"""
    assert int(python(program)) < 45 << 20


def ratio_on_a_tiny_problem():
    q = torch.randn(1, 1, 4, 8)
    calls = {"pytorch": lambda: F.scaled_dot_product_attention(q, q, q), "attnmux": lambda: sdpa(q, q, q)}
    times = {name: [] for name in calls}
    with torch.no_grad():
        for _ in range(41):
            for name, call in calls.items():
                for _ in range(20):
                    call()
                start = time.thread_time()
                for _ in range(300):
                    call()
                times[name].append(time.thread_time() - start)
    return statistics.median(a / b for a, b in zip(times["attnmux"], times["pytorch"]))


def test_overhead_of_a_tiny_problem():
    """At most 1.2 × PyTorch's own, in CPU time of this thread: medians of interleaved rounds in one process. Other work on
    the machine takes caches away, which costs the two unequally: so the best of a few attempts."""
    ratios = []
    while len(ratios) < 5 and min(ratios, default=2) > 1.2:
        ratios.append(ratio_on_a_tiny_problem())
    print(f"{min(ratios):.3f} × F.scaled_dot_product_attention")
    assert min(ratios) <= 1.2, ratios
