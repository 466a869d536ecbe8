# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

import attnmux.diffusers


@pytest.fixture(autouse=True)
def installed():
    torch.manual_seed(0)
    attnmux.diffusers.install()
    yield
    attnmux.diffusers.uninstall()


@pytest.fixture
def available() -> list[str]:
    import attnmux

    can_run = {backend.name for backend in attnmux.list_backends() if backend.available}
    return [name for name in attnmux.diffusers.served_names() if name in can_run]
