# SPDX-License-Identifier: Apache-2.0
"""attnmux for Diffusers: after install(), the backend names of Diffusers are attnmux's. See docs/diffusers.md.

    import attnmux.diffusers
    attnmux.diffusers.install()
    pipeline.transformer.set_attention_backend("flash")
"""

from __future__ import annotations

from attnmux.diffusers._install import install, served_names, uninstall

__all__ = ["install", "served_names", "uninstall"]
