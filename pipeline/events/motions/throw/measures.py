"""What is measured of a thrower: joint angles and lengths from SMPL's joints.

Every angle is in degrees and needs joints alone, so that the same function measures a fitted body
and a truth. Definitions, s the throwing side:

- ``elbow_flexion``: 0 straight, between upper arm and forearm (ISB: Wu et al., J. Biomech. 38,
  2005, elbow flexion).
- ``shoulder_abduction``: between the upper arm and the trunk's downward axis, 0 at the side, 90
  level (ISB: thoracohumeral elevation, gamma_TH1's size).
- ``shoulder_external_rotation``: about the upper arm, from where the forearm points straight ahead
  of the chest (0) over straight up (90) to straight back (180), in the plane across the upper arm
  (Fleisig et al., J. Biomech. 32, 1999). Meaningless where the forearm lies along the upper arm
  (flexion under ``LEAST_FLEXION``): its direction across it is noise.
- ``trunk_tilt``: between the trunk's axis, from between the hips to between the shoulders, and the
  vertical.
- ``trunk_rotation``: of the shoulders about the vertical, from facing the way of the stride (0) to
  turned to the throwing side (90: sideways on); below 0 past facing it.
- ``hip_shoulder_separation``: from the hips' line to the shoulders' about the vertical, positive
  where the hips are further ahead in the throw's turn.
- ``lead_knee_flexion``: of the leg across from the throwing arm, 0 straight.
- ``stride_length``: between the ankles, level, in body heights.
- ``release_height``: of the throwing hand over the lower ankle's ground, in body heights.
- ``hand_speed``: of the throwing hand from the pelvis, metres a second (`hand_speed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.events.features import Hand
from pipeline.events.joints import (
    ANKLE_HEIGHT,
    JOINT,
    angle_deg,
    fastest_m_s,
    right_handed,
    stature_m,
)
from pipeline.events.measures import Measure

LEAST_FLEXION = 12.0
_WRAPPED = ("shoulder_external_rotation", "trunk_rotation", "hip_shoulder_separation")
"""Angles that come round at 180 degrees."""
_ARM = ("right_shoulder", "right_elbow", "right_wrist", "right_hand", "left_wrist", "left_ankle",
        "right_ankle", "head")  # fmt: skip

MEASURES: Mapping[str, Measure] = {
    "elbow_flexion": Measure(
        "deg", "between upper arm and forearm, 0 straight (ISB, Wu et al. 2005)", 0.0
    ),
    "shoulder_abduction": Measure(
        "deg", "between upper arm and trunk's axis, 0 down, 90 level (ISB elevation)", 0.0
    ),
    "shoulder_external_rotation": Measure(
        "deg", "forearm about the upper arm: 0 ahead, 90 up, 180 back (Fleisig et al. 1999)"
    ),
    "trunk_tilt": Measure("deg", "between the trunk's axis and the vertical", 0.0),
    "trunk_rotation": Measure(
        "deg", "shoulders about the vertical: 0 facing the way of the stride, 90 sideways on"
    ),
    "hip_shoulder_separation": Measure(
        "deg", "from the hips' line to the shoulders' about the vertical, hips ahead positive"
    ),
    "lead_knee_flexion": Measure("deg", "of the leg across from the throwing arm, 0 straight", 0.0),
    "stride_length": Measure("body heights", "between the ankles, level", 0.0),
    "release_height": Measure("body heights", "of the throwing hand over the ground"),
    "hand_speed": Measure(
        "m/s", "of the throwing hand from the pelvis, the fastest step about the release", 0.0
    ),
}


def measure(joints_m: np.ndarray, hand: str, up: np.ndarray | None = None) -> dict[str, float]:
    """Return one frame's measures but ``hand_speed``.

    Args:
        joints_m: (24, 3) metres.
        hand: The throwing hand, "left" or "right".
        up: (3,) the vertical in the same axes; None: the camera is level, y down.
    """
    up = np.array([0.0, -1.0, 0.0]) if up is None else _unit(np.asarray(up, np.float64))
    j = np.asarray(joints_m, np.float64)
    side, lead = (hand, "right" if hand == "left" else "left")
    shoulder, elbow, wrist = (j[JOINT[f"{side}_{name}"]] for name in ("shoulder", "elbow", "wrist"))
    hips = j[JOINT["right_hip"]] - j[JOINT["left_hip"]]
    shoulders = j[JOINT["right_shoulder"]] - j[JOINT["left_shoulder"]]
    trunk = _unit(_middle(j, "shoulder") - _middle(j, "hip"))
    upper, fore = elbow - shoulder, wrist - elbow
    knee = [j[JOINT[f"{lead}_{name}"]] for name in ("hip", "knee", "ankle")]
    flexion = angle_deg(upper, fore)
    height = stature_m(j)
    ankles = j[[JOINT["left_ankle"], JOINT["right_ankle"]]]
    # Towards the throwing side: the axis about which the chest's front is found.
    across = shoulders if side == "right" else -shoulders
    stride = _level(j[JOINT[f"{lead}_ankle"]] - j[JOINT[f"{side}_ankle"]], up)
    hand_at = j[JOINT[f"{side}_hand"]]
    # The lower foot stands on the ground.
    ground = (ankles @ up).min() - ANKLE_HEIGHT * height
    # A right-hander turns to the left: counter-clockwise from above.
    turns = 1.0 if side == "right" else -1.0
    return {
        "elbow_flexion": flexion,
        "shoulder_abduction": angle_deg(upper, -trunk),
        "shoulder_external_rotation": _external_rotation(upper, fore, trunk, across, side),
        "trunk_tilt": angle_deg(trunk, up),
        "trunk_rotation": _turn(stride, _facing(shoulders, up), up) * -turns,
        "hip_shoulder_separation": _turn(_facing(shoulders, up), _facing(hips, up), up) * turns,
        "lead_knee_flexion": angle_deg(knee[1] - knee[0], knee[2] - knee[1]),
        "stride_length": float(np.linalg.norm(_level(ankles[1] - ankles[0], up))) / height,
        "release_height": float(hand_at @ up - ground) / height,
    }


def hand_speed(joints_m: np.ndarray, times_s: np.ndarray, hand: str) -> float:
    """Return the hand's fastest step relative to the pelvis, m/s, over frames ``joints_m``
    (T, 24, 3) at ``times_s`` (T,); NaN with fewer than two."""
    return fastest_m_s(joints_m, times_s, f"{hand}_hand")


def measure_event(
    joints_m: np.ndarray, times_s: Sequence[float], hand: Hand, key: int
) -> dict[str, float]:
    """Return `MEASURES` of fitted joints (T, 24, 3), at frame ``key``; the camera is taken to be
    level."""
    values = measure(joints_m[key], hand)
    return {**values, "hand_speed": hand_speed(joints_m, np.asarray(times_s), hand)}


def unmeasurable(values: Mapping[str, float]) -> list[str]:
    """Return the measures that mean nothing: the forearm's direction across a straight arm."""
    straight = values["elbow_flexion"] < LEAST_FLEXION
    return ["shoulder_external_rotation"] if straight else []


