"""The second pass over a track: what it must keep, and what it must make better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.rotations import exp_so3, log_so3
from pipeline.fitting import track_fit
from pipeline.fitting.accelerations import LEAST, MOST, follow_motion
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.fitting.observations import layout, write_rows
from pipeline.fitting.solver import FitConfig
from pipeline.fitting.stature import Stature
from pipeline.fitting.track_fit import TrackFitter
from pipeline.fitting.track_frames import FittedFrames, SeenFrames
from pipeline.fitting.visibility import picture_sizes
from tests.support.fits import K, seen_as_people, some_pose

SEEDS = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def fitter(body):
    # Without the lifter, which expects a perceiver's errors, not those of these people.
    return BodyFitter(body, FitConfig(use_lifter=False))


def a_track(body, fitter, seed, frames=32, noise_px=3.0, moving=0.3):
    """A person's landmarks with noise, in the image and in space, the first pass over them, and the
    truth."""
    generator = torch.Generator().manual_seed(seed)
    pose = some_pose(generator, 1, 0.2)[0]
    axis = moving * torch.randn(24, 3, generator=generator)
    axis[22:] = 0
    rotations = pose @ exp_so3(torch.linspace(0, 2, frames)[:, None, None].sin() * axis)
    transl = torch.tensor([0.1, 0.2, 4.0]) + moving * torch.linspace(0, 1, frames)[:, None]
    betas = 0.7 * torch.randn(10, generator=generator)
    people, true = seen_as_people(
        body, rotations, transl, betas.expand(frames, 10), noise_px, generator
    )
    people = [
        replace(
            p, world_m=p.world_m + 0.01 * noise_px * torch.randn(33, 3, generator=generator).numpy()
        )
        for p in people
    ]
    memory, bodies = FitMemory(), []
    for k in range(0, frames, 4):
        bodies += fitter.fit([{1: person} for person in people[k : k + 4]], K, memory)
    return people, bodies, true.landmarks_m.numpy(), betas.numpy()


class InMemory:
    """A track as `TrackFitter` reads and writes it."""

    def __init__(self, people, bodies, numbers=None):
        count = len(people)
        self.frame = np.arange(count) if numbers is None else np.asarray(numbers)
        rows = np.empty((count, layout(1, outlines=True).size), np.float32)
        write_rows(
            [[person] for person in people], np.broadcast_to(K, (count, 3, 3)),
            picture_sizes([None] * count), rows, outlines=True,
        )  # fmt: skip
        pose = [np.concatenate((b.global_orient[0], b.body_pose[0])) for b in bodies]
        turns = np.array(pose, np.float32).reshape(-1, 24, 3)
        transl_m = np.array([b.transl_m[0] for b in bodies], np.float32)
        self.seen = SeenFrames(self.frame, rows, turns, transl_m)
        self.parts: list[slice] = []
        self.most = 0

    def read(self, part):
        seen = self.seen
        self.most = max(self.most, part.stop - part.start)
        return SeenFrames(*(getattr(seen, n)[part].copy() for n in seen.__dataclass_fields__))

    def write(self, part, fitted: FittedFrames):
        self.parts.append(part)
        self.seen.turns[part], self.seen.transl_m[part] = fitted.turns, fitted.transl_m


def both_fits(fitter, track, betas):
    fits = TrackFitter(fitter, 1 / 30)
    shape = fits.first(track.frame, track.read, track.write, betas)
    fits.second(track.frame, track.read, track.write, shape)
    return shape


def landmarks_of(body, track, betas):
    turns = torch.from_numpy(track.seen.turns)
    shapes = torch.from_numpy(betas).expand(len(turns), 10)
    transl = torch.from_numpy(track.seen.transl_m)
    return body.forward(shapes, turns[:, 0], turns[:, 1:].flatten(1), transl).landmarks_m.numpy()


def about_hips(points_m):
    return points_m - points_m[:, [23, 24]].mean(1, keepdims=True)


def error_mm(points_m, true_m):
    off_m = about_hips(points_m) - about_hips(true_m)
    return 1e3 * float(np.linalg.norm(off_m[:, 11:29], axis=-1).mean())


def jitter_mm(points_m):
    return 1e3 * float(np.linalg.norm(np.diff(points_m, 2, axis=0), axis=-1).mean())


def test_noise_is_taken_out_and_motion_is_not(body, fitter):
    """In the mean over people: of a single one the noise may happen to point the right way."""
    errors_mm, jitters_mm, paths_m = [], [], []
    for seed in range(5):
        people, bodies, true_m, _ = a_track(body, fitter, seed)
        track = InMemory(people, bodies)
        betas = both_fits(fitter, track, bodies[-1].betas[0])
        sets = landmarks_of(body, track, betas), np.array([b.landmarks_m[0] for b in bodies])
        errors_mm.append([error_mm(each, true_m) for each in sets])
        jitters_mm.append([jitter_mm(each) - jitter_mm(true_m) for each in sets])
        wrists = (np.diff(each[:, [15, 16]], axis=0) for each in (sets[0], true_m))
        paths_m.append([np.linalg.norm(each, axis=-1).sum() for each in wrists])
    mine, first = np.mean(errors_mm, 0)
    assert mine < first
    left, before = np.mean(jitters_mm, 0)
    assert left < 0.6 * before
    # Not by standing still: the path of the wrists is as long as the true one, or nearly.
    ours, true = np.mean(paths_m, 0)
    assert ours > 0.85 * true


def test_the_shape_is_one_and_more_frames_know_it_better(body, fitter):
    off = []
    for seed in range(3):
        people, bodies, _, true = a_track(body, fitter, seed, frames=96)
        sizes = []
        for frames in (4, 96):
            track = InMemory(people[:frames], bodies[:frames])
            betas = both_fits(fitter, track, np.zeros(10, np.float32))
            assert betas.shape == (10,)
            # By how far the skin is off at rest: coefficients trade against each other.
            skin = body.shapedirs.numpy()[..., :10] @ (betas - true)
            sizes.append(float(np.linalg.norm(skin, axis=-1).mean()))
        off.append(sizes)
    few, many = np.mean(off, 0)
    assert many < 0.8 * few


def test_parts_of_a_long_track_join_without_a_seam(body, fitter, monkeypatch):
    people, bodies, _, _ = a_track(body, fitter, 5, frames=64)
    whole, parts = InMemory(people, bodies), InMemory(people, bodies)
    last = bodies[-1].betas[0]
    one = both_fits(fitter, whole, last)
    monkeypatch.setattr(track_fit, "CHUNK", 16)
    monkeypatch.setattr(track_fit, "OVERLAP", 12)
    two = both_fits(fitter, parts, last)
    assert parts.most <= 16 + 2 * 12, "memory grows with the chunk, not with the track"
    one_m, two_m = landmarks_of(body, whole, one), landmarks_of(body, parts, two)
    assert 1e3 * np.abs(about_hips(one_m) - about_hips(two_m)).max() < 25
    seams = np.arange(16, 64, 16)
    bends_mm = 1e3 * np.linalg.norm(np.diff(two_m, 2, axis=0), axis=-1).mean(1)
    at_seams = np.maximum(bends_mm[seams - 1], bends_mm[seams - 2])
    assert np.median(at_seams) < 3 * np.median(bends_mm) + 1.0


@settings(max_examples=30)
@given(
    gaps=st.lists(st.sampled_from([1, 1, 1, 2, 5, 15, 16, 40, 1000]), min_size=0, max_size=80),
    chunk=st.integers(2, 40),
    overlap=st.integers(0, 20),
)
def test_every_frame_is_in_one_part(fitter, gaps, chunk, overlap):
    frame = np.concatenate(([7], 7 + np.cumsum(np.array(gaps, np.int64))))
    fitter_ = TrackFitter(fitter, 1 / 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track_fit, "CHUNK", chunk)
        patch.setattr(track_fit, "OVERLAP", overlap)
        parts = list(fitter_._parts(frame))
    rows = [row for part, _ in parts for row in range(part.start, part.stop)]
    assert rows == list(range(len(frame)))
    for part, wide in parts:
        assert wide.start <= part.start < part.stop <= wide.stop
        assert part.stop - part.start <= chunk
        assert wide.stop - wide.start <= chunk + 2 * overlap
        # Half a second without the person: nothing is smoothed across it.
        assert np.diff(frame[wide]).max(initial=1) <= 15


def test_one_frame_is_a_track_too(body, fitter):
    people, bodies, _, _ = a_track(body, fitter, 1, frames=4)
    track = InMemory(people[:1], bodies[:1])
    betas = both_fits(fitter, track, bodies[0].betas[0])
    assert np.isfinite(betas).all()
    assert np.isfinite(track.seen.turns).all()


def test_a_gap_stays_a_gap(body, fitter):
    """Frames without the person get no body, and those about them the right one."""
    people, bodies, true_m, _ = a_track(body, fitter, 2, frames=32)
    keep = [k for k in range(32) if not 12 <= k < 17]
    track = InMemory([people[k] for k in keep], [bodies[k] for k in keep], keep)
    betas = both_fits(fitter, track, bodies[-1].betas[0])
    assert len(track.seen.turns) == len(keep)
    assert error_mm(landmarks_of(body, track, betas), true_m[keep]) < 60


@settings(max_examples=30)
@given(seed=SEEDS, size=st.floats(0.2, 5.0))
def test_smoothness_follows_the_motion_within_bounds(seed, size):
    generator = torch.Generator().manual_seed(seed)
    usual = torch.full((40, 23, 3), 0.06)
    bent = 0.06 * size * torch.randn(40, 23, 3, generator=generator)
    bent[20:] *= 0.01
    spread = follow_motion(bent, usual, 3.0)
    assert (spread >= LEAST * usual - 1e-7).all()
    assert (spread <= MOST * usual + 1e-7).all()
    assert spread[35:].max() < spread[:5].min()
    # The axes of a joint are as free as each other: a turn has no axis of its own.
    assert torch.allclose(spread[:, 1:, 0], spread[:, 1:, 2])
    assert torch.allclose(spread.flip(0), follow_motion(bent.flip(0), usual, 3.0), atol=1e-6)


def test_bodies_of_a_still_person_stand_still(body, fitter):
    people, bodies, _, _ = a_track(body, fitter, 3, frames=40, noise_px=2.0, moving=0.0)
    track = InMemory(people, bodies)
    betas = both_fits(fitter, track, bodies[-1].betas[0])
    first_m = np.array([b.landmarks_m[0] for b in bodies])
    ours_m = landmarks_of(body, track, betas)
    assert jitter_mm(ours_m[4:-4]) < 0.15 * jitter_mm(first_m[4:-4])
    turned = torch.from_numpy(track.seen.turns)
    steps = log_so3(exp_so3(turned[:-1]).transpose(-1, -2) @ exp_so3(turned[1:])).norm(dim=-1)
    assert float(steps[4:-4].mean()) < np.radians(0.5)


def test_one_body_that_is_far_off_is_brought_back(body, fitter):
    """A first pass's body that is far off is only where the fit begins."""
    people, bodies, true_m, _ = a_track(body, fitter, 4)
    far = [replace(b, transl_m=b.transl_m + 0.3) if k == 9 else b for k, b in enumerate(bodies)]
    track = InMemory(people, far)
    betas = both_fits(fitter, track, bodies[-1].betas[0])
    ours_m = landmarks_of(body, track, betas)
    assert np.abs(ours_m[9] - ours_m[[8, 10]].mean(0)).max() < 0.05
    assert error_mm(ours_m, true_m) < 60


