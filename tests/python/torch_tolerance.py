# SPDX-License-Identifier: Apache-2.0
"""What an output may differ from exact attention by: docs/numerics.md, "Tolerance", with PyTorch in fp64 as the oracle and
PyTorch's textbook loop in the input's dtype as "plain"."""

import math

import torch

_UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def plain(q, k, v, bias, keep, scale, softmax_dtype):
    """Scores and softmax in `softmax_dtype`, P rounded to the input's dtype, the product accumulated and rounded."""
    scores = q.to(softmax_dtype) @ k.to(softmax_dtype).transpose(-1, -2) * scale
    if bias is not None:
        scores = scores + bias.to(softmax_dtype)
    if keep is not None:
        scores = scores.masked_fill(~keep, -math.inf)
    dead = (scores == -math.inf).all(-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(dead, 0), -1).masked_fill(dead, 0)
    out = weights.to(q.dtype).to(softmax_dtype) @ v.to(softmax_dtype)
    return out.to(q.dtype), scores


def check(out, exact, textbook, scores, dtype):
    """max|o - ref| <= 2 max|plain - ref| + 2 ulp at max|ref|, and never below 4·u·(S + 1)·max|ref|: every score is rounded
    at its full size S a few times, each of which moves its weight by u·S."""
    assert out.shape == exact.shape and out.dtype == dtype
    if out.numel() == 0:
        return
    assert not out.isnan().any()
    unit = _UNIT[dtype]
    largest = exact.abs().max().item()
    finite = scores[scores.isfinite()].abs()
    score = finite.max().item() if finite.numel() else 0.0
    error = (out.double() - exact).abs().max().item()
    reference = (textbook.double() - exact).abs().max().item()
    bound = max(2 * reference + 4 * unit * largest, 4 * min(unit, 2.0**-24) * (score + 1) * largest)
    assert error <= bound, f"error {error:.3g} above {bound:.3g} (plain {reference:.3g}, largest {largest:.3g})"
