"""What is carried from measured frames to others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.camera import default_intrinsics
from pipeline.core.people import Person
from pipeline.core.skeleton import MHR_70, blazepose_order
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
    np.testing.assert_array_equal(out.visibility, seen.visibility)
    assert out.world_sigma_m == np.hypot(0.04, DRIFT_M)
    np.testing.assert_allclose(out.world_m[[23, 24]].mean(0), 0, atol=1e-6)


def test_landmarks_that_the_network_does_not_report_are_not_seen():
    random = np.random.default_rng(1)
    seen = blazepose(random)
    points = random.uniform((100, 50), (300, 400), (70, 2)).astype(np.float32)
    # Out of the picture in the key frame, and still measured.
    visibility = np.zeros(70, np.float32)
    world = random.normal(0, 0.4, (70, 3)).astype(np.float32)
    measured = Person(
        seen.box_px, 0.9, points, visibility, world, keypoints=MHR_70, world_sigma_m=0.04
    )
    out = Correction.of(seen, measured, LENS).applied(seen, LENS)
    places, known = blazepose_order(MHR_70)
    np.testing.assert_array_equal(out.visibility, known.astype(np.float32))
    np.testing.assert_allclose(out.landmarks_px[known], points[places[known]], atol=1e-3)


def test_a_person_who_is_twice_as_large_is_moved_twice_as_far():
    random = np.random.default_rng(2)
    seen, other = blazepose(random), blazepose(random)
    correction = Correction.of(seen, replace(other, world_sigma_m=0.04), LENS)
    near = replace(seen, landmarks_px=2 * seen.landmarks_px)
    out = correction.applied(near, LENS)
    moved = other.landmarks_px - seen.landmarks_px
    np.testing.assert_allclose(out.landmarks_px - near.landmarks_px, 2 * moved, atol=1e-2)
