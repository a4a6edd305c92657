"""The multi-view reference: a skeleton before four made-up cameras is found where it was."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.references.multiview import (
    BONE_LENGTH,
    BONES,
    LIMBS,
    MIRROR,
    Camera,
    PerceivedClip,
    Reconstruction,
    read_calibration,
    reconstruct,
    truth_rows,
)
from pipeline.core.camera import project
from pipeline.core.skeleton import LANDMARK_NAMES

FRAMES = 40
OFFSETS = np.array([0.0, 2.4, -3.0, 0.5])
PROGRAM = ("-m", "benchmarks.references.multiview")

# x to the person's left, y forward, z up; metres; the person stands at the origin.
LEFT_SIDE = {
    "nose": (0, 0.12, 1.6), "left_eye_inner": (0.02, 0.1, 1.64), "left_eye": (0.03, 0.1, 1.64),
    "left_eye_outer": (0.045, 0.09, 1.64), "left_ear": (0.075, 0, 1.62),
    "mouth_left": (0.025, 0.1, 1.56), "left_shoulder": (0.18, 0, 1.42),
    "left_elbow": (0.22, -0.02, 1.14), "left_wrist": (0.25, 0.05, 0.9),
    "left_pinky": (0.27, 0.05, 0.82), "left_index": (0.27, 0.1, 0.82),
    "left_thumb": (0.24, 0.1, 0.86), "left_hip": (0.1, 0, 0.92), "left_knee": (0.1, 0.02, 0.5),
    "left_ankle": (0.1, -0.02, 0.1), "left_heel": (0.1, -0.07, 0.05),
    "left_foot_index": (0.12, 0.14, 0.04),
}  # fmt: skip


def rest_pose() -> np.ndarray:
    points = np.zeros((33, 3))
    for name, place in LEFT_SIDE.items():
        k = LANDMARK_NAMES.index(name)
        points[k] = place
        if MIRROR[k] != k:
            points[MIRROR[k]] = np.array(place) * [-1, 1, 1]
    return points


def about_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def pose(time: float, which: int) -> np.ndarray:
    """A walk on the spot with swinging arms; every bone keeps its length. ``time`` in frames."""
    points = rest_pose()
    phase = 2 * np.pi * (time / 45 + 0.3 * which)
    for side, sign in ((0, 1), (1, -1)):
        swings = (
            (11 + side, [13, 15, 17, 19, 21], 1.0 * sign * np.sin(phase) - 0.6),
            (13 + side, [15, 17, 19, 21], -0.5 - 0.4 * np.cos(phase)),
            (23 + side, [25, 27, 29, 31], -0.6 * sign * np.sin(phase)),
            (25 + side, [27, 29, 31], 0.5 + 0.4 * np.sin(phase)),
        )
        for pivot, below, angle in swings:
            moved = [k + side for k in below]
            points[moved] = points[pivot] + (points[moved] - points[pivot]) @ about_x(angle).T
    turn = 0.6 * np.sin(phase / 2) + 2.0 * which
    c, s = np.cos(turn), np.sin(turn)
    points = points * (1.0 - 0.1 * which) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    return points + [0.9 * which - 0.4, 0.1 * np.sin(phase), 0.02 * np.cos(2 * phase)]


def around(angle_deg: float) -> Camera:
    """A camera at 4.5 m and eye height that looks at the middle of the room."""
    angle = np.radians(angle_deg)
    place = np.array([4.5 * np.cos(angle), 4.5 * np.sin(angle), 1.8])
    forward = np.array([0, 0, 0.9]) - place
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    rotation = np.stack((right, np.cross(forward, right), forward))
    intrinsics = np.array([[1600.0, 0, 640], [0, 1600.0, 700], [0, 0, 1]])
    return Camera(intrinsics, np.zeros(4), rotation, -rotation @ place)


CAMERAS = [around(angle) for angle in (10, 100, 200, 290)]


def truth(camera: int, frame: int, person: int) -> np.ndarray:
    world = pose(frame + OFFSETS[camera], person)
    return world @ CAMERAS[camera].rotation.T + CAMERAS[camera].translation_m


def watched(random: np.random.Generator) -> list[PerceivedClip]:
    """Both people in every view: noise, one landmark in twelve far off, sides exchanged for a
    while in one view, tracks that break, and a person lost in one view for half the clip."""
    views = []
    for c in range(len(CAMERAS)):
        rows = []
        for frame in range(FRAMES):
            for person in range(2):
                if c == 2 and person == 1 and frame > FRAMES // 2:
                    continue
                pixels = project(truth(c, frame, person), CAMERAS[c].intrinsics)
                pixels += random.normal(0, 4, pixels.shape)
                far = random.random(33) < 1 / 12
                pixels[far] += random.normal(0, 120, (far.sum(), 2))
                if c == 1 and 10 <= frame < 18:
                    pixels = pixels[MIRROR]
                # The numbers of tracks say nothing about who it is in another view.
                track = 1 + (person + c) % 2 + (10 if c == 3 and frame > 25 else 0)
                rows.append((frame, track, pixels, np.full(33, 0.9)))
        views.append(PerceivedClip(*(np.array(column) for column in zip(*rows))))
    return views


@pytest.fixture(scope="module")
def found() -> tuple[Reconstruction, list[PerceivedClip]]:
    seen = watched(np.random.default_rng(5))
    return reconstruct(CAMERAS, seen, people=2), seen


def errors_m(found: Reconstruction, camera: int, person: int) -> np.ndarray:
    """Return the distances (F, 33) from the truth of the nearest person."""
    rows = found.landmarks_m[camera, person]
    wanted = [[truth(camera, f, who) for f in range(FRAMES)] for who in range(2)]
    apart = [np.linalg.norm(rows - np.array(w), axis=-1) for w in wanted]
    return min(apart, key=np.median)


@pytest.mark.slow
@pytest.mark.parametrize("camera", range(4))
@pytest.mark.parametrize("person", range(2))
def test_people_are_found_where_they_were(found, camera, person):
    errors = errors_m(found[0], camera, person)
    good = found[0].good[camera, person]
    assert good[:, LIMBS].mean() > 0.6
    assert errors[:, LIMBS][good[:, LIMBS]].mean() < 0.015
    assert np.percentile(errors[good], 99) < 0.05


@pytest.mark.slow
def test_clocks_and_exchanged_sides_are_found(found):
    np.testing.assert_allclose(found[0].offset_frames, OFFSETS, atol=0.15)
    swapped = found[0].swapped[..., 1:]
    assert swapped[1, :, 11:17].all()
    assert not swapped[[0, 2, 3]].any()
    assert not swapped[1, :, 22:].any()


@pytest.mark.slow
def test_bones_keep_their_length(found):
    points = found[0].landmarks_m[0]
    limbs = np.array(
        [(11, 13), (13, 15), (12, 14), (14, 16), (23, 25), (25, 27), (24, 26), (26, 28)]
    )
    lengths = np.linalg.norm(points[:, :, limbs[:, 0]] - points[:, :, limbs[:, 1]], axis=-1)
    assert lengths.std(axis=1).max() < 0.005


@pytest.mark.slow
def test_truth_rows_are_what_the_page_says(found):
    rows = truth_rows(found[0], 1, found[1][1])
    count = len(rows["frame"])
    assert count == 2 * FRAMES
    for name, shape in (
        ("landmarks_m", (33, 3)),
        ("landmarks_px", (33, 2)),
        ("residual_px", (33,)),
    ):
        assert rows[name].shape == (count, *shape)
    assert rows["landmarks_good"].dtype == bool
    again = project(rows["landmarks_m"], rows["intrinsics"])
    np.testing.assert_allclose(again, rows["landmarks_px"], atol=0.01)


def test_every_bone_shares_its_length_with_its_mirror_image():
    of = {tuple(sorted(ends)): length for ends, length in zip(BONES.tolist(), BONE_LENGTH)}
    assert len(of) == len(BONES)
    for (a, b), length in of.items():
        assert of[tuple(sorted((MIRROR[a], MIRROR[b])))] == length


def test_calibration_of_the_lab_is_read(clips):
    cameras = read_calibration(clips / "lab_calibration.qca.xml")
    assert len(cameras) == 4
    for camera in cameras:
        assert np.linalg.det(camera.rotation) == pytest.approx(1)
        assert camera.intrinsics[0, 0] == pytest.approx(1680, rel=0.01)
        # The room's middle lies before every camera, below it (y down) or at its height.
        assert (camera.rotation @ [0, 0, 1.0] + camera.translation_m)[2] > 1
        assert (-camera.rotation.T @ camera.translation_m)[2] == pytest.approx(1.9, abs=0.3)


BAD = {
    "no xml": "hello",
    "other xml": "<calibration><cameras/></calibration>",
    "no lens": '<c><camera><transform x="0"/></camera></c>',
    "no rotation": "<c><camera><transform "
    + " ".join(f'r{a}{b}="1"' for a in "123" for b in "123")
    + ' x="0" y="0" z="0"/><intrinsic focalLengthU="1" focalLengthV="1" centerPointU="0"'
    ' centerPointV="0" radialDistortion1="0" radialDistortion2="0" tangentalDistortion1="0"'
    ' tangentalDistortion2="0"/></camera></c>',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_calibration_is_one_clear_error(tmp_path, text):
    path = tmp_path / "bad.qca.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match="bad.qca.xml") as error:
        read_calibration(path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_program_ends_in_one_line(tmp_path):
    path = tmp_path / "bad.qca.xml"
    path.write_text("hello")
    arguments = ["a.mp4", "b.mp4", "--calibration", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, *PROGRAM, *arguments], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not a Qualisys calibration" in done.stderr
    assert not (tmp_path / "out").exists()
