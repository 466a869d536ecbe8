# SPDX-License-Identifier: Apache-2.0
"""Attention in fp64 with NumPy, written from docs/numerics.md, and how far a result may be from it."""

from __future__ import annotations

import numpy as np

# The unit roundoff of a dtype's numbers.
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def attention(q, k, v, *, keep=None, bias=None, scale=None, softcap=0.0):
    """out (B, Sq, Hq, Dv) and lse (B, Hq, Sq) of numbers of any dtype. keep, bias: broadcastable to (B, Hq, Sq, Skv)."""
    q, k, v = (np.asarray(x).astype(np.float64) for x in (q, k, v))
    group = q.shape[2] // max(k.shape[2], 1)
    k, v = (np.repeat(x, group, axis=2) for x in (k, v))
    scores = np.einsum("bihd,bjhd->bhij", q, k) * (q.shape[3] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + np.asarray(bias).astype(np.float64)
    if keep is not None:
        scores = np.where(np.asarray(keep).astype(bool), scores, -np.inf)
    highest = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = np.log(total[..., 0]) + np.where(np.isfinite(highest), highest, 0.0)[..., 0]
    probabilities = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)  # a masked row is zero
    return np.einsum("bhij,bjhd->bihd", probabilities, v), np.where(total[..., 0] > 0, lse, -np.inf)


def causal(rows, keys, align, lengths=None):
    """(…, Sq, Skv): what a causal mask keeps."""
    i, j = np.arange(rows)[:, None], np.arange(keys)[None, :]
    if align == "top_left":
        return j <= i
    length = np.full((1, 1, 1, 1), keys) if lengths is None else np.asarray(lengths).reshape(-1, 1, 1, 1)
    return j <= i + length - rows


def tolerance(q, k, v, dtype: str, scale=None, bias=None) -> float:
    """A bound of |out - fp64| for inputs that are exact in `dtype`.

    With u the roundoff of the sums (fp32, or fp64 for float64) and r that of the dtype: a score of |s| <= S has an error of
    at most (D + 2) u S, S = scale · max|q|·|k| over rows; exp turns it into a relative error of a weight, to which its own
    evaluation adds 4 u; P is rounded to the dtype (r); sums over Skv keys add Skv u; the output is rounded (r). Relative
    errors of weights move a convex combination of v by at most twice their size times max|v|.
    """
    q, k, v = (np.abs(np.asarray(x).astype(np.float64)) for x in (q, k, v))
    if 0 in (*q.shape, *k.shape, *v.shape):
        return 0.0
    r = ROUNDOFF[dtype]
    u = ROUNDOFF["float64" if dtype == "float64" else "float32"]
    s = np.sqrt((q**2).sum(-1).max() * (k**2).sum(-1).max()) * (q.shape[3] ** -0.5 if scale is None else abs(scale))
    s += 0 if bias is None else np.abs(np.asarray(bias).astype(np.float64)).max(initial=0)
    of_weight = (q.shape[3] + 2) * u * s + (4 + k.shape[1]) * u + r
    return float((2 * of_weight + r) * v.max() + np.finfo(np.float32).tiny)
