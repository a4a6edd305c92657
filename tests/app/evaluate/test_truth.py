"""Truth files of every kind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from app.evaluate import figures
from app.evaluate.truth import TruthError, load_truth
from pipeline.core.camera import project
from tests.support.evaluation import LENS, SIZE, A, outcome_of, truth_of
from tests.support.paths import SAMPLES


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
        ({"landmarks_m": None}, "has no landmarks_m"),
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
