"""Identities with the future known: what must be joined, exchanged, left out, and left alone."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tracking.pieces import NO_ONE
from pipeline.tracking.stitch import _assigned, decide_identities
from tests.support.tracklets import INTERVAL_S, Clip, Walker, same_partition

SEEDS = st.integers(0, 10_000)
COLOURS = (-0.8, 0.0, 0.8)


def decided(clip, track, cuts=()):
    return decide_identities(track, clip.frame, clip.read, clip.shapes(track), INTERVAL_S, cuts)


def some_walkers(random, colours=COLOURS):
    return [
        Walker(
            [1.8 * k - 1.8, 0.2, random.uniform(3, 8)],
            [random.uniform(-0.3, 0.3), 0, random.uniform(-0.3, 0.3)],
            colour,
        )
        for k, colour in enumerate(colours)
    ]


def crossing(one=-0.8, other=0.8, noise_m=0.01, seed=0, frames=120):
    """Two people who walk past each other; they are nearest in the middle."""
    left = Walker([-1.5, 0.2, 4.0], [0.75, 0, 0], one)
    right = Walker([1.5, 0.2, 4.6], [-0.75, 0, 0], other)
    return Clip([(left, range(frames)), (right, range(frames))], noise_m, seed)


@given(SEEDS, st.sampled_from([COLOURS, (0.1, 0.1, 0.1), (None, None, None)]))
@settings(max_examples=10)
def test_whole_tracks_stay_as_they_are(seed, colours):
    random = np.random.default_rng(seed)
    clip = Clip([(w, range(90)) for w in some_walkers(random, colours)], 0.02, seed)
    np.testing.assert_array_equal(decided(clip, clip.person), clip.person)


@given(SEEDS)
@settings(max_examples=10)
def test_pieces_of_a_person_are_joined(seed):
    random = np.random.default_rng(seed)
    seen = []
    for walker in some_walkers(random):
        gone, gap = random.integers(40, 60), random.integers(2, 60)
        seen.append((walker, [*range(gone), *range(gone + gap, 160)]))
    clip = Clip(seen, 0.02, seed)
    # A person who comes back is new.
    back = np.array(
        [f > 40 and f - 1 not in seen[p - 1][1] for f, p in zip(clip.frame, clip.person)]
    )
    track = clip.person.copy()
    for person in (1, 2, 3):
        returned = clip.frame[back & (clip.person == person)]
        track[(clip.person == person) & (clip.frame >= returned.min())] += 10
    out = decided(clip, track)
    np.testing.assert_array_equal(out, clip.person)


@given(SEEDS)
@settings(max_examples=10)
def test_people_of_other_looks_are_not_joined(seed):
    random = np.random.default_rng(seed)
    place, speed = [random.uniform(-1, 1), 0.2, 4.0], [random.uniform(-0.5, 0.5), 0, 0]
    gap = random.integers(1, 60)
    one, other = Walker(place, speed, -0.8), Walker(place, speed, 0.8)
    clip = Clip([(one, range(60)), (other, range(60 + gap, 160))], 0.02, seed)
    np.testing.assert_array_equal(decided(clip, clip.person), clip.person)


def test_two_people_who_come_back_alike_stay_new():
    """Without looks, and with both as near to where both were, nothing tells who is who."""
    people = [Walker([x, 0.2, 5.0], [0, 0, 0], None) for x in (-0.3, 0.3)]
    back = [Walker([0.0, 0.2, z], [0, 0, 0], None) for z in (4.0, 6.5)]
    clip = Clip([(w, range(40)) for w in people] + [(w, range(70, 120)) for w in back])
    np.testing.assert_array_equal(decided(clip, clip.person), clip.person)


def test_nothing_is_joined_over_a_cut_or_a_long_gap():
    walker = Walker([0, 0.2, 4.0], [0, 0, 0])
    near = Clip([(walker, range(60)), (walker, range(66, 120))])
    assert same_partition(decided(near, near.person), np.ones(len(near.frame)))
    np.testing.assert_array_equal(decided(near, near.person, cuts=(63,)), near.person)
    far = Clip([(walker, range(60)), (walker, range(60 + 95, 200))])
    np.testing.assert_array_equal(decided(far, far.person), far.person)


@given(SEEDS, st.integers(-8, 8))
@settings(max_examples=10)
def test_an_exchange_at_a_meeting_is_undone(seed, late):
    clip = crossing(seed=seed)
    exchanged = np.where(clip.frame >= 60 + late, 3 - clip.person, clip.person)
    np.testing.assert_array_equal(decided(clip, exchanged), clip.person)


@given(SEEDS)
@settings(max_examples=10)
def test_a_track_that_leapt_to_another_person_is_parted(seed):
    """The first person's track goes on as the second's, whose own ends; the first is new then."""
    clip = crossing(seed=seed)
    after = clip.frame >= 60
    track = np.where(after, np.where(clip.person == 2, 1, 3), clip.person)
    np.testing.assert_array_equal(decided(clip, track), clip.person)


@given(SEEDS, st.sampled_from([(0.3, 0.3), (None, None), (None, 0.8)]))
@settings(max_examples=10)
def test_people_who_cross_and_look_alike_stay_as_they_are(seed, colours):
    clip = crossing(*colours, seed=seed)
    for track in (clip.person, np.where(clip.frame >= 60, 3 - clip.person, clip.person)):
        np.testing.assert_array_equal(decided(clip, track), track)


def test_a_double_and_a_brief_faint_track_are_no_one():
    person = Walker([0, 0.2, 4.0], [0.2, 0, 0])
    double = Walker([0.02, 0.2, 4.0], [0.2, 0, 0], None)
    faint, brief = (Walker([2, 0.2, 5.0], [0, 0, 0], None, score) for score in (0.2, 0.9))
    clip = Clip(
        [
            (person, range(90)),
            (double, range(30, 60)),
            (faint, range(20, 23)),
            (brief, range(70, 73)),
        ]
    )
    out = decided(clip, clip.person)
    expected = np.where(np.isin(clip.person, (2, 3)), NO_ONE, clip.person)
    np.testing.assert_array_equal(out, expected)


def test_a_brief_faint_track_that_goes_on_is_kept():
    faint = Walker([1, 0.2, 5.0], [0, 0, 0], None, 0.2)
    clip = Clip([(faint, range(3)), (faint, range(6, 60))])
    assert same_partition(decided(clip, clip.person), np.ones(len(clip.frame)))


@given(SEEDS)
@settings(max_examples=8)
def test_no_frame_has_an_id_twice(seed):
    """Whatever a tracker did, and however little it makes sense."""
    random = np.random.default_rng(seed)
    clip = Clip(
        [(w, range(80)) for w in (*some_walkers(random), *some_walkers(random))], 0.05, seed
    )
    track = clip.person.copy()
    for _ in range(6):
        one, other = random.permutation(np.arange(1, 15))[:2]
        late = clip.frame >= random.integers(5, 75)
        track = np.where(late & (track == one), -1, track)
        track = np.where(late & (track == other), one, track)
        track[track == -1] = other
    out = decided(clip, track)
    kept = out != NO_ONE
    pairs = np.stack((clip.frame[kept], out[kept]))
    assert np.unique(pairs, axis=1).shape[1] == kept.sum()


@pytest.mark.parametrize("seed", range(20))
def test_the_assignment_is_the_likeliest_of_all(seed):
    random = np.random.default_rng(seed)
    count = 4
    likely = {
        (i, j): float(random.normal())
        for i in range(count)
        for j in range(count)
        if random.random() < 0.6
    }
    best = max(
        sum(max(likely.get((i, j), 0.0), 0.0) for i, j in enumerate(order))
        for order in permutations(range(count))
    )
    found = _assigned(likely, count)
    assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)
    assert sum(likely[pair] for pair in found) == pytest.approx(best)


def test_no_one_in_a_clip():
    none = np.zeros(0, np.int64)
    assert len(decide_identities(none, none, lambda rows: None, {}, INTERVAL_S)) == 0