@settings(max_examples=4)
@given(seed=SEEDS, tall=st.sampled_from([-1.0, 1.0]))
def test_a_given_height_gives_the_distance(body, fitter, seed, tall):
    """A perceiver shows every person at a usual size; the image alone is as that of another one
    nearer or farther."""
    stature = Stature.of(body)
    betas = np.zeros(10, np.float32)
    betas[0] = tall * 0.15 / float(stature.per_beta_m[0])
    generator = torch.Generator().manual_seed(seed)
    pose = some_pose(generator, 1, 0.2)[0].expand(32, -1, -1, -1)
    transl = torch.tensor([0.1, 0.2, 4.0]).expand(32, 3)
    people, true = seen_as_people(
        body, pose, transl, torch.from_numpy(betas).expand(32, 10), 1.0, generator
    )
    true_m = true.landmarks_m.numpy()
    height_m = stature.of_shape(torch.from_numpy(betas))
    people = [replace(p, world_m=p.world_m * (stature.mean_m / height_m)) for p in people]
    memory, bodies = FitMemory(), []
    for k in range(0, 32, 4):
        bodies += fitter.fit([{1: person} for person in people[k : k + 4]], K, memory)
    track = InMemory(people, bodies)
    fits = TrackFitter(fitter, 1 / 30)
    found = fits.first(track.frame, track.read, track.write, bodies[-1].betas[0])
    without_m = distance_m(landmarks_of(body, track, found))
    given_m = fits.given(found, height_m)
    shape = fits.first(track.frame, track.read, track.write, found, given_m)
    fits.second(track.frame, track.read, track.write, shape, given=given_m)
    assert abs(stature.of_shape(torch.from_numpy(shape)) - height_m) < 0.01
    off_m = np.abs(distance_m(landmarks_of(body, track, shape)) - distance_m(true_m))
    assert off_m.mean() < 0.06
    assert off_m.mean() < 0.5 * np.abs(without_m - distance_m(true_m)).mean()
    assert error_mm(landmarks_of(body, track, shape), true_m) < 40


