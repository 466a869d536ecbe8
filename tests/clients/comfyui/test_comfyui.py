# SPDX-License-Identifier: Apache-2.0
"""ComfyUI's hook. ComfyUI itself is not installable as a package: a module stands in for its registry."""

from __future__ import annotations

import sys
import types

import pytest
import torch

import attnmux
import attnmux.comfyui

B, SQ, SKV, H, D = 2, 5, 7, 4, 16


def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, s, H * D, generator=generator) for s in (SQ, SKV, SKV)]


def expected(q, k, v, mask=None):
    q, k, v = (x.double().view(B, -1, H, D).transpose(1, 2) for x in (q, k, v))
    mask = mask.double() if mask is not None and mask.is_floating_point() else mask
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).reshape(B, -1, H * D).float()


def close(actual, wanted):
    torch.testing.assert_close(actual, wanted, atol=2e-5, rtol=1e-4)


def test_the_registry_gets_a_name_per_backend(monkeypatch):
    registered = {}
    module = types.ModuleType("comfy.ldm.modules.attention")
    module.register_attention_function = lambda name, function: registered.update({name: function})
    for name in ("comfy", "comfy.ldm", "comfy.ldm.modules"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "comfy.ldm.modules.attention", module)
    attnmux.comfyui.install()
    assert len(registered) == 1 + len(attnmux.list_backends()) and "attnmux_flash_3" in registered
    close(registered["attnmux_flash"](*tensors(), H), expected(*tensors()))


def test_outside_of_comfyui_install_says_where_it_belongs():
    with pytest.raises(attnmux.Error, match="custom node"):
        attnmux.comfyui.install()


@pytest.mark.parametrize("shape", [(SQ, SKV), (B, SQ, SKV), (B, 1, SKV), (B, H, SQ, SKV)])
@pytest.mark.parametrize("additive", [False, True])
def test_masks(shape, additive):
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if not additive:
        mask = mask > -0.5
        mask[..., 0] = True
    four = mask[None, None] if mask.dim() == 2 else mask[:, None] if mask.dim() == 3 else mask
    close(attnmux.comfyui.attention_function("native")(*tensors(), H, mask), expected(*tensors(), four))


def test_both_layouts():
    q, k, v = tensors()
    heads = [x.view(B, -1, H, D).transpose(1, 2) for x in (q, k, v)]
    attention = attnmux.comfyui.attention_function()
    close(attention(*heads, H, skip_reshape=True), expected(q, k, v))
    out = attention(q, k, v, H, skip_output_reshape=True)
    close(out.transpose(1, 2).flatten(2), expected(q, k, v))


def test_an_override_is_for_one_model():
    def original(*_, **__):
        raise AssertionError("the override calls the original")

    override = attnmux.comfyui.override("flash")
    close(override(original, *tensors(), H, transformer_options={}, _inside_attn_wrapper=True), expected(*tensors()))
    with pytest.raises(attnmux.Error, match="_flash_3_hub"):
        attnmux.comfyui.override("_flash_3_hub")(original, *tensors(), H)
    with pytest.raises(attnmux.UnknownBackendError):
        attnmux.comfyui.override("flush")


def test_what_is_unknown_is_refused():
    with pytest.raises(attnmux.Error, match="block_table"):
        attnmux.comfyui.attention_function()(*tensors(), H, block_table=torch.ones(1))
    with pytest.raises(attnmux.Error, match=r"mask has shape \(3,\)"):
        attnmux.comfyui.attention_function()(*tensors(), H, torch.ones(3))
