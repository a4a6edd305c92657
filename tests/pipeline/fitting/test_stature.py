"""The stature of shapes, and shapes that are held to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.fitting.solver import BETAS
from pipeline.fitting.stature import (
    LEAST_SIZE,
    MOST_SIZE,
    SIGMA_M,
    Stature,
    given_height,
    held_to,
)
from pipeline.fitting.track_solver import ShapePrior

SHAPES = hnp.arrays(np.float32, BETAS, elements=st.floats(-1, 1, width=32)).map(torch.from_numpy)
HEIGHTS = st.floats(1.4, 2.1)


def extent_m(body, betas):
    rest = body.v_template + torch.einsum("vci,i->vc", body.shapedirs[..., :BETAS], betas)
    return float(rest[:, 1].max() - rest[:, 1].min())


@given(betas=SHAPES)
def test_two_vertices_say_how_tall_a_shape_is(body, betas):
    # Never more than the extent, because they are two of the mesh's vertices.
    short_m = extent_m(body, betas) - Stature.of(body).of_shape(betas)
    assert -1e-5 < short_m < 0.006


@given(betas=SHAPES, seed=st.integers(0, 999), height_m=HEIGHTS)
def test_a_held_prior_is_the_least_squares_of_all_rows(body, betas, seed, height_m):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(15, BETAS))
    stature = Stature.of(body)
    prior = ShapePrior(betas, torch.from_numpy(rows.T @ rows).float())
    held = held_to(prior, stature, height_m)
    row = stature.per_beta_m.numpy().astype(float)[None] / SIGMA_M
    target = (height_m - stature.mean_m) / SIGMA_M
    stacked = np.concatenate((rows, row))
    aim = np.concatenate((rows @ betas.numpy(), [target]))
    expected = np.linalg.lstsq(stacked, aim, rcond=None)[0]
    np.testing.assert_allclose(held.betas.numpy(), expected, atol=2e-2)
    np.testing.assert_allclose(held.information.numpy(), stacked.T @ stacked, rtol=1e-4, atol=1e-2)


@given(betas=SHAPES, height_m=HEIGHTS)
def test_a_shape_that_is_known_a_little_gets_the_height(body, betas, height_m):
    stature = Stature.of(body)
    held = held_to(ShapePrior(betas, torch.eye(BETAS)), stature, height_m)
    assert stature.of_shape(held.betas) == pytest.approx(height_m, abs=1e-3)
    # Along the row alone: what changes no stature stays.
    moved = held.betas - betas
    along = stature.per_beta_m / stature.per_beta_m.norm()
    assert (moved - (moved @ along) * along).abs().max() < 1e-4


@given(betas=SHAPES, height_m=st.floats(0.3, 2.6))
def test_the_size_is_the_ratio_of_heights_within_bounds(body, betas, height_m):
    stature = Stature.of(body)
    found = given_height(stature, betas, height_m)
    assert found.height_m == height_m
    assert LEAST_SIZE <= found.size <= MOST_SIZE
    if LEAST_SIZE < found.size < MOST_SIZE:
        assert found.size * stature.of_shape(betas) == pytest.approx(height_m, rel=1e-5)
