"""The figures in the world of whole clips, and the cameras that lead there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.spatial.transform import Rotation

from app.evaluate import evaluate_poses
from app.evaluate.camera_path import CameraPath, camera_path
from app.evaluate.truth import load_truth
from app.evaluate.world_rows import world_rows
from tests.support.evaluation import A, outcome_of, recorded, seeds, truth_of
from tests.support.paths import SAMPLES

FRAMES = 40
PAN_DEG = 3.0
LEVEL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def a_camera(moving: bool, seed: int = 0) -> CameraPath:
    """A camera 1.5 m above the floor, which pans and shakes where it moves."""
    rng = np.random.default_rng(seed)
    angles = np.zeros((FRAMES, 3))
    if moving:
        angles[:, 1] = np.linspace(0, 25, FRAMES)
        angles += rng.normal(0, 0.3, angles.shape)
    turns = Rotation.from_euler("xyz", angles + [-8, 0, 2], degrees=True).as_matrix()
    return CameraPath(LEVEL @ turns, np.tile([0.3, -0.2, 1.5], (FRAMES, 1)))


def seen_by(camera: CameraPath, world_m: np.ndarray) -> np.ndarray:
    """Points of the world (T, 33, 3) in the camera's axes of each frame."""
    return np.einsum("tji,tkj->tki", camera.rotation, world_m - camera.position_m[:, None])


def a_person_who_stands(camera: CameraPath) -> np.ndarray:
    """Landmarks in the world (T, 33, 3): feet on the floor, hands that move, then stillness."""
    body = np.stack((A[:, 0], A[:, 2], 1.0 - A[:, 1]), -1)
    body[[29, 30, 31, 32], 2] = 0.02
    path = np.repeat(body[None], FRAMES, 0)
    swing = 0.1 * np.sin(np.arange(FRAMES))
    swing[20:] = swing[20]
    path[:, 15, 0] += swing
    return path


def parts(camera: CameraPath, world_m: np.ndarray) -> dict:
    rows = np.arange(FRAMES)
    return {
        "landmarks_m": seen_by(camera, world_m), "frame": rows, "person": np.zeros(FRAMES, int),
        "frames": FRAMES, "camera": camera, "fps": 30.0,
        "foot_contact": np.ones((FRAMES, 2), bool),
    }  # fmt: skip


@pytest.mark.parametrize("moving", [False, True])
def test_a_perfect_body_has_no_error_however_the_camera_moves(moving):
    camera = a_camera(moving)
    world_m = a_person_who_stands(camera)
    truth = truth_of(**parts(camera, world_m))
    rows, notes = world_rows(outcome_of(truth, [{1: p} for p in truth.landmarks_m]))
    found = {row.key: row for row in rows}
    for key in ("w_mpjpe_mm", "w_mpjpe_rigid_mm", "wa_mpjpe_mm", "foot_slide_mm", "still_mm"):
        assert found[key].mesh == pytest.approx(0, abs=0.01), key
    assert found["foot_height_cm"].mesh == pytest.approx(0, abs=1e-3)
    assert found["jitter"].ratio == pytest.approx(1, abs=0.01)
    assert "gravity_deg" not in found
    assert np.isnan(found["rte_pct"].mesh)
    assert notes == ["the world: that of the true camera"]


def test_a_body_that_ignores_the_pan_slides_and_trembles():
    """What stays in the axes of a camera that pans goes as far in the world as the pan takes it."""
    angles = np.zeros((FRAMES, 3))
    angles[:, 1] = np.linspace(0, PAN_DEG, FRAMES)
    turns = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    camera = CameraPath(LEVEL @ turns, a_camera(False).position_m)
    truth = truth_of(**parts(camera, a_person_who_stands(camera)))
    outcome = outcome_of(truth, [{1: truth.landmarks_m[0]}] * FRAMES)
    assert len(outcome.pairs) == FRAMES
    found = {row.key: row for row in world_rows(outcome)[0]}
    away = np.linalg.norm(truth.landmarks_m[0][[29, 31, 30, 32]][:, [0, 2]], axis=-1)
    step = 2 * np.sin(np.radians(PAN_DEG / (FRAMES - 1)) / 2)
    assert found["foot_slide_mm"].mesh == pytest.approx(1e3 * step * away.mean(), rel=1e-3)
    assert found["foot_slide_mm"].reference == pytest.approx(0, abs=1e-6)


def test_a_person_who_is_taken_for_taller_sinks_by_the_size_only():
    """A body 5 % too large stands 5 % farther away: 5 % of the way down from the camera too low,
    and always the same."""
    camera = a_camera(False)
    world_m = a_person_who_stands(camera)
    truth = truth_of(**parts(camera, world_m))
    rows, _ = world_rows(outcome_of(truth, [{1: 1.05 * p} for p in truth.landmarks_m]))
    found = {row.key: row.mesh for row in rows}
    assert found["foot_height_cm"] == pytest.approx(0.05 * (150 - 2), abs=0.05)
    assert found["foot_height_motion_cm"] == pytest.approx(0, abs=0.01)
    assert found["w_mpjpe_mm"] == pytest.approx(0, abs=0.05)
    assert found["w_mpjpe_rigid_mm"] > 5


