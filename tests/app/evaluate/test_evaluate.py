"""Evaluation: the measures' laws, truths of every kind, who is matched with whom, the command."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from app import cli
from app.evaluate import figures, frames_of, ranges, report
from app.evaluate.compare import compare, perceived_mask
from app.evaluate.given import ray_rotation, substitute
from app.evaluate.metrics import (
    LIMBS,
    accelerations,
    distances,
    from_hips,
    iou,
    lag,
    limb_errors,
    match,
    procrustes,
    procrustes_error,
    surface_distance,
    torso_px,
)
from app.evaluate.motion import motion_rows
from app.evaluate.outcome import Outcome, Row
from app.evaluate.replay import Played, switches
from app.evaluate.truth import Truth, TruthError, load_truth
from pipeline.core.camera import default_intrinsics, project
from pipeline.core.people import Bodies, Mask, Person
from pipeline.fitting.solver import FitConfig
from tests.support.clips import numbered, write_clip
from tests.support.paths import SAMPLES

SIZE = (120, 160)
LENS = default_intrinsics(*SIZE)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
seeds = st.integers(0, 2**32 - 1)
SHARED = settings(deadline=None)
"""The machine may be busy with other things."""


def somebody(seed: int = 0) -> np.ndarray:
    """Landmarks (33, 3) of a person-sized cloud four metres away, shoulders above hips."""
    points = np.random.default_rng(seed).normal(0, 0.15, (33, 3))
    points[[11, 12]] += [0, -0.4, 0]
    points[[23, 24]] += [0, 0.2, 0]
    return points + [0, 0, 4.0]


# The measures


@SHARED
@given(seeds)
def test_nothing_is_off_what_is_the_same_wherever_it_stands(seed):
    points = somebody(seed)
    assert np.allclose(limb_errors(points, points), 0)
    assert np.allclose(limb_errors(points + [3.0, -1, 2], points), 0)


@SHARED
@given(seeds, st.floats(0.0, 2.0))
def test_a_limb_moved_so_far_is_so_far_off(seed, far):
    points = somebody(seed)
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
    points = somebody(seed)
    mirrored = points * [-1.0, 1, 1]
    assert procrustes_error(points, points) < 1e-9
    assert procrustes_error(mirrored, points) > 0.01


def test_procrustes_leaves_out_what_is_not_known():
    points = somebody()
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


# Truths and who is who


def truth_of(landmarks_m: np.ndarray, frame, person, **changes) -> Truth:
    """A render's truth of landmarks (N, 33, 3)."""
    pixels = project(landmarks_m, LENS)
    parts = {
        "name": "t.npz", "kind": "render", "frame": np.array(frame), "person": np.array(person),
        "landmarks_px": pixels, "visible": np.ones(pixels.shape[:2], bool),
        "torso_px": torso_px(pixels), "counted": np.ones(len(pixels), bool),
        "frames": 3, "size": SIZE, "intrinsics": LENS, "landmarks_m": landmarks_m,
        "root_depth_m": from_hips(landmarks_m)[:, 0, 2], "complete": True,
    }  # fmt: skip
    return Truth(**(parts | changes))


def person_of(landmarks_m: np.ndarray) -> Person:
    pixels = project(landmarks_m, LENS).astype(np.float32)
    box = np.concatenate((pixels.min(0), pixels.max(0)))
    world = from_hips(landmarks_m).astype(np.float32)
    return Person(box, 1.0, pixels, np.ones(33, np.float32), world)


def played(frame: int, people: dict[int, np.ndarray]) -> Played:
    """A frame in which these tracks' bodies have these landmarks (33, 3)."""
    count = len(people)
    landmarks = np.array(list(people.values()), np.float32).reshape(-1, 33, 3)
    middle = landmarks.mean(1, keepdims=True)
    square = np.array([[-0.4, -0.6, 0], [-0.4, 0.6, 0], [0.4, 0.6, 0], [0.4, -0.6, 0]], np.float32)
    shapes = ((3,), (69,), (10,), (3,), (24, 3))
    bodies = Bodies(
        np.array(list(people), np.int64),
        np.ones(count, np.float32),
        *(np.zeros((count, *shape), np.float32) for shape in shapes),
        landmarks,
        middle + square,
    )
    seen = {track: person_of(points) for track, points in people.items()}
    return Played(frame, SIZE, LENS, seen, bodies)


