"""People in frames between two that were queried, and when they are not asked for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person
from pipeline.perception.blazepose.between import between, hardly_moved
from pipeline.perception.blazepose.queries import run_plan
from pipeline.perception.blazepose.roi import Roi
from pipeline.perception.blazepose.roi_tracking import look_ahead

SHAPE = np.random.default_rng(5).uniform(0, 200, (33, 2)).astype(np.float32)
ROI = Roi(100.0, 100.0, 260.0, 0.1, 0.9, id=7)


def seen(shift: tuple[float, float], angle: float = 0.1, level: float = 0.9):
    points = SHAPE + np.asarray(shift, np.float32)
    mask = Mask(np.eye(8, dtype=np.float32), np.array([[25, 0, shift[0]], [0, 25, shift[1]]], "f"))
    person = Person(
        np.concatenate((points.min(0), points.max(0))), level, points,
        np.full(33, level, np.float32), np.full((33, 3), shift[0], np.float32), mask, ROI.id,
    )  # fmt: skip
    return person, replace(ROI, x=100 + shift[0], y=100 + shift[1], angle=angle, points=points)


@settings(deadline=None)
@given(
    st.tuples(st.floats(-5, 5), st.floats(-5, 5)), st.floats(-3.1, 3.1), st.floats(-0.3, 0.3),
    st.floats(0.01, 0.99),
)  # fmt: skip
def test_a_steady_motion_is_met_exactly(step, angle, turn, share):
    first, last = seen((0.0, 0.0), angle), seen(step, angle + turn)
    person, roi = between(first, last, share)
    expected, _ = seen((share * step[0], share * step[1]))
    np.testing.assert_allclose(person.landmarks_px, expected.landmarks_px, atol=1e-3)
    np.testing.assert_allclose(person.box_px, expected.box_px, atol=1e-3)
    np.testing.assert_allclose(person.world_m, expected.world_m, atol=1e-4)
    np.testing.assert_allclose(person.mask.to_image, expected.mask.to_image, atol=1e-3)
    np.testing.assert_array_equal(roi.points, person.landmarks_px)
    assert (roi.x, roi.y) == pytest.approx((100 + share * step[0], 100 + share * step[1]))
    # The shorter way round, also across half a turn.
    assert abs(math.remainder(roi.angle - angle - share * turn, 2 * math.pi)) < 1e-6


@pytest.mark.parametrize("landmark", range(33))
def test_one_hand_that_moves_is_motion(landmark):
    (first, _), (last, _) = seen((0, 0)), seen((2, 2))
    assert hardly_moved(first, last)
    points = last.landmarks_px.copy()
    points[landmark] += 15
    assert not hardly_moved(first, replace(last, landmarks_px=points))


def looked(shifts, found, sparing):
    """Which frames were asked, and the places that were found, for a person at ``shifts``."""
    image, rounds = np.zeros((400, 400, 3), np.uint8), []
    window = Window(tuple(Frame(t, "made", 0, t / 30, image) for t in range(len(shifts))))

    def answer(queries):
        times = [window.frames.index(query.frame) for query in queries]
        rounds.append(times)
        return [seen(shifts[t]) if found[t] else None for t in times]

    looks = run_plan(look_ahead(window, [ROI], sparing), answer)
    assert sorted(looks) == [(t, ROI.id) for t in range(len(shifts))]
    return rounds, [
        look.answer and look.answer[0].landmarks_px for _, look in sorted(looks.items())
    ]


STILL, MOVING = [(t, 0.0) for t in range(4)], [(20.0 * t, 0.0) for t in range(4)]


def test_the_frames_between_are_asked_for_where_the_person_moves_or_is_missing():
    all_found = [True] * 4
    assert looked(STILL, all_found, True)[0] == [[0, 3]]
    assert looked(MOVING, all_found, True)[0] == [[0, 3], [1, 2]]
    assert looked(STILL, [True, True, True, False], True)[0] == [[0, 3], [1, 2]]
    assert looked(STILL, all_found, False)[0][0] == [0, 1, 2, 3]
    for short in (1, 2):
        assert looked(STILL[:short], all_found, True)[0] == [list(range(short))]


def test_a_still_person_is_found_where_every_frame_shows_it():
    _, sparing = looked(STILL, [True] * 4, True)
    _, asked = looked(STILL, [True] * 4, False)
    np.testing.assert_allclose(sparing, asked, atol=1e-3)
