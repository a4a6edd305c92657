"""What the tests of the benchmark share."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture
def cuda():
    """Fails where a GPU is promised and there is none."""
    if not torch.cuda.is_available():
        if os.environ.get("BODYSTREAM_GPU") == "1":
            pytest.fail("BODYSTREAM_GPU=1 promises a GPU, and torch sees none")
        pytest.skip("needs a CUDA GPU")