A, B = somebody(1) - [0.6, 0, 0], somebody(2) + [0.6, 0, 0]
ELSEWHERE = somebody(3) + [0, 0, 30.0]


def outcome_of(truth: Truth, frames: list[dict[int, np.ndarray]]) -> Outcome:
    pairs, tallies = [], []
    for index, people in enumerate(frames):
        found, tally = compare(played(index, people), truth, FACES)
        pairs += found
        tallies.append(tally)
    return Outcome.of(truth, pairs, tallies)


def values(rows: list[Row]) -> dict[str, float]:
    return {row.key: row.mesh for row in rows}


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
    aside = somebody(4) + [2.0, 0.5, 0]
    pixels = project(aside, LENS)
    frame = played(0, {1: aside})
    person = frame.people[1]
    ray = (from_hips(aside) @ ray_rotation(pixels, LENS)).astype(np.float32)
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
    view = ray_rotation(out[1].landmarks_px, LENS)
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


# Files


def multi_view(tmp_path: Path, **changes) -> Path:
    good = np.ones((2, 33), bool)
    good[0, 15] = False
    arrays = {
        "frame": np.array([0, 1]), "person": np.zeros(2, int), "landmarks_good": good,
        "landmarks_m": np.array([A, A]), "intrinsics": LENS,
    }  # fmt: skip
    arrays |= changes
    path = tmp_path / "views.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_a_multi_view_truth_knows_only_its_good_landmarks(tmp_path):
    truth = load_truth(multi_view(tmp_path))
    assert truth.kind == "multi-view"
    assert not truth.complete
    assert np.isnan(truth.landmarks_m[0, 15]).all()
    assert np.isfinite(truth.landmarks_px[1]).all()
    off = A.copy()
    off[15] += 0.5
    rows, _ = figures.space_rows(outcome_of(truth, [{1: off}]))
    assert rows[0].mesh == pytest.approx(0, abs=1e-3)


def test_a_multi_view_truth_without_hips_has_no_error_in_space(tmp_path):
    good = np.ones((2, 33), bool)
    good[0, 23] = False
    truth = load_truth(multi_view(tmp_path, landmarks_good=good))
    outcome = outcome_of(truth, [{1: A}, {1: A}])
    rows, notes = figures.space_rows(outcome)
    assert rows[0].mesh == pytest.approx(0, abs=1e-3)
    assert any(note.startswith("1 person-frames") for note in notes)


def test_the_samples_truth_is_read_with_its_surface_and_mask():
    truth = load_truth(SAMPLES / "pitch_truth.npz")
    assert (truth.kind, truth.frames, truth.size) == ("render", 108, (720, 1280))
    pixels = np.rint(project(truth.surface(90), truth.intrinsics)).astype(int)
    mask = truth.mask(90, (720, 1280))
    # The ball, which hides some of the hand, is gone. Vertices on the rim fall beside the mask's
    # outermost pixels.
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert wide[pixels[:, 1], pixels[:, 0]].mean() > 0.995
    half = truth.mask(90, (360, 640))
    assert half.mean() == pytest.approx(mask.mean(), rel=0.02)


