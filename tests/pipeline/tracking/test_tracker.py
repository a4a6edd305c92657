"""Tracks: identities under motion, absence, crossing and reordering."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.people import Person
from pipeline.tracking.appearance import describe, mean_light
from pipeline.tracking.tracker import TrackConfig, Tracker, clear_looks, person_size_px
from tests.support.dressed import dressed, picture

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


# Coming back, by place, size and appearance.

FEW = settings(deadline=None, max_examples=15)
"""Pictures take a while."""


def seen(tracker, people, time_s, gain=1.0):
    """The track ids in the order of the people."""
    found = tracker.assign([person for person, _ in people], time_s, picture(people, gain))
    return [next(t for t, p in found.items() if p is person) for person, _ in people]


@FEW
@given(
    st.integers(0, 30),
    # Anywhere in the same light, or near the place in other light.
    st.tuples(st.floats(150, 1100), st.just(1.0))
    | st.tuples(st.floats(300, 420), st.floats(0.75, 1.25)),
    st.floats(2, 9.5),
)
def test_a_person_comes_back_by_appearance(seed, place, away_s):
    x, gain = place
    tracker = Tracker()
    for frame in range(15):
        (track,) = seen(tracker, [dressed(seed, 300 + 4 * frame)], frame / 15)
    seen(tracker, [], 1.1)
    assert seen(tracker, [dressed(seed, x)], 1 + away_s, gain) == [track]


@FEW
@given(st.integers(0, 30), st.floats(150, 1100), st.floats(1, 9.5))
def test_another_person_is_new_even_in_the_same_place(seed, x, away_s):
    tracker = Tracker()
    (track,) = seen(tracker, [dressed(seed, 300)], 0.0)
    person, colours = dressed(seed, x)
    # In colours that are far from the other's.
    other = person, np.where(colours > 128, colours - 110, colours + 110)
    assert seen(tracker, [other], away_s) == [track + 1]


@FEW
@given(st.integers(0, 30), st.floats(2, 9))
def test_in_doubt_between_two_alike_a_person_is_new(seed, away_s):
    tracker = Tracker()
    first = seen(tracker, [dressed(seed, 400), dressed(seed, 800)], 0.0)
    (track,) = seen(tracker, [dressed(seed, 600)], away_s)
    assert track not in first


@FEW
@given(st.integers(0, 30), st.integers(1, 12))
def test_people_under_a_strobe_keep_their_ids(seed, dark):
    tracker = Tracker()
    people = [dressed(seed, 300), dressed(seed + 1, 700, scale=0.8)]
    first = seen(tracker, people, 0.0)
    for flash in range(1, 8):
        time_s = flash * (dark + 3) / 30
        seen(tracker, [], time_s - 1 / 30, gain=0.0)
        assert seen(tracker, people, time_s) == first


def test_memory_is_bounded_by_time_and_count():
    tracker = Tracker(TrackConfig(remember_s=5.0, remember=10))
    for frame in range(200):
        tracker.assign([person(100 + 500 * (frame % 3), roi=frame)], frame / 10)
        assert len(tracker.tracks) <= 11
    tracker.assign([], 100.0)
    assert not tracker.tracks


def test_only_people_in_the_clear_are_described():
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    alone, front, behind = (person(x) for x in (100, 400, 410))
    looks = clear_looks({1: alone, 2: front, 7: behind}, image)
    assert list(looks) == [1]
    expected = describe(alone, image, mean_light(image))
    np.testing.assert_array_equal(looks[1].colours, expected.colours)
