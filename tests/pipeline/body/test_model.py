"""Skinning against the smplx package, and the laws a body model obeys."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.load import load_body
from pipeline.body.model import BodyModel
from pipeline.body.rotations import exp_so3


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


def with_posedirs(body: BodyModel) -> BodyModel:
    generator = torch.Generator().manual_seed(1)
    shape = (*body.v_template.shape, 207)
    return replace(body, posedirs=0.01 * torch.randn(shape, generator=generator))


def draw(seed: int, batch: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((10, 1.5), (3, 2.0), (69, 0.7), (3, 3.0))
    return tuple(scale * torch.randn(batch, n, generator=generator) for n, scale in sizes)


def reference(body: BodyModel) -> torch.nn.Module:
    """The smplx package's SMPL with this body's arrays."""
    smplx = pytest.importorskip("smplx", reason="needs the smpl extra")
    vertices = len(body.v_template)
    posedirs = torch.zeros(vertices, 3, 207) if body.posedirs is None else body.posedirs
    parents = np.array([[-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19,
                         20, 21], range(24)])  # fmt: skip
    arrays = smplx.utils.Struct(
        v_template=body.v_template.numpy(),
        shapedirs=body.shapedirs.numpy(),
        posedirs=posedirs.numpy(),
        J_regressor=body.joint_regressor.numpy(),
        weights=body.weights.numpy(),
        f=body.faces,
        kintree_table=parents,
    )
    names = ["nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel"]
    names += ["RBigToe", "RSmallToe", "RHeel"]
    fingers = ("thumb", "index", "middle", "ring", "pinky")
    names += [side + finger for side in "lr" for finger in fingers]
    return smplx.SMPL("", data_struct=arrays, vertex_ids=dict.fromkeys(names, 0))


@pytest.mark.parametrize("posedirs", [False, True])
def test_skinning_is_smplx_s(body: BodyModel, posedirs: bool) -> None:
    body = with_posedirs(body) if posedirs else body
    betas, orient, pose, transl = draw(0, 5)
    ours = body.forward(betas, orient, pose, transl)
    with torch.no_grad():
        theirs = reference(body)(betas=betas, global_orient=orient, body_pose=pose, transl=transl)
    assert (ours.vertices_m - theirs.vertices).norm(dim=-1).max() < 1e-5
    assert (ours.joints_m - theirs.joints[:, :24]).norm(dim=-1).max() < 1e-5


def test_the_zero_pose_is_the_template(body: BodyModel) -> None:
    zero = torch.zeros(1, 10), torch.zeros(1, 3), torch.zeros(1, 69), torch.zeros(1, 3)
    out = body.forward(*zero)
    torch.testing.assert_close(out.vertices_m[0], body.v_template, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.joints_m[0], body.joint_template, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_a_batch_is_its_bodies_one_by_one(seed: int, batch: int) -> None:
    body = load_body()
    values = draw(seed, batch)
    together = body.forward(*values)
    for index in range(batch):
        alone = body.forward(*(value[index : index + 1] for value in values))
        for name in ("vertices_m", "joints_m", "landmarks_m"):
            whole, part = getattr(together, name)[index], getattr(alone, name)[0]
            torch.testing.assert_close(whole, part, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_global_rotation_is_rigid_about_the_pelvis(seed: int) -> None:
    body = load_body()
    betas, orient, pose, transl = draw(seed, 1)
    turned = body.forward(betas, orient, pose, transl)
    still = body.forward(betas, torch.zeros(1, 3), pose, torch.zeros(1, 3))
    pelvis = still.joints_m[:, :1]
    for name in ("vertices_m", "joints_m", "landmarks_m"):
        moved = (getattr(still, name) - pelvis) @ exp_so3(orient).mT + pelvis + transl[:, None]
        torch.testing.assert_close(getattr(turned, name), moved, atol=2e-5, rtol=0)


def test_gradients_match_differences(body: BodyModel) -> None:
    values = [value.requires_grad_() for value in draw(3, 1)]
    marks = torch.randn(33, 3, generator=torch.Generator().manual_seed(4))

    def energy(*arguments: torch.Tensor) -> torch.Tensor:
        return (body.forward(*arguments).landmarks_m[0] * marks).sum()

    gradients = torch.autograd.grad(energy(*values), values)
    step = 1e-2
    for index, gradient in enumerate(gradients):
        nudge = torch.zeros_like(values[index])
        nudge[0, -1] = step
        ahead = [v + nudge if i == index else v for i, v in enumerate(values)]
        behind = [v - nudge if i == index else v for i, v in enumerate(values)]
        with torch.no_grad():
            slope = (energy(*ahead) - energy(*behind)) / (2 * step)
        assert abs(slope - gradient[0, -1]) < 1e-2 * (1 + abs(slope))


def test_moving_to_a_device_keeps_everything(body: BodyModel) -> None:
    moved = body.to("meta")
    assert moved.v_template.device.type == "meta"
    assert moved.landmark_regressor.shape == body.landmark_regressor.shape
    assert moved.posedirs is None
    assert moved.faces is body.faces
