# SPDX-License-Identifier: Apache-2.0
"""For tests of attnmux.torch: `from torch_state import clean_state` makes every test of a module start from, and leave, the
state of a fresh process."""

import pytest
import torch

import attnmux.torch

torch.set_num_threads(1)  # the machine runs several tests at once, and the problems are tiny


@pytest.fixture(autouse=True)
def clean_state():
    torch.manual_seed(0)
    original = torch.nn.functional.scaled_dot_product_attention
    yield
    assert torch.nn.functional.scaled_dot_product_attention is original
    assert not attnmux.torch.is_active()
    assert torch.backends.mha.get_fastpath_enabled()
