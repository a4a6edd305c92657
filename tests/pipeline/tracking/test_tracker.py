"""Tracks: identities under motion, absence, crossing and reordering."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.people import Person
from pipeline.tracking.tracker import TrackConfig, Tracker, person_size_px

SHAPE = np.random.default_rng(0).uniform(-1, 1, (33, 2)).astype(np.float32) * [40, 100]


def person(x, y=300.0, scale=1.0, roi=-1):
    points = (SHAPE * scale + [x, y]).astype(np.float32)
    box = np.concatenate((points.min(0), points.max(0)))
    seen, world = np.ones(33, np.float32), np.zeros((33, 3), np.float32)
    return Person(box, 1.0, points, seen, world, roi=roi)


@given(st.permutations(range(3)), st.floats(-12, 12), st.floats(-12, 12))
def test_ids_do_not_depend_on_the_order_people_come_in(order, dx, dy):
    tracker = Tracker()
    first = tracker.assign([person(x) for x in (100, 400, 700)], 0.0)
    by_place = {round(p.box_px[0]): track for track, p in first.items()}
    moved = [person(x + dx, 300 + dy) for x in (100, 400, 700)]
    second = tracker.assign([moved[i] for i in order], 1 / 30)
    for track, p in second.items():
        assert by_place[round(p.box_px[0] - dx)] == track


def test_a_person_comes_back_within_a_second_and_is_new_after_it():
    tracker = Tracker(TrackConfig(remember_s=1.0))
    (track,) = tracker.assign([person(100)], 0.0)
    assert list(tracker.assign([], 0.5)) == []
    assert list(tracker.assign([person(105)], 0.9)) == [track]
    assert list(tracker.assign([person(105)], 3.0)) == [track + 1]


def test_a_perceivers_id_keeps_a_track_through_a_jump():
    tracker = Tracker()
    (track,) = tracker.assign([person(100, roi=7)], 0.0)
    assert list(tracker.assign([person(600, roi=7)], 1 / 30)) == [track]
    assert list(tracker.assign([person(100, roi=8)], 2 / 30)) == [track + 1]


def test_a_person_elsewhere_or_of_another_size_is_new():
    tracker = Tracker()
    tracker.assign([person(100)], 0.0)
    assert list(tracker.assign([person(700)], 1 / 30)) == [2]
    tracker = Tracker()
    tracker.assign([person(100)], 0.0)
    assert list(tracker.assign([person(100, scale=0.4)], 1 / 30)) == [2]


def test_crossing_people_keep_their_ids_by_their_velocity():
    tracker = Tracker()
    for frame in range(40):
        left, right = person(100 + 15 * frame), person(685 - 15 * frame, 310)
        tracks = tracker.assign([left, right], frame / 30)
        assert tracks[1] is left
        assert tracks[2] is right


def test_ids_never_come_back_after_clear():
    tracker = Tracker()
    tracker.assign([person(100), person(500)], 0.0)
    tracker.clear()
    assert list(tracker.assign([person(100)], 0.1)) == [3]


def test_size_is_the_longer_side():
    assert person_size_px(person(100)) == np.ptp(person(100).landmarks_px, axis=0).max()
