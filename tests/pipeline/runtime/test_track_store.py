"""What a first pass saw comes back exactly as it was, and nothing of it stays on the disk."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.people import Bodies, Mask
from pipeline.fitting.observations import UNKNOWN, layout, write_rows
from pipeline.fitting.track_frames import FittedFrames
from pipeline.fitting.visibility import picture_sizes
from pipeline.runtime.track_store import StoreError, TrackStore
from tests.support.bodies import bodies
from tests.support.disks import FullDisk
from tests.support.fits import K, windows_of_people

SEEDS = st.integers(0, 10_000)
SIZE = (720, 1280)
POINTS = 7


@pytest.fixture(scope="module")
def people():
    """People of every kind, all with masks."""
    from pipeline.body.load import load_body

    windows = windows_of_people(load_body(), 2, people=3)
    return [person for window in windows for frame in window for person in frame.values()]


def changed(person, rng):
    """The person with or without what a perceiver may leave out, somewhere in the picture."""
    by = rng.uniform(-500, 500, 2).astype(np.float32)
    mask = person.mask
    if mask is not None:
        to_image = mask.to_image.copy()
        to_image[:, 2] += by
        values = np.clip(mask.values + rng.normal(0, 0.3, mask.values.shape), 0, 1)
        mask = Mask(values.astype(np.float32), to_image)
        # Full or empty ones have no contour.
        if rng.random() < 0.2:
            mask = Mask(np.full_like(mask.values, rng.integers(2)), to_image)
    metric = rng.random() < 0.3
    skin = rng.random() < 0.5
    return replace(
        person,
        landmarks_px=person.landmarks_px + by,
        box_px=person.box_px + np.tile(by, 2),
        score=float(np.float32(rng.random())),
        visibility=rng.random(33).astype(np.float32),
        mask=None if rng.random() < 0.3 else mask,
        world_m=None if rng.random() < 0.3 else person.world_m,
        world_sigma_m=0.02 if metric else None,
        root_depth_m=None if rng.random() < 0.5 else float(rng.uniform(2, 8)),
        surface_m=rng.normal(size=(POINTS, 3)).astype(np.float32) if skin else None,
        start_rotations=np.tile(np.eye(3, dtype=np.float32), (24, 1, 1)) if skin else None,
    )


def a_run(people, seed, frames=12):
    """Frames of people by track with bodies; some have no people, some people no body."""
    rng = np.random.default_rng(seed)
    out = []
    number = int(rng.integers(0, 5))
    for _ in range(frames):
        tracks = sorted(rng.choice([1, 2, 5, 9], int(rng.integers(0, 4)), replace=False).tolist())
        seen = {track: changed(people[rng.integers(len(people))], rng) for track in tracks}
        fitted = bodies([t for t in tracks if rng.random() < 0.9], int(rng.integers(1 << 30)))
        out.append((number, seen, fitted, rng.permuted(SIZE) if rng.random() < 0.2 else SIZE))
        number += int(rng.integers(1, 4))
    return out


def stored(folder, run, surface=0):
    store = TrackStore(folder, surface)
    for number, seen, fitted, size in run:
        store.add(number, seen, fitted, K, tuple(size))
    store.finish()
    return store


def rows_of(person, size, surface):
    """The observations of one person, as a fit without a store reads them."""
    rows = np.empty((1, layout(1, outlines=True, surface=surface).size), np.float32)
    write_rows([[person]], K[None], picture_sizes([tuple(size)]), rows, True, surface)
    return rows[0]


def pose_of(fitted: Bodies, row: int) -> np.ndarray:
    return np.concatenate((fitted.global_orient[row], fitted.body_pose[row])).reshape(24, 3)


@settings(max_examples=25)
@given(seed=SEEDS, surface=st.sampled_from([0, POINTS]))
def test_everything_comes_back_as_it_was(people, tmp_path_factory, seed, surface):
    run = a_run(people, seed)
    store = stored(tmp_path_factory.mktemp("s"), run, surface)
    wanted = {}
    for number, seen, fitted, size in run:
        for row, track in enumerate(fitted.track.tolist()):
            wanted.setdefault(track, []).append((number, seen[track], fitted, row, size))
    assert store.tracks == sorted(wanted)
    for track, each in wanted.items():
        kept = store.track(track)
        assert kept.frame.tolist() == [number for number, *_ in each]
        np.testing.assert_array_equal(kept.betas, each[-1][2].betas[each[-1][3]])
        found = kept.read(slice(None))
        rows = [rows_of(person, size, surface) for _, person, _, _, size in each]
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_array_equal(found.turns, [pose_of(f, row) for _, _, f, row, _ in each])
        np.testing.assert_array_equal(found.transl_m, [f.transl_m[r] for _, _, f, r, _ in each])
        if len(each) > 2:
            part = kept.read(slice(1, -1))
            np.testing.assert_array_equal(part.rows, rows[1:-1])
            assert part.frame.tolist() == kept.frame.tolist()[1:-1]
    for number, seen, fitted, _ in run:
        found, betas = store.bodies(number)
        assert found.track.tolist() == fitted.track.tolist()
        np.testing.assert_array_equal(found.score, [seen[t].score for t in found.track.tolist()])
        np.testing.assert_array_equal(found.transl_m, fitted.transl_m)
        assert betas.shape == (len(found.track), 10)
        assert not found.residual_mean.any()
    numbers = [number for number, _, fitted, _ in run if len(fitted)]
    assert store.last_frame == (numbers[-1] if numbers else None)
    store.close()


def test_the_runs_have_unknown_pixels_and_people_without_masks_and_landmarks_in_space(people):
    """Else the test above would show little."""
    parts = layout(1, outlines=True)
    rows = np.array([
        rows_of(person, size, 0)
        for seed in range(20) for _, seen, _, size in a_run(people, seed)
        for person in seen.values()
    ])  # fmt: skip
    split = {name: part[:, 0] for name, part in parts.split(rows).items()}
    assert (split["inside"] == UNKNOWN).any()
    for name in ("masked", "world_known"):
        assert 0.1 < split[name].mean() < 0.9
    assert 0.1 < (split["world_sigma_m"] > 0).mean() < 0.9


@settings(max_examples=10)
@given(seed=SEEDS)
def test_what_is_written_is_read_and_nothing_else_changes(people, tmp_path_factory, seed):
    run = [one for one in a_run(people, seed, 20) if len(one[2])]
    store = stored(tmp_path_factory.mktemp("s"), run)
    rng = np.random.default_rng(seed)
    track = store.tracks[int(rng.integers(len(store.tracks)))]
    others = {t: store.track(t).read(slice(None)) for t in store.tracks if t != track}
    kept = store.track(track)
    before = kept.read(slice(None))
    first = int(rng.integers(len(kept.frame)))
    last = int(rng.integers(first, len(kept.frame))) + 1
    count = last - first
    fitted = FittedFrames(
        *(rng.normal(size=(count, *s)).astype(np.float32) for s in ((24, 3), (3,), ()))
    )
    kept.write(slice(first, last), fitted)
    after = store.track(track).read(slice(None))
    np.testing.assert_array_equal(after.rows, before.rows)
    for name in ("turns", "transl_m"):
        expected = getattr(before, name).copy()
        expected[first:last] = getattr(fitted, name)
        np.testing.assert_array_equal(getattr(after, name), expected)
    for other, seen in others.items():
        again = store.track(other).read(slice(None))
        for name in ("rows", "turns", "transl_m"):
            np.testing.assert_array_equal(getattr(again, name), getattr(seen, name))
    found, _ = store.bodies(int(kept.frame[first]))
    row = found.track.tolist().index(track)
    np.testing.assert_array_equal(found.turns[row], fitted.turns[0])
    assert found.residual_mean[row] == fitted.residual_mean[0]
    store.close()


def test_a_sample_is_of_the_rows_that_are_chosen(people, tmp_path):
    run = [(k, {1: people[k], 4: people[k + 1]}, bodies([1, 4], k), SIZE) for k in range(5)]
    store = stored(tmp_path, run)
    frame, track, found, betas = store.sample(lambda count: np.arange(0, count, 3))
    assert frame.tolist() == [0, 1, 3, 4]
    assert track.tolist() == [1, 4, 1, 4]
    np.testing.assert_array_equal(found.transl_m[1], run[1][2].transl_m[1])
    assert betas.shape == (4, 10)
    store.close()


def test_a_store_without_people_is_empty(tmp_path):
    store = stored(tmp_path, [(k, {}, bodies([], k), SIZE) for k in range(3)])
    assert store.tracks == []
    assert store.last_frame is None
    found, betas = store.bodies(1)
    assert len(found.track) == len(betas) == 0
    store.close()
    assert not list(tmp_path.iterdir())


def test_memory_is_sixteen_bytes_a_record_and_the_disk_has_the_rest(people, tmp_path):
    run = [(k, {1: people[0]}, bodies([1], k), SIZE) for k in range(50)]
    store = stored(tmp_path, run)
    held = sum(part.itemsize * len(part) for part in (store._tracks, store._frames))
    assert held == 16 * 50
    assert isinstance(store._seen, np.memmap)
    assert isinstance(store._made, np.memmap)
    assert not list(tmp_path.iterdir()), "files without names: nothing is left, whatever happens"
    size = sum(os.fstat(file.fileno()).st_size for file in (store._file, store._poses))
    assert size == 50 * (store._record.itemsize + store._fitted.itemsize)
    # Not six hundred megabytes for a person over two hours, without masks in full.
    assert size / 50 < 2750
    store.close()


def test_closing_deletes_all_at_any_time(people, tmp_path):
    for finished in (False, True):
        store = TrackStore(tmp_path)
        store.add(0, {1: people[0]}, bodies([1]), K, SIZE)
        if finished:
            store.finish()
        store.close()
        store.close()
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("most", [0, 20_000])
def test_a_full_disk_is_one_line_from_then_on_and_leaves_nothing(people, tmp_path, most):
    store = TrackStore(tmp_path)
    store._file.close()
    store._file = io.BufferedWriter(FullDisk(most))
    line = f"^{tmp_path}: cannot keep the first of two passes: No space left on device$"

    def add(count):
        for k in range(count):
            store.add(k, {1: people[0]}, bodies([1]), K, SIZE)

    with pytest.raises(StoreError, match=line):
        add(50)
    # The system may have taken a part of a record, so nothing may follow it.
    store._file.raw.left = 1 << 20
    for again in (lambda: add(1), store.finish):
        with pytest.raises(StoreError, match=line):
            again()
    store.close()
    assert not list(tmp_path.iterdir())


def test_what_is_still_in_memory_at_the_end_may_not_fit_either(people, tmp_path):
    store = TrackStore(tmp_path)
    store._file.close()
    store._file = io.BufferedWriter(FullDisk(0))
    store.add(0, {1: people[0]}, bodies([1]), K, SIZE)
    with pytest.raises(StoreError, match="No space left"):
        store.finish()
    store.close()
    assert not list(tmp_path.iterdir())


def test_poses_are_written_before_they_are_mapped(people, tmp_path, monkeypatch):
    """A mapping beyond what the disk holds ends the process by a signal."""
    store = TrackStore(tmp_path)
    store.add(0, {1: people[0]}, bodies([1]), K, SIZE)
    mapped = []
    plain = np.memmap

    def checked(file, dtype, mode, shape):
        assert mode in ("r", "r+")
        facts = os.fstat(file.fileno())
        assert 0 < facts.st_size <= facts.st_blocks * 512
        mapped.append(file)
        return plain(file, dtype, mode, shape=shape)

    monkeypatch.setattr(np, "memmap", checked)
    store.finish()
    assert len(mapped) == 2
    store.close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(StoreError, match=r"gone: cannot keep .*: No such file or directory$"):
        TrackStore(tmp_path / "gone")
