"""A recording is read back as it was written, and what is none is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exports.recording import ExportError, even_steps, make_recording, read_recording
from app.outputs.poses import PosesOutput
from pipeline.core.skeleton import PARENTS
from tests.support.bodies import bodies, frame, run_info
from tests.support.recordings import FPS, REST_M, poses_arrays, save_poses

TRACKS = st.dictionaries(
    st.integers(1, 50),
    st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=30)
@given(TRACKS, st.integers(0, 99))
def test_every_row_is_in_its_track_and_bones_are_the_persons(tracks, seed):
    arrays = poses_arrays(tracks, seed=seed)
    recording = make_recording(arrays)
    assert [track.id for track in recording.tracks] == sorted(tracks)
    for track in recording.tracks:
        assert track.frame.tolist() == sorted(tracks[track.id])
        rows = arrays["track"] == track.id
        np.testing.assert_array_equal(track.joints_m, arrays["joints_m"][rows])
        np.testing.assert_array_equal(track.pelvis_m, track.joints_m[:, 0])
        np.testing.assert_array_equal(track.betas, arrays["betas"][rows][-1])
        offsets = REST_M[1:] - REST_M[list(PARENTS[1:])]
        np.testing.assert_allclose(track.rest_offsets_m[1:], offsets, atol=2e-6)


def test_rows_in_any_order_are_a_recording(tmp_path):
    arrays = poses_arrays({1: [0, 1, 2], 4: [1, 2]})
    mixed = {k: v[[3, 1, 4, 0, 2]] if v.ndim and len(v) == 5 else v for k, v in arrays.items()}
    one, other = (make_recording(each) for each in (arrays, mixed))
    for a, b in zip(one.tracks, other.tracks):
        np.testing.assert_array_equal(a.frame, b.frame)
        np.testing.assert_array_equal(a.joints_m, b.joints_m)


def test_the_last_shape_is_the_tracks():
    """While the fit learns a person the shape changes; the rows before do not count."""
    arrays = poses_arrays({1: range(6)})
    arrays["betas"][:4] += 1
    arrays["joints_m"][:4] = 0
    (track,) = make_recording(arrays).tracks
    offsets = REST_M[1:] - REST_M[list(PARENTS[1:])]
    np.testing.assert_allclose(track.rest_offsets_m[1:], offsets, atol=2e-6)


def test_what_poses_writes_is_read(tmp_path):
    for vertices in (False, True):
        path = tmp_path / f"{vertices}.npz"
        output = PosesOutput(path, vertices=vertices)
        output.open(run_info())
        for number, tracks in enumerate([[1], [1, 7], [], [7]]):
            output.write(frame(number), bodies(tracks, number), None)
        output.close()
        recording = read_recording(path)
        assert (recording.fps, recording.model, recording.size) == (25.0, "free", (48, 64))
        assert [track.frame.tolist() for track in recording.tracks] == [[0, 1], [1, 3]]
        assert recording.frames == range(4)


@pytest.mark.parametrize(
    ("nominal", "real", "wanted"),
    [(25.0, 25.0, 25.0), (None, 25.0, 25.0), (30.0, 29.9, 30.0), (30.0, 15.0, 15.0)],
)
def test_the_rate_is_the_sources_unless_its_times_say_another(nominal, real, wanted):
    # Two people in the same frames, one of them with gaps.
    arrays = poses_arrays({1: range(9), 2: [0, 4, 8, 30]}, fps=nominal)
    arrays["pts_s"] = 100 + arrays["frame"] / real
    assert make_recording(arrays).fps == pytest.approx(wanted)


@pytest.fixture(scope="module")
def long_arrays():
    """Long, so that a rate that is a little off drifts far; made once, as that takes a second."""
    return poses_arrays({1: range(1500)})


@given(
    st.sampled_from([15.0, 24.0, 25.0, 30.0, 50.0, 60.0]),
    st.floats(5, 120),
    st.floats(0, 0.2),
    st.integers(0, 99),
)
def test_an_even_source_keeps_its_times_whatever_it_says(long_arrays, nominal, real, jitter, seed):
    arrays = {**long_arrays, "fps": np.float64(nominal)}
    shaken = arrays["frame"] + np.random.default_rng(seed).uniform(-jitter, jitter, 1500)
    arrays["pts_s"] = shaken / real
    recording = make_recording(arrays)
    (track,) = recording.tracks
    off = np.abs(recording.time_s(track.step) - track.pts_s).max() * recording.fps
    assert off <= 1.5
    assert len(track.steps) <= 1.03 * len(track.step)


@pytest.mark.parametrize(("nominal", "wanted"), [(50.0, 50.0), (None, 30.0)])
def test_frames_that_say_no_rate_have_the_nominal_one(nominal, wanted):
    assert make_recording(poses_arrays({1: [7]}, fps=nominal)).fps == wanted
    arrays = poses_arrays({1: [7, 8, 9]}, fps=nominal)
    arrays["pts_s"][:] = 3
    recording = make_recording(arrays)
    assert (recording.fps, recording.tracks[0].step.tolist()) == (wanted, [0, 1, 2])


@settings(deadline=None)
@given(
    st.lists(st.floats(0.002, 0.9), min_size=1, max_size=30),
    st.floats(5, 120),
)
def test_even_time_keeps_the_order_and_the_times(intervals, fps):
    times = np.cumsum(intervals)
    steps = even_steps(times, fps)
    assert steps[0] == 0
    assert (np.diff(steps) > 0).all()
    # Where no two rows want one step, each is at the nearest.
    if (np.diff(times) * fps > 1).all():
        assert np.abs(times - times[0] - steps / fps).max() <= 0.5 / fps + 1e-9


def test_frames_at_an_even_rate_are_the_steps():
    recording = make_recording(poses_arrays({1: [3, 4, 9], 2: [4, 5]}))
    assert [track.step.tolist() for track in recording.tracks] == [[0, 1, 6], [1, 2]]
    assert [track.steps for track in recording.tracks] == [range(7), range(1, 3)]
    np.testing.assert_allclose(recording.time_s(np.array([0, 6])), [3 / FPS, 9 / FPS])


def spoiled(name: str, value: object) -> dict:
    return {**poses_arrays({1: [0, 1]}), name: value}


def without(name: str) -> dict:
    return {key: value for key, value in poses_arrays({1: [0, 1]}).items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"poses": np.zeros((3, 156)), "trans": np.zeros((3, 3))}, "it has no frame"),
        ({}, "it has no frame"),
        (without("joints_m"), "it has no joints_m"),
        (without("intrinsics"), "it has no intrinsics"),
        (spoiled("joints_m", np.zeros((2, 17, 3), np.float32)), "joints_m is float32"),
        (spoiled("frame", np.array([1.5, 2.5])), "frame is float64"),
        (spoiled("track", np.int64(1)), "frame is int64"),
        (spoiled("body_pose", np.full((2, 69), np.nan, np.float32)), "not finite"),
        (spoiled("frame", np.array([3, 3])), "two rows of one frame"),
        (spoiled("image_size", np.array([1, 2, 3])), r"image_size has the shape \(3,\)"),
        (spoiled("image_size", np.array([0, 640])), "image_size is no height and width"),
        (spoiled("intrinsics", np.full((3, 3), np.nan)), "intrinsics has no positive focal"),
        (spoiled("intrinsics", np.zeros((3, 3))), "intrinsics has no positive focal"),
        (spoiled("fps", np.float64(np.inf)), "fps is inf"),
        (spoiled("fps", np.float64(0)), "fps is 0"),
        (spoiled("model", np.int64(3)), "model is no text"),
        (spoiled("pts_s", np.array([1.0, 0.5])), "pts_s falls from a frame to a later one"),
        (spoiled("pts_s", np.array([0.0, 1e300])), "pts_s spans more than a week"),
    ],
)
def test_a_foreign_npz_is_refused_in_one_line(arrays, why, tmp_path):
    path = save_poses(tmp_path / "x.npz", arrays)
    with pytest.raises(ExportError, match=f"x.npz is no recording of --poses: .*{why}") as raised:
        read_recording(path)
    assert "\n" not in str(raised.value)


def test_no_people_and_no_file_have_their_own_lines(tmp_path):
    path = save_poses(tmp_path / "none.npz", poses_arrays({}))
    with pytest.raises(ExportError, match="none.npz: it has no people$"):
        read_recording(path)
    with pytest.raises(FileNotFoundError):
        read_recording(tmp_path / "missing.npz")


def test_every_truncation_is_refused_in_one_line(tmp_path):
    whole = save_poses(tmp_path / "x.npz", poses_arrays({1: [0, 1]})).read_bytes()
    path = tmp_path / "cut.npz"
    for end in range(0, len(whole) - 1, len(whole) // 40):
        path.write_bytes(whole[:end])
        with pytest.raises(ExportError, match="cut.npz is no recording of --poses: ") as raised:
            read_recording(path)
        assert "\n" not in str(raised.value)