def test_a_skinned_surface_is_what_its_bones_make_of_it(tmp_path):
    turn = Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix()
    bones = np.array([np.eye(3, 4), np.hstack((turn, [[1], [0], [4]]))], np.float32)
    path = tmp_path / "t.npz"
    np.savez(
        path, frame=[0], person=[0], landmarks_px=project(A[None], LENS), intrinsics=LENS,
        landmarks_visible=np.ones((1, 33), bool), landmarks_m=A[None], image_size=SIZE,
        joints_m=np.ones((1, 24, 3)), depth_m=np.zeros((7, 3, 4)), transforms=bones[None],
        rest_m=np.array([[1.0, 0, 0], [0, 0, 2], [1, 0, 0], [9, 9, 9]]),
        bone_numbers=np.array([[0, 1], [0, 1], [0, 1], [0, 0]]),
        bone_shares=np.array([[1, 0], [0, 2], [0.5, 0.5], [1, 0]]),
        vertex_start=[0, 4], face_start=[0, 1], faces=[[0, 1, 2]],
    )  # fmt: skip
    truth = load_truth(path)
    # The vertex that no face uses is not drawn.
    assert np.allclose(truth.surface(0), [[1, 0, 0], [1, 0, 6], [1, 0.5, 2]], atol=1e-6)
    assert truth.frames == 7


def test_a_person_who_bends_keeps_half_a_torso(tmp_path):
    flat = A.copy()
    flat[[11, 12], 1] = flat[[23, 24], 1].mean()
    flat[[11, 12], 0] = flat[[23, 24], 0].mean()
    points = np.array([A, A, flat])
    path = multi_view(
        tmp_path, frame=np.arange(3), person=np.zeros(3, int), landmarks_m=points,
        landmarks_good=np.ones((3, 33), bool),
    )  # fmt: skip
    truth = load_truth(path)
    assert truth.torso_px[2] == pytest.approx(truth.torso_px[0] / 2)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"landmarks_good": None}, "neither landmarks_visible"),
        ({"landmarks_m": np.zeros((2, 24, 3))}, "landmarks_m has the shape (2, 24, 3)"),
        ({"landmarks_m": None}, "has no 'landmarks_m'"),
        ({"intrinsics": None}, "neither intrinsics nor landmarks_px"),
        ({"person": np.zeros(3, int)}, "person has the shape"),
    ],
)
def test_what_is_wrong_with_a_truth_is_said_in_a_line(tmp_path, changes, why):
    with pytest.raises(TruthError) as caught:
        load_truth(multi_view(tmp_path, **changes))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no npz", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_npz_is_no_truth(tmp_path, content):
    path = tmp_path / "t.npz"
    path.write_bytes(content)
    with pytest.raises(TruthError, match="t.npz"):
        load_truth(path)
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(TruthError, match="one array"):
        load_truth(tmp_path / "a.npy")


def test_a_truth_of_another_clip_is_refused():
    truth = truth_of(np.array([A]), [2], [0])
    truth.check_clip("c.mp4", size=SIZE, frames=3)
    with pytest.raises(TruthError, match="160x120 picture; c.mp4 is 1280x720"):
        truth.check_clip("c.mp4", size=(720, 1280))
    with pytest.raises(TruthError, match="of 3 frames; c.mp4 has 2"):
        truth.check_clip("c.mp4", size=SIZE, frames=2)
    with pytest.raises(TruthError, match="of 3 frames; c.mp4 has 9"):
        truth.check_clip("c.mp4", size=SIZE, frames=9)


# Reports and the command


def small_report(clip: str, mesh: float, weight: float) -> report.Report:
    rows = (
        Row("person_frames", "n", "", weight),
        Row("mpjpe_mm", "MPJPE", "mm", mesh, 100.0, ratio_to="perceived"),
    )
    return report.Report(clip, "t", "render", rows, weight)


def test_all_clips_are_pooled_by_their_person_frames():
    every = report.pooled([small_report("a", 50, 30), small_report("b", 90, 10)])
    assert every.row("mpjpe_mm").mesh == pytest.approx(60)
    assert every.row("mpjpe_mm").ratio == pytest.approx(0.6)
    assert every.row("person_frames").mesh == 40
    unknown = report.pooled([small_report("a", float("nan"), 30), small_report("b", 90, 10)])
    assert unknown.row("mpjpe_mm").mesh == pytest.approx(90)


