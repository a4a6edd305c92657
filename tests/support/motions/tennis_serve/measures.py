"""What is measured of a tennis serve, at the contact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.events.features import Hand
from pipeline.events.joints import ANKLE_HEIGHT, JOINT, angle_deg, fastest_m_s, stature_m
from pipeline.events.measures import Measure

MEASURES = {
    "contact_height": Measure("body heights", "of the racket hand over the ground"),
    "elbow_flexion": Measure("deg", "between upper arm and forearm, 0 straight", 0.0),
    "trunk_tilt": Measure("deg", "between the trunk's axis and the vertical", 0.0),
    "wrist_speed": Measure("m/s", "of the racket hand's wrist from the pelvis, fastest step", 0.0),
}
_UP = np.array([0.0, -1.0, 0.0])
"""A level camera's vertical: its y points down."""


def measure_event(
    joints_m: np.ndarray, times_s: Sequence[float], hand: Hand, key: int
) -> dict[str, float]:
    """Return the measures of fitted joints (T, 24, 3) metres, at frame ``key``."""
    joints = joints_m[key]
    shoulder, elbow, wrist, palm = (
        joints[JOINT[f"{hand}_{name}"]] for name in ("shoulder", "elbow", "wrist", "hand")
    )
    hips, shoulders = (
        joints[[JOINT[f"left_{name}"], JOINT[f"right_{name}"]]].mean(0)
        for name in ("hip", "shoulder")
    )
    height_m = stature_m(joints)
    ankles_m = joints[[JOINT["left_ankle"], JOINT["right_ankle"]]] @ _UP
    return {
        "contact_height": float(palm @ _UP - ankles_m.min()) / height_m + ANKLE_HEIGHT,
        "elbow_flexion": angle_deg(elbow - shoulder, wrist - elbow),
        "trunk_tilt": angle_deg(shoulders - hips, _UP),
        "wrist_speed": fastest_m_s(joints_m, np.asarray(times_s), f"{hand}_wrist"),
    }
