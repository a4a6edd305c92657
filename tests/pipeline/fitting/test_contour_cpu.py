"""The compiled loop of the contour's rows against `solver.contour_rows`."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Skeleton, forward_kinematics
from pipeline.fitting.contour_cpu import ContourLoop
from pipeline.fitting.solver import FitConfig, Observations, contour_rows, linearise
from tests.support.fits import random_problem

CONFIG = FitConfig()


@pytest.fixture(scope="module")
def skeleton(body):
    return Skeleton.of(body, CONFIG.surface_points)


@pytest.fixture(scope="module")
def loop(skeleton):
    return ContourLoop(skeleton, CONFIG)


def both(skeleton, loop, observed, state):
    flat = Observations(*(getattr(observed, f.name).flatten(0, 1) for f in fields(observed)))
    rotations, transl_m, betas = state
    shapes = betas[:, None].expand(*transl_m.shape[:2], 10).flatten(0, 1)
    pose = forward_kinematics(skeleton, rotations.flatten(0, 1), transl_m.flatten(0, 1), shapes)
    return contour_rows(skeleton, pose, shapes, flat, CONFIG), loop.rows(pose, shapes, flat)


def close(some, others, most=1e-4):
    for a, b in zip(some, others, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=most * float(a.abs().max()) + 1e-6)


def close_rows(some, others, most=1e-4):
    """As `close`, but for points on the contour itself, whose weight jumps there."""
    (rows, jacobian, cost), (rows_loop, jacobian_loop, cost_loop) = some, others
    off = rows.abs() > 1e-3
    assert off.any()
    close((rows, jacobian[off], cost), (rows_loop, jacobian_loop[off], cost_loop), most)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4))
def test_the_loop_gives_the_rows_of_torch(skeleton, loop, seed, people, frames):
    observed, _, state = random_problem(seed, people, frames)
    close_rows(*both(skeleton, loop, observed, state))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 0.3))
def test_so_it_does_behind_the_camera_and_beyond_the_map(skeleton, loop, seed, depth):
    observed, _, (rotations, transl_m, betas) = random_problem(seed, 2, 2)
    transl_m = transl_m.clone()
    transl_m[..., 2] = depth
    # So near, rounding moves a point by a part of the map's pixel.
    close_rows(*both(skeleton, loop, observed, (rotations, transl_m, betas)), most=2e-3)


def test_the_whole_system_is_the_same(skeleton, loop):
    observed, past, state = random_problem(3, 2, 4)
    close(linearise(skeleton, observed, past, state, CONFIG), loop.bind(observed, past)(state))


def test_a_pose_that_is_no_number_costs_no_number(skeleton, loop):
    observed, past, (rotations, transl_m, betas) = random_problem(4, 2, 4)
    broken = transl_m.clone()
    broken[1, 2] = float("nan")
    cost = loop.bind(observed, past)((rotations, broken, betas))[0]
    assert torch.isfinite(cost[0])
    assert torch.isnan(cost[1])


def test_without_a_mask_no_row_pulls(skeleton, loop):
    observed, _, state = random_problem(5, 1, 4)
    unmasked = replace(observed, masked=torch.zeros_like(observed.masked))
    _, (rows, jacobian, cost) = both(skeleton, loop, unmasked, state)
    assert not rows.any()
    assert not jacobian.any()
    assert not cost.any()
