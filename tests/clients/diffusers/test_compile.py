# SPDX-License-Identifier: Apache-2.0
"""torch.compile: no graph breaks, one recompile per new backend, none on return."""

from __future__ import annotations

import pytest
import torch
from diffusers import attention_backend
from tiny_pipelines import qwen_inputs, qwen_transformer
from torch._dynamo.utils import counters


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    counters.clear()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@torch.no_grad()
def test_a_whole_transformer():
    model = qwen_transformer()
    inputs = qwen_inputs(model)
    expected = model(**inputs)[0]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    seen = []
    for name in (None, "flash", None, "_native_math", "flash"):
        if name is None:
            actual = compiled(**inputs)[0]
        else:
            with attention_backend(name):
                actual = compiled(**inputs)[0]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
        seen.append(graphs())
    assert seen == [1, 2, 2, 3, 3]


@torch.no_grad()
def test_regional_compile_after_the_setter():
    model = qwen_transformer()
    inputs = qwen_inputs(model)
    expected = model(**inputs)[0]
    if not hasattr(model, "compile_repeated_blocks"):
        pytest.skip("this version of Diffusers has no regional compile")
    model.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    for name in ("flash", "_native_math"):
        model.set_attention_backend(name)
        torch.testing.assert_close(model(**inputs)[0], expected, atol=1e-5, rtol=1e-4)
        before = graphs()
        model(**inputs)
        assert graphs() == before
