"""What an estimator is made of."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.gpu import engine as engine_file
from pipeline.gpu.device import EngineOptions
from pipeline.runtime.make import _engine_maker


class Mask(nn.Module):
    def forward(self, x):
        return x.sigmoid()


class Embed(Mask):
    def with_kernels(self):
        return Mask()


def test_networks_of_masks_take_their_own_kernels_and_compile_nothing(monkeypatch):
    """With "auto"; compiling networks of this size takes minutes."""
    # All engines are there.
    monkeypatch.setattr(engine_file, "missing", lambda name, device, by_name=True: None)
    reports = []
    make = _engine_maker(torch.device("cpu"), EngineOptions(), reports)
    for module in (Embed(), Mask()):
        engine = make("a label", module, 4, torch.zeros(1, 3))
        assert torch.equal(engine(torch.ones(2, 3))[0], torch.ones(2, 3).sigmoid())
    assert [report.engine for report in reports] == ["triton", "eager"]
    assert reports[0].buckets == (1, 4)
