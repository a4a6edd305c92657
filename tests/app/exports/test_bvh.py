"""BVH: a reader of its own rebuilds the person's joints from the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from app.exports import bvh
from app.exports.recording import Recording, Track, make_recording
from pipeline.core.skeleton import JOINT_NAMES, PARENTS
from pipeline.core.world import camera_to_world
from tests.support.bvh import Motion, read_bvh
from tests.support.recordings import FPS, REST_M, pose_joints_m, poses_arrays


def written(recording: Recording, track: Track, folder: Path) -> Motion:
    path = folder / "x.bvh"
    bvh.write(recording, track, path)
    return read_bvh(path)


FRAMES = st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True)


@settings(deadline=None, max_examples=40)
@given(FRAMES, st.integers(0, 10_000))
def test_every_joint_is_where_the_recording_has_it(tmp_path_factory, frames, seed):
    recording = make_recording(poses_arrays({1: frames}, seed=seed))
    (track,) = recording.tracks
    motion = written(recording, track, tmp_path_factory.mktemp("bvh"))
    places = motion.places()
    rows = track.frame - track.frame[0]
    assert len(motion.rows) == rows[-1] + 1
    assert motion.frame_time_s == pytest.approx(1 / FPS)
    for joint, name in enumerate(JOINT_NAMES):
        wanted = track.joints_m[:, joint] @ camera_to_world("y").T
        np.testing.assert_allclose(places[name][rows], wanted, atol=2e-5)


def test_the_hierarchy_is_smpls_and_its_offsets_are_the_persons(tmp_path):
    recording = make_recording(poses_arrays({1: [0, 1]}))
    motion = written(recording, recording.tracks[0], tmp_path)
    ends = [node for node in motion.nodes if node.name.endswith("end")]
    joints = [node for node in motion.nodes if node not in ends]
    parents = {node.name: motion.nodes[node.parent].name for node in joints if node.parent >= 0}
    named = {JOINT_NAMES[j]: JOINT_NAMES[PARENTS[j]] for j in range(1, 24)}
    assert parents == named
    assert [len(node.channels) for node in joints] == [6] + [3] * 23
    for node in joints[1:]:
        joint = JOINT_NAMES.index(node.name)
        bone = REST_M[joint] - REST_M[PARENTS[joint]]
        np.testing.assert_allclose(node.offset, bone, atol=5e-6)
    # Every bone that no joint ends has an end of some length, which Blender needs.
    assert len(ends) == 5
    assert all(np.linalg.norm(node.offset) > 0.01 for node in ends)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 12), st.integers(0, 10_000))
def test_a_gap_is_crossed_evenly(tmp_path_factory, gap, seed):
    recording = make_recording(poses_arrays({1: [5, 5 + gap]}, seed=seed))
    places = written(recording, recording.tracks[0], tmp_path_factory.mktemp("bvh")).places()
    pelvis = places["pelvis"]
    np.testing.assert_allclose(pelvis, np.linspace(pelvis[0], pelvis[-1], gap + 1), atol=2e-6)
    # The bones stay as long as they are: rotations are interpolated, not places.
    for joint in range(1, 24):
        bone = places[JOINT_NAMES[joint]] - places[JOINT_NAMES[PARENTS[joint]]]
        lengths = np.linalg.norm(bone, axis=1)
        np.testing.assert_allclose(lengths, lengths[0], atol=1e-5)


def test_a_turning_person_has_no_jump_in_any_angle(tmp_path):
    frames = np.arange(120)
    arrays = poses_arrays({1: frames.tolist()})
    # Two turns about the vertical, leaning, so that no angle stays zero.
    lean = Rotation.from_euler("X", 170, degrees=True)
    turns = Rotation.from_euler("Y", 6.0 * frames[:, None], degrees=True) * lean
    arrays["global_orient"] = turns.as_rotvec().astype(np.float32)
    recording = make_recording(arrays)
    root = written(recording, recording.tracks[0], tmp_path).rows[:, 3:6]
    assert np.abs(np.diff(root, axis=0)).max() < 30
    assert np.ptp(root, axis=0).max() > 700


def test_rows_that_come_unevenly_keep_their_time(tmp_path):
    """A webcam in the dark: 15 to 30 frames a second."""
    arrays = poses_arrays({1: range(20)}, fps=None)
    arrays["pts_s"] = np.cumsum(np.tile([1, 1, 2, 1], 5)) / 30 + 100
    recording = make_recording(arrays)
    (track,) = recording.tracks
    motion = written(recording, track, tmp_path)
    assert motion.frame_time_s == pytest.approx(1 / 30)
    seconds = (len(motion.rows) - 1) * motion.frame_time_s
    assert seconds == pytest.approx(track.pts_s[-1] - track.pts_s[0])


def test_a_pose_where_two_axes_coincide_is_right_too(tmp_path):
    pose = np.zeros((24, 3))
    pose[:, 0] = np.pi / 2
    arrays = poses_arrays({1: [0]}, pose=pose)
    recording = make_recording(arrays)
    places = written(recording, recording.tracks[0], tmp_path).places()
    joints = pose_joints_m(pose[None], REST_M, recording.tracks[0].pelvis_m)[0]
    found = np.array([places[name][0] for name in JOINT_NAMES])
    np.testing.assert_allclose(found, joints @ camera_to_world("y").T, atol=2e-5)
