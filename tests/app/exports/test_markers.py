"""TRC and C3D hold every marker of every frame, and gaps as gaps."""

from __future__ import annotations

from pathlib import Path

import ezc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exports import c3d, trc
from app.exports.markers import MARKERS
from app.exports.recording import ExportError, Track, make_recording
from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES
from pipeline.core.world import camera_to_world
from tests.support.recordings import FPS, poses_arrays

FRAMES = st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True)


def wanted_mm(track: Track, up) -> dict[str, np.ndarray]:
    """Each marker's places (N, 3) by its name."""
    turn = 1000 * camera_to_world(up)
    named = {name: track.landmarks_m[:, k] @ turn.T for k, name in enumerate(LANDMARK_NAMES)}
    joints = {f"smpl_{name}": track.joints_m[:, k] @ turn.T for k, name in enumerate(JOINT_NAMES)}
    return named | joints


def read_trc(path: Path) -> tuple[dict[str, str], np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A TRC's header, frame numbers, times and markers, as its readers take them apart."""
    lines = path.read_text().split("\n")
    assert lines[0].split("\t")[:3] == ["PathFileType", "4", "(X/Y/Z)"]
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t")))
    names = lines[3].split("\t")[2::3]
    axes = lines[4].split("\t")[2:]
    assert axes == [f"{axis}{k + 1}" for k in range(len(names)) for axis in "XYZ"]
    assert lines[5] == ""
    assert lines[-1] == ""
    table = np.array([[float(cell) for cell in line.split("\t")] for line in lines[6:-1]])
    markers = table[:, 2:].reshape(len(table), len(names), 3)
    return header, table[:, 0], table[:, 1], dict(zip(names, markers.swapaxes(0, 1)))


@settings(deadline=None, max_examples=30)
@given(FRAMES, st.integers(0, 10_000))
def test_trc(tmp_path_factory, frames, seed):
    recording = make_recording(poses_arrays({1: frames}, seed=seed))
    (track,) = recording.tracks
    path = tmp_path_factory.mktemp("trc") / "x.trc"
    trc.write(recording, track, path)
    header, numbers, times_s, markers = read_trc(path)
    count = int(np.ptp(track.frame)) + 1
    assert (header["Units"], float(header["DataRate"])) == ("mm", FPS)
    assert (int(header["NumFrames"]), int(header["NumMarkers"])) == (count, len(MARKERS))
    np.testing.assert_array_equal(numbers, np.arange(count) + track.frame[0])
    np.testing.assert_allclose(times_s, numbers / FPS, atol=1e-6)
    assert tuple(markers) == MARKERS
    rows = track.frame - track.frame[0]
    missing = np.setdiff1d(np.arange(count), rows)
    for name, places in wanted_mm(track, "y").items():
        np.testing.assert_allclose(markers[name][rows], places, atol=6e-4)
        assert np.isnan(markers[name][missing]).all()


@settings(deadline=None, max_examples=15)
@given(FRAMES, st.integers(0, 10_000))
def test_c3d(tmp_path_factory, frames, seed):
    recording = make_recording(poses_arrays({1: frames}, seed=seed))
    (track,) = recording.tracks
    path = tmp_path_factory.mktemp("c3d") / "x.c3d"
    c3d.write(recording, track, path)
    read = ezc3d.c3d(str(path))
    group = read["parameters"]["POINT"]
    point = {name: about["value"] for name, about in group.items() if "value" in about}
    assert (list(point["UNITS"]), point["RATE"][0]) == (["mm"], FPS)
    assert (list(point["X_SCREEN"]), list(point["Y_SCREEN"])) == (["+X"], ["+Z"])
    assert tuple(point["LABELS"]) == MARKERS
    own = read["parameters"]["BODYSTREAM"]
    assert own["FIRST_FRAME"]["value"] == [track.frame[0]]
    assert own["FIRST_TIME_S"]["value"][0] == pytest.approx(track.pts_s[0], abs=1e-5)
    rows = track.frame - track.frame[0]
    missing = np.setdiff1d(np.arange(rows[-1] + 1), rows)
    points = read["data"]["points"]
    assert points.shape == (4, len(MARKERS), rows[-1] + 1)
    for index, places in enumerate(wanted_mm(track, "z").values()):
        np.testing.assert_allclose(points[:3, index, rows].T, places, rtol=1e-6, atol=1e-3)
    assert np.isnan(points[:3, :, missing]).all()
    residuals = read["data"]["meta_points"]["residuals"][0]
    assert (residuals[:, rows] == 0).all()
    assert (residuals[:, missing] == -1).all()
    assert [each.name for each in path.parent.iterdir()] == ["x.c3d"]


def test_a_track_that_c3d_cannot_count_is_refused(tmp_path):
    recording = make_recording(poses_arrays({3: [0, 65535]}))
    with pytest.raises(ExportError, match="at most 65535 frames, and track 3 has 65536; TRC has"):
        c3d.write(recording, recording.tracks[0], tmp_path / "x.c3d")
    assert list(tmp_path.iterdir()) == []


def test_people_of_one_recording_share_its_time(tmp_path):
    recording = make_recording(poses_arrays({1: [3, 4, 5], 2: [10, 11]}))
    for track, first in zip(recording.tracks, (3, 10)):
        trc.write(recording, track, tmp_path / "x.trc")
        _, numbers, times_s, _ = read_trc(tmp_path / "x.trc")
        assert numbers[0] == first
        assert times_s[0] == pytest.approx(first / FPS)
