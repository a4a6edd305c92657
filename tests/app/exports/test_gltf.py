"""A GLB read back, posed and skinned by another reader is the people of the recording."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exports.gltf import mesh_warning, presence, rising_times, rotations, shape_changes, write
from app.exports.recording import Recording, make_recording
from pipeline.body.load import load_body
from pipeline.core.camera import project
from pipeline.core.skeleton import JOINT_NAMES, PARENTS
from pipeline.core.world import camera_to_world, world_from_up
from pipeline.world.ground import up_of
from tests.support.gltf import Glb, validate
from tests.support.recordings import FPS, REST_M, poses_arrays

WORLD = camera_to_world("y")
TRACKS = st.dictionaries(
    st.integers(1, 50),
    st.lists(st.integers(0, 25), min_size=1, max_size=6, unique=True),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def body():
    return load_body(None)


def recording_of_bodies(body, frames: dict[int, list[int]], betas=None, seed: int = 0):
    """A recording of the free body in random poses, and the vertices (N, V, 3) of its rows."""
    arrays = poses_arrays(frames, seed=seed)
    if betas is not None:
        arrays["betas"] = betas.astype(np.float32)
    names = ("betas", "global_orient", "body_pose", "transl_m")
    posed = body.forward(*(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in names))
    arrays["joints_m"] = posed.joints_m.numpy()
    return make_recording(arrays), posed.shown_m.numpy()


def written(recording: Recording, tmp_path) -> Glb:
    write(recording, tmp_path / "people.glb")
    return Glb(tmp_path / "people.glb")


@settings(deadline=None, max_examples=25)
@given(tracks=TRACKS, model=st.sampled_from(["free", "SMPL"]), seed=st.integers(0, 99))
def test_joints_are_the_recordings_in_every_row(tmp_path_factory, tracks, model, seed):
    arrays = poses_arrays(tracks, seed=seed) | {"model": np.array(model)}
    recording = make_recording(arrays)
    glb = written(recording, tmp_path_factory.mktemp("glb"))
    for track in recording.tracks:
        person = glb.person(track.id)
        assert person.names == list(JOINT_NAMES)
        for pts_s, joints_m in zip(track.pts_s - recording.start_s, track.joints_m):
            assert person.is_there(pts_s)
            np.testing.assert_allclose(person.joints_m(pts_s), joints_m @ WORLD.T, atol=1e-5)


def test_skinned_vertices_are_the_body_models(body, tmp_path):
    recording, vertices_m = recording_of_bodies(body, {1: [0, 1, 5], 4: [1, 2]})
    glb = written(recording, tmp_path)
    rows = sorted((frame, track.id) for track in recording.tracks for frame in track.frame)
    assert len(rows) == len(vertices_m) == 5
    for (frame, track), wanted in zip(rows, vertices_m):
        got = glb.person(track).vertices_m(frame / FPS)
        np.testing.assert_allclose(got, wanted @ WORLD.T, atol=1e-5)


def test_joints_follow_a_shape_that_changes(body, tmp_path):
    """While the fit learns a person. The mesh keeps the last shape, and joints stay exact."""
    betas = np.zeros((6, 10))
    betas[:2, 0], betas[2, 0] = 2, 1
    recording, vertices_m = recording_of_bodies(body, {1: range(6)}, betas)
    person = written(recording, tmp_path).person(1)
    (track,) = recording.tracks
    for pts_s, joints_m in zip(track.pts_s, track.joints_m):
        np.testing.assert_allclose(person.joints_m(pts_s), joints_m @ WORLD.T, atol=1e-4)
    # From the fourth row on the shape is the last one.
    for row in (3, 5):
        got = person.vertices_m(track.pts_s[row])
        np.testing.assert_allclose(got, vertices_m[row] @ WORLD.T, atol=1e-4)
    assert np.abs(person.vertices_m(0.0) - vertices_m[0] @ WORLD.T).max() < 0.1


def test_between_two_rows_a_person_turns_the_short_way(tmp_path):
    arrays = poses_arrays({1: [0, 1]})
    # The same half turn but for 0.2 radians, on two sides of the sign's jump.
    arrays["body_pose"][:, :3] = [[np.pi - 0.1, 0, 0], [-np.pi + 0.1, 0, 0]]
    recording = make_recording(arrays)
    quaternions = rotations(recording.tracks[0], np.arange(2), recording.world)
    assert ((quaternions[:, 1:] * quaternions[:, :-1]).sum(-1) >= 0).all()


@settings(deadline=None, max_examples=100)
@given(
    frames=st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True),
    others=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_people_are_there_in_their_frames_alone(frames, others):
    frame = np.array(sorted(frames))
    first, last = min(frame[0], *others), max(frame[-1], *others)
    times_s = ((frame - first) / FPS).astype(np.float32)
    keys = presence(frame, times_s, last, 1 / FPS)
    if keys is None:
        assert frame.tolist() == list(range(first, last + 1))
        return
    times, there = keys
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    assert (np.diff(there.astype(int)) != 0).all(), "no key is without effect"
    for each in range(first, last + 1):
        # Within the frame, as players show times between keys too.
        for time_s in ((each - first) / FPS + 1e-4, (each - first + 0.9) / FPS):
            shown = there[np.searchsorted(times, time_s, side="right") - 1]
            assert shown == (each in frames), (each, time_s)


@settings(deadline=None)
@given(
    frames=st.lists(st.integers(0, 30), min_size=1, max_size=20, unique=True),
    steps=st.lists(st.floats(1e-3, 1), min_size=31, max_size=31),
    day_s=st.sampled_from([0.0, 86_400.0]),
)
def test_people_come_and_go_at_uneven_times(frames, steps, day_s):
    kept, times_s = rising_times(day_s + np.cumsum(steps)[sorted(frames)])
    frame = np.array(sorted(frames))[kept]
    keys = presence(frame, times_s, int(frame[-1]), 0.1)
    times, there = (np.zeros(1), np.array([True])) if keys is None else keys
    assert (np.diff(times) > 0).all()

    def shown(time_s):
        return there[np.searchsorted(times, time_s, side="right") - 1]

    assert shown(times_s).all()
    back = times_s[1:][(np.diff(frame) > 1) & (np.diff(times_s) > 0.05)]
    assert not shown(np.nextafter(back, np.float32(0))).any()
    assert times_s[0] == 0 or not shown(np.nextafter(times_s[0], np.float32(0)))


@given(
    st.lists(st.floats(1e-6, 1e-2) | st.just(0.0), min_size=1, max_size=50),
    st.sampled_from([0.0, 100.0, 86_400.0, 1e6]),
)
def test_times_rise_in_float32(steps, begin):
    exact = begin + np.cumsum(steps)
    kept, times = rising_times(exact)
    assert times.dtype == np.float32
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose(times, exact[kept], rtol=1e-7)
    # Every row that is left out has its time from another.
    np.testing.assert_array_equal(np.unique(exact.astype(np.float32)), times)


def test_bones_that_stay_need_no_keys():
    bones = (REST_M - REST_M[list(PARENTS)])[1:]
    arrays = poses_arrays({1: range(8)})
    (track,) = make_recording(arrays).tracks
    assert len(shape_changes(track, np.arange(8), bones)[0]) == 0
    # A person who is taller in two frames: these have keys, and the frames beside them.
    tall = track.joints_m.copy()
    tall[3:5] = tall[3:5, :1] + 1.05 * (tall[3:5] - tall[3:5, :1])
    keys, got = shape_changes(replace(track, joints_m=tall), np.arange(8), bones)
    assert keys.tolist() == [2, 3, 4, 5]
    wanted = bones * np.array([1, 1.05, 1.05, 1])[:, None, None]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.gltf_validator
@pytest.mark.parametrize("model", ["free", "SMPL"])
@pytest.mark.parametrize(
    "frames",
    [{3: [7]}, {1: range(40)}, {1: [0, 1, 2, 9, 10], 2: [4, 5], 9: [10]}],
    ids=["one frame", "one person", "gaps"],
)
def test_khronos_validator_finds_nothing(frames, model, tmp_path):
    arrays = poses_arrays(frames) | {"model": np.array(model)}
    write(make_recording(arrays), tmp_path / "people.glb")
    assert validate(tmp_path / "people.glb") == []


@pytest.mark.gltf_validator
def test_khronos_validator_finds_nothing_after_a_day(tmp_path):
    """Times that are one in float32."""
    arrays = poses_arrays({1: range(30), 2: [0]})
    arrays["pts_s"][arrays["frame"] > 0] = 90_000 + arrays["pts_s"][arrays["frame"] > 0] / 40
    write(make_recording(arrays), tmp_path / "people.glb")
    assert validate(tmp_path / "people.glb") == []


@pytest.mark.gltf_validator
def test_khronos_validator_finds_faults(tmp_path):
    write(make_recording(poses_arrays({1: range(4)})), tmp_path / "people.glb")
    data = (tmp_path / "people.glb").read_bytes()
    (tmp_path / "spoiled.glb").write_bytes(data.replace(b'"VEC4"', b'"VEC3"', 1))
    assert validate(tmp_path / "spoiled.glb")


def test_a_licensed_body_is_bones(tmp_path):
    arrays = poses_arrays({1: [0, 1]}) | {"model": np.array("SMPL")}
    recording = make_recording(arrays)
    warning = mesh_warning(recording)
    assert "the mesh of SMPL has a licence of its own" in warning
    assert "\n" not in warning
    glb = written(recording, tmp_path)
    assert "copyright" not in glb.document["asset"]
    person = glb.person(1)
    # Double pyramids, each from a joint to the next, and nothing else.
    assert len(person.faces) == 23 * 8
    vertices = person.vertices_m(0.0)
    joints = recording.tracks[0].joints_m[0] @ WORLD.T
    for joint in range(1, 24):
        bone = vertices[24 * (joint - 1) : 24 * joint]
        solid = trimesh.Trimesh(bone, np.arange(24).reshape(-1, 3))
        solid.merge_vertices(digits_vertex=5)
        assert solid.is_watertight
        assert solid.volume > 0, "its faces look outward"
        assert np.linalg.norm(bone - joints[joint], axis=1).min() < 1e-4


def test_the_free_body_is_closed_and_named_as_free(tmp_path):
    glb = written(make_recording(poses_arrays({2: [0]})), tmp_path)
    person = glb.person(2)
    assert mesh_warning(make_recording(poses_arrays({2: [0]}))) == ""
    assert "CC0" in glb.document["asset"]["copyright"]
    assert trimesh.Trimesh(person.rest_m, person.faces).volume > 0.03
    np.testing.assert_allclose(np.linalg.norm(person.normals, axis=1), 1, atol=1e-5)


def test_the_camera_sees_people_where_the_picture_has_them(tmp_path):
    world = world_from_up(up_of(20, -5), 2.0)
    arrays = {
        **poses_arrays({1: range(5)}),
        "world_rotation": world.rotation,
        "world_origin_m": world.origin_m,
    }
    height, width = arrays["image_size"]
    recording = make_recording(arrays)
    glb = written(recording, tmp_path)
    lens = glb.document["cameras"][0]["perspective"]
    # As the camera's node has them, which looks along -z.
    to_camera = np.linalg.inv(glb.world(0.0)[glb.places["camera"]])
    joints_m = glb.person(1).joints_m(0.0) @ to_camera[:3, :3].T + to_camera[:3, 3]
    # The projection of the specification's section 3.10.3.3.
    tangent = np.tan(lens["yfov"] / 2)
    x = joints_m[:, 0] / -joints_m[:, 2] / (lens["aspectRatio"] * tangent)
    y = joints_m[:, 1] / -joints_m[:, 2] / tangent
    pixels = np.stack(((x + 1) * width / 2 - 0.5, (1 - y) * height / 2 - 0.5), 1)
    seen = project(recording.tracks[0].joints_m[0], recording.intrinsics)
    np.testing.assert_allclose(pixels, seen, atol=1e-2)


def test_a_minute_is_small_and_written_at_once(tmp_path):
    recording = make_recording(poses_arrays({1: range(1800)}))
    write(recording, tmp_path / "warm.glb")
    started = time.perf_counter()
    write(recording, tmp_path / "people.glb")
    assert time.perf_counter() - started < 2
    assert (tmp_path / "people.glb").stat().st_size < 5e6


def test_memory_is_little_more_than_the_file(tmp_path):
    licensed = {"model": np.array("SMPL")}
    (track,) = make_recording(poses_arrays({1: range(200)}) | licensed).tracks
    times = 150
    long = {
        name: np.concatenate([getattr(track, name)] * times)
        for name in ("global_orient", "body_pose", "joints_m", "pelvis_m")
    }
    frame = np.arange(200 * times)
    recording = replace(
        make_recording(poses_arrays({1: [0]}) | licensed),
        tracks=(replace(track, frame=frame, pts_s=frame / FPS, **long),),
    )
    write(recording, tmp_path / "warm.glb")
    tracemalloc.start()
    write(recording, tmp_path / "people.glb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * (tmp_path / "people.glb").stat().st_size


@pytest.mark.parametrize("every", [2, 3, 7])
def test_frames_that_a_live_source_dropped_hide_no_person(every, tmp_path):
    frames = {1: range(0, 60, every), 2: range(0, 30, every)}
    glb = written(make_recording(poses_arrays(frames)), tmp_path)
    last = max(frames[2])
    for number in range(60 - every):
        time_s = (number + 0.5) / FPS
        assert glb.person(1).is_there(time_s)
        if number + 1 < last or number > last + 1:
            assert glb.person(2).is_there(time_s) == (number < last)


def test_who_is_not_seen_for_long_is_away(tmp_path):
    person = written(make_recording(poses_arrays({1: [0, 1, 2, 40, 41]})), tmp_path).person(1)
    assert [person.is_there(k / FPS) for k in (0, 2, 20, 39, 40, 41)] == [
        True, True, False, False, True, True,
    ]  # fmt: skip
