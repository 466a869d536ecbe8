# SPDX-License-Identifier: Apache-2.0
"""Names, scopes, refusals, and what install() and uninstall() leave behind."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_model, switched, tokens
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import attnmux
import attnmux.transformers
from attnmux.transformers import implementation_name
from attnmux.transformers._attention_function import attention_for
from attnmux.transformers._typed_masks import TypedMask, decode


def test_names_are_unique_and_none_is_taken_for_another_family():
    names = attnmux.transformers.installed_names()
    assert len(names) == len(set(names)) == 1 + len(attnmux.list_backends())
    assert implementation_name("_flash_3") == "attnmux_fa_3" and implementation_name("flash") == "attnmux_fa"
    for name in names:
        assert not any(taken in name for taken in ("flash", "sdpa", "flex_attention", "|", "/"))


def test_every_name_is_registered_for_attention_and_for_masks():
    for name in attnmux.transformers.installed_names():
        assert name in AttentionInterface._global_mapping and name in AttentionMaskInterface._global_mapping


def test_uninstall_takes_all_names_out_and_install_puts_them_back():
    before = attnmux.transformers.installed_names()
    attnmux.transformers.uninstall()
    assert attnmux.transformers.installed_names() == []
    assert not any(name.startswith("attnmux") for name in AttentionInterface._global_mapping)
    assert not any(name.startswith("attnmux") for name in AttentionMaskInterface._global_mapping)
    attnmux.transformers.install()
    attnmux.transformers.install()
    assert attnmux.transformers.installed_names() == before


def test_the_ambient_name_follows_the_scope_of_the_thread():
    model = switched(make_model("llama"), "attnmux")
    ids = tokens(1, 9)
    with torch.no_grad():
        model(input_ids=ids)
        with attnmux.attention_backend("_flash_3_hub"), pytest.raises(attnmux.Error, match="_flash_3_hub"):
            model(input_ids=ids)
        model(input_ids=ids)


def test_a_name_is_a_promise():
    model = switched(make_model("llama"), "attnmux_sage")
    with torch.no_grad(), pytest.raises(attnmux.Error, match="sage"):
        model(input_ids=tokens(1, 9))


def call(**arguments):
    q = torch.randn(2, 4, 5, 16)
    module = torch.nn.Module()
    return attention_for(None)(module, q, q, q, arguments.pop("attention_mask", None), **arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"output_attentions": True}, "output_attentions"),
        ({"head_mask": torch.ones(4)}, "head_mask"),
        ({"block_indices": torch.ones(4)}, "block_indices"),
        ({"attention_mask": torch.ones(2, 1, 5)}, "attention_mask"),
        ({"sliding_window": 3, "is_causal": False}, "sliding_window"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(arguments, named):
    with pytest.raises(attnmux.Error, match=named):
        call(**arguments)


def test_noise_is_no_argument():
    call(position_ids=torch.arange(5), use_cache=True, output_attentions=False, head_mask=None)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
@pytest.mark.parametrize("window", [None, 1, 7])
@pytest.mark.parametrize("keys", [None, torch.tensor([[True, False, True], [True, True, False]])])
def test_a_typed_mask_says_in_its_shape_what_it_is(causal, alignment, window, keys):
    mask = TypedMask(causal, alignment, window, keys)
    encoded = mask.encode(2, 3, "cpu")
    assert encoded.untyped_storage().nbytes() <= 6
    again = decode(encoded, 3)
    assert (again.causal, again.alignment, again.window) == (causal, alignment, window)
    assert again.keys is None if keys is None else torch.equal(again.keys, keys)
