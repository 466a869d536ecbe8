# SPDX-License-Identifier: Apache-2.0
"""Attention and its gradient in PyTorch operations, for a block of queries and all keys.

The contract is docs/numerics.md. Tensors are grouped: queries (B, Hkv, G, Sq, D), keys (B, Hkv, 1, Skv, D), so that the
heads of a group share their keys by broadcasting. Everything here is differentiable, and nothing is written in place:
the same functions serve the backward pass and the backward of the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnmux.torch import _philox

TOP_LEFT, BOTTOM_RIGHT = 1, 2


@dataclass(frozen=True)
class Problem:
    """What `attnmux::attention` was asked for, but for its tensors of rows. The names are the operator's."""

    bias: Tensor | None
    mask: Tensor | None
    key_padding: Tensor | None
    key_lengths: Tensor | None
    cu_seqlens_q: Tensor | None
    cu_seqlens_kv: Tensor | None
    seed: Tensor | None
    max_seqlen_q: int
    max_seqlen_kv: int
    causal: bool
    window_left: int
    window_right: int
    align: int
    scale: float | None
    softcap: float
    dropout_p: float
    backend: int
    first_batch: int = 0  # which sequence of a packed batch this is

    def dense(self, **changes) -> Problem:
        return replace(self, cu_seqlens_q=None, cu_seqlens_kv=None, **changes)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def group_queries(x: Tensor, num_heads_kv: int, dtype: torch.dtype) -> Tensor:
    """(B, S, Hq, D) to (B, Hkv, G, S, D)."""
    return x.to(dtype).transpose(1, 2).unflatten(1, (num_heads_kv, x.shape[2] // max(num_heads_kv, 1)))


def group_keys(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, S, Hkv, D) to (B, Hkv, 1, S, D)."""
    return x.to(dtype).transpose(1, 2).unsqueeze(2)


def group_scores(t: Tensor, num_heads_kv: int) -> Tensor:
    """What broadcasts to (B, Hq, Sq, Skv), to what broadcasts to (B, Hkv, G, Sq, Skv)."""
    t = t[(None,) * (4 - t.dim())]
    if t.shape[1] == 1:
        return t.unsqueeze(2)
    return t.unflatten(1, (num_heads_kv, t.shape[1] // num_heads_kv))


def _rows(t: Tensor, rows: slice) -> Tensor:
    return t if t.shape[-2] == 1 else t[..., rows, :]


def valid_keys(p: Problem, num_keys: int, device: torch.device) -> Tensor | None:
    """(B, Skv): the keys that a row of the batch may attend to, whatever its query; None is all."""
    valid = None
    if p.key_lengths is not None:
        valid = torch.arange(num_keys, device=device) < p.key_lengths[:, None]
    if p.key_padding is not None:
        padding = p.key_padding.to(torch.bool)
        valid = padding if valid is None else valid & padding
    return valid


def _diagonal(p: Problem, rows: slice, num_queries: int, num_keys: int, device: torch.device) -> Tensor | None:
    """(B or 1, 1, 1, rows, Skv) of causal and window masks."""
    if not p.causal and p.window_left < 0 and p.window_right < 0:
        return None
    query = torch.arange(rows.start, rows.stop, device=device)[:, None]
    key = torch.arange(num_keys, device=device)
    if p.align == BOTTOM_RIGHT:
        lengths = num_keys if p.key_lengths is None else p.key_lengths.to(torch.int64).view(-1, 1, 1, 1, 1)
        query = query + (lengths - num_queries)
    keep = torch.ones((), dtype=torch.bool, device=device)
    if p.causal:
        keep = keep & (key <= query)
    if p.window_left >= 0:
        keep = keep & (key >= query - p.window_left)
    if p.window_right >= 0:
        keep = keep & (key <= query + p.window_right)
    return keep


def _keep(p: Problem, rows: slice, num_queries: int, num_keys: int, num_heads_kv: int, device) -> Tensor | None:
    parts = [_diagonal(p, rows, num_queries, num_keys, device)]
    if p.mask is not None:
        parts.append(_rows(group_scores(p.mask.to(torch.bool), num_heads_kv), rows))
    valid = valid_keys(p, num_keys, device)
    if valid is not None:
        parts.append(valid[:, None, None, None, :])
    keep = None
    for part in parts:
        if part is not None:
            keep = part if keep is None else keep & part
    return keep


def probabilities(p: Problem, q: Tensor, k: Tensor, rows: slice, num_queries: int) -> tuple[Tensor, Tensor | None]:
    """softmax of the scores of the queries `rows`, and d score / d (scale·q·k), None where that is 1."""
    scale = p.scale if p.scale is not None else q.shape[-1] ** -0.5 if q.shape[-1] else 1.0
    x, slope = torch.matmul(q, k.transpose(-1, -2)) * scale, None
    if p.softcap != 0:
        tanh = torch.tanh(x / p.softcap)
        x, slope = p.softcap * tanh, 1 - tanh * tanh
    if p.bias is not None:
        x = x + _rows(group_scores(p.bias, k.shape[1]), rows).to(x.dtype)
    keep = _keep(p, rows, num_queries, k.shape[-2], k.shape[1], q.device)
    if keep is not None:
        x = x.masked_fill(~keep, -torch.inf)
    # A row without keys: 0 instead of the 0/0 of softmax, and no NaN in its derivative either.
    dead = (x == -torch.inf).all(dim=-1, keepdim=True)
    return torch.softmax(x.masked_fill(dead, 0), dim=-1).masked_fill(dead, 0), slope


def dropout_factor(p: Problem, like: Tensor, rows: slice) -> Tensor | None:
    """0 or 1/(1 - p) for every probability; None without dropout."""
    if p.dropout_p == 0:
        return None
    batch, heads_kv, group, _, num_keys = like.shape
    num_heads = heads_kv * group
    planes = p.first_batch * num_heads + torch.arange(batch * num_heads, device=like.device)
    queries = torch.arange(rows.start, rows.stop, device=like.device)
    kept = _philox.keep(int(p.seed), p.dropout_p, planes, queries, num_keys)
    return kept.view(like.shape).to(like.dtype) / (1 - p.dropout_p)


@dataclass(frozen=True)
class Gradients:
    q: Tensor  # of the rows, grouped
    k: Tensor  # of all keys, grouped, from these rows
    v: Tensor
    scores: Tensor  # d loss / d (score before the softmax), for the bias


def gradients(
    p: Problem, q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor, grad_lse: Tensor | None, rows: slice, num_queries: int
) -> Gradients:
    """Dao et al., "FlashAttention", 2022, appendix B.2, with the whole row at hand: all arguments grouped."""
    probs, slope = probabilities(p, q, k, rows, num_queries)
    factor = dropout_factor(p, probs, rows)
    grad_probs = torch.matmul(grad_out, v.transpose(-1, -2))
    if factor is not None:
        grad_probs = grad_probs * factor
    dropped = probs if factor is None else probs * factor
    # Where the weight is 0, so is the gradient, whatever v holds there.
    grad_probs = grad_probs.masked_fill(probs == 0, 0)
    inner = (probs * grad_probs).sum(dim=-1, keepdim=True)
    if grad_lse is not None:
        inner = inner - grad_lse.unsqueeze(-1)
    grad_scores = probs * (grad_probs - inner)
    grad_x = grad_scores if slope is None else grad_scores * slope
    scale = p.scale if p.scale is not None else q.shape[-1] ** -0.5 if q.shape[-1] else 1.0
    grad_x = grad_x * scale
    return Gradients(
        q=torch.matmul(grad_x, k),
        k=torch.matmul(grad_x.transpose(-1, -2), q).sum(dim=2, keepdim=True),
        v=torch.matmul(dropped.transpose(-1, -2), grad_out).sum(dim=2, keepdim=True),
        scores=grad_scores,
    )


def sum_to(t: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of what was broadcast: t, of (B, Hq, Sq, Skv), summed to a shape of up to four extents."""
    wide = (1,) * (4 - len(shape)) + tuple(shape)
    dims = [i for i in range(4) if wide[i] == 1 and t.shape[i] != 1]
    return (t.sum(dim=dims, keepdim=True) if dims else t).reshape(shape)
