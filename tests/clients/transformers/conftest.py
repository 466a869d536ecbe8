# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from tiny_models import MODELS, make_model

import attnmux.transformers


@pytest.fixture(autouse=True)
def installed():
    torch.manual_seed(0)
    attnmux.transformers.install()
    yield
    attnmux.transformers.uninstall()


@pytest.fixture(params=sorted(MODELS))
def kind(request):
    return request.param


@pytest.fixture
def model(kind):
    return make_model(kind)
