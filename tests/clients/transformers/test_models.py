# SPDX-License-Identifier: Apache-2.0
"""Whole models: attnmux gives what eager attention gives, under every mask that a model makes."""

from __future__ import annotations

import pytest
import torch
from tiny_models import DECODERS, make_model, switched, takes_implementations, tokens

TOLERANCE = dict(atol=2e-4, rtol=2e-4)  # fp32, two layers; a dropped mask moves outputs by 0.01 and more


def outputs(model, ids, mask):
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            return model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :7]).logits
        return model(input_ids=ids, attention_mask=mask)[0]


def padded(side: str, lengths: list[int], size: int):
    ids = tokens(len(lengths), size)
    mask = torch.zeros(len(lengths), size, dtype=torch.long)
    for row, length in enumerate(lengths):
        attended = slice(0, length) if side == "right" else slice(size - length, size)
        mask[row, attended] = 1
    return ids * mask, mask


@pytest.fixture(autouse=True)
def _served(model):
    if not takes_implementations(model):
        pytest.skip("in this version of transformers the model's layers do not ask the registry")


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_gives_what_eager_gives(kind, model, side):
    ids, mask = padded(side, [13, 4, 9], 13)
    expected = outputs(switched(model, "eager"), ids, mask)
    actual = outputs(switched(model, "attnmux"), ids, mask)
    rows = mask[:, : expected.shape[1]].bool() if kind != "t5" else torch.ones(expected.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(actual[rows], expected[rows], **TOLERANCE)


def test_without_a_mask(kind, model):
    ids = tokens(2, 13)
    expected = outputs(switched(model, "eager"), ids, None)
    torch.testing.assert_close(outputs(switched(model, "attnmux"), ids, None), expected, **TOLERANCE)


def test_masked_tokens_change_nothing_and_attended_ones_do(kind, model):
    switched(model, "attnmux")
    ids, mask = padded("right", [13, 6], 13)
    before = outputs(model, ids, mask)
    behind, within = ids.clone(), ids.clone()
    behind[1, 8], within[1, 2] = 40, 40 + (ids[1, 2] == 40)
    rows = slice(0, 6)
    torch.testing.assert_close(outputs(model, behind, mask)[1, rows], before[1, rows], atol=0, rtol=0)
    assert (outputs(model, within, mask)[1, 5] - before[1, 5]).abs().max() > 1e-4


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("side", ["none", "left"])
def test_generate_gives_the_same_tokens(kind, model, cache, side):
    if kind == "bert":
        pytest.skip("an encoder")
    ids, mask = (tokens(2, 9), torch.ones(2, 9, dtype=torch.long)) if side == "none" else padded("left", [9, 5], 9)
    options = dict(max_new_tokens=12, do_sample=False, attention_mask=mask)
    if cache == "static":
        if kind == "t5":
            pytest.skip("its cross-attention has a cache of its own kind")
        options["cache_implementation"] = "static"
    options["disable_compile"] = True
    expected = switched(model, "eager").generate(ids, **options)
    assert torch.equal(switched(model, "attnmux").generate(ids, **options), expected)


@pytest.mark.parametrize("name", DECODERS)
def test_continued_prefill_sees_the_keys_before_it(kind, model, name):
    if kind != name:
        pytest.skip("one model per case")
    ids = tokens(2, 13)
    whole = outputs(switched(model, "eager"), ids, None)
    switched(model, "attnmux")
    with torch.no_grad():
        first = model(input_ids=ids[:, :6], use_cache=True)
        second = model(input_ids=ids[:, 6:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole, **TOLERANCE)


def test_packed_sequences_do_not_see_each_other(kind, model):
    if kind not in DECODERS:
        pytest.skip("packing by position_ids is for decoders")
    first, second = tokens(1, 6), tokens(1, 7, seed=1)
    ids, positions = torch.cat([first, second], 1), torch.cat([torch.arange(6), torch.arange(7)])[None]
    packed = dict(input_ids=ids, position_ids=positions, use_cache=False)
    with torch.no_grad():
        expected = switched(model, "eager")(**packed).logits
        actual = switched(model, "attnmux")(**packed).logits
        apart = torch.cat([model(input_ids=x, use_cache=False).logits for x in (first, second)], 1)
    torch.testing.assert_close(actual, expected, **TOLERANCE)
    if kind != "gpt_oss":  # whose eager attention lets packed sequences see each other, too
        torch.testing.assert_close(actual, apart, **TOLERANCE)


def test_training_gives_the_gradients_of_eager(kind, model):
    ids, mask = padded("right", [11, 6], 11)
    gradients = []
    for implementation in ("eager", "attnmux"):
        switched(model, implementation).zero_grad()
        model_inputs = dict(input_ids=ids, attention_mask=mask)
        if kind == "t5":
            model_inputs["decoder_input_ids"] = ids[:, :7]
        result = model(**model_inputs)[0]
        rows = mask[:, : result.shape[1]].bool()
        weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(2))
        (result * weights)[rows].mean().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        scale = expected.abs().max().item() + 1e-6
        assert (gradients[1][name] - expected).abs().max().item() <= 2e-3 * scale, name


def test_compiled_in_one_graph(kind):
    if kind not in ("llama", "bert"):
        pytest.skip("two kinds suffice")
    model = switched(make_model(kind), "attnmux")
    ids, mask = padded("right", [13, 6], 13)
    expected = outputs(model, ids, mask)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        actual = compiled(input_ids=ids, attention_mask=mask, **({"use_cache": False} if kind == "llama" else {}))[0]
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], **TOLERANCE)
