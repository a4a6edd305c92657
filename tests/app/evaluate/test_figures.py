"""Matching bodies with people, and the figures of a clip."""

from __future__ import annotations

import numpy as np
import pytest

from app.evaluate import figures
from app.evaluate.compare import compare, perceived_mask
from app.evaluate.given import substitute
from app.evaluate.metrics import (
    from_hips,
    iou,
)
from app.evaluate.motion import motion_rows
from app.evaluate.outcome import Outcome
from app.evaluate.replay import Played
from pipeline.core.camera import project, view_rotation
from pipeline.core.people import Mask, Person
from tests.support.evaluation import (
    ELSEWHERE,
    FACES,
    LENS,
    SIZE,
    A,
    B,
    a_person,
    outcome_of,
    person_of,
    played,
    truth_of,
    values,
)


def test_coverage_ghosts_doubles_and_switches_are_counted():
    truth = truth_of(np.array([A, B] * 3), [0, 0, 1, 1, 2, 2], [0, 1] * 3)
    frames = [{1: B, 2: A}, {1: B, 5: A, 7: ELSEWHERE, 8: A + 0.02}, {5: A}]
    found = values(figures.presence_rows(outcome_of(truth, frames)))
    assert found["person_frames"] == 6
    assert found["coverage_pct"] == pytest.approx(100 * 5 / 6)
    assert found["ghosts"] == 2
    assert found["ghosts_pct"] == found["doubles_pct"] == pytest.approx(100 / 3)
    assert found["tracks_each"] == 1.5
    assert found["switches"] == 1


def test_who_is_hidden_is_neither_missed_nor_makes_a_ghost():
    truth = truth_of(np.array([A, B]), [0, 0], [0, 1], counted=np.array([True, False]))
    found = values(figures.presence_rows(outcome_of(truth, [{1: A, 2: B}])))
    assert (found["coverage_pct"], found["ghosts"], found["people"]) == (100, 0, 1)


def test_a_truth_without_anybody_counts_ghosts_only():
    truth = truth_of(np.zeros((0, 33, 3)), np.zeros(0, int), np.zeros(0, int))
    outcome = outcome_of(truth, [{}, {1: A}, {}, {1: A}])
    found = figures.presence_rows(outcome)
    assert values(found)["ghosts_pct"] == 50
    assert np.isnan(values(found)["coverage_pct"])
    assert values(figures.nobody_rows(outcome.tallies, 1))["ghosts_pct"] == 50


def test_the_same_person_is_without_error_and_another_is_not():
    truth = truth_of(np.array([A, A, A]), [0, 1, 2], [0, 0, 0])
    rows, _ = figures.space_rows(outcome_of(truth, [{1: A}] * 3))
    assert values(rows)["mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    longer = A.copy()
    longer[16] += [0, 0, 0.24]
    rows, _ = figures.space_rows(outcome_of(truth, [{1: longer}] * 3))
    assert values(rows)["mpjpe_mm"] == pytest.approx(20, abs=0.1)
    assert values(rows)["wrist_mm"] == pytest.approx(120, abs=0.1)
    assert values(rows)["depth_mm"] == pytest.approx(20, abs=0.1)


def test_frames_without_a_body_count_as_wrong_landmarks_and_no_overlap():
    mask = np.zeros(SIZE, bool)
    mask[30:90, 30:70] = True
    masks = np.array([np.packbits(mask)] * 2)
    truth = truth_of(np.array([A, A]), [0, 1], [0, 0], masks=masks, mask_shape=SIZE)
    found = values(figures.image_rows(outcome_of(truth, [{1: A}, {}])))
    assert found["close_pct"] == 50
    assert found["landmarks_px"] == pytest.approx(0, abs=1e-3)
    assert 0 < found["iou_all"] == pytest.approx(found["iou"] / 2)


def test_only_what_the_reference_sees_counts_in_the_image():
    visible = np.ones((1, 33), bool)
    visible[0, 15] = False
    off = A.copy()
    off[15] += [1.0, 0, 0]
    truth = truth_of(A[None], [0], [0], visible=visible)
    assert values(figures.image_rows(outcome_of(truth, [{1: off}])))["close_pct"] == 100


def test_a_late_body_lags_and_a_slow_one_is_slow():
    swing = np.sin(np.linspace(0, 12, 40)) * np.linspace(0.1, 0.4, 40)
    path = np.repeat(A[None], 40, 0)
    path[:, 15, 0] += swing
    truth = truth_of(path, np.arange(40), np.zeros(40, int))
    late = [{1: path[max(k - 2, 0)]} for k in range(40)]
    rows = {row.key: row for row in motion_rows(outcome_of(truth, late))}
    assert rows["lag_frames"].mesh == pytest.approx(2, abs=0.2)
    assert rows["accel_3d_mm"].ratio == pytest.approx(1, abs=0.15)
    half = [{1: A + 0.5 * (points - A)} for points in path]
    rows = {row.key: row for row in motion_rows(outcome_of(truth, half))}
    assert rows["wrist_speed_p95"].ratio == pytest.approx(0.5, abs=0.02)
    assert rows["accel"].ratio == pytest.approx(0.5, abs=0.02)


def test_the_better_of_both_perceived_axes_is_the_baseline():
    """World landmarks are in the axes of the ray to the person; here they are turned so."""
    aside = a_person(4) + [2.0, 0.5, 0]
    pixels = project(aside, LENS)
    frame = played(0, {1: aside})
    person = frame.people[1]
    ray = (from_hips(aside) @ view_rotation(pixels, LENS)).astype(np.float32)
    turned = Person(person.box_px, 1.0, person.landmarks_px, person.visibility, ray)
    frame = Played(0, SIZE, LENS, {1: turned}, frame.bodies)
    truth = truth_of(aside[None], [0], [0])
    pairs, tally = compare(frame, truth, FACES)
    rows, notes = figures.space_rows(Outcome.of(truth, pairs, [tally]))
    assert rows[0].perceived == pytest.approx(0, abs=0.1)
    assert any("turned" in note for note in notes)


def test_what_is_given_takes_the_place_of_what_was_perceived():
    mask = np.zeros(SIZE, bool)
    mask[20:100, 30:60] = True
    truth = truth_of(A[None], [0], [0], masks=np.packbits(mask)[None], mask_shape=SIZE)
    seen = {1: person_of(A + np.random.default_rng(0).normal(0, 0.02, A.shape)), 2: person_of(B)}
    names = ("landmarks", "world", "mask", "depth")
    out = substitute(seen, 0, truth, names, LENS)
    assert out[2] is seen[2]
    assert np.allclose(out[1].landmarks_px, truth.landmarks_px[0], atol=1e-3)
    view = view_rotation(out[1].landmarks_px, LENS)
    assert np.allclose(out[1].world_m @ view.T, from_hips(A), atol=1e-5)
    assert out[1].root_depth_m == pytest.approx(truth.root_depth_m[0])
    assert iou(perceived_mask(out[1], SIZE, SIZE), mask) > 0.97
    assert substitute(seen, 5, truth, names, LENS) == seen


def test_a_perceived_mask_keeps_its_place_in_a_smaller_picture():
    values = np.ones((10, 20), np.float32)
    mask = Mask(values, np.array([[2, 0, 40.5], [0, 2, 20.5]], np.float32))
    person = Person(np.zeros(4), 1.0, np.zeros((33, 2)), np.ones(33), np.zeros((33, 3)), mask)
    found = perceived_mask(person, SIZE, (60, 80))
    ys, xs = np.nonzero(found)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (10, 19, 20, 39)
