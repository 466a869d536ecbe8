# SPDX-License-Identifier: Apache-2.0
"""The derivative of `attnmux::attention`.

Without one, PyTorch's backward() would run and leave grad=None; so every backend has the right one or raises.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch

from attnmux import _backends, _core
from attnmux._errors import Code, error_of
from attnmux.torch import _backward, _flash_backward, _vmap
from attnmux.torch._math import Problem

# How `attnmux::attention` orders what is not a scalar, and how many scalars follow.
NUM_TENSORS = 10
NUM_ARGUMENTS = 20


def _without_backward() -> frozenset[int]:
    """Ids of backends that compute less than 16-bit accuracy: their forward is not the function whose gradient this is."""
    rows = json.loads(_core.describe(_core.DESCRIBE_BACKENDS))
    lossy = ("quantized", "approximate")
    return frozenset(_core.find_backend(r["name"]) for r in rows if r["family"] == "sage" or r["accuracy"] in lossy)


_refused = _without_backward()
_known = len(_backends.NAMES)
# What the library runs instead of the backend that it is given; it reads the variable once, too.
_forced = _backends.IDS.get(os.environ.get("ATTNMUX_FORCE_BACKEND", ""), 0)


def refuse_without_backward(backend: int) -> None:
    """Traced by Dynamo, so all it does is look into a set."""
    runs = _forced or backend
    if runs in _refused:
        raise error_of(
            Code.UNSUPPORTED,
            f'[attention] backend "{_backends.backend_name(runs)}" is quantized and has no backward, but an input '
            'requires grad; accepted are inputs without grad (torch.no_grad()), or another backend, such as "native"',
        )


def _learn_plugins() -> None:
    global _refused, _known
    if len(_backends.NAMES) != _known:
        _refused, _known = _without_backward(), len(_backends.NAMES)


def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    _learn_plugins()
    refuse_without_backward(inputs[-1])
    ctx.scalars = inputs[NUM_TENSORS:]
    flash = _flash_backward.takes(Problem(*inputs[3:]), *inputs[:3])
    ctx.save_for_backward(*inputs[:NUM_TENSORS], *(output if flash else (None, None)))
    ctx.set_materialize_grads(False)


def backward(ctx: Any, grad_out: torch.Tensor | None, grad_lse: torch.Tensor | None) -> tuple:
    if grad_out is None and grad_lse is None:
        return (None,) * NUM_ARGUMENTS
    *tensors, out, lse = ctx.saved_tensors
    q, value, bias = tensors[0], tensors[2], tensors[3]
    if grad_out is None:
        grad_out = q.new_zeros((*q.shape[:-1], value.shape[-1]))
    needs_bias = bias is not None and ctx.needs_input_grad[3]
    if torch.is_grad_enabled():  # create_graph=True: PyTorch differentiates what follows
        problem = Problem(*tensors[3:], *ctx.scalars)
        grads = _backward.backward(problem, *tensors[:3], grad_out, grad_lse, needs_bias)
    else:
        grads = torch.ops.attnmux.attention_backward.default(
            grad_out, grad_lse, needs_bias, out, lse, *tensors, *ctx.scalars
        )
    return (*grads[:3], grads[3] if needs_bias else None) + (None,) * (NUM_ARGUMENTS - 4)


def attention_backward(grad_out, grad_lse, needs_bias, out, lse, query, key, value, *options):
    """The operator `attnmux::attention_backward`: new, contiguous tensors. `out` and `lse` are there where PyTorch's flash
    backward takes the problem."""
    rows, problem = (query, key, value), Problem(*options)
    with torch.no_grad():
        if out is not None and grad_lse is None:
            grads = _flash_backward.backward(problem, *rows, out, lse, grad_out)
        else:
            grads = _backward.backward(problem, *rows, grad_out, grad_lse, needs_bias)
    grad_bias = grads[3].contiguous() if needs_bias else query.new_empty((0,))
    return (*(grad.contiguous() for grad in grads[:3]), grad_bias)


class _UnderTransform(torch.autograd.Function):
    """The same derivative where torch.func transforms are active, which take it in this form only. One level down there may
    be another transform, so forward starts over."""

    @staticmethod
    def forward(*arguments):
        return differentiable(*arguments)

    setup_context = staticmethod(setup_context)
    backward = staticmethod(backward)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _vmap.rule_for(torch.ops.attnmux.attention.default, differentiable)(info, in_dims, *arguments)


def differentiable(*arguments) -> tuple[torch.Tensor, torch.Tensor]:
    """`attnmux::attention` where a gradient may be needed."""
    if torch._C._are_functorch_transforms_active():
        return _UnderTransform.apply(*arguments)
    return torch.ops.attnmux.attention.default(*arguments)
