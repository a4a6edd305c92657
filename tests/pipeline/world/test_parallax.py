"""Translation told from what else leaves residuals."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.camera import default_intrinsics, project
from pipeline.world.parallax import shows_parallax

K = default_intrinsics(360, 640)
seeds = st.integers(0, 2**31)


def scattered(rng: np.random.Generator, count: int = 160) -> np.ndarray:
    return rng.uniform((10, 10), (630, 350), (count, 2))


@given(seeds, st.floats(0, 2 * np.pi), st.floats(-0.15, 0.15))
def test_points_at_two_depths_that_move_with_the_camera(seed, direction, forwards_m):
    rng = np.random.default_rng(seed)
    at = scattered(rng)
    depth_m = np.where(rng.random(len(at)) < 0.4, 3.0, 30.0)[:, None]
    points = np.column_stack([at, np.ones(len(at))]) @ np.linalg.inv(K).T * depth_m
    way_m = np.array([0.1 * np.cos(direction), 0.1 * np.sin(direction), forwards_m])
    residual = project(points - way_m, K) - at + rng.normal(0, 0.1, at.shape)
    assert shows_parallax(at, residual, 0.0, 0.0, 640, rng)


@given(seeds, st.floats(-4, 4))
def test_noise_strays_and_a_bent_lens_are_none(seed, bend_px):
    rng = np.random.default_rng(seed)
    at = scattered(rng)
    x = (at - (320, 180)) / 320
    residual = bend_px * x * (x * x).sum(1, keepdims=True) + rng.normal(0, 0.2, at.shape)
    residual[:40] += rng.uniform(-15, 15, (40, 2))
    assert not shows_parallax(at, residual, 80.0, 0.0, 640, rng)


@given(seeds)
def test_one_thing_that_moves_is_none(seed):
    rng = np.random.default_rng(seed)
    at = scattered(rng)
    residual = rng.normal(0, 0.2, at.shape)
    residual[np.abs(at - rng.uniform(150, 200, 2)).max(1) < 80] += (6.0, 2.0)
    assert not shows_parallax(at, residual, 0.0, 0.0, 640, rng)
