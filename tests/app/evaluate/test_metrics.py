"""The laws of the metrics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from app.evaluate.metrics import (
    LIMBS,
    accelerations,
    distances,
    iou,
    lag,
    limb_errors,
    match,
    procrustes,
    procrustes_error,
    surface_distance,
)
from tests.support.evaluation import SHARED, a_person, seeds


@SHARED
@given(seeds)
def test_nothing_is_off_what_is_the_same_wherever_it_stands(seed):
    points = a_person(seed)
    assert np.allclose(limb_errors(points, points), 0)
    assert np.allclose(limb_errors(points + [3.0, -1, 2], points), 0)


@SHARED
@given(seeds, st.floats(0.0, 2.0))
def test_a_limb_moved_so_far_is_so_far_off(seed, far):
    points = a_person(seed)
    moved = points.copy()
    moved[15] += [0, 0, far]
    errors = limb_errors(moved, points)
    assert errors[LIMBS.index(15)] == pytest.approx(far)
    assert errors.sum() == pytest.approx(far)


@SHARED
@given(seeds, st.floats(0.2, 5.0))
def test_procrustes_undoes_a_similarity(seed, scale):
    random = np.random.default_rng(seed)
    theirs = random.normal(size=(12, 3))
    turn = Rotation.random(random_state=seed).as_matrix()
    ours = scale * theirs @ turn.T + random.normal(size=3)
    assert np.allclose(procrustes(ours, theirs), theirs, atol=1e-8)


@SHARED
@given(seeds)
def test_procrustes_is_no_worse_than_any_other_similarity(seed):
    random = np.random.default_rng(seed)
    ours, theirs = random.normal(size=(2, 12, 3))
    best = ((procrustes(ours, theirs) - theirs) ** 2).sum()
    other = random.uniform(0.1, 2) * ours @ Rotation.random(random_state=seed).as_matrix().T
    other += theirs.mean(0) - other.mean(0)
    assert best <= ((other - theirs) ** 2).sum() + 1e-9


@SHARED
@given(seeds)
def test_procrustes_never_mirrors(seed):
    points = a_person(seed)
    mirrored = points * [-1.0, 1, 1]
    assert procrustes_error(points, points) < 1e-9
    assert procrustes_error(mirrored, points) > 0.01


def test_procrustes_leaves_out_what_is_not_known():
    points = a_person()
    holes = points.copy()
    holes[[11, 25, 27]] = np.nan
    assert procrustes_error(points, holes) < 1e-9
    holes[[12, 13, 14, 15]] = np.nan
    assert np.isnan(procrustes_error(points, holes))


@SHARED
@given(seeds, st.floats(-4.0, 4.0))
def test_lag_finds_the_shift(seed, shift):
    random = np.random.default_rng(seed)
    time = np.arange(90.0)
    parts = random.uniform(0, 6.28, (6, 2)), random.uniform(0.15, 0.7, 6)

    def signal(t: np.ndarray) -> np.ndarray:
        return np.sin(t[:, None, None] * parts[1][:, None] + parts[0]).sum(1)

    ours, theirs = signal(time - shift), signal(time)
    ours[20:25] = np.nan
    found, alike = lag(ours, theirs)
    assert found == pytest.approx(shift, abs=0.25)
    assert alike > 0.8


def test_lag_of_what_does_not_move_is_not_known():
    still = np.ones((50, 2))
    assert np.isnan(lag(still, still)).all()
    assert np.isnan(lag(np.full((50, 2), np.nan), still)).all()


@SHARED
@given(seeds)
def test_iou(seed):
    one, two = np.random.default_rng(seed).random((2, 9, 7)) > 0.5
    assert iou(one, one) == 1
    assert iou(one, ~one) == 0
    assert iou(one, two) == iou(two, one)
    assert iou(one, two) == pytest.approx((one & two).sum() / (one.sum() + (two & ~one).sum()))
    assert np.isnan(iou(one & False, two & False))


def test_the_surface_of_another_mesh_of_the_same_shape_is_near():
    random = np.random.default_rng(0)
    one, two = (v / np.linalg.norm(v, axis=1)[:, None] for v in random.normal(size=(2, 9000, 3)))
    assert surface_distance(one, two) < 0.02
    assert surface_distance(one, 1.5 * two) == pytest.approx(0.5, abs=0.02)


def test_steady_motion_has_no_acceleration_and_a_hop_has():
    path = np.linspace(0, 1, 10)[:, None, None] * np.ones((1, 3, 2))
    assert np.allclose(accelerations(path), 0)
    path[5] += [3.0, 4.0]
    assert accelerations(path).max() == pytest.approx(10.0)


@SHARED
@given(seeds, st.permutations(range(5)))
def test_people_are_matched_in_any_order(seed, order):
    random = np.random.default_rng(seed)
    theirs = random.normal(0, 10, (5, 33, 2)) + 200 * np.arange(5)[:, None, None]
    torso = np.full(5, 60.0)
    ours = theirs[list(order)] + random.normal(0, 3, (5, 33, 2))
    pairs = match(distances(ours, theirs, torso))
    assert sorted((n, order[p]) for n, p in pairs) == [(k, k) for k in range(5)]


@SHARED
@given(st.lists(st.lists(st.floats(0, 3), min_size=3, max_size=3), max_size=4))
def test_only_the_near_are_matched_each_once(apart):
    table = np.array(apart).reshape(-1, 3)
    pairs = match(table)
    assert all(table[pair] < 1 for pair in pairs)
    assert len({n for n, _ in pairs}) == len({p for _, p in pairs}) == len(pairs)
    left = np.delete(np.delete(table, [n for n, _ in pairs], 0), [p for _, p in pairs], 1)
    assert not (left < 1).any()


def test_a_lag_is_not_read_off_the_few_pairs_that_a_far_shift_leaves():
    theirs = np.full((40, 1), np.nan)
    theirs[:14, 0] = np.random.default_rng(3).normal(size=14)
    ours = theirs + 0.8 * np.random.default_rng(4).normal(size=theirs.shape)
    # Nine pairs are left at this shift, and there they are the same.
    ours[5:14] = theirs[:9]
    late, _ = lag(ours, theirs)
    assert late < 4
