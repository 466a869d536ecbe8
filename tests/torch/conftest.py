# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
from hypothesis import settings  # noqa: E402

import attnmux.torch  # noqa: E402  (fails, rather than skips, where PyTorch is there and the operators are not)

settings.register_profile("attnmux", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("attnmux")


@pytest.fixture(autouse=True)
def clean_state():
    """Every test starts from, and must leave, the state of a fresh process."""
    torch.manual_seed(0)
    original = torch.nn.functional.scaled_dot_product_attention
    yield
    assert torch.nn.functional.scaled_dot_product_attention is original
    assert not attnmux.torch.is_active()
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.fixture(scope="session")
def source() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def python(tmp_path):
    """Runs a program in a fresh interpreter; returns what it printed."""

    def run(code: str, status: int = 0, **environment: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("ATTNMUX_")}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**clean, **environment}, cwd=tmp_path, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if status else "")

    return run
