#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes pytorch.safetensors: small attention problems and PyTorch's answers to them in fp64.

Inputs are drawn in the dtype that a case names; PyTorch computes on them in double. Where
scaled_dot_product_attention knows an argument, its output is taken and flex_attention must agree; softcap and windows
come from flex_attention. The log-sum-exp is flex_attention's.

    python tests/golden/make_pytorch_goldens.py        # needs torch >= 2.6, safetensors
"""

import math
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

B, SQ, SKV, HQ, D = 2, 9, 14, 2, 6
FP64 = torch.float64

tensors: dict[str, torch.Tensor] = {}
metadata: dict[str, str] = {"made_with": f"torch {torch.__version__}"}


def add(name, *, dtype=torch.float32, sq=SQ, skv=SKV, hq=HQ, hkv=None, d=D, dv=None, causal=None, window=None, scale=None,
        softcap=None, dense=None, bias=None, padding=None, lengths=None, magnitude=1.0):
    hkv = hkv or hq
    generator = torch.Generator().manual_seed(sum(map(ord, name)))

    def draw(*shape):
        return (magnitude * torch.randn(*shape, generator=generator)).to(dtype)

    q, k, v = draw(B, sq, hq, d), draw(B, skv, hkv, d), draw(B, skv, hkv, dv or d)
    i, j = torch.arange(sq)[:, None], torch.arange(skv)[None, :]

    # One boolean mask (B, 1 or Hq, Sq, Skv) for everything that hides keys.
    keep = torch.ones(B, 1, sq, skv, dtype=torch.bool)
    length = torch.full((B,), skv) if lengths is None else torch.tensor(lengths)
    for b in range(B):
        keep[b, 0] &= j < length[b]
        for kind, corner, low, high in ((causal is not None, causal, -1, 0),
                                        (window is not None, (window or ("",))[0], *(window or (0, 0, 0))[1:])):
            if not kind:
                continue
            diagonal = i + (int(length[b]) - sq if corner == "bottom_right" else 0)
            if low >= 0:
                keep[b, 0] &= j >= diagonal - low
            if high >= 0:
                keep[b, 0] &= j <= diagonal + high
    if padding is not None:
        keep = keep & padding[:, None, None, :]
    if dense is not None:
        keep = keep & dense

    qd, kd, vd = (t.to(FP64).transpose(1, 2) for t in (q, k, v))

    def score_mod(score, b, h, qi, ki):
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        if bias is not None:
            full = bias.to(FP64).expand(B, hq, sq, skv)
            score = score + full[b, h, qi, ki]
        full_keep = keep.expand(B, hq, sq, skv)
        return torch.where(full_keep[b, h, qi, ki], score, -math.inf)

    out, lse = flex_attention(qd, kd, vd, score_mod=score_mod, scale=scale, enable_gqa=hq != hkv, return_lse=True)
    if softcap is None:
        with sdpa_kernel(SDPBackend.MATH):
            arguments = dict(scale=scale, enable_gqa=hq != hkv)
            only_causal = all(x is None for x in (window, dense, bias, padding, lengths))
            if causal == "top_left" and only_causal:
                sdpa = scaled_dot_product_attention(qd, kd, vd, is_causal=True, **arguments)
            elif causal == "bottom_right" and only_causal and hq == hkv:
                sdpa = scaled_dot_product_attention(qd, kd, vd, attn_mask=causal_lower_right(sq, skv), **arguments)
            else:
                mask = torch.where(keep, 0.0, -math.inf).to(FP64)
                mask = mask if bias is None else mask + bias.to(FP64)
                sdpa = scaled_dot_product_attention(qd, kd, vd, attn_mask=mask.expand(B, hq, sq, skv), **arguments)
        torch.testing.assert_close(out, sdpa, rtol=1e-12, atol=1e-13)
        out = sdpa

    tensors.update({f"{name}.q": q, f"{name}.k": k, f"{name}.v": v, f"{name}.lse": lse.contiguous(),
                    f"{name}.out": out.transpose(1, 2).contiguous()})
    for key, tensor in (("dense", dense), ("bias", bias), ("padding", padding)):
        if tensor is not None:
            tensors[f"{name}.{key}"] = tensor.clone().contiguous()
    if lengths is not None:
        tensors[f"{name}.lengths"] = length.to(torch.int32)
    options = {"causal": causal, "scale": scale, "softcap": softcap}
    if window is not None:
        options |= {"window": window[0], "window_left": window[1], "window_right": window[2]}
    metadata.update({f"{name}.{key}": repr(value).strip("'") for key, value in options.items() if value is not None})


def random(*shape, seed, keep=None):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator)
    return values if keep is None else torch.rand(*shape, generator=generator) < keep


holes = random(B, SKV, seed=1, keep=0.6)
some_minus_inf = random(B, HQ, SQ, SKV, seed=2).masked_fill(random(B, HQ, SQ, SKV, seed=3, keep=0.3), -math.inf)
empty_rows = random(B, 1, SQ, SKV, seed=4, keep=0.5)
empty_rows[0, 0, 5] = False

for dtype in (torch.float32, torch.float16, torch.bfloat16, FP64):
    add(f"plain_{str(dtype).removeprefix('torch.')}", dtype=dtype)
add("grouped", hq=4, hkv=2)
add("one_key_head", hq=4, hkv=1, dtype=torch.bfloat16)
add("value_dim", dv=3)
add("odd_dim", d=7)
add("one_query", sq=1)
add("causal_square", skv=SQ, causal="top_left")
for corner in ("top_left", "bottom_right"):
    add(f"causal_{corner}", causal=corner)
    add(f"causal_{corner}_more_queries", causal=corner, skv=5, dtype=torch.float16)
    add(f"causal_{corner}_grouped", causal=corner, hq=4, hkv=2)
    add(f"causal_{corner}_lengths", causal=corner, lengths=[14, 4])
    add(f"window_{corner}", window=(corner, 4, 2))
    add(f"window_{corner}_causal", window=(corner, 3, -1), causal=corner)
    add(f"window_{corner}_lengths", window=(corner, 4, 2), lengths=[11, 0])
add("lengths", lengths=[0, 10])
add("padding", padding=holes)
add("padding_causal", padding=holes, causal="bottom_right", dtype=torch.bfloat16)
add("dense", dense=random(B, HQ, SQ, SKV, seed=5, keep=0.7))
add("dense_broadcast", dense=random(1, 1, SQ, SKV, seed=6, keep=0.7))
add("dense_keys", dense=random(B, 1, 1, SKV, seed=7, keep=0.7))
add("dense_empty_rows", dense=empty_rows)
add("bias", bias=random(B, HQ, SQ, SKV, seed=8))
add("bias_half", bias=random(1, HQ, SQ, SKV, seed=9).half(), dtype=torch.float16)
add("bias_bfloat", bias=random(B, 1, 1, SKV, seed=10).bfloat16(), dtype=torch.bfloat16)
add("bias_minus_inf", bias=some_minus_inf)
add("bias_lowest", bias=torch.full((B, 1, SQ, SKV), torch.finfo(torch.float32).min))
add("scale", scale=0.75)
add("scale_negative", scale=-1.25)
add("scale_zero", scale=0.0)
add("softcap", softcap=2.0, magnitude=3.0)
add("softcap_bias_causal", softcap=1.5, bias=random(B, HQ, SQ, SKV, seed=11), causal="bottom_right")
add("wide_logits", magnitude=12.0)
add("everything", hq=4, hkv=2, causal="bottom_right", window=("bottom_right", 9, -1), lengths=[14, 12], padding=holes,
    dense=random(1, 4, SQ, SKV, seed=12, keep=0.8), bias=random(B, 1, SQ, SKV, seed=13), scale=0.3, softcap=4.0)

path = pathlib.Path(__file__).with_name("pytorch.safetensors")
save_file(tensors, path, metadata)
print(f"{path}: {sum(name.endswith('.out') for name in tensors)} cases, {path.stat().st_size} bytes")
