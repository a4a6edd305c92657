"""The world's axes: right-handed, and up is up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.load import load_body
from pipeline.core.world import World, camera_to_world, world_from_up

RIGHT, UP, FORWARD = np.eye(3)[0], -np.eye(3)[1], np.eye(3)[2]
"""As a level camera sees them, in OpenCV's axes."""


@pytest.mark.parametrize(
    ("up", "forward"), [("y", [0, 0, -1]), ("z", [0, 1, 0])], ids=["y up", "z up"]
)
def test_up_is_up_and_right_stays_right(up, forward):
    turn = camera_to_world(up)
    assert (turn @ UP).tolist() == np.eye(3)["xyz".index(up)].tolist()
    assert (turn @ RIGHT).tolist() == [1, 0, 0]
    assert (turn @ FORWARD).tolist() == forward
    np.testing.assert_array_equal(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)


def random_world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    up = rng.normal(size=3)
    return world_from_up(up / np.linalg.norm(up), rng.uniform(0, 5))


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_a_tilted_world_is_right_handed_above_the_floor(seed):
    world = random_world(seed)
    np.testing.assert_allclose(world.rotation @ world.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(world.rotation) == pytest.approx(1)
    # The camera is above the origin, and its forward direction is y.
    camera_m, ahead_m = world.points(np.array([[0.0, 0, 0], [0, 0, 1]]))
    np.testing.assert_allclose(camera_m[:2], 0, atol=1e-12)
    np.testing.assert_allclose(camera_m, world.camera_m, atol=1e-12)
    assert ahead_m[0] == pytest.approx(0, abs=1e-9)
    assert ahead_m[1] > 0
    # The world with y up has the same points.
    x, y, z = world.points(np.array([1.0, 2, 3]))
    assert world.points(np.array([1.0, 2, 3]), "y").tolist() == [x, z, -y]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_camera_that_looks_straight_down_or_up_has_a_forward_direction(side):
    near = world_from_up(np.array([0, -np.sin(1e-2), side * np.cos(1e-2)]))
    there = world_from_up(np.array([0, 0, side]))
    np.testing.assert_allclose(near.rotation, there.rotation, atol=2e-2)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_smpl_in_the_world_is_the_bodys_points_in_the_world(seed):
    """The body model itself, posed with the world's orientation and translation."""
    body, rng, world = load_body(None), np.random.default_rng(seed), random_world(seed)
    betas, orient = rng.normal(size=(2, 10)), rng.normal(size=(2, 3))
    pose = 0.3 * rng.normal(size=(2, 69))
    transl_m = rng.normal(size=(2, 3)) * 3

    def posed(orient: np.ndarray, transl_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = (betas, orient, pose, transl_m)
        made = body(*(torch.from_numpy(value.astype(np.float32)) for value in values))
        return made.joints_m.numpy(), made.vertices_m.numpy()

    joints_m, vertices_m = posed(orient, transl_m)
    again_m, again_vertices_m = posed(*world.body(orient, transl_m, joints_m[:, 0]))
    np.testing.assert_allclose(again_m, world.points(joints_m), atol=2e-5)
    np.testing.assert_allclose(again_vertices_m, world.points(vertices_m), atol=2e-5)


def test_rows_may_have_worlds_of_their_own():
    """As those of a camera that turns."""
    one, other = random_world(1), random_world(2)
    both = World(np.stack((one.rotation, other.rotation)), np.stack((one.origin_m, other.origin_m)))
    rng = np.random.default_rng(0)
    joints_m, orient = rng.normal(size=(2, 24, 3)), rng.normal(size=(2, 3))
    wanted = np.stack((one.points(joints_m[0], "y"), other.points(joints_m[1], "y")))
    np.testing.assert_allclose(both.points(joints_m, "y"), wanted)
    turned = np.stack((one.rotations(orient[:1])[0], other.rotations(orient[1:])[0]))
    np.testing.assert_allclose(both.rotations(orient), turned)