def distance_m(points_m):
    return np.linalg.norm(points_m[:, [23, 24]].mean(1), axis=-1)


class Turning:
    """A camera that shakes, as `CameraPath` tells of it."""

    moves = True

    def __init__(self, turns):
        self._turns = turns

    def rotations(self, frames):
        return self._turns[frames]

    def references(self, frames):
        return np.zeros(len(frames), np.int32)


def test_a_camera_that_shakes_does_not_shake_the_body(body, fitter):
    """The same person seen by a camera that turns about its centre is as steady in the world."""
    people, bodies, _, _ = a_track(body, fitter, 6, frames=40, noise_px=1.0, moving=0.0)
    generator = torch.Generator().manual_seed(6)
    turns = exp_so3(0.02 * torch.randn(40, 3, generator=generator)).numpy()
    seen = []
    for person, turn in zip(people, turns):
        rays = np.c_[(person.landmarks_px - K[:2, 2]) / K[0, 0], np.ones(33)] @ turn
        pixels = np.float32(rays[:, :2] / rays[:, 2:] * K[0, 0] + K[:2, 2])
        seen.append(replace(person, landmarks_px=pixels))
    memory, first = FitMemory(), []
    for k in range(0, 40, 4):
        first += fitter.fit([{1: person} for person in seen[k : k + 4]], K, memory)
    paths = []
    for camera in (Turning(turns), None):
        track = InMemory(seen, first)
        fits = TrackFitter(fitter, 1 / 30, camera=camera)
        shape = fits.first(track.frame, track.read, track.write, first[-1].betas[0])
        fits.second(track.frame, track.read, track.write, shape)
        pelvis = landmarks_of(body, track, shape)[:, [23, 24]].mean(1)
        paths.append(jitter_mm(np.einsum("nij,nj->ni", turns, pelvis)))
    assert paths[0] < 0.3 * paths[1]
