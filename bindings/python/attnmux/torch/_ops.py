# SPDX-License-Identifier: Apache-2.0
"""torch.ops.attnmux: loads the operators and tells PyTorch the rest about them.

attention            (B, S, H, D): everything attnmux can do; differentiable
attention_backward   its derivative
attention_inference  the same, and
sdpa_inference       (B, H, S, D), PyTorch's attention: where nothing requires grad. They have no derivative, which saves most
                     of the time of a small call; the functions of this package never call them with what requires one
"""

from __future__ import annotations

import torch

from attnmux.torch import _autograd, _fakes, _load

_load.load()

_library = torch.library.Library("attnmux", "FRAGMENT")
_forward = torch.ops.attnmux.attention.default
_arguments = str(_forward._schema).split("(", 1)[1].split(") ->")[0]
_library.define(
    f"attention_backward(Tensor grad_out, Tensor? grad_lse, bool needs_bias, Tensor? out, Tensor? lse, {_arguments}) -> "
    "(Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor grad_bias)"
)
for _key in ("CPU", "CUDA"):
    _library.impl("attention_backward", _autograd.attention_backward, _key)

for _name, _fake in (
    ("attention", _fakes.attention),
    ("attention_inference", _fakes.attention),
    ("attention_backward", _fakes.attention_backward),
    ("sdpa_inference", _fakes.sdpa_inference),
):
    torch.library.register_fake(f"attnmux::{_name}", _fake, lib=_library)
torch.library.register_autograd(
    "attnmux::attention", _autograd.backward, setup_context=_autograd.setup_context, lib=_library
)

attention = _autograd.differentiable
attention_inference = torch.ops.attnmux.attention_inference.default
sdpa_inference = torch.ops.attnmux.sdpa_inference.default
