"""The metrics in the world against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from app.evaluate import world
from app.evaluate.metrics import idf1
from tests.support.evaluation import seeds


def a_walk(rng: np.random.Generator, frames: int, joints: int = 12) -> np.ndarray:
    """Joints (T, K, 3) of a body that goes a bent way and moves its limbs."""
    body = rng.normal(0, 0.4, (joints, 3))
    steps = np.arange(frames)[:, None, None]
    way = np.cumsum(rng.normal(0.02, 0.01, (frames, 1, 3)), 0)
    return body + way + 0.1 * np.sin(0.2 * steps + rng.uniform(0, 6, (joints, 1)))


def a_transform(rng: np.random.Generator, scaled: bool):
    scale = float(rng.uniform(0.6, 1.6)) if scaled else 1.0
    return scale, Rotation.random(random_state=int(rng.integers(2**31))), rng.normal(0, 3, 3)


def moved(points: np.ndarray, transform) -> np.ndarray:
    scale, rotation, offset = transform
    flat = scale * rotation.apply(points.reshape(-1, 3)) + offset
    return flat.reshape(points.shape)


def searched(ours: np.ndarray, theirs: np.ndarray, scaled: bool):
    """The best alignment, found by a general solver from the identity and a few turns."""

    def residual(x):
        scale = np.exp(x[6]) if scaled else 1.0
        return (scale * Rotation.from_rotvec(x[:3]).apply(ours) + x[3:6] - theirs).ravel()

    starts = [Rotation.from_euler("xyz", a).as_rotvec() for a in np.ndindex(2, 2, 2)]
    starts += [3 * start for start in starts]
    found = [
        least_squares(residual, [*start, *(theirs.mean(0) - ours.mean(0)), 0.0]) for start in starts
    ]
    best = min(found, key=lambda each: each.cost)
    return best.cost, residual


@given(seeds, st.booleans())
@settings(max_examples=15)
def test_the_alignment_is_the_best_one(seed, scaled):
    rng = np.random.default_rng(seed)
    theirs = rng.normal(size=(9, 3))
    ours = moved(theirs, a_transform(rng, True)) + rng.normal(0, 0.2, theirs.shape)
    scale, rotation, offset = world.similarity(ours, theirs, scaled)
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) > 0
    cost = 0.5 * ((scale * ours @ rotation.T + offset - theirs) ** 2).sum()
    assert cost <= searched(ours, theirs, scaled)[0] * (1 + 1e-6) + 1e-12
    assert scaled or scale == 1.0


@given(seeds, st.booleans(), st.sampled_from([2, None]))
@settings(max_examples=30)
def test_a_world_is_known_up_to_a_transform(seed, scaled, first):
    """The same walk in another world, moved, turned and resized, has no error; resized it has one
    where the alignment has no scale."""
    rng = np.random.default_rng(seed)
    theirs = a_walk(rng, 130)
    ours = moved(theirs, a_transform(rng, scaled))
    ours[rng.integers(130, size=9)] = np.nan
    errors = world.world_errors(ours, theirs, first=first, scaled=scaled)
    assert (np.isnan(errors) == np.isnan(ours[:, 0, 0])).all()
    assert np.nanmax(errors) < 1e-6
    bigger = world.world_errors(1.2 * theirs, theirs, first=first, scaled=False)
    assert np.nanmean(bigger) > 0.01


@given(seeds)
@settings(max_examples=20)
def test_errors_are_those_of_each_segment_aligned_by_hand(seed):
    """W-MPJPE and WA-MPJPE written out: scipy turns what is centred, segment by segment."""
    rng = np.random.default_rng(seed)
    theirs = a_walk(rng, 25)
    ours = moved(theirs + rng.normal(0, 0.05, theirs.shape), a_transform(rng, False))
    for first in (2, None):
        wanted = []
        for start in range(0, 25, 10):
            a, b = ours[start : start + 10], theirs[start : start + 10]
            a1, b1 = a[:first].reshape(-1, 3), b[:first].reshape(-1, 3)
            turn, _ = Rotation.align_vectors(b1 - b1.mean(0), a1 - a1.mean(0))
            for joints, truth in zip(a, b):
                aligned = turn.apply(joints - a1.mean(0)) + b1.mean(0)
                wanted.append(np.mean([np.linalg.norm(p - q) for p, q in zip(aligned, truth)]))
        found = world.world_errors(ours, theirs, first=first, scaled=False, segment=10)
        assert found == pytest.approx(np.array(wanted), abs=1e-6)


def test_a_walk_in_place_is_off_by_its_way():
    """A body that stays where the truth goes 3 cm a frame: the error grows by 3 cm a frame."""
    body = np.random.default_rng(0).normal(0, 0.4, (12, 3))
    step = np.array([0.03, 0, 0])
    theirs = body + np.arange(100)[:, None, None] * step
    errors = world.world_errors(np.repeat(body[None], 100, 0), theirs, first=2, scaled=False)
    # The two frames that are aligned are half a step off each; a small turn hides a little.
    assert errors == pytest.approx(np.abs(np.arange(100) - 0.5) * 0.03, abs=2e-3)


def test_too_little_has_no_error():
    nothing = np.full((20, 12, 3), np.nan)
    assert np.isnan(world.world_errors(nothing, nothing)).all()
    assert np.isnan(world.similarity(nothing[0], nothing[0])[0])
    two = nothing.copy()
    two[:2] = np.random.default_rng(0).normal(size=(2, 12, 3))
    assert np.isnan(world.world_errors(two, two)).all()
    assert np.isnan(world.root_drift_pct(nothing[:, 0], nothing[:, 0]))


@given(seeds)
def test_each_rows_transform_is_found(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(5, 24, 3))
    transforms = [a_transform(rng, False) for _ in points]
    there = np.array([moved(p, t) for p, t in zip(points, transforms)])
    rotation, offset = world.rigid_transforms(points, there)
    for k, (_, turn, shift) in enumerate(transforms):
        assert np.allclose(rotation[k], turn.as_matrix(), atol=1e-9)
        assert np.allclose(offset[k], shift, atol=1e-9)
    empty = world.rigid_transforms(points[:0], points[:0])
    assert [part.shape for part in empty] == [(0, 3, 3), (0, 3)]


@given(seeds)
@settings(max_examples=30)
def test_drift_is_percent_of_the_way(seed):
    rng = np.random.default_rng(seed)
    theirs = a_walk(rng, 60, 1)[:, 0]
    ours = moved(theirs, a_transform(rng, False))
    assert world.root_drift_pct(ours, theirs) == pytest.approx(0, abs=1e-6)
    # Around a circle of radius r, another circle of radius r + e is e off everywhere.
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = np.stack((np.cos(angle), np.sin(angle), 0 * angle), -1)
    wide = float(rng.uniform(0.01, 0.2))
    found = world.root_drift_pct(moved((1 + wide) * circle, a_transform(rng, False)), circle)
    assert found == pytest.approx(100 * wide / (2 * np.pi), rel=0.01)
    assert world.root_drift_pct((1 + wide) * circle, circle, scaled=True) < 1e-6
    # A person who stays has no way to be a part of.
    assert np.isnan(world.root_drift_pct(1e-3 * ours, 1e-3 * theirs))


@given(seeds)
def test_sliding_is_the_way_of_feet_that_should_stand(seed):
    rng = np.random.default_rng(seed)
    frames, feet = 30, 4
    ours = rng.normal(0, 0.01, (frames, feet, 3))
    theirs = np.cumsum(rng.choice([0.0, 0.004, 0.02], (frames, feet, 1)) * [1.0, 0, 0], 0)
    contact = rng.random((frames, feet)) < 0.7
    ours[rng.integers(frames), 0] = np.nan
    wanted = []
    for t in range(frames - 1):
        for k in range(feet):
            stands = contact[t, k] and contact[t + 1, k]
            moved_m = np.linalg.norm(ours[t + 1, k] - ours[t, k])
            if stands and abs(theirs[t + 1, k, 0] - theirs[t, k, 0]) < 0.005:
                wanted += [moved_m] if np.isfinite(moved_m) else []
    assert world.sliding_m(ours, theirs, contact) == pytest.approx(np.array(wanted))


@given(st.floats(0, 180), seeds)
def test_the_error_of_gravity_is_the_angle(angle, seed):
    rng = np.random.default_rng(seed)
    up = rng.normal(size=3)
    axis = np.cross(up, rng.normal(size=3))
    axis /= np.linalg.norm(axis)
    turned = Rotation.from_rotvec(np.radians(angle) * axis).apply(2.5 * up)
    found = world.gravity_error_deg(turned[None], up[None])
    assert found[0] == pytest.approx(angle, abs=1e-5)


def test_jitter_is_the_third_derivative():
    """x = t³ has the third derivative 6 everywhere; a parabola has none."""
    fps = 50.0
    t = np.arange(20) / fps
    cubic = np.stack((t**3, 0 * t, t**2), -1)[:, None]
    assert world.jitter(cubic, fps) == pytest.approx(np.full((17, 1), 6.0), abs=1e-6)
    wave = np.stack((np.sin(3 * t), 0 * t, 0 * t), -1)[:, None]
    middle = t[:-3] + 1.5 / fps
    assert world.jitter(wave, fps)[:, 0] == pytest.approx(27 * np.abs(np.cos(3 * middle)), rel=2e-3)


@given(st.lists(st.integers(1, 25), min_size=1, max_size=6), st.booleans(), seeds)
def test_stillness_lasts(lengths, begins_still, seed):
    """Runs of steps with and without motion: those of ten still steps and more are found."""
    calm = np.concatenate([
        np.full(n, (k % 2 == 0) == begins_still) for k, n in enumerate(lengths)
    ])  # fmt: skip
    rng = np.random.default_rng(seed)
    steps = np.where(calm[:, None, None], 0.0015, 0.0) * rng.uniform(0, 1, (len(calm), 5, 1))
    steps[~calm, rng.integers(5)] = 0.01
    points = np.cumsum(np.concatenate((np.zeros((1, 5, 1)), steps)), 0) * [0, 1.0, 0]
    wanted = np.concatenate([
        np.full(n, (k % 2 == 0) == begins_still and n >= 10) for k, n in enumerate(lengths)
    ])  # fmt: skip
    assert (world.still_steps(points) == wanted).all()


def best_by_trying(people: np.ndarray, tracks: np.ndarray) -> int:
    """The largest number of pairs that a one-to-one assignment keeps, of all assignments."""

    def best(left: list[int], free: frozenset[int]) -> int:
        if not left:
            return 0
        person, *rest = left
        own = tracks[people == person]
        with_track = (int((own == track).sum()) + best(rest, free - {track}) for track in free)
        return max([best(rest, free), *with_track])

    return best(sorted(set(people.tolist())), frozenset(tracks.tolist()))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=30), st.integers(0, 9))
def test_idf1_is_that_of_the_best_assignment(pairs, missed):
    people, tracks = np.array(pairs, int).reshape(-1, 2).T
    if not pairs and not missed:
        assert np.isnan(idf1(people, tracks, 0, 0))
        return
    right = best_by_trying(people, tracks)
    found = idf1(people, tracks, len(pairs) + missed, len(pairs))
    assert found == pytest.approx(2 * right / (2 * len(pairs) + missed))
