"""How visible each joint of a fitted body is, from the landmarks' visibility and the picture."""

from __future__ import annotations

import numpy as np

from pipeline.core.camera import project
from pipeline.core.people import Person
from pipeline.core.skeleton import BLAZEPOSE_33, JOINT_NAMES, LANDMARKS

_SIDED = {
    "collar": ("shoulder",),
    "hand": ("index", "pinky"),
    "foot": ("heel", "foot_index"),
}
_TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
_MIDDLE = {
    "pelvis": ("left_hip", "right_hip"),
    "spine1": _TRUNK,
    "spine2": _TRUNK,
    "spine3": _TRUNK,
    "neck": ("left_shoulder", "right_shoulder"),
    "head": ("nose", "left_ear", "right_ear"),
}
_EDGE = 0.02
"""A joint is fully in the picture this far from the edge, as a fraction of the longer side."""


def _landmark_shares() -> np.ndarray:
    """The share of each landmark in each SMPL joint, (24, 33); the rows sum to one."""
    shares = np.zeros((len(JOINT_NAMES), LANDMARKS), np.float32)
    for row, name in enumerate(JOINT_NAMES):
        side, _, part = name.partition("_")
        names = _MIDDLE.get(name) or [f"{side}_{each}" for each in _SIDED.get(part, (part,))]
        shares[row, BLAZEPOSE_33.indices(*names)] = 1 / len(names)
    return shares


LANDMARK_SHARES = _landmark_shares()


def joint_visibility(
    person: Person, joints_m: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int] | None
) -> np.ndarray:
    """Return how visible each SMPL joint of a fitted body is, (24,) float32 in [0, 1].

    It is the mean visibility of the landmarks next to the joint, and 0 for a joint that lies
    outside the picture.

    Args:
        person: The person as perceived.
        joints_m: The fitted joints (24, 3) in metres.
        intrinsics: (3, 3) the camera's K in pixels.
        size: The picture's height and width in pixels; None where it is not known.
    """
    visible = LANDMARK_SHARES @ person.visibility
    if size is not None:
        visible = visible * inside_picture(project(joints_m, intrinsics), size)
    return np.clip(visible, 0.0, 1.0).astype(np.float32)


def inside_picture(points_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return how far points (..., 2) lie inside a picture of ``size`` (height, width).

    The values (...) rise from 0 on the picture's edge, and outside, to 1 a short way inside it.
    """
    last = np.array([size[1] - 1, size[0] - 1])
    depth_px = np.minimum(points_px, last - points_px).min(-1)
    return np.clip(depth_px / (_EDGE * max(size)), 0.0, 1.0)
