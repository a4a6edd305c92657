"""What is measured of a thrower: joint angles and lengths from SMPL's joints.

Every angle is in degrees and needs joints alone, so that the same function measures a fitted body
and a truth. Definitions, s the throwing side:

- ``elbow_flexion``: 0 straight, between upper arm and forearm (ISB: Wu et al., J. Biomech. 38,
  2005, elbow flexion).
- ``shoulder_abduction``: between the upper arm and the trunk's downward axis, 0 at the side, 90
  level (ISB: thoracohumeral elevation, gamma_TH1's size).
- ``shoulder_external_rotation``: about the upper arm, from where the forearm points straight ahead
  of the chest (0) over straight up (90) to straight back (180), in the plane across the upper arm
  (Fleisig et al., J. Biomech. 32, 1999). Worth nothing where the forearm lies along the upper arm
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

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES

LEAST_FLEXION = 12.0
STATURE = 1.235
"""A body's height over the way from its ankle over knee, hip and neck to the head's joint (mean of
MakeHuman's adults)."""
ANKLE_HEIGHT = 0.045
"""An ankle's height over the ground, in body heights."""

_J = {name: index for index, name in enumerate(JOINT_NAMES)}


@dataclass(frozen=True)
class Measure:
    """What a number is: its unit, its definition in a line, with the source, and the ``least`` it
    can be."""

    unit: str
    definition: str
    least: float = -math.inf


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
    """One frame's numbers but ``hand_speed``; ``joints_m`` (24, 3) metres, ``up`` (3,) the
    vertical in the same axes (None: the camera is level, y down), ``hand`` "left" or "right"."""
    up = np.array([0.0, -1.0, 0.0]) if up is None else _unit(np.asarray(up, np.float64))
    j = np.asarray(joints_m, np.float64)
    side, lead = (hand, "right" if hand == "left" else "left")
    shoulder, elbow, wrist = (j[_J[f"{side}_{name}"]] for name in ("shoulder", "elbow", "wrist"))
    hips = j[_J["right_hip"]] - j[_J["left_hip"]]
    shoulders = j[_J["right_shoulder"]] - j[_J["left_shoulder"]]
    trunk = _unit(_middle(j, "shoulder") - _middle(j, "hip"))
    upper, fore = elbow - shoulder, wrist - elbow
    knee = [j[_J[f"{lead}_{name}"]] for name in ("hip", "knee", "ankle")]
    flexion = _between(upper, fore)
    height = stature_m(j)
    ankles = j[[_J["left_ankle"], _J["right_ankle"]]]
    # Towards the throwing side: the axis about which the chest's front is found.
    across = shoulders if side == "right" else -shoulders
    stride = _level(j[_J[f"{lead}_ankle"]] - j[_J[f"{side}_ankle"]], up)
    hand_at = j[_J[f"{side}_hand"]]
    ground = (ankles @ up).min() - ANKLE_HEIGHT * height
    # Who throws with the right hand turns to the left: counter-clockwise from above.
    turns = 1.0 if side == "right" else -1.0
    return {
        "elbow_flexion": flexion,
        "shoulder_abduction": _between(upper, -trunk),
        "shoulder_external_rotation": _external_rotation(upper, fore, trunk, across, side),
        "trunk_tilt": _between(trunk, up),
        "trunk_rotation": _turn(stride, _facing(shoulders, up), up) * -turns,
        "hip_shoulder_separation": _turn(_facing(shoulders, up), _facing(hips, up), up) * turns,
        "lead_knee_flexion": _between(knee[1] - knee[0], knee[2] - knee[1]),
        "stride_length": float(np.linalg.norm(_level(ankles[1] - ankles[0], up))) / height,
        "release_height": float(hand_at @ up - ground) / height,
    }


def hand_speed(joints_m: np.ndarray, times_s: np.ndarray, hand: str) -> float:
    """The hand's fastest step, m/s, over frames ``joints_m`` (T, 24, 3) at ``times_s`` (T,),
    relative to the pelvis; NaN with fewer than two."""
    if len(joints_m) < 2:
        return float("nan")
    at = joints_m[:, _J[f"{hand}_hand"]] - joints_m[:, 0]
    steps = np.linalg.norm(np.diff(at, axis=0), axis=1) / np.maximum(np.diff(times_s), 1e-6)
    return float(steps.max())


def stature_m(joints_m: np.ndarray) -> float:
    """A body's height from its bones, whatever its pose; metres, joints (24, 3)."""
    ways = [
        sum(
            float(np.linalg.norm(joints_m[_J[f"{side}_{a}"]] - joints_m[_J[f"{side}_{b}"]]))
            for a, b in (("hip", "knee"), ("knee", "ankle"))
        )
        for side in ("left", "right")
    ]
    spine = ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
    back = sum(
        float(np.linalg.norm(joints_m[_J[a]] - joints_m[_J[b]])) for a, b in zip(spine, spine[1:])
    )
    return STATURE * (0.5 * sum(ways) + back)


def _external_rotation(
    upper: np.ndarray, fore: np.ndarray, trunk: np.ndarray, across: np.ndarray, side: str
) -> float:
    """Degrees in (-90, 270], 0 where the forearm points ahead of the chest."""
    axis = _unit(upper)
    ahead = np.cross(across, trunk) if side == "left" else np.cross(trunk, across)
    ahead = _unit(ahead - axis * (ahead @ axis))
    # The way up of an arm that is held out: from ahead, about the arm.
    over = np.cross(axis, ahead) if side == "right" else np.cross(ahead, axis)
    across_arm = fore - axis * (fore @ axis)
    angle = float(np.degrees(np.arctan2(across_arm @ over, across_arm @ ahead)))
    return angle if angle > -90 else angle + 360


def _middle(joints_m: np.ndarray, name: str) -> np.ndarray:
    return 0.5 * (joints_m[_J[f"left_{name}"]] + joints_m[_J[f"right_{name}"]])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _level(vector: np.ndarray, up: np.ndarray) -> np.ndarray:
    return vector - up * (vector @ up)


def _facing(right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Where somebody looks whose right side lies that way: level."""
    return np.cross(up, _level(right, up))


def _between(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between two directions, 0 to 180."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def _turn(a: np.ndarray, b: np.ndarray, up: np.ndarray) -> float:
    """Degrees from ``a`` to ``b`` about ``up``, in (-180, 180], counter-clockwise from above."""
    a, b = _level(a, up), _level(b, up)
    return float(np.degrees(np.arctan2(np.cross(a, b) @ up, a @ b)))
