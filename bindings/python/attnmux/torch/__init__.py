# SPDX-License-Identifier: Apache-2.0
"""attnmux for PyTorch. See docs/pytorch.md."""

from __future__ import annotations

from attnmux.torch._attention import attention
from attnmux.torch._models import reset_attention_backend, set_attention_backend
from attnmux.torch._patch import activate, deactivate, is_active
from attnmux.torch._sdpa import scaled_dot_product_attention

__all__ = [
    "activate",
    "attention",
    "deactivate",
    "is_active",
    "reset_attention_backend",
    "scaled_dot_product_attention",
    "set_attention_backend",
]
