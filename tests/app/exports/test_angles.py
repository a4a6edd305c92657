"""Joint angles: constructed poses have the angles that were put in, left and right alike."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from app.exports import angles
from app.exports.angles import ANGLES, SEEN, joint_angles_deg
from app.exports.recording import make_recording
from pipeline.core.skeleton import JOINT_NAMES, SMPL_24
from tests.support.recordings import REST_M, poses_arrays

# A skeleton whose legs and arms are straight, so that what is put in is what comes out.
STRAIGHT_M = REST_M.copy()
for _side, _sign in (("left", 1), ("right", -1)):
    for _k, _name in enumerate(("hip", "knee", "ankle")):
        STRAIGHT_M[JOINT_NAMES.index(f"{_side}_{_name}")] = (0.1 * _sign, 0.9 - 0.4 * _k, 0)
    for _k, _name in enumerate(("shoulder", "elbow", "wrist", "hand")):
        STRAIGHT_M[JOINT_NAMES.index(f"{_side}_{_name}")] = ((0.2 + 0.25 * _k) * _sign, 1.4, 0)

# SMPL's axes: x to the person's left, y up, z forward.
X, Y, Z = np.eye(3)
SIDES = st.sampled_from(["left", "right"])
DEGREES = st.floats(-80, 80)


def measured(
    turns: dict[str, Rotation], visibility: dict[str, float] | None = None
) -> dict[str, float]:
    """The angles of one body: SMPL's joints turned against their parents."""
    pose = np.zeros((24, 3))
    for name, turn in turns.items():
        pose[SMPL_24.index(name)] = turn.as_rotvec()
    arrays = poses_arrays({1: [0]}, pose=pose, rest_m=STRAIGHT_M)
    arrays["joint_visibility"][:] = 1
    for name, value in (visibility or {}).items():
        arrays["joint_visibility"][:, SMPL_24.index(name)] = value
    return dict(zip(ANGLES, joint_angles_deg(make_recording(arrays).tracks[0])[0]))


def about(axis: np.ndarray, degrees: float) -> Rotation:
    return Rotation.from_rotvec(np.radians(degrees) * axis)


def mirrored(side: str) -> int:
    """The sign of a turn about y or z that does to the left what 1 does to the right."""
    return 1 if side == "right" else -1


def test_at_rest_every_angle_is_zero_but_the_arms():
    found = measured({})
    for name, angle in found.items():
        raised = 90 if name.endswith("shoulder_elevation") else 0
        assert angle == pytest.approx(raised, abs=1e-3), name


@given(SIDES, st.floats(-5, 150))
@settings(deadline=None)
def test_a_knee_that_is_bent_by_so_much_says_so(side, bend):
    # The heel goes back: about the person's left axis.
    found = measured({f"{side}_knee": about(X, bend)})
    assert found.pop(f"{side}_knee_flexion") == pytest.approx(bend, abs=1e-3)
    others = {n: a for n, a in found.items() if not n.endswith("elevation")}
    assert np.abs(list(others.values())).max() < 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_knee_is_180_degrees_less_its_included_angle(side):
    """On a skeleton whose leg is not straight at rest the bones decide."""
    bend, knee = np.linspace(0.5, 2, 20), SMPL_24.index(f"{side}_knee")
    pose = np.zeros((20, 24, 3))
    pose[:, knee, 0] = bend
    arrays = poses_arrays({1: range(20)}, pose=pose)
    arrays["joint_visibility"][:] = 1
    (track,) = make_recording(arrays).tracks
    thigh = track.rest_offsets_m[knee]
    shank = track.rest_offsets_m[SMPL_24.index(f"{side}_ankle")]
    turned = Rotation.from_rotvec(np.outer(bend, X)).apply(shank)
    cosine = turned @ thigh / np.linalg.norm(thigh) / np.linalg.norm(shank)
    found = joint_angles_deg(track)[:, ANGLES.index(f"{side}_knee_flexion")]
    # The bones of the legs lean by a degree or two to the side.
    np.testing.assert_allclose(found, np.degrees(np.arccos(cosine)), atol=1)


@settings(deadline=None)
@given(SIDES, DEGREES, DEGREES, DEGREES)
def test_a_hip_has_the_three_angles_in_isbs_order(side, flexion, adduction, rotation):
    m = mirrored(side)
    # Forward is about -x here, to the midline about z, and inward about y, for a right leg.
    turn = about(-X, flexion) * about(Z * m, adduction) * about(Y * m, rotation)
    found = measured({f"{side}_hip": turn})
    assert found[f"{side}_hip_flexion"] == pytest.approx(flexion, abs=1e-3)
    assert found[f"{side}_hip_adduction"] == pytest.approx(adduction, abs=1e-3)
    assert found[f"{side}_hip_rotation"] == pytest.approx(rotation, abs=1e-3)


