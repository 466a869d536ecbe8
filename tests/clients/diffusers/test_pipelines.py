# SPDX-License-Identifier: Apache-2.0
"""Whole pipelines: images are those of Diffusers' own `native`."""

from __future__ import annotations

import pytest
import torch
from diffusers import attention_backend
from diffusers.models import AttentionBackendName
from tiny_pipelines import PIPELINES, image

import attnmux
import attnmux.diffusers

# fp32, two steps: 1e-4 of an image in [0, 1]. bf16 keeps 8 bits, and two steps through two layers add a few roundings.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.06}


@pytest.fixture(params=sorted(PIPELINES))
def pipeline_kind(request):
    return request.param


def made(kind, dtype=torch.float32):
    pipeline, inputs, model = PIPELINES[kind]()
    pipeline.to(dtype=dtype)
    return pipeline, {k: v.to(dtype) if getattr(v, "is_floating_point", bool)() else v for k, v in inputs.items()}, model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_those_of_native(pipeline_kind, available, dtype):
    pipeline, inputs, model = made(pipeline_kind, dtype)
    attnmux.diffusers.uninstall()
    expected = image(pipeline, inputs).float()
    attnmux.diffusers.install()
    for name in available:
        model.set_attention_backend(name)
        assert (image(pipeline, inputs).float() - expected).abs().max() <= TOLERANCE[dtype], name
    model.reset_attention_backend()
    assert torch.equal(image(pipeline, inputs).float(), image(pipeline, inputs).float())


def test_the_setter_and_the_context_give_the_same_bits(available):
    pipeline, inputs, model = made("qwen_image")
    for name in available:
        model.set_attention_backend(name)
        by_setter = image(pipeline, inputs)
        model.reset_attention_backend()
        with attention_backend(name):
            assert torch.equal(image(pipeline, inputs), by_setter), name


def test_two_pipelines_keep_backends_of_their_own():
    first, first_inputs, first_model = made("qwen_image")
    second, second_inputs, _ = made("flux")
    expected = image(second, second_inputs)
    first_model.set_attention_backend("_native_math")
    assert torch.equal(image(second, second_inputs), expected)
    # Were the setter's backend the process's too, the second pipeline would run what cannot run here.
    for module in first_model.modules():
        processor = getattr(module, "processor", None)
        if hasattr(processor, "_attention_backend"):
            processor._attention_backend = AttentionBackendName._NATIVE_NPU
    assert torch.equal(image(second, second_inputs), expected)
    with pytest.raises(attnmux.Error, match="_native_npu"):
        image(first, first_inputs)


def test_a_model_that_calls_pytorch_itself_is_reached_by_the_setter(monkeypatch):
    pipeline, inputs, unet = made("sdxl")
    calls = []
    inner = attnmux.torch._sdpa.with_backend
    monkeypatch.setattr(attnmux.torch._sdpa, "with_backend", lambda backend, *a, **k: calls.append(backend) or inner(backend, *a, **k))
    unet.set_attention_backend("flash")
    image(pipeline, inputs)
    assert set(calls) == {attnmux._backends.IDS["flash"]}
    unet.reset_attention_backend()
    calls.clear()
    image(pipeline, inputs)
    assert calls == []
