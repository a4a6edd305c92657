"""The 3D view's files and messages hold what the outputs hold."""

from __future__ import annotations

import json
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exports.recording import make_recording
from app.view.container import pack
from app.view.frames import ROW, frame_message, recording_file, scene
from tests.support.bodies import bodies, frame
from tests.support.recordings import poses_arrays
from tests.support.view import unpacked

TRACKS = st.dictionaries(
    st.integers(1, 50), st.lists(st.integers(0, 9), min_size=1, unique=True), min_size=1, max_size=4
)


KINDS = st.sampled_from(["float32", "float64", "int16", "int32", "uint8", "uint16"])


@given(st.lists(st.tuples(KINDS, st.integers(0, 9)), max_size=6), st.text(max_size=9))
def test_a_file_gives_its_arrays_back_where_a_browser_may_read_them(kinds, text):
    arrays = {f"a{i}": np.arange(count).astype(kind) for i, (kind, count) in enumerate(kinds)}
    data = pack({"text": text}, arrays)
    found = unpacked(data)
    assert found.pop("text") == text
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    (length,) = struct.unpack_from("<I", data)
    places = json.loads(data[4 : 4 + length])["arrays"].values()
    # A typed array begins at a multiple of its numbers' size.
    assert all(about["at"] % np.dtype(about["type"]).itemsize == 0 for about in places)


@settings(max_examples=20, deadline=None)
@given(TRACKS)
def test_a_recording_has_each_row_in_its_frame(frames):
    arrays = poses_arrays(frames)
    found = unpacked(recording_file(make_recording(arrays)))
    rows = found["rows"].reshape(-1, ROW)
    assert found["row"][-1] == len(rows) == sum(map(len, frames.values()))
    for index, number in enumerate(found["frame"]):
        for row in range(found["row"][index], found["row"][index + 1]):
            own = (arrays["frame"] == number) & (arrays["track"] == found["track"][row])
            assert own.sum() == 1
            names = ("global_orient", "body_pose", "betas", "joints_m")
            wanted = np.concatenate([arrays[name][own].ravel() for name in names])
            np.testing.assert_array_equal(rows[row], wanted)
            assert found["pts_s"][index] == arrays["pts_s"][own][0]
    assert sorted(set(arrays["frame"].tolist())) == found["frame"].tolist()


def test_a_message_has_a_frame_in_less_than_a_kilobyte_a_person():
    people = bodies([3, 7])
    data = frame_message(frame(5, 0.25), people)
    assert struct.unpack_from("<dII", data) == (0.25, 5, 2)
    np.testing.assert_array_equal(np.frombuffer(data, "<i4", 2, 16), [3, 7])
    rows = np.frombuffer(data, "<f4", 2 * ROW, 24).reshape(2, ROW)
    np.testing.assert_array_equal(rows[:, 3:72], people.body_pose)
    np.testing.assert_array_equal(rows[:, 82:], people.joints_m.reshape(2, 72))
    assert len(data) < 2 * 1000


def test_only_the_free_body_has_a_mesh_and_y_is_up():
    assert scene("free", np.eye(3), (48, 64))["mesh"]
    assert not scene("SMPL", np.eye(3), (48, 64))["mesh"]
    world = np.array(scene("free", np.eye(3), (48, 64))["camera_to_world"])
    np.testing.assert_array_equal(world @ [0, -1, 0], [0, 1, 0])
