"""The measured pipelines."""

from __future__ import annotations

import pytest
import torch

from app.bench.pipelines import make_pipeline
from app.bench.rows import Settings
from app.bench.subject import rounding


def test_without_a_gpu_its_pipeline_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="GPU|CUDA"):
        make_pipeline(Settings())


def test_rounding_is_put_back():
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    for wanted in (True, False):
        with rounding(wanted):
            assert products.allow_tf32 is convolutions.allow_tf32 is wanted
        assert (products.allow_tf32, convolutions.allow_tf32) == before
    with rounding(None):
        assert (products.allow_tf32, convolutions.allow_tf32) == before
