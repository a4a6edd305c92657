"""The view of a camera from matched points, against points projected one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.camera import default_intrinsics, project
from pipeline.world.rotation_zoom import View, between, find_view, going_on, transfer
from tests.support.panorama import angle_deg, turn

K = default_intrinsics(360, 640)
angles = st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.floats(-8, 8))
jumps = st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5))
zooms = st.floats(0.8, 1.25)
seeds = st.integers(0, 2**31)


def seen_by(view: View, points_m: np.ndarray) -> np.ndarray:
    """Pixels of points in the reference's axes, with the lens of that zoom."""
    lens = K * [[view.zoom, 1, 1], [1, view.zoom, 1], [1, 1, 1]]
    return project(points_m @ view.rotation, lens)


def points_before(rng: np.random.Generator, count: int = 150) -> np.ndarray:
    """Points (N, 3) in front of the reference camera, at any depth, metres."""
    pixels = rng.uniform((0, 0), (640, 360), (count, 2))
    rays = np.column_stack([pixels, np.ones(count)]) @ np.linalg.inv(K).T
    return rays * rng.uniform(2, 40, (count, 1))


@given(angles, zooms, angles, zooms, seeds)
def test_a_homography_is_the_projection_of_points_at_any_depth(one, zoom, two, other, seed):
    first, second = View(turn(*one), zoom), View(turn(*two), other)
    points = points_before(np.random.default_rng(seed))
    moved = transfer(seen_by(first, points), between(first, second, K))
    np.testing.assert_allclose(moved, seen_by(second, points), atol=1e-6)


@given(jumps, st.floats(0.9, 1.1), angles, seeds)
def test_a_view_is_found_among_outliers(now, zoom, before, seed):
    """45 in 100 points move otherwise, half of them together; the rest have noise of 0.1 pixels."""
    rng = np.random.default_rng(seed)
    key, truth = View(turn(*before), 1.0), View(turn(*before) @ turn(*now), zoom)
    points = points_before(rng) @ key.rotation.T
    at_key, at_now = seen_by(key, points), seen_by(truth, points)
    at_now += rng.normal(0, 0.1, at_now.shape)
    at_now[:34] = at_key[:34] + rng.uniform(-60, 60, 2)
    at_now[34:68] += rng.uniform(-80, 80, (34, 2))
    found = find_view(at_key, at_now, np.ones(150), key, key, K, rng)
    assert angle_deg(found.view.rotation, truth.rotation) < 0.03
    assert abs(found.view.zoom / zoom - 1) < 1e-3
    assert np.hypot(*found.residual_px[68:].T).max() < 0.7


@given(angles, zooms)
def test_a_steady_motion_goes_on(step, zoom):
    """The next step is the same as the last one, wherever the camera looks by now."""
    view = View(np.eye(3), 1.0)
    pan = turn(*(0.1 * np.array(step)))
    for _ in range(200):
        after = going_on(view, View(view.rotation @ pan, view.zoom))
        np.testing.assert_allclose(after.rotation, view.rotation @ pan @ pan, atol=1e-9)
        view = View(view.rotation @ pan, view.zoom)
    assert going_on(View(np.eye(3), 1.0), View(np.eye(3), zoom)).zoom == zoom * zoom
