"""`--poses` and `--amass`: what goes in comes out, whatever the run was like."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.cli import main
from app.outputs.base import OutputError
from app.outputs.poses import AmassOutput, PosesOutput
from app.outputs.spool import ColumnSpool
from app.outputs.world_columns import WORLD_ROWS
from pipeline.body.load import load_body
from pipeline.body.model import place_joints
from pipeline.body.rotations import exp_so3
from pipeline.core.camera import project
from pipeline.core.people import Bodies
from pipeline.core.world import camera_to_world
from tests.support.bodies import VERTICES, bodies, frame, run_info

SHAPES = {
    "frame": (), "pts_s": (), "track": (), "score": (), "global_orient": (3,),
    "body_pose": (69,), "betas": (10,), "transl_m": (3,), "joints_m": (24, 3),
    "joints_px": (24, 2), "landmarks_m": (33, 3), "landmarks_px": (33, 2),
    "joint_visibility": (24,),
}  # fmt: skip


def write_all(output, people_by_frame: list[list[int]], info=None) -> list[Bodies]:
    output.open(info or run_info())
    fitted = [bodies(tracks, seed=i) for i, tracks in enumerate(people_by_frame)]
    for i, value in enumerate(fitted):
        output.write(frame(i), value, None)
    output.close()
    return fitted


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(1, 9), unique=True, max_size=3), min_size=1, max_size=8))
def test_every_body_is_a_row_and_no_row_is_made_up(tmp_path, people):
    path = tmp_path / "poses.npz"
    fitted = write_all(PosesOutput(path, vertices=True), people)
    with np.load(path) as saved:
        rows = sum(len(tracks) for tracks in people)
        for name, shape in {**SHAPES, "vertices_m": (VERTICES, 3)}.items():
            assert saved[name].shape == (rows, *shape), name
        assert saved["frame"].tolist() == [i for i, p in enumerate(people) for _ in p]
        for field in fields(Bodies):
            # What is drawn and what was perceived of MHR bodies is not what is written.
            if field.name in ("shown_m", "surface_error_m", "mhr"):
                continue
            given_rows = np.concatenate([getattr(b, field.name) for b in fitted])
            np.testing.assert_array_equal(saved[field.name], given_rows)
        projected = project(saved["joints_m"], saved["intrinsics"])
        np.testing.assert_allclose(saved["joints_px"], projected, rtol=1e-5, atol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["poses.npz"]


def test_what_holds_for_the_file(tmp_path):
    path = tmp_path / "poses.npz"
    write_all(PosesOutput(path), [[1]])
    with np.load(path) as saved:
        extra = {"intrinsics", "image_size", "fps", "model", "given_camera", "ground"}
        extra |= {"world_rotation", "world_origin_m", "world_up"}
        assert set(saved.files) == set(SHAPES) | set(WORLD_ROWS) | extra
        np.testing.assert_array_equal(saved["intrinsics"], run_info().intrinsics)
        assert saved["image_size"].tolist() == [48, 64]
        assert (float(saved["fps"]), str(saved["model"])) == (25.0, "free")
    write_all(PosesOutput(path, vertices=True), [[1]], run_info(fps=None))
    with np.load(path) as saved:
        assert np.isnan(saved["fps"])
        np.testing.assert_array_equal(saved["faces"], run_info().faces)


def test_nobody_at_all_is_a_file_with_no_rows(tmp_path):
    path = tmp_path / "poses.npz"
    write_all(PosesOutput(path, vertices=True), [[], []])
    with np.load(path) as saved:
        assert saved["vertices_m"].shape == (0, VERTICES, 3)
        assert saved["joints_px"].shape == (0, 24, 2)


def test_pixels_are_of_the_frames_own_camera(tmp_path):
    path = tmp_path / "poses.npz"
    wide = np.diag([500.0, 500.0, 1.0])
    output = PosesOutput(path)
    first = run_info().intrinsics
    output.open(run_info(intrinsics_of=lambda frame: first if frame.id == 0 else wide))
    output.write(frame(0), bodies([1]), None)
    output.write(frame(1, height=96, width=128), bodies([1]), None)
    output.close()
    with np.load(path) as saved:
        pixels = project(saved["joints_m"][0], first)
        np.testing.assert_allclose(saved["joints_px"][0], pixels, atol=1e-3)
        second = project(saved["joints_m"][1], wide)
        np.testing.assert_allclose(saved["joints_px"][1], second, atol=1e-3)


def test_closed_twice_or_never_opened_is_no_harm(tmp_path):
    output = PosesOutput(tmp_path / "a.npz")
    output.close()
    assert list(tmp_path.iterdir()) == []
    write_all(output, [[1]])
    output.close()
    assert output.files == (tmp_path / "a.npz",)
    with np.load(tmp_path / "a.npz") as saved:
        assert len(saved["frame"]) == 1


@pytest.mark.parametrize("kind", [PosesOutput, AmassOutput])
def test_a_failed_save_leaves_the_old_file_and_keeps_the_rows(tmp_path, monkeypatch, kind):
    """Nothing half written is left, and `recover` makes the files once there is room."""
    path = tmp_path / ("a.npz" if kind is PosesOutput else "tracks")
    old = path if kind is PosesOutput else path / "track_0001.npz"
    write_all(kind(path), [[1]])
    before = old.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    output = kind(path)
    output.open(run_info())
    for number, tracks in enumerate([[1], [1, 2]]):
        output.write(frame(number), bodies(tracks), None)
    with monkeypatch.context() as patch:
        for name in ("write_array", "write_array_header_1_0"):
            patch.setattr(f"numpy.lib.format.{name}", full)
        with pytest.raises(OutputError, match=rf"No space left .* recover {path}$") as raised:
            output.close()
    assert "\n" not in str(raised.value)
    assert old.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    old.unlink()
    assert main(["recover", str(path)]) == 0
    with np.load(old) as saved:
        assert list(saved["frame"]) == ([0, 1, 1] if kind is PosesOutput else [0, 1])


def test_a_spool_that_cannot_begin_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(OutputError, match="No space left"):
        ColumnSpool(tmp_path / "a.npz", {"a": (np.float32, (3,))})
    assert list(tmp_path.iterdir()) == []


def test_a_long_run_needs_little_memory(tmp_path):
    rows = np.zeros((64, 3000, 3), np.float32)
    columns = ColumnSpool(tmp_path / "big.npz", {"vertices_m": (np.float32, (3000, 3))})
    tracemalloc.start()
    for _ in range(50):
        columns.append({"vertices_m": rows})
    columns.save(tmp_path / "big.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    columns.close()
    assert (tmp_path / "big.npz").stat().st_size > 50 * rows.nbytes
    assert peak < 2 * rows.nbytes


def test_a_row_of_another_shape_is_refused(tmp_path):
    columns = ColumnSpool(tmp_path / "x", {"a": (np.float32, (3,))})
    with pytest.raises(ValueError, match="a is"):
        columns.append({"a": np.zeros((2, 4))})
    columns.close()


def test_amass_has_one_file_a_track(tmp_path):
    folder = tmp_path / "tracks"
    fitted = write_all(AmassOutput(folder), [[1], [1, 7], [7], []])
    assert sorted(p.name for p in folder.iterdir()) == ["track_0001.npz", "track_0007.npz"]
    with np.load(folder / "track_0007.npz") as saved:
        assert saved["poses"].shape == (2, 156)
        assert saved["trans"].shape == (2, 3)
        assert saved["frame"].tolist() == [1, 2]
        np.testing.assert_array_equal(saved["betas"], fitted[2].betas[0])
        assert not saved["poses"][:, 66:].any()
        names = (float(saved["mocap_framerate"]), str(saved["gender"]), str(saved["model"]))
        assert names == (25.0, "neutral", "free")


def test_amass_frame_rate_of_a_source_without_one(tmp_path):
    output = AmassOutput(tmp_path / "t")
    output.open(run_info(fps=None))
    for i in range(5):
        output.write(frame(i, pts_s=10 + i / 50), bodies([1], seed=i), None)
    output.close()
    with np.load(tmp_path / "t" / "track_0001.npz") as saved:
        assert float(saved["mocap_framerate"]) == pytest.approx(50.0)


def test_amass_poses_put_smpls_joints_where_they_were_with_z_up(tmp_path):
    """Forward kinematics of what was saved gives the camera's joints, their axes turned."""
    rng = np.random.default_rng(3)
    rest = torch.tensor(rng.normal(size=(1, 24, 3)), dtype=torch.float32)
    value = bodies([1], seed=5)
    value.body_pose[:, 63:] = 0
    pose = np.concatenate([value.global_orient, value.body_pose], axis=1)
    value.joints_m[:] = joints(pose, rest) + value.transl_m[:, None]
    output = AmassOutput(tmp_path)
    output.open(run_info())
    output.write(frame(0), value, None)
    output.close()
    with np.load(tmp_path / "track_0001.npz") as saved:
        again = joints(saved["poses"][:, :72], rest) + saved["trans"][:, None]
    np.testing.assert_allclose(again, value.joints_m @ camera_to_world("z").T, atol=1e-4)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_an_amass_reader_gets_the_bodies_where_they_were(tmp_path_factory, seed):
    """The steps of AMASS's own readers: betas, the first 22 joints' rotations and trans go through
    the body model, z up."""
    body, rng = load_body(None), np.random.default_rng(seed)
    value = bodies([1], seed)
    value.betas[:] = rng.normal(size=10)
    value.global_orient[:] = rng.normal(size=3) * 2
    value.body_pose[:, 63:] = 0
    arguments = (value.betas, value.global_orient, value.body_pose, value.transl_m)
    value.joints_m[:] = body(*map(torch.from_numpy, arguments)).joints_m.numpy()
    folder = tmp_path_factory.mktemp("amass")
    write_one(AmassOutput(folder), value)
    with np.load(folder / "track_0001.npz") as saved:
        betas, poses, trans = (
            torch.from_numpy(np.atleast_2d(saved[name]).astype(np.float32))
            for name in ("betas", "poses", "trans")
        )
    hands = torch.zeros(1, 6)
    read = body(betas, poses[:, :3], torch.cat((poses[:, 3:66], hands), 1), trans)
    world_m = value.joints_m @ camera_to_world("z").T
    np.testing.assert_allclose(read.joints_m.numpy(), world_m, atol=1e-5)


def write_one(output: AmassOutput, value: Bodies) -> None:
    output.open(run_info())
    output.write(frame(0), value, None)
    output.close()


def joints(pose: np.ndarray, rest: torch.Tensor) -> np.ndarray:
    rotations = exp_so3(torch.tensor(pose, dtype=torch.float32).view(1, 24, 3))
    return place_joints(rotations, rest)[1].numpy()