def test_tables_and_json_say_what_is_not_known(tmp_path, capsys):
    lone = small_report("a.mp4", float("nan"), 3)
    report.print_report(lone, sys.stdout)
    report.print_suite([lone, small_report("b.mp4", 42.5, 3)], sys.stdout)
    out = capsys.readouterr().out
    assert "MPJPE" in out
    assert "42.5" in out
    assert "nan" not in out
    report.write_json([lone], tmp_path / "o" / "r.json", pool=False)
    figure = json.loads((tmp_path / "o" / "r.json").read_text())["figures"]["mpjpe_mm"]
    assert figure["mesh"] is None
    assert figure["perceived"] == 100


def test_every_switch_of_the_fit_has_a_name():
    names = switches()
    wanted = {"world", "mask", "prior", "smoothness", "warm-start", "held-shape", "depth"}
    assert wanted <= set(names)
    for field in names.values():
        assert isinstance(getattr(FitConfig(), field), bool)


def test_frames_are_told_as_ranges():
    assert ranges([3, 4, 5, 9, 11, 12]) == "3-5, 9, 11-12"
    assert ranges([]) == ""


@SHARED
@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranges_are_read_back(numbers):
    assert frames_of(ranges(sorted(numbers))) == numbers


@pytest.fixture
def evaluated(monkeypatch) -> list:
    """Stands in for the evaluation: what it is called with."""
    calls = []
    fake = types.SimpleNamespace()

    def evaluate(*args, **options):
        calls.append((args, options))
        return small_report(str(args[0]), 50.0, 10)

    fake.evaluate = evaluate
    monkeypatch.setattr("app.evaluate.suite.evaluate", fake.evaluate)
    return calls


def test_every_flag_reaches_the_evaluation(evaluated, capsys, tmp_path):
    line = (
        "evaluate c.mp4 --truth t.npz --people 2 --start 1 --seconds 2 --truth-lens --worst 3 "
        "--without mask --without world --given depth --frames 3-5,9 "
        f"--json {tmp_path}/r.json --device cpu"
    )
    assert cli.main(line.split()) == 0
    (clip, truth, config), options = evaluated[0]
    assert (clip, truth, config.perceive.people) == ("c.mp4", Path("t.npz"), 2)
    assert (config.capture.start_s, config.capture.seconds) == (1.0, 2.0)
    wanted = {"without": ("mask", "world"), "given": ("depth",), "truth_lens": True, "worst": 3}
    assert options == wanted | {"frames": {3, 4, 5, 9}}
    assert json.loads((tmp_path / "r.json").read_text())["clip"] == "c.mp4"
    assert "c.mp4 against t" in capsys.readouterr().out


