# SPDX-License-Identifier: Apache-2.0
"""The code of docs/transformers.md runs, on a small random model."""

from __future__ import annotations

import pathlib
import re

import torch
from tiny_models import make_model, tokens

DOC = pathlib.Path(__file__).resolve().parents[3] / "docs" / "transformers.md"


def test_the_snippets_run(tmp_path, capsys):
    make_model("llama").save_pretrained(tmp_path)
    ids = tokens(2, 9)
    namespace = {"path": tmp_path, "inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}}
    for code in re.findall(r"^```python\n(.*?)^```", DOC.read_text(), re.S | re.M):
        exec(compile(code, str(DOC), "exec"), namespace)
    assert capsys.readouterr().out.strip() == "attnmux_fa_3"
