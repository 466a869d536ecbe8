# SPDX-License-Identifier: Apache-2.0
"""The dropout mask of attnmux in PyTorch operations (docs/numerics.md, "Dropout"), for the backward pass.

Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11. Words of 32 bits live in int64.
"""

from __future__ import annotations

import torch

_LOW = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def _multiply(constant: int, word: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low word of a product of two words. It may reach 2^64: the sign bit of int64 is its top bit."""
    product = word * constant
    return (product >> 32) & _LOW, product & _LOW


def _rounds(counter: list[torch.Tensor], key: tuple[int, int]) -> list[torch.Tensor]:
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


def keep(
    seed: int, p: float, planes: torch.Tensor, queries: torch.Tensor, num_keys: int
) -> torch.Tensor:
    """Which probabilities stay: (planes, queries, keys) of bool. A plane is b·Hq + h."""
    blocks = torch.arange((num_keys + 3) // 4, device=planes.device)
    counter = torch.broadcast_tensors(
        blocks[None, None, :], queries[None, :, None], planes[:, None, None], torch.zeros_like(blocks)
    )
    words = _rounds(list(counter), (seed & _LOW, (seed >> 32) & _LOW))
    uniform = torch.stack([word >> 8 for word in words], dim=-1).flatten(-2)[..., :num_keys]
    return uniform.to(torch.float64) * 2.0**-24 >= p
