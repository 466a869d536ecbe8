# SPDX-License-Identifier: Apache-2.0
"""The Python code of the README, of docs/python.md and of docs/pytorch.md runs: the blocks of a file one after another, in one namespace."""

import pathlib
import re

import attnmux
import pytest
from attnmux import _tool

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
FILES = ["docs/python.md", "docs/pytorch.md", "README.md"]


@pytest.mark.parametrize("name", FILES)
def test_snippets_run(name, monkeypatch, tmp_path):
    text = (ROOT / name).read_text()
    blocks = [(text[: m.start(1)].count("\n"), m[1]) for m in BLOCK.finditer(text)]
    assert blocks, f"{name} has no block of Python"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNMUX_BACKEND", raising=False)
    has_tool = (pathlib.Path(_tool.__file__).with_name("_bin") / "attnmux").exists()
    namespace = {"__name__": "snippet"}
    for line, code in blocks:
        if not has_tool and ("attnmux.verify" in code or "attnmux.bench" in code):
            continue
        exec(compile("\n" * line + code, str(ROOT / name), "exec"), namespace)
    assert attnmux.default_attention_backend() == "native"
