"""Bodies that stand still before a camera that turns stand still in the world of every format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from app.exports.outputs import GlbOutput
from app.exports.recording import ExportError, read_recording
from app.outputs.poses import AmassOutput, PosesOutput
from app.outputs.world_columns import TURN
from pipeline.world.camera_pose import CameraPose
from tests.support.bodies import bodies, frame, run_info

FRAMES = 6
POSE = CameraPose(1.6, 12.0, -3.0)


def turns_of(seed):
    random = np.random.default_rng(seed)
    return np.cumsum(0.1 * random.normal(size=(FRAMES, 3)), 0)


def seen_turned(still, turn):
    """The bodies as a camera sees them that is turned so: each about the camera's centre."""
    back = Rotation.from_rotvec(turn).inv()
    rest_m = still.joints_m[:, 0] - still.transl_m
    points = {
        name: np.float32(getattr(still, name) @ back.as_matrix().T)
        for name in ("joints_m", "landmarks_m", "vertices_m")
    }
    orient = (back * Rotation.from_rotvec(still.global_orient)).as_rotvec()
    return replace(
        still, **points, global_orient=np.float32(orient),
        transl_m=np.float32(points["joints_m"][:, 0] - rest_m),
    )  # fmt: skip


def written(output, turns, info=None):
    still = bodies([1, 4])
    output.open(info or run_info(camera_pose=POSE, turn_of=lambda each: turns[each.id]))
    for k in range(FRAMES):
        output.write(frame(k), seen_turned(still, turns[k]), None)
    output.close()
    return still


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000))
def test_bodies_stand_still_in_the_worlds_columns(tmp_path, seed):
    turns = turns_of(seed)
    written(PosesOutput(tmp_path / "p.npz"), turns)
    with np.load(tmp_path / "p.npz") as saved:
        np.testing.assert_allclose(saved[TURN][::2], turns, atol=1e-6)
        for name in ("world_joints_m", "world_transl_m", "world_global_orient"):
            rows = saved[name].reshape(FRAMES, 2, -1)
            if name == "world_global_orient":
                rows = Rotation.from_rotvec(rows.reshape(-1, 3)).as_matrix().reshape(FRAMES, 2, -1)
            np.testing.assert_allclose(rows, np.broadcast_to(rows[:1], rows.shape), atol=2e-5)
        # What the camera saw did move.
        assert np.ptp(saved["joints_m"][::2, 0], axis=0).max() > 0.05


def test_a_recording_of_them_stands_still(tmp_path):
    turns = turns_of(3)
    written(PosesOutput(tmp_path / "p.npz"), turns)
    for track in read_recording(tmp_path / "p.npz").tracks:
        np.testing.assert_allclose(track.joints_m, track.joints_m[:1].repeat(FRAMES, 0), atol=2e-5)
        orient = Rotation.from_rotvec(track.global_orient)
        assert np.degrees((orient[0].inv() * orient).magnitude()).max() < 0.01


def test_amass_has_them_still(tmp_path):
    written(AmassOutput(tmp_path / "amass"), turns_of(5))
    with np.load(tmp_path / "amass" / "track_0004.npz") as saved:
        np.testing.assert_allclose(saved["trans"], saved["trans"][:1].repeat(FRAMES, 0), atol=2e-5)


def test_an_export_of_a_run_knows_the_turn(tmp_path):
    output = GlbOutput(tmp_path / "a.glb")
    output.open(run_info(camera_pose=POSE, turn_of=lambda each: turns_of(7)[each.id]))
    still = bodies([1])
    for k in range(FRAMES):
        output.write(frame(k), seen_turned(still, turns_of(7)[k]), None)
    assert TURN in output._columns.names
    output.close()


def test_a_still_camera_has_no_such_column(tmp_path):
    written(PosesOutput(tmp_path / "p.npz"), np.zeros((FRAMES, 3)), run_info(camera_pose=POSE))
    with np.load(tmp_path / "p.npz") as saved:
        assert TURN not in saved


@pytest.mark.parametrize("bad", [np.full((12, 3), np.nan), np.zeros((12, 2)), np.zeros(12, int)])
def test_a_damaged_turn_is_one_line(tmp_path, bad):
    written(PosesOutput(tmp_path / "p.npz"), turns_of(1))
    with np.load(tmp_path / "p.npz") as saved:
        arrays = dict(saved) | {TURN: bad}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ExportError, match="camera_turn"):
        read_recording(tmp_path / "bad.npz")
