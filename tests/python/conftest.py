# SPDX-License-Identifier: Apache-2.0
import importlib.util
import os
import subprocess
import sys

import pytest
from hypothesis import settings

# Most of these import PyTorch before anything else.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_torch_*.py"]

settings.register_profile("attnmux", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("attnmux")


@pytest.fixture
def python(tmp_path):
    """Runs a program in a fresh interpreter, outside of the source tree; returns what it printed."""

    def run(code: str, status: int = 0, interpreter: str = sys.executable, **environment: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("ATTNMUX_")}
        done = subprocess.run(
            [interpreter, "-c", code],
            env={**clean, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if status else "")

    return run
