"""SMPL's joints for measures: indices by name, a body's height, mirroring, angles, speeds."""

from __future__ import annotations

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES
from pipeline.events.features import Hand

JOINT = {name: index for index, name in enumerate(JOINT_NAMES)}
"""The index of each of SMPL's 24 joints by its name."""
STATURE = 1.235
"""A body's height over the way from its ankle over knee, hip and neck to the head's joint (mean of
MakeHuman's adults)."""
ANKLE_HEIGHT = 0.045
"""An ankle's height over the ground, in body heights."""


def _other_side(name: str) -> str:
    for side, other in (("left", "right"), ("right", "left")):
        if name.startswith(side):
            return other + name[len(side) :]
    return name


MIRRORED = [JOINT[_other_side(name)] for name in JOINT_NAMES]
"""The index of each joint's counterpart on the other side."""


def right_handed(joints_m: np.ndarray, hand: Hand) -> np.ndarray:
    """Return the joints mirrored if ``hand`` is the left, so that the right hand leads.

    Args:
        joints_m: (..., 24, 3) metres, in the camera's axes.
        hand: The hand that leads.

    Returns:
        (..., 24, 3) metres; the same array for the right hand.
    """
    if hand == "right":
        return joints_m
    return joints_m[..., MIRRORED, :] * np.array([-1.0, 1.0, 1.0])


def stature_m(joints_m: np.ndarray) -> float:
    """Return a body's height from the lengths of its bones, whatever its pose.

    Args:
        joints_m: (24, 3) metres.
    """
    legs = [
        sum(
            float(np.linalg.norm(joints_m[JOINT[f"{side}_{a}"]] - joints_m[JOINT[f"{side}_{b}"]]))
            for a, b in (("hip", "knee"), ("knee", "ankle"))
        )
        for side in ("left", "right")
    ]
    spine = ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
    back = sum(
        float(np.linalg.norm(joints_m[JOINT[a]] - joints_m[JOINT[b]]))
        for a, b in zip(spine, spine[1:])
    )
    return STATURE * (0.5 * sum(legs) + back)


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two directions (3,), 0 to 180 degrees."""
    # The arc tangent keeps its digits near 0 and 180 degrees, where the arc cosine loses them.
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def fastest_m_s(joints_m: np.ndarray, times_s: np.ndarray, joint: str) -> float:
    """Return the fastest step of a joint relative to the pelvis.

    Args:
        joints_m: (T, 24, 3) metres.
        times_s: (T,) seconds, rising.
        joint: One of SMPL's joint names.

    Returns:
        Metres a second; NaN with fewer than two frames.
    """
    if len(joints_m) < 2:
        return float("nan")
    at = joints_m[:, JOINT[joint]] - joints_m[:, 0]
    steps = np.linalg.norm(np.diff(at, axis=0), axis=1) / np.maximum(np.diff(times_s), 1e-6)
    return float(steps.max())