def test_feet_that_go_up_and_down_are_off_by_the_mean_of_it():
    camera = a_camera(False)
    world_m = a_person_who_stands(camera)
    truth = truth_of(**parts(camera, world_m))
    bobs = world_m.copy()
    bobs[::2, :, 2] += 0.02
    found = {row.key: row.mesh for row in world_rows(
        outcome_of(truth, [{1: p} for p in seen_by(camera, bobs)]))[0]}  # fmt: skip
    assert found["foot_height_cm"] == pytest.approx(1, abs=0.01)
    assert found["foot_height_motion_cm"] == pytest.approx(1, abs=0.01)
    assert found["foot_slide_mm"] == pytest.approx(20, abs=0.01)


def test_gaps_and_frames_that_were_left_out_count_nowhere():
    camera = a_camera(True)
    truth = truth_of(**parts(camera, a_person_who_stands(camera)))
    frames = [{} if k % 7 == 3 else {1: p} for k, p in enumerate(truth.landmarks_m[:30])]
    found = {row.key: row.mesh for row in world_rows(outcome_of(truth, frames))[0]}
    assert found["w_mpjpe_mm"] == pytest.approx(0, abs=0.01)
    assert found["foot_slide_mm"] == pytest.approx(0, abs=0.01)


def test_the_apps_own_world_is_measured_where_it_has_one(tmp_path):
    """A world that leans by 4 degrees and has its floor 3 cm too low, in which nothing slides."""
    camera = a_camera(True)
    truth = truth_of(**parts(camera, a_person_who_stands(camera)))
    lean = Rotation.from_euler("xz", [4, 50], degrees=True).as_matrix()
    joints = np.random.default_rng(0).normal(size=(FRAMES, 24, 3))
    own = np.einsum("ij,tjk,tlk->til", lean, camera.rotation, joints).swapaxes(1, 2)
    own = own + (camera.position_m @ lean.T)[:, None] + [0, 0, 0.03]
    file = recorded(
        tmp_path / "r.npz", {1: list(truth.landmarks_m)},
        joints_m=joints.astype(np.float32), world_joints_m=own.astype(np.float32),
        world_up=np.array("z"),
    )  # fmt: skip
    report = evaluate_poses(file, truth)
    # Up is the world's third axis in the camera's axes: only the lean about x tilts it.
    up = np.arccos((lean @ [0, 0, 1]) @ [0, 0, 1])
    assert report.row("gravity_deg").mesh == pytest.approx(np.degrees(up), abs=0.01)
    assert report.row("w_mpjpe_rigid_mm").mesh == pytest.approx(0, abs=0.1)
    assert report.row("foot_slide_mm").mesh == pytest.approx(0, abs=0.05)
    assert report.row("foot_height_cm").mesh > 1
    assert report.notes[-1] == "the world: the app's own"


@given(seeds)
@settings(max_examples=30)
def test_both_kinds_of_camera_lead_to_one_world(seed):
    """A still camera, written from a world with y up and as a path with z up."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    shift, points = rng.normal(size=3), rng.normal(size=(4, 33, 3))
    still = camera_path({"camera_rotation": turn, "camera_translation_m": shift}, 4)
    # By hand: out of the camera, then y up to z up: (x, y, z) is (x, -z, y).
    x, y, z = np.moveaxis((points - shift) @ turn, -1, 0)
    assert still.to_world(points, np.arange(4)) == pytest.approx(np.stack((x, -z, y), -1))
    path = {
        "camera_rotation": np.repeat(still.rotation, 4, 0),
        "camera_position_m": np.repeat(still.position_m, 4, 0),
    }
    again = camera_path(path, 4).to_world(points, np.arange(4))
    assert again == pytest.approx(still.to_world(points, np.arange(4)))
    assert still.up(np.arange(4))[2] == pytest.approx(turn[:, 1])


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"camera_rotation": np.eye(4), "camera_translation_m": np.zeros(3)}, r"\(4, 4\)"),
        ({"camera_rotation": np.eye(3), "camera_position_m": np.zeros((2, 3))}, "frames"),
        (
            {"camera_rotation": np.zeros((2, 3, 3)), "camera_position_m": np.zeros((2, 3))},
            "no rotations",
        ),
        (
            {"camera_rotation": np.eye(3) * np.nan, "camera_translation_m": np.zeros(3)},
            "no rotations",
        ),
        (
            {
                "camera_rotation": np.repeat(np.eye(3)[None], 2, 0),
                "camera_position_m": np.zeros((2, 3)),
            },
            "2 frames, not 5",
        ),
    ],
)
def test_a_camera_that_is_none_is_refused(arrays, why):
    with pytest.raises(ValueError, match=why):
        camera_path(arrays, 5 if why.endswith("5") else None)


def test_the_samples_world_has_its_floor_at_zero():
    truth = load_truth(SAMPLES / "pitch_truth.npz")
    feet = truth.camera.to_world(truth.landmarks_m, truth.frame)[:, 29:33, 2]
    assert 0 < feet.min() < 0.05
    assert feet.min(1).max() < 0.1
    assert truth.fps == 30.0
    assert truth.foot_contact is None