def describe(joints_m: np.ndarray, times_s: Sequence[float], hand: Hand) -> np.ndarray:
    """Return what corrections are computed from, of four fitted frames (4, 24, 3): every frame's
    measures, and arm, feet and head about the pelvis in the camera's axes, in body heights, all as
    a right hand's."""
    joints = right_handed(np.asarray(joints_m, np.float64), hand)
    # One camera cannot tell how large a body is.
    joints = joints / max(float(np.mean([stature_m(frame) for frame in joints])), 1e-3)
    # The order and the factors belong to the learned corrections in `estimator.npz`.
    parts: list[float] = []
    for frame in joints:
        for name, value in measure(frame, "right").items():
            # An angle that comes round would jump by 360 degrees; its sine and cosine do not.
            if name in _WRAPPED:
                parts += [60 * np.sin(np.radians(value)), 60 * np.cos(np.radians(value))]
            else:
                parts.append(value if MEASURES[name].unit == "deg" else 60 * value)
        about = frame[[JOINT[name] for name in _ARM]] - frame[0]
        parts += list(100 * about.ravel())
        hips = frame[JOINT["right_hip"]] - frame[JOINT["left_hip"]]
        parts += list(60 * hips / max(float(np.linalg.norm(hips)), 1e-6))
    parts.append(5 * hand_speed(joints, np.asarray(times_s), "right"))
    return np.array(parts)


def _external_rotation(
    upper: np.ndarray, fore: np.ndarray, trunk: np.ndarray, across: np.ndarray, side: str
) -> float:
    """Degrees in (-90, 270], 0 where the forearm points ahead of the chest."""
    axis = _unit(upper)
    ahead = np.cross(across, trunk) if side == "left" else np.cross(trunk, across)
    # Only the part across the upper arm, since the rotation is about that arm.
    ahead = _unit(ahead - axis * (ahead @ axis))
    # The way up of an arm that is held out: from ahead, about the arm.
    over = np.cross(axis, ahead) if side == "right" else np.cross(ahead, axis)
    across_arm = fore - axis * (fore @ axis)
    angle = float(np.degrees(np.arctan2(across_arm @ over, across_arm @ ahead)))
    return angle if angle > -90 else angle + 360


def _middle(joints_m: np.ndarray, name: str) -> np.ndarray:
    return 0.5 * (joints_m[JOINT[f"left_{name}"]] + joints_m[JOINT[f"right_{name}"]])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _level(vector: np.ndarray, up: np.ndarray) -> np.ndarray:
    return vector - up * (vector @ up)


def _facing(right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Where a person looks whose right side lies that way: level."""
    return np.cross(up, _level(right, up))


def _turn(a: np.ndarray, b: np.ndarray, up: np.ndarray) -> float:
    """Degrees from ``a`` to ``b`` about ``up``, in (-180, 180], counter-clockwise from above."""
    a, b = _level(a, up), _level(b, up)
    return float(np.degrees(np.arctan2(np.cross(a, b) @ up, a @ b)))
