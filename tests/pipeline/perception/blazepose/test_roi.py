"""Where a tracked person is looked for next: the rotation follows how the person turns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.people import Mask, Person
from pipeline.perception.blazepose import overlap
from pipeline.perception.blazepose.overlap import agreement
from pipeline.perception.blazepose.roi import Roi, along_torso, continued, turn_between, turned

ANGLES = st.floats(-math.pi, math.pi)


def body(angle: float) -> np.ndarray:
    """A straight person's landmarks (33, 2) around (0, 0), rotated clockwise."""
    points = np.zeros((33, 2))
    points[:11, 1], points[11:23, 1], points[25:, 1] = -60, -40, 60
    points[[11, 12, 23, 24, 25, 26, 27, 28], 0] = [9, -9, 7, -7, 7, -7, 7, -7]
    c, s = math.cos(angle), math.sin(angle)
    return (points @ np.array([[c, s], [-s, c]])).astype(np.float32)


@given(ANGLES, st.floats(-10, 10))
def test_a_steady_turn_is_foreseen(start: float, turn: float) -> None:
    """In either direction of time."""
    for sign in (1, -1):
        roi = Roi(0, 0, 200, start, 0.0, time_s=0.0)
        for frame in range(1, 20):
            time_s = sign * frame / 30
            after = replace(roi, angle=start + turn * time_s)
            roi = continued(roi, after, time_s)
        assert roi.turn == pytest.approx(turn, abs=1e-3)
        ahead = turned(roi, roi.time_s + sign * 0.1)
        assert ahead.angle == pytest.approx(roi.angle + sign * 0.1 * turn, abs=1e-3)


@given(ANGLES)
def test_a_corrected_rotation_is_no_turn(angle: float) -> None:
    before = Roi(0, 0, 200, angle, 0.0, time_s=1.0)
    assert continued(before, replace(before, angle=angle + math.pi), 1 + 1 / 30).turn == 0.0
    # A new person has no time yet.
    assert continued(Roi(0, 0, 200, angle, 0.0), before, 1.0).turn == 0.0


@given(ANGLES, ANGLES)
def test_the_next_roi_lies_along_the_torso(angle: float, asked: float) -> None:
    roi = along_torso(Roi(0, 0, 150, asked, 0.0, points=body(angle)))
    assert turn_between(roi, Roi(0, 0, 150, angle, 0.0)) < 0.36
    small = along_torso(Roi(0, 0, 400, asked, 0.0, points=body(angle)))
    assert small.angle == asked, "a foreshortened torso says nothing"


@given(ANGLES, st.sampled_from((0.5 * math.pi, math.pi - 0.5, -0.5 * math.pi)))
def test_limbs_across_the_mask_disagree_with_it(angle: float, off: float) -> None:
    y, x = np.mgrid[:128, :128]
    along = (x - 64) * math.sin(angle) - (y - 64) * math.cos(angle)
    aside = (x - 64) * math.cos(angle) + (y - 64) * math.sin(angle)
    mask = Mask(
        ((abs(along) < 60) & (abs(aside) < 14)).astype(np.float32),
        np.array([[1, 0, -64], [0, 1, -64]], np.float32),
    )

    def person(turned_by: float) -> Person:
        points = body(turned_by)
        return Person(np.zeros(4), 1.0, points, np.ones(33), None, mask)

    assert agreement(person(angle)) > 1.5 * agreement(person(angle + off))
    assert agreement(replace(person(angle), mask=None)) == 1.0


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_the_compiled_loops_of_overlap_count_and_measure_as_numpy(seed):
    random = np.random.default_rng(seed)
    mask = random.random((40, 56)).astype(np.float32)
    drawn = random.integers(0, 2, mask.shape).astype(np.uint8)
    on, there = mask > 0.5, drawn > 0
    assert overlap._shared(mask, drawn) == ((on & there).sum(), (on | there).sum())
    points = random.normal(0, 300, (random.integers(1, 40), 2)).astype(np.float32)
    assert overlap._span(points) == np.ptp(points, axis=0).max()
