# SPDX-License-Identifier: Apache-2.0
"""Things that need a process of their own: import, environment, fork, interpreter exit, the GIL."""

import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import attnmux
import numpy as np
import pytest

CALL = "import attnmux, numpy as np; x = np.ones((1, 64, 2, 8), np.float32)\n"


def test_import_brings_no_array_library_along(python):
    code = "import attnmux, sys; print([m for m in ('numpy', 'torch', 'jax', 'ml_dtypes') if m in sys.modules])"
    assert python(code) == "[]\n"


def test_the_environment_is_the_default(python):
    show = CALL + "print(attnmux.default_attention_backend(), attnmux.explain(x, x, x).backend)"
    assert python(show, ATTNMUX_BACKEND="flash") == "flash flash\n"
    again = CALL + "attnmux.set_default_attention_backend('xformers'); print(attnmux.explain(x, x, x).backend)\n"
    again += "attnmux.set_default_attention_backend(None); print(attnmux.default_attention_backend())"
    assert python(again, ATTNMUX_BACKEND="flash") == "xformers\nflash\n"
    assert "_native_math" in python(
        CALL + "print(attnmux.explain(x, x, x, backend='flash'))", ATTNMUX_FORCE_BACKEND="_native_math"
    )


def test_a_bad_environment_is_an_error_of_calls_not_of_import(python):
    code = CALL + "try: attnmux.attention(x, x, x)\nexcept attnmux.BadEnvironmentError as e: print(e)"
    assert 'ATTNMUX_BACKEND is "flsh"' in python(code, ATTNMUX_BACKEND="flsh")
    assert 'ATTNMUX_NUM_THREADS is "many"' in python(code, ATTNMUX_NUM_THREADS="many")


def test_a_plugins_name_in_the_environment_waits_for_the_plugin(python):
    code = CALL + "attnmux.attention(x, x, x, backend='flash')\n"
    code += "try: attnmux.attention(x, x, x)\nexcept attnmux.UnknownBackendError as e: print(e)"
    assert "acme.fast" in python(code, ATTNMUX_BACKEND="acme.fast")


def test_load_plugin(python, tmp_path):
    root, plugin = pathlib.Path(__file__).resolve().parents[2], str(tmp_path / "plugin.so")
    compiler = shutil.which("cc")
    if compiler is None or not (root / "examples/skeleton_kernel").exists():
        pytest.skip("needs a C compiler and examples/skeleton_kernel")
    source = root / "examples/skeleton_kernel/skeleton_kernel.c"
    command = [compiler, "-std=c11", "-shared", "-fPIC", "-I", root / "include", source, "-o", plugin, "-lm"]
    subprocess.run(command, check=True)
    code = CALL + f"attnmux.load_plugin({plugin!r})\n"
    code += "name = attnmux.list_backends()[-1].name; print(name, attnmux.explain(x, x, x).backend == name)"
    assert python(code, ATTNMUX_BACKEND="skeleton.plain").split()[1] == "True"


def test_fork(python):
    """A forked worker has scopes, default and results of its parent, and threads of its own."""
    code = (
        CALL
        + """
import os
rng = np.random.default_rng(0)
q = rng.standard_normal((2, 256, 4, 32)).astype(np.float32)
attnmux.set_num_threads(2)
expected = attnmux.attention(q, q, q, backend="flash")
with attnmux.attention_backend("flash"):
    for _ in range(4):
        child = os.fork()
        if child == 0:
            same = np.array_equal(attnmux.attention(q, q, q), expected)
            os._exit(0 if same and attnmux.explain(q, q, q).backend == "flash" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert np.array_equal(attnmux.attention(q, q, q), expected)
print("ok")
"""
    )
    assert python(code) == "ok\n"


def test_multiprocessing(python, tmp_path):
    for method in ("fork", "spawn", "forkserver"):
        program = tmp_path / f"{method}.py"
        program.write_text(
            CALL
            + f"""
import multiprocessing
def work(i): return float(attnmux.attention(x * i, x, x * i)[0, 0, 0, 0])
if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(2) as pool: print(pool.map(work, [1, 2, 3]))
"""
        )
        done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120)
        assert done.stdout == "[1.0, 2.0, 3.0]\n", method + done.stderr


def test_exit_with_daemon_threads(python):
    """The interpreter ends while threads compute: nothing crashes, nothing is reported as leaked."""
    code = (
        CALL
        + """
import threading, time
def work():
    while True: attnmux.attention(x, x, x)
for _ in range(4): threading.Thread(target=work, daemon=True).start()
time.sleep(0.2); plan = attnmux.plan(x, x, x); print("ok")
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_objects_are_freed_at_exit(python):
    code = CALL + "plan = attnmux.plan(x, x, x); plan.run(x, x, x); e = attnmux.explain(x, x, x); print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_the_gil_is_released():
    def call(rows):
        q = np.ones((1, rows, 4, 64), np.float32)
        begin = time.perf_counter()
        attnmux.attention(q, q, q, backend="_native_math")
        return time.perf_counter() - begin

    rows = 256
    while call(rows) < 0.04:
        rows += rows // 2
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    begin = time.perf_counter()
    for _ in range(12):
        call(rows)
    end = time.perf_counter()
    stop.set()
    ticker.join()
    # A held GIL lets the other thread in between two calls, once or twice.
    inside = [t for t in ticks if begin < t < end]
    assert len(inside) > 4 * 12, f"{len(inside)} ticks in 12 calls of {(end - begin) / 12 * 1e3:.1f} ms"


def test_num_threads():
    before = attnmux.num_threads()
    attnmux.set_num_threads(2)
    assert attnmux.num_threads() == 2
    with pytest.raises(attnmux.InvalidArgumentError):
        attnmux.set_num_threads(-3)
    attnmux.set_num_threads(before)
    attnmux.release_workspace()