def test_a_suite_evaluates_every_clip_with_its_truth(evaluated, capsys, tmp_path):
    for name in ("b.mp4", "a.mp4", "a_truth.npz", "b_truth.npz", "c_truth.npz", "d.mp4"):
        (tmp_path / name).touch()
    assert cli.main(["evaluate", "--suite", str(tmp_path)]) == 0
    assert [Path(args[0]).name for args, _ in evaluated] == ["a.mp4", "b.mp4"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["a", "b", "all"]


@pytest.mark.parametrize(
    ("line", "code", "why"),
    [
        ("c.mp4", 2, "--truth"),
        ("c.mp4 --truth t.npz --nobody", 2, "give one of"),
        ("--truth t.npz", 2, "CLIP"),
        ("c.mp4 --suite there", 2, "none with --suite"),
        ("--suite not_there", 1, "not_there"),
        ("c.mp4 --truth t.npz --fov-deg 50 --truth-lens", 2, "not allowed with"),
        ("c.mp4 --truth not_there.npz", 1, "no such file"),
        ("c.mp4 --nobody --given mask", 2, "need a truth"),
        ("c.mp4 --nobody --without wings", 2, "one of depth, held-shape"),
        ("c.mp4 --truth {sample} --given wings", 2, "one of landmarks, world"),
        ("c.mp4 --truth {sample} --people 0", 2, "--people"),
        ("c.mp4 --truth {sample} --jobs 0", 2, "--jobs"),
        ("c.mp4 --truth {sample} --frames 5-x", 2, "--frames"),
    ],
)
def test_wrong_flags_end_with_a_line(line, code, why, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = line.format(sample=SAMPLES / "pitch_truth.npz").split()
    assert cli.main(["evaluate", *words]) == code
    error = capsys.readouterr().err
    assert why in error
    assert len(error.strip().splitlines()) <= 2
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.weights
def test_the_samples_beginning_is_evaluated(tmp_path, capsys):
    clip, truth = SAMPLES / "pitch.mp4", SAMPLES / "pitch_truth.npz"
    out = tmp_path / "r.json"
    line = f"evaluate {clip} --truth {truth} --seconds 0.53 --worst 2 --json {out}"
    assert cli.main(line.split()) == 0
    data = json.loads(out.read_text())
    found = {key: figure["mesh"] for key, figure in data["figures"].items()}
    assert found["frames"] == found["person_frames"] == 16
    assert found["coverage_pct"] == 100
    assert found["tracks_each"] == 1
    assert 10 < found["mpjpe_mm"] < 150
    assert found["pa_mpjpe_mm"] < found["mpjpe_mm"]
    assert 0.6 < found["iou"] <= 1
    assert found["landmarks_px"] < 15
    assert found["fit_ms_p50"] > 0
    assert len(data["worst"]) == 2
    assert "MPJPE" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.weights
def test_the_truth_put_in_comes_out():
    """With true landmarks, depths and lens the body is where the truth is."""
    from app.config import load_config
    from app.evaluate import evaluate

    config = load_config(flags={"capture.seconds": 0.4})
    clip, truth = SAMPLES / "pitch.mp4", SAMPLES / "pitch_truth.npz"
    plain = evaluate(clip, truth, config)
    best = evaluate(clip, truth, config, given=("landmarks", "world"), truth_lens=True)
    assert best.row("mpjpe_mm").mesh < 0.6 * plain.row("mpjpe_mm").mesh
    assert best.row("mpjpe_mm").mesh < 40
    assert best.row("mpjpe_mm").perceived == pytest.approx(plain.row("mpjpe_mm").perceived, rel=0.2)


@pytest.mark.slow
@pytest.mark.weights
def test_a_clip_of_another_size_or_length_is_refused(tmp_path, capsys):
    clip = str(write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(6)]))
    truth = str(SAMPLES / "pitch_truth.npz")
    assert cli.main(["evaluate", clip, "--truth", truth]) == 1
    assert "1280x720 picture; c.mp4 is 160x96" in capsys.readouterr().err
    long = np.load(truth)
    np.savez(tmp_path / "t.npz", **{**long, "image_size": [96, 160]})
    assert cli.main(["evaluate", clip, "--truth", str(tmp_path / "t.npz")]) == 1
    assert "of 108 frames; c.mp4 has 6" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.weights
def test_a_clip_with_nobody_in_it_has_no_ghosts(tmp_path, capsys):
    clip = write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(6)])
    assert cli.main(["evaluate", str(clip), "--nobody", "--frames", "2-4"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["frames", "3", "-", "-", "-"] in lines
    assert ["frames", "with", "a", "body", "%", "0", "-", "-", "-"] in lines


@pytest.mark.weights
def test_a_live_feed_is_refused(capsys):
    source = "lavfi:testsrc2=size=320x240:rate=10"
    assert cli.main(["evaluate", source, "--nobody"]) == 2
    assert "live feed" in capsys.readouterr().err


def test_a_lag_is_not_read_off_the_few_pairs_that_a_far_shift_leaves():
    theirs = np.full((40, 1), np.nan)
    theirs[:14, 0] = np.random.default_rng(3).normal(size=14)
    ours = theirs + 0.8 * np.random.default_rng(4).normal(size=theirs.shape)
    # Nine pairs are left at this shift, and there they are the same.
    ours[5:14] = theirs[:9]
    late, _ = lag(ours, theirs)
    assert late < 4
