"""The free body's file gives the body that is drawn."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.view.body import body_file
from pipeline.body.load import load_body
from pipeline.body.model import place_joints
from pipeline.body.rotations import exp_so3
from tests.support.view import unpacked


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_skinning_the_file_gives_the_mannequin(seed):
    """Linear blend skinning of the file's own arrays, as WebGL does it."""
    rng = np.random.default_rng(seed)
    betas, pose = rng.normal(size=10), rng.normal(scale=0.5, size=(24, 3))
    file = unpacked(body_file())
    change = file["change_m"].reshape(10, -1, 3) * file["unit_m"]
    shaped = file["template_m"].reshape(-1, 3) + np.tensordot(betas, change, 1)
    rest = file["joints_m"].reshape(24, 3) + file["joints_change_m"].reshape(24, 3, 10) @ betas
    turns = exp_so3(torch.from_numpy(pose).float())[None]
    world, joints = place_joints(turns, torch.from_numpy(rest).float()[None])
    index = file["skin_joint"].reshape(-1, 4)
    weights = file["skin_weight"].reshape(-1, 4) / 65535
    moved = np.einsum("vkij,vkj->vki", world[0].numpy()[index], shaped[:, None] - rest[index])
    skinned = (weights[..., None] * (moved + joints[0].numpy()[index])).sum(1)

    def tensor(array):
        return torch.from_numpy(array.reshape(1, -1)).float()

    wanted = load_body(None)(tensor(betas), tensor(pose[0]), tensor(pose[1:]), torch.zeros(1, 3))
    assert np.abs(skinned - wanted.shown_m[0].numpy()).max() < 5e-4
