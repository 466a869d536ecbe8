# SPDX-License-Identifier: Apache-2.0
"""attnmux for PyTorch. See docs/pytorch.md."""

from __future__ import annotations

from attnmux.torch._attention import attention
from attnmux.torch._sdpa import scaled_dot_product_attention

__all__ = ["attention", "scaled_dot_product_attention"]
