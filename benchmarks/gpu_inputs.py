# SPDX-License-Identifier: Apache-2.0
"""CUDA tensors of a corpus row, which all sides read: fixed seeds, and copies that the launches of a graph take in turn."""
from __future__ import annotations

import dataclasses

from corpus import Row


@dataclasses.dataclass
class Inputs:
    """q, k, v and out are (B, S, H, D); packed: (T, H, D) with cu_seqlens. One of each per copy."""
    row: Row
    q: list
    k: list
    v: list
    lengths: object = None  # int32 (B)
    mask: object = None  # bool; True attends
    bias: object = None
    cu_seqlens: object = None  # int32 (B + 1)
    attended_flops: int = 0


def dtype_of(torch, name: str):
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "e4m3": torch.float8_e4m3fn}[name]


def copies_for(row: Row, cache_bytes: int) -> int:
    """So many that the inputs of one launch have left the cache when their turn comes again; 2 to 8."""
    width = {"fp32": 4, "e4m3": 1}.get(row.dtype, 2)
    one = width * row.B * (row.Sq * row.Hq * row.D + row.Skv * row.Hkv * (row.D + row.Dv))
    return max(2, min(8, -(-2 * cache_bytes // one)))


def make(torch, row: Row, copies: int) -> Inputs:
    draw = torch.Generator(device="cuda").manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, device="cuda", dtype=torch.float32).to(dtype_of(torch, row.dtype))

    if row.packed:
        total = sum(row.lengths())
        shapes = [(total, row.Hq, row.D), (total, row.Hkv, row.D), (total, row.Hkv, row.Dv)]
    else:
        shapes = [(row.B, row.Sq, row.Hq, row.D), (row.B, row.Skv, row.Hkv, row.D), (row.B, row.Skv, row.Hkv, row.Dv)]
    q, k, v = ([normal(*shape) for _ in range(copies)] for shape in shapes)
    inputs = Inputs(row, q, k, v)
    if row.packed:
        ends = torch.tensor([0, *row.lengths()]).cumsum(0)
        inputs.cu_seqlens = ends.to(dtype=torch.int32, device="cuda")
    elif row.key_lengths:
        inputs.lengths = torch.tensor(row.key_lengths, dtype=torch.int32, device="cuda")
    heads = row.Hq if row.mask.endswith("_heads") else 1
    if row.mask == "padding":
        inputs.mask = torch.arange(row.Skv, device="cuda").expand(row.B, row.Skv) < row.padded_lengths()[0]
        inputs.mask = inputs.mask.contiguous()
    elif row.mask.startswith("dense"):
        inputs.mask = torch.rand(1, heads, row.Sq, row.Skv, generator=draw, device="cuda") < 0.875
        inputs.mask[..., 0] = True
    elif row.mask.startswith("bias"):
        inputs.bias = normal(1, heads, row.Sq, row.Skv)
    dense = inputs.mask.cpu().numpy().tobytes() if row.mask.startswith("dense") else None
    inputs.attended_flops = row.flops(dense)
    return inputs


def keep_mask(torch, inputs: Inputs):
    """What causal, window, lengths and masks leave, as bool (B or 1, H or 1, Sq or 1, Skv), or None; for rows that are not
    packed."""
    row, keep = inputs.row, None

    def also(part):
        nonlocal keep
        keep = part if keep is None else keep & part

    keys = torch.arange(row.Skv, device="cuda")
    lengths = torch.tensor(row.lengths(), device="cuda").view(-1, 1, 1, 1)
    queries = torch.arange(row.Sq, device="cuda").view(1, 1, -1, 1)

    def diagonal(align):
        return queries + (lengths - row.Sq if align == "bottom_right" else 0)

    if row.key_lengths:
        also(keys < lengths)
    if row.causal:
        also(keys <= diagonal(row.causal))
    if row.window:
        left, right = row.window
        if left >= 0:
            also(keys >= diagonal(row.window_align) - left)
        if right >= 0:
            also(keys <= diagonal(row.window_align) + right)
    if inputs.mask is not None:
        also(inputs.mask.view(row.B, 1, 1, row.Skv) if row.mask == "padding" else inputs.mask)
    return keep


def sequences(inputs: Inputs, copy: int = 0):
    """(batch entry, q, k, v) with (S, H, D) tensors."""
    row = inputs.row
    if not row.packed:
        return [(b, inputs.q[copy][b], inputs.k[copy][b], inputs.v[copy][b]) for b in range(row.B)]
    ends = inputs.cu_seqlens.tolist()
    return [(b, inputs.q[copy][s:e], inputs.k[copy][s:e], inputs.v[copy][s:e]) for b, (s, e) in
            enumerate(zip(ends, ends[1:]))]


def error_of(torch, inputs: Inputs, out) -> float:
    """The largest error of out against fp64, over sampled rows of queries of the first and the last batch entry, relative
    to the largest value: the first, the last, and 14 from a fixed seed, of every head."""
    row, worst, largest = inputs.row, 0.0, 1e-30
    keep = None if row.packed else keep_mask(torch, inputs)
    pairs = sequences(inputs)
    for b, *given in dict((p[0], p) for p in (pairs[0], pairs[-1])).values():
        q, k, v = (t.float() if row.dtype == "e4m3" else t for t in given)  # PyTorch does not index 8-bit floats
        count = q.shape[0]
        draw = torch.Generator().manual_seed(b)
        rows = sorted({0, count - 1, *torch.randint(count, (14,), generator=draw).tolist()})
        group = row.Hq // row.Hkv
        for head in range(row.Hq):
            key = k[:, head // group].double()
            score = q[rows, head].double() @ key.T / row.D**0.5
            if inputs.bias is not None:
                score += inputs.bias[0, head % inputs.bias.shape[1]][rows].double()
            if row.packed and row.causal:
                limit = torch.tensor(rows, device="cuda").view(-1, 1)
                score = score.masked_fill(torch.arange(key.shape[0], device="cuda") > limit, float("-inf"))
            if keep is not None:
                part = keep[b % keep.shape[0], head % keep.shape[1]]
                part = part[rows] if part.shape[0] > 1 else part
                score = score.masked_fill(~part, float("-inf"))
            exact = torch.softmax(score, -1).nan_to_num(0) @ v[:, head // group].double()
            start = int(inputs.cu_seqlens[b]) if row.packed else 0
            got = out[[start + r for r in rows], head] if row.packed else out[b, rows, head]
            worst = max(worst, float((got.double() - exact).abs().max()))
            largest = max(largest, float(exact.abs().max()))
    return worst / largest
