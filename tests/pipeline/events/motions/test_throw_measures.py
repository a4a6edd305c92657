"""Angles of a throw: by construction, in any place and from any side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.core.skeleton import JOINT_NAMES
from pipeline.events.joints import MIRRORED, right_handed, stature_m
from pipeline.events.motions.throw.measures import LEAST_FLEXION, MEASURES, hand_speed, measure

J = {name: index for index, name in enumerate(JOINT_NAMES)}
UP = np.array([0.0, 1.0, 0.0])
# A level body that faces +z with its right to -x (x left, y up, z ahead), 1.7 m or so.
PLACES = {
    "pelvis": (0, 1.0, 0), "spine1": (0, 1.1, 0), "spine2": (0, 1.2, 0), "spine3": (0, 1.3, 0),
    "neck": (0, 1.5, 0), "head": (0, 1.6, 0),
    "left_hip": (0.1, 0.95, 0), "right_hip": (-0.1, 0.95, 0),
    "left_knee": (0.1, 0.5, 0), "right_knee": (-0.1, 0.5, 0),
    "left_ankle": (0.1, 0.08, 0), "right_ankle": (-0.1, 0.08, 0),
    "left_foot": (0.1, 0.02, 0.1), "right_foot": (-0.1, 0.02, 0.1),
    "left_collar": (0.08, 1.45, 0), "right_collar": (-0.08, 1.45, 0),
    "left_shoulder": (0.2, 1.45, 0), "right_shoulder": (-0.2, 1.45, 0),
    "left_elbow": (0.2, 1.15, 0), "right_elbow": (-0.2, 1.15, 0),
    "left_wrist": (0.2, 0.9, 0), "right_wrist": (-0.2, 0.9, 0),
    "left_hand": (0.2, 0.8, 0), "right_hand": (-0.2, 0.8, 0),
}  # fmt: skip


def body(**moved) -> np.ndarray:
    """The level body with joints moved to places."""
    joints = np.array([PLACES[name] for name in JOINT_NAMES], float)
    for name, place in moved.items():
        joints[J[name]] = place
    return joints


def raised(abduction: float, rotation: float, flexion: float) -> np.ndarray:
    """The right arm at these angles (degrees), the forearm turned about the upper arm."""
    a, r, f = np.radians([abduction, rotation, flexion])
    axis = np.array([-np.sin(a), -np.cos(a), 0.0])  # out to the right, from hanging
    ahead = np.array([0.0, 0.0, 1.0])
    over = np.cross(ahead, axis) if np.cross(ahead, axis)[1] > 0 else -np.cross(ahead, axis)
    across = np.cos(r) * ahead + np.sin(r) * over
    fore = np.cos(f) * axis + np.sin(f) * across
    shoulder = np.array(PLACES["right_shoulder"])
    elbow = shoulder + 0.3 * axis
    wrist = elbow + 0.25 * fore
    return body(right_elbow=elbow, right_wrist=wrist, right_hand=wrist + 0.1 * fore)


@given(
    abduction=st.floats(20, 160),
    rotation=st.floats(-80, 200),
    flexion=st.floats(LEAST_FLEXION, 150),
)
def test_arm_angles_are_those_it_was_raised_by(abduction, rotation, flexion):
    told = measure(raised(abduction, rotation, flexion), "right", UP)
    assert told["elbow_flexion"] == pytest.approx(flexion, abs=1e-6)
    assert told["shoulder_abduction"] == pytest.approx(abduction, abs=1e-6)
    assert told["shoulder_external_rotation"] == pytest.approx(rotation, abs=1e-6)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_neither_place_nor_view_nor_side_changes_a_measure(seed):
    random = np.random.default_rng(seed)
    joints = body() + random.normal(0, 0.1, (24, 3))
    told = measure(joints, "right", UP)
    turn, shift = Rotation.random(random_state=seed).as_matrix(), random.normal(0, 5, 3)
    seen = measure(joints @ turn.T + shift, "right", turn @ UP)
    mirror = measure(joints[MIRRORED] * [-1, 1, 1], "left", UP)
    for name, value in told.items():
        for other in (seen[name], mirror[name]):
            apart = other - value
            if MEASURES[name].unit == "deg":
                apart = (apart + 180) % 360 - 180
            assert abs(apart) < 1e-6, name


def test_trunk_and_legs():
    upright = measure(body(), "right", UP)
    assert upright["trunk_tilt"] == pytest.approx(0)
    assert upright["hip_shoulder_separation"] == pytest.approx(0)
    assert upright["lead_knee_flexion"] == pytest.approx(0)
    # The trunk bent ahead by 30 degrees about the hips' middle.
    tilt = Rotation.from_rotvec([np.radians(30), 0, 0]).as_matrix()
    about = np.array([0, 0.95, 0])
    names = ("left_shoulder", "right_shoulder")
    bent = body(**{name: about + tilt @ (PLACES[name] - about) for name in names})
    assert measure(bent, "right", UP)["trunk_tilt"] == pytest.approx(30)
    # A right-hander's shoulders still turned to the right, by 40 degrees, the hips ahead of them.
    turn = Rotation.from_rotvec([0, np.radians(-40), 0]).as_matrix()
    closed = body(**{name: turn @ np.array(PLACES[name]) for name in names})
    assert measure(closed, "right", UP)["hip_shoulder_separation"] == pytest.approx(40)
    # The left foot strides ahead: shoulders that face it are at 0, sideways on at 90.
    stride = {"left_ankle": (0.0, 0.08, 0.7), "right_ankle": (0.0, 0.08, -0.2)}
    assert measure(body(**stride), "right", UP)["trunk_rotation"] == pytest.approx(0)
    side = Rotation.from_rotvec([0, np.radians(-90), 0]).as_matrix()
    sideways = {name: side @ np.array(PLACES[name]) for name in names}
    assert measure(body(**stride, **sideways), "right", UP)["trunk_rotation"] == pytest.approx(90)
    long = body(**stride)
    assert measure(long, "right", UP)["stride_length"] == pytest.approx(0.9 / stature_m(long))
    knee = body(left_ankle=(0.1, 0.5, -0.42))
    assert measure(knee, "right", UP)["lead_knee_flexion"] == pytest.approx(90)


def test_heights_and_speed():
    joints = body(right_hand=(-0.2, 1.9, 0))
    assert 1.55 < stature_m(joints) < 1.85
    told = measure(joints, "right", UP)["release_height"]
    assert told == pytest.approx((1.9 - 0.08) / stature_m(joints) + 0.045)
    moving = np.stack([body(right_hand=(-0.2, 1.0, z)) for z in (0.0, 0.1, 0.5, 0.6)])
    walking = moving + np.arange(4)[:, None, None] * np.array([0.3, 0, 0])
    assert hand_speed(walking, np.arange(4) / 30, "right") == pytest.approx(12.0)
    assert np.isnan(hand_speed(moving[:1], np.zeros(1), "right"))


def test_the_free_body_is_as_tall_as_its_bones_say():
    from pipeline.body.load import load_body

    free = load_body()
    tall = float(np.ptp(free.v_template[:, 1].numpy()))
    assert stature_m(free.joint_template.numpy()) == pytest.approx(tall, rel=0.03)


def test_mirroring_twice_is_nothing():
    joints = np.random.default_rng(0).normal(size=(4, 24, 3))
    np.testing.assert_allclose(right_handed(right_handed(joints, "left"), "left"), joints)
    assert right_handed(joints, "right") is joints
