"""The store between two passes: what goes in comes out, under the ids that are given last."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.body.load import load_body
from pipeline.core.people import Bodies
from pipeline.runtime.track_store import TrackStore
from pipeline.tracking.appearance import Appearance
from pipeline.tracking.pieces import NO_ONE
from tests.support.fits import K, windows_of_people

FRAMES, PEOPLE = 8, 3
SIZE = (720, 1280)


@pytest.fixture(scope="module")
def people():
    return [
        frame
        for window in windows_of_people(load_body(), FRAMES // 4, people=PEOPLE)
        for frame in window
    ]


def random_bodies(random, tracks):
    count = len(tracks)
    values = [
        random.normal(size=(count, *shape)).astype(np.float32)
        for shape in ((), (3,), (69,), (10,), (3,), (24, 3), (33, 3), (2, 3), (24,))
    ]
    return Bodies(np.array(tracks), *values)


def filled(folder, people, looks=None):
    store, random, bodies = TrackStore(folder), np.random.default_rng(4), []
    for frame, seen in enumerate(people):
        bodies.append(random_bodies(random, sorted(seen)))
        store.add(frame, seen, bodies[-1], K, SIZE, looks=(looks or {}).get(frame))
    store.finish()
    return store, bodies


def test_the_bodies_come_back(tmp_path, people):
    store, bodies = filled(tmp_path, people)
    for frame, added in enumerate(bodies):
        stored, _ = store.bodies(frame)
        np.testing.assert_array_equal(stored.track, added.track)
        np.testing.assert_array_equal(stored.transl_m, added.transl_m)
        pose = np.concatenate((added.global_orient, added.body_pose), 1)
        np.testing.assert_array_equal(stored.turns.reshape(PEOPLE, 72), pose)
    store.close()
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 10_000))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_go_by_the_ids_that_they_are_given(tmp_path, people, seed):
    """Any ids, of any records, against a look-up in what was added."""
    random = np.random.default_rng(seed)
    store, bodies = filled(tmp_path, people)
    ids = np.concatenate([random.permutation(np.arange(5, 12))[:PEOPLE] for _ in range(FRAMES)])
    ids[random.random(len(ids)) < 0.2] = NO_ONE
    store.rename(ids)
    named = ids.reshape(FRAMES, PEOPLE)
    assert store.tracks == sorted(set(ids.tolist()) - {NO_ONE})
    for frame, added in enumerate(bodies):
        stored, _ = store.bodies(frame)
        kept = named[frame][named[frame] != NO_ONE]
        np.testing.assert_array_equal(stored.track, np.sort(kept))
        for row, name in enumerate(stored.track):
            own = added.transl_m[named[frame] == name][0]
            np.testing.assert_array_equal(stored.transl_m[row], own)
    for name in store.tracks:
        track = store.track(name)
        np.testing.assert_array_equal(track.frame, np.flatnonzero((named == name).any(1)))
        read = track.read(slice(None))
        own = [b.transl_m[n == name][0] for b, n in zip(bodies, named) if name in n]
        np.testing.assert_array_equal(read.transl_m, np.array(own))
    sampled = store.sample(np.arange)
    assert len(sampled[0]) == (ids != NO_ONE).sum()
    store.close()


def test_a_joined_track_has_the_mean_shape_of_its_records(tmp_path, people):
    store, bodies = filled(tmp_path, people)
    first = np.where(store.frames < 2, store.ids, 4 - store.ids)
    store.rename(first)
    # Two frames of track 1 and six of track 3.
    expected = 0.25 * bodies[-1].betas[0] + 0.75 * bodies[-1].betas[2]
    np.testing.assert_allclose(store.track(1).betas, expected, atol=1e-6)
    np.testing.assert_allclose(store.bodies(0)[1][0], expected, atol=1e-6)
    store.close()


def test_wrong_ids_are_refused(tmp_path, people):
    store, _ = filled(tmp_path, people)
    with pytest.raises(ValueError, match="as many ids"):
        store.rename(np.array([1, 2]))
    with pytest.raises(ValueError, match="same id"):
        store.rename(np.ones(FRAMES * PEOPLE, np.int64))
    store.rename(np.full(FRAMES * PEOPLE, NO_ONE))
    assert store.tracks == []
    assert len(store.bodies(0)[0].track) == 0
    store.close()


def test_looks_come_back_in_half_precision(tmp_path, people):
    random = np.random.default_rng(1)
    look = Appearance(
        random.normal(size=(5, 3, 5)).astype(np.float32), random.random(5).astype(np.float32)
    )
    store, _ = filled(tmp_path, people, {3: {2: look}})
    seen = store.sightings(np.arange(FRAMES * PEOPLE))
    described = seen.looked.any(1)
    assert np.flatnonzero(described).tolist() == [3 * PEOPLE + 1]
    np.testing.assert_allclose(seen.colours[described][0], look.colours, atol=2e-3)
    np.testing.assert_allclose(seen.looked[described][0], look.seen, atol=1e-3)
    rays = (people[3][2].landmarks_px - K[:2, 2]) / K[[0, 1], [0, 1]]
    np.testing.assert_allclose(seen.points[described][0], rays, atol=1e-4)
    store.close()
