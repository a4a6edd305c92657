"""What is carried from measured frames to others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.camera import default_intrinsics, view_rotation
from pipeline.core.people import Person
from pipeline.perception.correction import DRIFT_M, Correction

LENS = default_intrinsics(480, 640)


def blazepose(random):
    points = random.uniform((100, 50), (300, 400), (33, 2)).astype(np.float32)
    world = random.normal(0, 0.4, (33, 3)).astype(np.float32)
    world -= world[[23, 24]].mean(0)
    return Person(np.array([100, 50, 300, 400.0]), 0.9, points, np.ones(33, np.float32), world)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_measured_frame_itself_becomes_what_was_measured(seed):
    random = np.random.default_rng(seed)
    seen, other = blazepose(random), blazepose(random)
    measured = replace(other, world_sigma_m=0.04)
    out = Correction.of(seen, measured, LENS).applied(seen, LENS)
    np.testing.assert_allclose(out.world_m, measured.world_m, atol=1e-5)
    np.testing.assert_allclose(out.landmarks_px, measured.landmarks_px, atol=1e-3)
    assert out.world_sigma_m == np.hypot(0.04, DRIFT_M)
    np.testing.assert_allclose(out.world_m[[23, 24]].mean(0), 0, atol=1e-6)


def test_landmarks_that_were_not_measured_stay_blazeposes():
    random = np.random.default_rng(1)
    seen, other = blazepose(random), blazepose(random)
    visibility = np.ones(33, np.float32)
    visibility[[19, 20]] = 0
    measured = replace(other, visibility=visibility, world_sigma_m=0.04)
    out = Correction.of(seen, measured, LENS).applied(seen, LENS)
    np.testing.assert_array_equal(out.landmarks_px[19], seen.landmarks_px[19])
    turned = seen.world_m @ view_rotation(seen.landmarks_px, LENS).T
    np.testing.assert_allclose(out.world_m[19], turned[19], atol=1e-5)
