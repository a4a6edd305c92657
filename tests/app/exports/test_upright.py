"""Under a tilted camera people of every format stand upright, with their feet on height 0."""

from __future__ import annotations

from dataclasses import dataclass

import ezc3d
import numpy as np
import pytest

from app.exports import bvh, c3d, gltf, trc
from app.exports.markers import MARKERS
from app.exports.recording import ExportError, Recording, make_recording, read_recording
from app.exports.table import table
from app.outputs.poses import ROWS
from app.outputs.spool import ColumnSpool
from app.outputs.world_columns import save_with_world
from app.view.frames import ROW, recording_file
from pipeline.core.skeleton import JOINT_NAMES
from pipeline.core.world import World, world_from_up
from pipeline.world.ground import up_of
from tests.support.bvh import read_bvh
from tests.support.gltf import Glb
from tests.support.recordings import poses_arrays, save_poses, standing_arrays
from tests.support.view import unpacked

TILTED = world_from_up(up_of(18.0, -4.0), 2.4)
FEET = [JOINT_NAMES.index(name) for name in ("left_foot", "right_foot")]
HEAD = JOINT_NAMES.index("head")


@pytest.fixture
def recording() -> Recording:
    return make_recording(standing_arrays(TILTED))


def check_upright(joints_m: np.ndarray, up: int) -> None:
    """Joints (24, 3) of a person who stands, by the axis that points up."""
    # REST_M's soles are 1 cm and the estimate's 2.7 cm below the foot joint.
    assert np.abs(joints_m[FEET, up]).max() < 0.05
    body = joints_m[HEAD] - joints_m[FEET].mean(0)
    assert body[up] > 1.5
    assert np.linalg.norm(np.delete(body, up)) < 0.1


def test_the_recording_tells_its_world(recording):
    assert recording.ground.startswith("up: people (") or "feet" in recording.ground
    np.testing.assert_allclose(recording.world.rotation, TILTED.rotation, atol=0.05)
    assert recording.world.camera_m[2] == pytest.approx(2.4, abs=0.15)
    for track in recording.tracks:
        check_upright(recording.world.points(track.joints_m[0]), 2)


def test_bvh(recording, tmp_path):
    for track in recording.tracks:
        bvh.write(recording, track, tmp_path / "one.bvh")
        places = read_bvh(tmp_path / "one.bvh").places()
        check_upright(np.array([places[name][0] for name in JOINT_NAMES]), 1)


def test_glb(recording, tmp_path):
    gltf.write(recording, tmp_path / "all.glb")
    glb = Glb(tmp_path / "all.glb")
    for track in recording.tracks:
        check_upright(glb.person(track.id).joints_m(0.5), 1)
    # The camera is above the floor, where it was.
    place_m = glb.world(0.0)[glb.places["camera"]][:3, 3]
    np.testing.assert_allclose(place_m, recording.world.points(np.zeros(3), "y"), atol=1e-6)


def test_trc_and_c3d(recording, tmp_path):
    joints = [MARKERS.index(f"smpl_{name}") for name in JOINT_NAMES]
    for track in recording.tracks:
        trc.write(recording, track, tmp_path / "one.trc")
        row = np.genfromtxt(tmp_path / "one.trc", skip_header=6, delimiter="\t")[0]
        check_upright(row[2:].reshape(-1, 3)[joints] / 1000, 1)
        c3d.write(recording, track, tmp_path / "one.c3d")
        points = ezc3d.c3d(str(tmp_path / "one.c3d"))["data"]["points"]
        check_upright(points[:3, joints, 0].T / 1000, 2)


def test_table(recording):
    row = table(recording, up="z").iloc[0]
    joints_m = [[row[f"{name}_{axis}_m"] for axis in "xyz"] for name in JOINT_NAMES]
    check_upright(np.array(joints_m), 2)


def test_the_3d_view(recording):
    page = unpacked(recording_file(recording))
    joints_m = page["rows"].reshape(-1, ROW)[0, 82:].reshape(24, 3)
    check_upright(joints_m @ np.array(page["camera_to_world"]).T + page["camera_m"], 1)


def save(arrays, path) -> None:
    rows = ColumnSpool(path, ROWS, {k: v for k, v in arrays.items() if k not in ROWS})
    rows.append({name: arrays[name] for name in ROWS})
    save_with_world(rows, path)
    rows.close()


def test_poses(tmp_path):
    save(standing_arrays(TILTED), tmp_path / "poses.npz")
    with np.load(tmp_path / "poses.npz") as saved:
        for joints_m in saved["world_joints_m"]:
            check_upright(joints_m, 2)
        world = World(saved["world_rotation"], saved["world_origin_m"])
        np.testing.assert_allclose(
            saved["world_joints_m"], world.points(saved["joints_m"]), atol=1e-5
        )
        orient, transl_m = world.body(
            saved["global_orient"], saved["transl_m"], saved["joints_m"][:, 0]
        )
        np.testing.assert_allclose(saved["world_global_orient"], orient, atol=1e-5)
        np.testing.assert_allclose(saved["world_transl_m"], transl_m, atol=1e-5)
        assert str(saved["world_up"]) == "z"
    again = read_recording(tmp_path / "poses.npz")
    np.testing.assert_array_equal(again.world.rotation, world.rotation)


def test_a_camera_that_is_given_wins(tmp_path):
    arrays = standing_arrays(TILTED) | {"given_camera": np.array([3.0, 10.0, np.nan])}
    save(arrays, tmp_path / "poses.npz")
    recording = read_recording(tmp_path / "poses.npz")
    assert recording.ground == "up: given; floor: given"
    np.testing.assert_allclose(
        recording.world.rotation, world_from_up(up_of(10.0, 0.0)).rotation, atol=1e-12
    )
    assert recording.world.camera_m[2] == pytest.approx(3.0)


@dataclass
class Wrong:
    """An array that is no world."""

    name: str
    value: np.ndarray


@pytest.mark.parametrize(
    "wrong",
    [Wrong("world_rotation", np.eye(3) * 2), Wrong("world_rotation", np.full((3, 3), np.nan)),
     Wrong("world_rotation", np.eye(4)), Wrong("world_origin_m", np.zeros(2))],
)  # fmt: skip
def test_a_damaged_world_is_one_line(wrong, tmp_path):
    arrays = poses_arrays({1: range(3)}) | {
        "world_rotation": np.eye(3), "world_origin_m": np.zeros(3), wrong.name: wrong.value
    }  # fmt: skip
    with pytest.raises(ExportError, match="world_rotation"):
        read_recording(save_poses(tmp_path / "poses.npz", arrays))
