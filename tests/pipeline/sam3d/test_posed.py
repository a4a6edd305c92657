"""The rig, posed by parameters of anywhere: the rig's own bodies, in the camera's axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.sam3d.posed import PosedRig

COUNT = 3


@pytest.fixture(scope="module")
def given():
    random = np.random.default_rng(2)
    return 0.3 * random.standard_normal((COUNT, 204)), random.standard_normal((COUNT, 45))


@pytest.fixture(scope="module")
def skin():
    random = np.random.default_rng(0)
    return random.integers(0, 18439, (9, 3)), random.dirichlet((1, 1, 1), 9).astype(np.float32)


def test_points_and_mesh_are_the_rigs_in_metres_with_y_down(rig, given, skin):
    posed = PosedRig(rig, skin, mesh=True)(*given)
    vertices_cm, maps = rig(*(torch.from_numpy(each).float() for each in given))
    to_camera = np.diag([0.01, -0.01, -0.01])
    np.testing.assert_allclose(posed.vertices_m, vertices_cm.numpy() @ to_camera, atol=1e-6)
    vertices, shares = skin
    expected = np.einsum("bskc,sk->bsc", posed.vertices_m[:, vertices], shares)
    np.testing.assert_allclose(posed.surface_m, expected, atol=1e-5)
    # MHR's hips are the rig's joints 2 and 18.
    hips_cm = maps[:, [2, 18], :3, 3].mean(1).numpy()
    np.testing.assert_allclose(posed.hips_m, hips_cm @ to_camera, atol=1e-6)


def test_joints_turn_with_the_body_as_a_whole(rig, given):
    """Half a turn of the root, on which all joints hang."""
    parameters, shape = np.zeros((1, 204)), given[1][:1]
    turned = parameters.copy()
    turned[:, 4] = np.pi
    plain, after = (PosedRig(rig)(each, shape).joint_rotations for each in (parameters, turned))
    relative = (after @ plain.swapaxes(-1, -2))[0]
    np.testing.assert_allclose(relative, np.broadcast_to(relative[0], relative.shape), atol=1e-5)
    np.testing.assert_allclose(np.trace(relative[0]), -1, atol=1e-5)


def test_what_is_not_wanted_is_not_made(rig, given):
    posed = PosedRig(rig)
    answer = posed(*given)
    assert answer.surface_m is answer.vertices_m is posed.faces is None
