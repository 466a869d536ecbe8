# SPDX-License-Identifier: Apache-2.0
"""torch.vmap of the operators: the mapped dimension becomes part of the batch.

Packed sequences have no batch dimension, and dropout counts batch entries, so those run entry by entry.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASKS = ("bias", "mask")


def _front(t: Tensor, dim: int | None, size: int) -> Tensor:
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)


def _fold(t: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    """(N, b, …) to (N·B, …), where b is B or 1."""
    t = _front(t, dim, size)
    return t.expand(size, batch, *t.shape[2:]).flatten(0, 1)


def _fold_scores(t: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    """What broadcasts to (B, H, Sq, Skv): the same for every entry, or folded."""
    rank = t.dim() - (dim is not None)
    if dim is None and (rank < 4 or t.shape[0] == 1):
        return t
    t = _front(t, dim, size)
    return _fold(t.reshape(size, *(1,) * (4 - rank), *t.shape[1:]), 0, size, batch)


def _one_by_one(call, info, in_dims, args):
    results = []
    for i in range(info.batch_size):
        entry = [a if d is None else a.select(d, i) for a, d in zip(args, in_dims)]
        results.append(call(*entry))
    if isinstance(results[0], tuple):
        return tuple(torch.stack(parts) for parts in zip(*results)), (0,) * len(results[0])
    return torch.stack(results), 0


def rule_for(operator, call):
    """The vmap rule of an operator whose rows are its first three arguments. `call` runs it on what is below: the mapped
    tensors may require grad there, which does not show from above."""
    names = [argument.name for argument in operator._schema.arguments]

    def rule(info, in_dims, *args):
        named, dims, size = dict(zip(names, args)), dict(zip(names, in_dims)), info.batch_size
        if named.get("cu_seqlens_q") is not None or named.get("dropout_p", 0) != 0 or size == 0:
            return _one_by_one(call, info, in_dims, args)
        batch = max(t.shape[0] if d is None else t.movedim(d, 0).shape[1] for t, d in zip(args[:3], in_dims))
        folded = []
        for name in names:
            value, dim = named[name], dims[name]
            if not isinstance(value, Tensor):
                folded.append(value)
            elif name in _MASKS:
                folded.append(_fold_scores(value, dim, size, batch))
            else:
                folded.append(_fold(value, dim, size, batch))
        result = call(*folded)
        if isinstance(result, tuple):
            return tuple(r.unflatten(0, (size, batch)) for r in result), (0,) * len(result)
        return result.unflatten(0, (size, batch)), 0

    return rule
