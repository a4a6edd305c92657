"""Telling overlapping people apart: the laws, with answers that are made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.frame import Frame
from pipeline.core.people import Mask, Person
from pipeline.perception.blazepose.occlusion import separate
from pipeline.perception.blazepose.queries import run_plan
from pipeline.perception.blazepose.roi import Overlap, Roi

SHAPES = np.random.default_rng(3).uniform(-40, 40, (2, 33, 2)).astype(np.float32)
"""The poses of two people."""
PICTURE = np.zeros((240, 640, 3), np.uint8)


def frame(time_s=0.0):
    return Frame(0, "test", 0, time_s, PICTURE)


def person(which, x, y=120.0, box=None):
    """A person whose mask is a box (left, top, right, bottom), by default its left half."""
    points = SHAPES[which] + np.float32((x, y))
    left, top, right, bottom = box or (*points.min(0), x, points[:, 1].max())
    values = np.zeros(PICTURE.shape[:2], np.float32)
    values[int(top) : int(bottom) + 2, int(left) : int(right) + 2] = 1
    corners = np.float32((*points.min(0), *points.max(0)))
    sure = np.ones(33, np.float32)
    return Person(corners, 0.9, points, sure, None, Mask(values, np.eye(2, 3, dtype=np.float32)))


def roi(which, seen, **known):
    middle = seen.landmarks_px.mean(0)
    return Roi(*middle, 160.0, 0.0, 0.0, which, points=seen.landmarks_px, **known)


def found(which, seen):
    return replace(seen, roi=which), roi(which, seen)


def told_apart(rois, results, painted, time_s=0.0):
    """What `separate` returns, and the ids of the ROIs that it asks for; ``painted`` answers."""
    asked = []

    def answer(queries):
        asked.extend(query.roi.id for query in queries)
        assert all(query.without is not None for query in queries)
        return [painted(query.roi.id) for query in queries]

    return run_plan(separate(frame(time_s), rois, results), answer), asked


@given(st.floats(90, 300))
def test_people_beside_one_another_are_left_as_they_are(distance):
    seen = person(0, 100), person(1, 100 + distance)
    results = [found(which, one) for which, one in enumerate(seen)]
    out, asked = told_apart([roi(0, seen[0]), roi(1, seen[1])], results, lambda which: None)
    assert asked == []
    assert all(a is b for a, b in zip(out, results))


@given(st.booleans(), st.floats(0, 30))
def test_an_answer_with_the_limbs_of_the_one_in_front_is_replaced(first_in_front, shift):
    """Both plain answers are the person in front; behind the paint the other one is found."""
    front, back = (0, 1) if first_in_front else (1, 0)
    seen = {front: person(front, 200), back: person(back, 200 + shift)}
    both = [found(which, seen[front]) for which in (0, 1)]
    out, _ = told_apart(
        [roi(0, seen[0]), roi(1, seen[1])],
        both,
        lambda which: found(which, seen[back] if which == back else seen[front]),
    )
    for which in (front, back):
        assert np.array_equal(out[which][0].landmarks_px, seen[which].landmarks_px)
        assert out[which][1].id == which


def test_what_is_behind_the_one_in_front_is_marked():
    front = person(0, 200, box=(150, 60, 205, 180))
    back = person(1, 205, box=(165, 80, 246, 160))
    out, _ = told_apart(
        [roi(0, front), roi(1, back)],
        [found(0, front), found(1, front)],
        lambda which: found(which, back if which == 1 else front),
    )
    hidden = back.landmarks_px[:, 0] < 206
    assert 3 < hidden.sum() < 30
    assert (out[1][0].visibility[hidden] < 0.5).all()
    assert (out[1][0].visibility[~hidden] == 1).all()
    assert (out[0][0].visibility == 1).all()
    shared = out[1][0].mask.values * front.mask.values
    assert shared.max() == 0
    assert out[1][0].mask.values.max() == 1


@pytest.mark.parametrize(("hidden_s", "kept"), [(0.5, True), (1.9, True), (2.1, False)])
def test_a_hidden_person_is_held_for_two_seconds(hidden_s, kept):
    front, back = person(0, 200), person(1, 190)
    velocity = np.array([30.0, 0.0])
    seen_front = Overlap(front, hidden_s - 0.1, hidden_s - 0.1, np.zeros(2), {1: 1.0})
    seen_back = Overlap(back, hidden_s - 0.1, 0.0, velocity, {0: -1.0})
    out, asked = told_apart(
        [roi(0, front, overlap=seen_front), roi(1, back, overlap=seen_back)],
        [found(0, front), found(1, front)],
        lambda which: None,
        time_s=hidden_s,
    )
    # The order is sure, so the other one is not asked for.
    assert asked == [1]
    assert np.array_equal(out[0][0].landmarks_px, front.landmarks_px)
    if not kept:
        assert out[1] is None
        return
    held, following = out[1]
    assert np.allclose(held.landmarks_px, back.landmarks_px + (3, 0), atol=1e-3)
    assert (held.visibility < 0.5).all()
    assert held.score < back.score
    assert following.id == 1
    assert following.overlap.shown_s == 0.0


def test_a_person_that_would_be_visible_is_not_held():
    front, back = person(0, 200, box=(150, 60, 160, 70)), person(1, 210)
    known = Overlap(back, 0.0, 0.0, np.zeros(2), {0: -1.0})
    out, _ = told_apart(
        [roi(0, front), roi(1, back, overlap=known)],
        [found(0, front), found(1, front)],
        lambda which: None,
        time_s=0.03,
    )
    assert out[1] is None


def test_the_order_of_many_frames_outweighs_a_single_one():
    """Person 0 fits plainly and person 1 only behind it, then for one frame the reverse."""
    seen, odd = (person(0, 200), person(1, 215)), person(1, 225)
    rois = [roi(0, seen[0]), roi(1, seen[1])]

    def step(rois, plain, painted, time_s):
        results = [found(which, one) for which, one in enumerate(plain)]
        out, _ = told_apart(rois, results, lambda which: found(which, painted[which]), time_s)
        memories = [following.overlap for _, following in out]
        return out, [replace(one, overlap=memory) for one, memory in zip(rois, memories)]

    for t in range(3):
        out, rois = step(rois, (seen[0], odd), seen, t / 30)
        assert np.array_equal(out[1][0].landmarks_px, seen[1].landmarks_px)
    sure = rois[0].overlap.in_front[1]
    assert sure > 0
    out, rois = step(rois, seen, (seen[0], odd), 3 / 30)
    assert 0 < rois[0].overlap.in_front[1] < sure
    assert np.array_equal(out[0][0].landmarks_px, seen[0].landmarks_px)
