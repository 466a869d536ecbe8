# SPDX-License-Identifier: Apache-2.0
"""What every function on torch tensors looks at before it calls an operator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from attnmux._errors import Code, error_of, invalid


def check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Devices, dtypes and kinds of tensor, in words of this package instead of the dispatcher's."""
    for name, t in (("query", q), ("key", k), ("value", v)):
        if not isinstance(t, Tensor):
            raise invalid(f"{name} is a {type(t).__name__}; accepted is a torch.Tensor")
        if t.is_nested or t.layout != torch.strided:
            kind = "a nested tensor" if t.is_nested else f"a tensor of layout {t.layout}"
            raise invalid(f"{name} is {kind}; accepted are strided tensors (packed sequences: varlen=)")
        if t.device != q.device:
            raise invalid(f"{name} is on {t.device} and query on {q.device}; accepted is one device for all")
        if t.dtype != q.dtype and not torch.is_autocast_enabled(q.device.type):
            raise invalid(f"{name}.dtype is {t.dtype} and query.dtype {q.dtype}; accepted is one dtype for all")
    if q.device.type not in ("cpu", "cuda", "meta"):
        raise invalid(f"query is on {q.device}; accepted are cpu and cuda")
    refuse_forward_ad(q, k, v)


def refuse_forward_ad(*tensors: Tensor | None) -> None:
    """Forward-mode derivatives would be dropped in silence."""
    if forward_ad._current_level < 0:
        return
    for t in tensors:
        if t is not None and forward_ad.unpack_dual(t).tangent is not None:
            raise error_of(
                Code.UNSUPPORTED,
                "[attention] an input carries a forward-mode tangent (torch.func.jvp, forward_ad); attnmux has "
                "derivatives in reverse mode only (torch.func.vjp, backward())",
            )


def needs_grad(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (
        q.requires_grad or k.requires_grad or v.requires_grad or (bias is not None and bias.requires_grad)
    )


def autocast(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None):
    """As PyTorch casts the inputs of its own attention: floating tensors but float64."""
    device = q.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return q, k, v, bias
    dtype = torch.get_autocast_dtype(device)
    return tuple(_cast(t, dtype) for t in (q, k, v, bias))


def _cast(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if t is None or not t.is_floating_point() or t.dtype == torch.float64:
        return t
    return t.to(dtype)
