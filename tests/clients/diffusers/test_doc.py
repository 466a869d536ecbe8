# SPDX-License-Identifier: Apache-2.0
"""docs/diffusers.md: its code runs, with a small random pipeline in the place of Qwen-Image, and its table is what calls say."""

from __future__ import annotations

import re

import pytest
import torch
from arguments_table import DOC, MARK, table
from diffusers import QwenImagePipeline
from diffusers.models import AttentionBackendName
from tiny_pipelines import qwen_image

import attnmux.diffusers

# The document is written for the newest version; the oldest knows fewer names.
pytestmark = pytest.mark.skipif(
    "_flash_3_hub" not in {name.value for name in AttentionBackendName}, reason="this version lacks a name of the document"
)


def test_the_table_of_arguments_is_what_the_backends_do():
    text = DOC.read_text()
    assert text[text.index(MARK) + len(MARK) :].strip() == table().strip()


def test_the_snippets_run(monkeypatch, capsys):
    def from_pretrained(name, torch_dtype, device_map):
        assert (name, torch_dtype, device_map) == ("Qwen/Qwen-Image", torch.bfloat16, "cuda")
        pipeline, inputs, _ = qwen_image()
        pipeline.set_progress_bar_config(disable=True)
        call = QwenImagePipeline.__call__

        class Small(QwenImagePipeline):
            def __call__(self, prompt):
                assert "margarita" in prompt
                return call(self, **inputs, height=32, width=32, num_inference_steps=1)

        pipeline.__class__ = Small
        return pipeline

    monkeypatch.setattr(QwenImagePipeline, "from_pretrained", staticmethod(from_pretrained))
    attnmux.diffusers.uninstall()
    namespace = {}
    for code in re.findall(r"^```python\n(.*?)^```", DOC.read_text(), re.S | re.M):
        exec(compile(code, str(DOC), "exec"), namespace)
    assert 'cannot run here' in capsys.readouterr().out
    assert namespace["image"].size == (32, 32)
