"""Blender reads the exports, and the samples that use it work."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from app.exports import bvh, gltf
from app.exports.recording import read_recording
from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics
from render.overlay import NumbaRenderer
from tests.support.blender import run_in_blender
from tests.support.paths import SAMPLES
from tests.support.recordings import FPS, facing_camera, poses_arrays, save_poses

pytestmark = [pytest.mark.blender, pytest.mark.slow]
READER = Path(__file__).with_name("blender.py")
TRACKS = {1: range(12), 2: [3, 4, 8, 9]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A recording of two people in random poses, of which one comes and goes, and its exports."""
    folder = tmp_path_factory.mktemp("blender")
    recording = read_recording(save_poses(folder / "poses.npz", poses_arrays(TRACKS)))
    gltf.write(recording, folder / "people.glb")
    for track in recording.tracks:
        bvh.write(recording, track, folder / f"track_{track.id}.bvh")
    return folder


def compare(folder: Path, *files: str) -> list[dict]:
    """What Blender has of each person of each file, against the recording."""
    printed = run_in_blender(READER, folder / "poses.npz", *(folder / name for name in files))
    found = [json.loads(line) for line in printed.splitlines() if line.startswith('{"file"')]
    tracks = [each["track"] for each in found]
    assert [each["frames"] for each in found] == [len(TRACKS[track]) for track in tracks]
    return found


def test_a_glb_is_within_a_millimetre(folder):
    people = compare(folder, "people.glb")
    assert [each["track"] for each in people] == [1, 2]
    assert max(each["worst_mm"] for each in people) < 1


def test_a_bvh_is_within_a_hundredth_of_each_bone(folder):
    people = compare(folder, "track_1.bvh", "track_2.bvh")
    assert [each["track"] for each in people] == [1, 2]
    assert max(each["worst_percent_of_bone"] for each in people) < 1


def test_another_recording_is_far_from_a_file(folder, tmp_path):
    """The comparison can fail."""
    save_poses(tmp_path / "poses.npz", poses_arrays(TRACKS, seed=1))
    (tmp_path / "people.glb").write_bytes((folder / "people.glb").read_bytes())
    assert min(each["worst_mm"] for each in compare(tmp_path, "people.glb")) > 100


@pytest.mark.parametrize(
    ("source", "target", "count"),
    [("people.glb", "a.fbx", 2), ("track_1.bvh", "track_1.fbx", 1), ("people.glb", "b.usdc", 2)],
)
def test_fbx_and_usd_are_what_they_were_made_of(folder, source, target, count):
    run_in_blender(SAMPLES / "export" / "convert.py", folder / source, folder / target)
    people = compare(folder, target)
    assert [each["track"] for each in people] == [1, 2][:count]
    assert max(each["worst_mm"] for each in people) < 1


def test_blender_renders_people_where_the_overlay_draws_them(tmp_path):
    """Through the file's camera: the same outline, and only who is there."""
    arrays = poses_arrays({1: [0, 1], 2: [1]})
    arrays["intrinsics"] = default_intrinsics(192, 256, focal_px=320.0)
    arrays["image_size"] = np.array([192, 256])
    arrays["global_orient"][:] = facing_camera()
    arrays["transl_m"][:] = [[-0.4, 0, 4], [-0.4, 0, 4], [0.8, 0.1, 5]]
    names = ("betas", "global_orient", "body_pose", "transl_m")
    body = load_body(None)
    posed = body.forward(*(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in names))
    arrays["joints_m"] = posed.joints_m.numpy()
    recording = read_recording(save_poses(tmp_path / "poses.npz", arrays))
    gltf.write(recording, tmp_path / "people.glb")
    black = np.zeros((192, 256, 3), np.uint8)
    renderer = NumbaRenderer(flat=True)
    for frame, rows in ((0, [0]), (1, [1, 2])):
        picture = tmp_path / f"{frame}.png"
        run_in_blender(
            SAMPLES / "export" / "render.py", tmp_path / "people.glb", str(frame / FPS), "256x192",
            picture,
        )  # fmt: skip
        got = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)[..., 3] > 127
        meshes, colors = posed.shown_m.numpy()[rows], np.ones((len(rows), 3))
        drawn = renderer.draw(black, meshes, body.faces, colors, recording.intrinsics, 1.0)
        wanted = drawn[..., 0] > 127
        assert wanted.sum() > 500 * len(rows)
        assert (got & wanted).sum() / (got | wanted).sum() > 0.95
