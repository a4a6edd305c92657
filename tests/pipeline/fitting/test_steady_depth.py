"""The filter of the distance: it holds still, follows without a lag, and doubts single frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fitting.steady_depth import steady_depth

INTERVALS = st.floats(0.25, 2.0)


def filtered(depth_m: np.ndarray, interval: float, frames: int = 4) -> np.ndarray:
    """One person's distances through the filter, in windows of ``frames``."""
    held, known, out = torch.zeros(1, 2), torch.zeros(1), []
    for part in torch.tensor(depth_m, dtype=torch.float32).split(frames):
        steady, held = steady_depth(part[None], held, known, torch.tensor([interval]))
        known = torch.ones(1)
        out.append(steady[0].numpy())
    return np.concatenate(out)


@settings(deadline=None)
@given(st.floats(0.2, 50.0), INTERVALS)
def test_a_person_who_stands_stays(depth, interval):
    assert filtered(np.full(12, depth), interval) == pytest.approx(depth, rel=1e-5)


@settings(deadline=None)
@given(st.floats(-0.02, 0.02), INTERVALS)
def test_a_steady_approach_has_no_lag(speed, interval):
    depth_m = 5 * np.exp(speed * interval * np.arange(240))
    assert filtered(depth_m, interval)[-1] == pytest.approx(depth_m[-1], rel=2e-3)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(-0.04, 0.04))
def test_a_wrong_frame_moves_the_body_by_less_than_half_of_its_error(seed, error):
    rng = np.random.default_rng(seed)
    depth_m = np.full(30, 4.0)
    at = int(rng.integers(5, 29))
    depth_m[at] *= 1 + error
    steps = np.abs(np.diff(filtered(depth_m, 1.0)))
    assert steps.max() <= 0.5 * abs(depth_m[at] - 4.0) + 1e-5


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 6]))
def test_how_frames_are_cut_into_windows_does_not_matter(seed, frames):
    depth_m = 4 * np.exp(np.random.default_rng(seed).normal(0, 0.01, 12).cumsum())
    assert filtered(depth_m, 1.0, frames) == pytest.approx(filtered(depth_m, 1.0, 12), rel=1e-5)


def test_it_begins_at_the_first_distance():
    assert filtered(np.array([3.0]), 1.0) == pytest.approx(3.0)
