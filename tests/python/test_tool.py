# SPDX-License-Identifier: Apache-2.0
"""`python -m attnmux`, the script `attnmux`, and verify and bench, which run it."""

import pathlib
import subprocess
import sys

import attnmux
import pytest
from attnmux import _tool

if not (pathlib.Path(_tool.__file__).with_name("_bin") / "attnmux").exists():
    pytest.skip("the package was built without the tool", allow_module_level=True)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "arguments", [["list"], ["--version"], ["explain", "--seqlen-q", "64"], ["bench", "--dtype", "x"], []]
)
def test_the_module_is_the_tool(arguments):
    module = run(sys.executable, "-m", "attnmux", *arguments)
    tool = run(_tool.executable(), *arguments)
    assert (module.returncode, module.stdout, module.stderr) == (tool.returncode, tool.stdout, tool.stderr)
    assert module.stdout or module.stderr


def test_the_script_is_the_tool():
    script = pathlib.Path(sys.executable).with_name("attnmux")
    if not script.exists():
        pytest.skip("attnmux is not installed in this environment")
    assert run(script, "--version").stdout == run(_tool.executable(), "--version").stdout


def test_the_tool_is_of_this_version():
    assert attnmux.__version__ in run(_tool.executable(), "--version").stdout


def test_verify():
    answer = attnmux.verify(backend="flash", dtype="fp32", seqlen_q=64, heads_q=2, head_dim=16)
    assert answer["passed"] is True and {r["backend"] for r in answer["results"]} == {"flash"}


def test_bench():
    problem = dict(seqlen_q=32, heads_q=1, head_dim=8, dtype="fp32", causal=True)
    rows = attnmux.bench(backend=["flash", "_native_math"], seconds=0.05, **problem)
    assert {r["backend"] for r in rows} == {"flash", "_native_math"} and all(r["median_s"] > 0 for r in rows)


def test_failures_of_the_tool_are_exceptions():
    with pytest.raises(attnmux.InvalidArgumentError, match="dtype"):
        attnmux.bench(dtype="int3")
    with pytest.raises(attnmux.UnavailableError, match="sage"):
        attnmux.bench(backend="sage")