def place(joint: str, turns: dict[str, Rotation]) -> np.ndarray:
    """Where a joint goes from its rest, in SMPL's axes."""
    pose = np.zeros((24, 3))
    for name, turn in turns.items():
        pose[SMPL_24.index(name)] = turn.as_rotvec()
    arrays = poses_arrays({1: [0]}, pose=pose, rest_m=STRAIGHT_M)
    moved = arrays["joints_m"][0] - arrays["joints_m"][0, 0]
    index = SMPL_24.index(joint)
    return moved[index] - (STRAIGHT_M[index] - STRAIGHT_M[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_positive_is_where_the_names_say(side):
    """The signs against where the limbs go, not against the code's axes."""
    m = mirrored(side)
    lift = {f"{side}_hip": about(-X, 40)}
    assert place(f"{side}_knee", lift)[2] > 0.1, "flexion brings the knee forward"
    assert measured(lift)[f"{side}_hip_flexion"] == pytest.approx(40, abs=1e-3)
    inward = {f"{side}_hip": about(Z * m, 20)}
    assert place(f"{side}_ankle", inward)[0] * m > 0.1, "adduction crosses the legs"
    turned = {f"{side}_hip": about(Y * m, 30)}
    assert place(f"{side}_foot", turned)[0] * m > 0.03, "internal rotation turns the toes inward"
    up = {f"{side}_ankle": about(-X, 20)}
    assert place(f"{side}_foot", up)[1] > 0.03, "dorsiflexion lifts the toes"
    assert measured(up)[f"{side}_ankle_dorsiflexion"] == pytest.approx(20, abs=1e-3)
    # In the rest pose the forearm goes forward.
    bent = {f"{side}_elbow": about(Y * m, 90)}
    assert place(f"{side}_wrist", bent)[2] > 0.2
    assert measured(bent)[f"{side}_elbow_flexion"] == pytest.approx(90, abs=1e-3)


@pytest.mark.parametrize(
    ("joint", "name"), [("spine1", "trunk"), ("spine2", "trunk"), ("neck", "neck")]
)
@settings(deadline=None, max_examples=30)
@given(DEGREES, DEGREES, DEGREES)
def test_trunk_and_neck(joint, name, flexion, bending, rotation):
    # Forward about x, to the right about z, to the left about y.
    turn = about(X, flexion) * about(Z, bending) * about(Y, rotation)
    found = measured({joint: turn})
    assert found[f"{name}_flexion"] == pytest.approx(flexion, abs=1e-3)
    assert found[f"{name}_bending"] == pytest.approx(bending, abs=1e-3)
    assert found[f"{name}_rotation"] == pytest.approx(rotation, abs=1e-3)


def test_trunk_signs_go_where_the_names_say():
    assert place("head", {"spine1": about(X, 30)})[2] > 0.1, "flexion brings the head forward"
    assert place("head", {"spine1": about(Z, 30)})[0] < -0.1, "bending is to the right"
    nose = place("left_shoulder", {"spine1": about(Y, 30)})
    assert nose[2] < -0.05, "rotation is to the left: the left shoulder goes back"


def raised(side: str, plane: float, elevation: float, rotation: float) -> Rotation:
    """The arm's turn from rest that lifts it from hanging by ISB's angles, from its own steps."""
    m = mirrored(side)
    hanging = about(Z * m, 90)
    # About the vertical to the plane, up in it, and about the arm, which hangs along y.
    lift = about(Y * m, plane) * about(-Z * m, elevation) * about(Y * m, rotation - plane)
    extra = about(Y * m, plane)
    return lift * extra * hanging


@settings(deadline=None)
@given(SIDES, st.floats(-85, 130), st.floats(10, 165), st.floats(-90, 90))
def test_a_shoulder_has_isbs_plane_elevation_and_rotation(side, plane, elevation, rotation):
    found = measured({f"{side}_shoulder": raised(side, plane, elevation, rotation)})
    assert found[f"{side}_shoulder_plane"] == pytest.approx(plane, abs=1e-2)
    assert found[f"{side}_shoulder_elevation"] == pytest.approx(elevation, abs=1e-3)
    assert found[f"{side}_shoulder_rotation"] == pytest.approx(rotation, abs=1e-2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_raised_arm_is_where_the_plane_says(side):
    to_the_side = {f"{side}_shoulder": raised(side, 0, 60, 0)}
    forward = {f"{side}_shoulder": raised(side, 90, 60, 0)}
    shoulder = STRAIGHT_M[SMPL_24.index(f"{side}_shoulder")]
    elbow = STRAIGHT_M[SMPL_24.index(f"{side}_elbow")]
    length = np.linalg.norm(elbow - shoulder)
    down = -length * np.cos(np.radians(60))
    out = length * np.sin(np.radians(60))
    m = mirrored(side)
    np.testing.assert_allclose(
        place(f"{side}_elbow", to_the_side) + elbow - shoulder, [-m * out, down, 0], atol=1e-5
    )
    np.testing.assert_allclose(
        place(f"{side}_elbow", forward) + elbow - shoulder, [0, down, out], atol=1e-5
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("elevation", [0.0, 3.0, 178.0])
def test_a_hanging_arm_has_no_plane(side, elevation):
    found = measured({f"{side}_shoulder": raised(side, 20, elevation, 0)})
    assert found[f"{side}_shoulder_elevation"] == pytest.approx(elevation, abs=1e-2)
    assert np.isnan(found[f"{side}_shoulder_plane"])
    assert np.isnan(found[f"{side}_shoulder_rotation"])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_a_mirrored_body_has_the_other_sides_angles(seed):
    pose = np.random.default_rng(seed).normal(scale=0.4, size=(24, 3))
    one, other = np.zeros((24, 3)), np.zeros((24, 3))
    one[:] = pose
    # In a mirror of x the turns about y and z go the other way.
    other[:] = pose[SMPL_24.mirror] * (1, -1, -1)
    found, swapped = (measured_of(each) for each in (one, other))
    for name, angle in found.items():
        if name.startswith("left_"):
            wanted = swapped[name.replace("left_", "right_")]
        elif name.startswith("right_"):
            wanted = swapped[name.replace("right_", "left_")]
        else:
            wanted = swapped[name] * (1 if name.endswith("flexion") else -1)
        difference = (angle - wanted + 180) % 360 - 180
        assert np.isnan([angle, wanted]).all() or abs(difference) < 0.05, name


def measured_of(pose: np.ndarray) -> dict[str, float]:
    named = {name: Rotation.from_rotvec(pose[k]) for k, name in enumerate(JOINT_NAMES) if k}
    return measured(named)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_where_the_person_stands_and_turns_changes_no_angle(seed, other):
    pose = np.random.default_rng(seed).normal(scale=0.4, size=(24, 3))
    turned = pose.copy()
    turned[0] = np.random.default_rng(other).normal(size=3)
    tables = []
    for each in (pose, turned):
        arrays = poses_arrays({1: [0]}, pose=each, rest_m=STRAIGHT_M, seed=other)
        arrays["joint_visibility"][:] = 1
        tables.append(joint_angles_deg(make_recording(arrays).tracks[0]))
    difference = (tables[0] - tables[1] + 180) % 360 - 180
    np.testing.assert_allclose(difference, np.where(np.isnan(tables[0]), np.nan, 0), atol=0.05)


@pytest.mark.parametrize(
    ("joint", "unknown"),
    [
        ("left_ankle", {"left_knee_flexion", "left_ankle_dorsiflexion"}),
        ("right_wrist", {"right_elbow_flexion"}),
        ("head", {"neck_flexion", "neck_bending", "neck_rotation"}),
    ],
)
def test_an_angle_of_a_joint_that_is_not_seen_is_left_out(joint, unknown):
    # Arms at the sides have no plane, so they are lifted a little.
    arms = {f"{side}_shoulder": raised(side, 10, 30, 0) for side in ("left", "right")}
    for value in (0.0, SEEN - 0.01):
        found = measured(arms, {joint: value})
        assert {name for name, angle in found.items() if np.isnan(angle)} == unknown
    assert not np.isnan(list(measured(arms, {joint: SEEN}).values())).any()


def test_the_table_has_a_row_a_body_and_frame(tmp_path):
    arrays = poses_arrays({4: [3, 4, 9], 2: [4, 9]})
    recording = make_recording(arrays)
    path = tmp_path / "angles.csv"
    angles.write(recording, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    order = [(int(row["frame"]), int(row["track"])) for row in rows]
    assert order == [(3, 4), (4, 2), (4, 4), (9, 2), (9, 4)]
    assert list(rows[0]) == ["frame", "pts_s", "track", *(f"{name}_deg" for name in ANGLES)]
    by_track = {track.id: iter(joint_angles_deg(track)) for track in recording.tracks}
    for row in rows:
        wanted = next(by_track[int(row["track"])])
        assert float(row["pts_s"]) == pytest.approx(int(row["frame"]) / 25)
        for name, angle in zip(ANGLES, wanted):
            cell = row[f"{name}_deg"]
            assert cell == "" if np.isnan(angle) else abs(float(cell) - angle) <= 0.0051
