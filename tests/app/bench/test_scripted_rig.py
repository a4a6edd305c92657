"""The rig in TorchScript that the original SAM 3D Body loads."""

from __future__ import annotations

import pytest
import torch

from app.bench.scripted_rig import write_rig
from pipeline.sam3d.rig import Rig
from tests.pipeline.sam3d.golden_rule import SyntheticRig, rig_tensors


@torch.no_grad()
def test_the_file_computes_what_our_rig_does(tmp_path):
    tensors = rig_tensors(SyntheticRig(0, 8))
    write_rig(tensors, tmp_path / "mhr_model.pt")
    rig = torch.jit.load(tmp_path / "mhr_model.pt")
    assert not rig.training
    numbers = torch.Generator().manual_seed(1)
    parameters = 0.4 * torch.randn(2, 204, generator=numbers)
    shape = torch.randn(2, 45, generator=numbers)
    vertices, joints = rig(shape, parameters, torch.zeros(2, 72))
    wanted, maps = Rig(tensors)(parameters, shape)
    assert vertices.numpy() == pytest.approx(wanted.numpy(), abs=2e-3)
    assert joints[..., :3].numpy() == pytest.approx(maps[..., :3, 3].numpy(), abs=2e-3)
    moved, _ = rig(shape, parameters, torch.ones(2, 72))
    assert (moved - vertices).abs().max() > 0.1, "expressions move the face"
