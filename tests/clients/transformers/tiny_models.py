# SPDX-License-Identifier: Apache-2.0
"""Small random models, one per way of masking that transformers knows."""

from __future__ import annotations

import torch
import transformers
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 97
_SIZES = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=None,
)  # fmt: skip
_GROUPED = dict(_SIZES, num_key_value_heads=2)


def _t5() -> torch.nn.Module:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=None,
            decoder_start_token_id=0,
        )  # fmt: skip
    )


# causal, grouped heads; the same with a window shorter than the tests' sequences; softcap and layers with and without a
# window in turns; sinks; bidirectional; a position bias, encoder and decoder
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_GROUPED)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_GROUPED, sliding_window=5)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**_GROUPED, head_dim=16, sliding_window=5, attn_logit_softcapping=5.0, query_pre_attn_scalar=16)
    ),
    "gpt_oss": lambda: GptOssForCausalLM(
        GptOssConfig(**_GROUPED, head_dim=16, sliding_window=5, num_local_experts=2, num_experts_per_tok=1)
    ),
    "bert": lambda: BertModel(BertConfig(**_SIZES)),
    "t5": _t5,
}
DECODERS = ("llama", "mistral", "gemma2", "gpt_oss")


def make_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(1)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the initial weights are so small that attention would hardly matter
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.normal_()
    return model


def switched(model: torch.nn.Module, implementation: str) -> torch.nn.Module:
    model.set_attn_implementation(implementation)
    return model


def takes_implementations(model: torch.nn.Module) -> bool:
    """Do this version's layers of the model ask the registry? Where not, transformers itself refuses a name."""
    source = open(__import__(type(model).__module__, fromlist=["x"]).__file__).read()
    return "ALL_ATTENTION_FUNCTIONS" in source


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, shape, generator=generator)


VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
