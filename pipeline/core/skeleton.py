"""Keypoint sets: which points of a body a network reports, by name.

A `KeypointSet` is the one place that knows a set's order, its mirror image, where the hips are and
which points show the head. Everything else asks it, so a new set touches no other file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np


def _mirrored_name(name: str) -> str:
    for one, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(one):
            return other + name.removeprefix(one)
        # BlazePose writes the side of the mouth at the end: mouth_left.
        if name.endswith(one.strip("_")):
            return name.removesuffix(one.strip("_")) + other.strip("_")
    return name


@dataclass(frozen=True)
class KeypointSet:
    """Named points of a body in a fixed order; left and right are the person's own.

    Args:
        name: What the set is called in messages and settings, such as "coco17".
        names: The K points' names, in order.
        head: The names of the points that lie on the head, for sets that have some.
    """

    name: str
    names: tuple[str, ...]
    head: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return a point's place in the set.

        Raises:
            KeyError: The set has no point of that name.
        """
        return self._places[name]

    def indices(self, *names: str) -> list[int]:
        """Return several points' places. Raises as `index`."""
        return [self._places[name] for name in names]

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def mirror(self) -> np.ndarray:
        """Which point (K,) int64 each one is in a mirror: left and right exchanged."""
        return np.array([self._places[_mirrored_name(name)] for name in self.names])

    @cached_property
    def hips(self) -> tuple[int, int]:
        """The places of the left and the right hip."""
        return self._places["left_hip"], self._places["right_hip"]

    @cached_property
    def head_points(self) -> list[int]:
        """The places of the points on the head."""
        return self.indices(*self.head)


LANDMARK_NAMES = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer",
    "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_pinky", "right_pinky",
    "left_index", "right_index", "left_thumb", "right_thumb",
    "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle", "left_heel", "right_heel",
    "left_foot_index", "right_foot_index",
)  # fmt: skip
"""BlazePose's 33 landmarks (MediaPipe Pose)."""

JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2",
    "left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck",
    "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
"""SMPL's 24 joints in SMPL's order (Loper et al., SMPL, SIGGRAPH Asia 2015)."""

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""Each SMPL joint's parent; the pelvis has none."""

_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_BODY_12 = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")
_PHALANGES = ("tip", "first_joint", "second_joint", "third_joint")


def _hand(side: str) -> tuple[str, ...]:
    points = (f"{side}_{finger}_{part}" for finger in _FINGERS for part in _PHALANGES)
    return (*points, f"{side}_wrist")


BLAZEPOSE_33 = KeypointSet("blazepose33", LANDMARK_NAMES, LANDMARK_NAMES[:11])
"""MediaPipe Pose's landmarks: the set in which the fit, the events and the files speak."""

COCO_17 = KeypointSet("coco17", (*_FACE, *_BODY_12), _FACE)
"""The COCO keypoints (Lin et al., Microsoft COCO, ECCV 2014)."""

MHR_70 = KeypointSet(
    "mhr70",
    (
        *_FACE, *_BODY_12[:4], *_BODY_12[6:],
        "left_big_toe_tip", "left_small_toe_tip", "left_heel",
        "right_big_toe_tip", "right_small_toe_tip", "right_heel",
        *_hand("right"), *_hand("left"),
        "left_olecranon", "right_olecranon", "left_cubital_fossa", "right_cubital_fossa",
        "left_acromion", "right_acromion", "neck",
    ),
    _FACE,
)  # fmt: skip
"""The 70 keypoints of Momentum Human Rig bodies, as SAM 3D Body reports them."""

_LEFT_FOOT = ("left_big_toe_tip", "left_small_toe_tip", "left_heel")
_FEET = [(name, _mirrored_name(name)) for name in _LEFT_FOOT]

HALPE_26 = KeypointSet(
    "halpe26",
    (
        *COCO_17.names, "head_top", "neck", "mid_hip",
        *(name for pair in _FEET for name in pair),
    ),
    (*_FACE, "head_top"),
)  # fmt: skip
"""Halpe's 26 points of body and feet (Fang et al., AlphaPose, TPAMI 2022)."""

_FACE_PAIRS = (
    *((k, 16 - k) for k in range(8)), *((17 + k, 26 - k) for k in range(5)), (31, 35), (32, 34),
    (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46),
    (48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67),
)  # fmt: skip
"""The points of a face, right and left, that a mirror exchanges (Sagonas et al., 300-W, 2013)."""


def _face_68() -> tuple[str, ...]:
    names = [f"face_{k}" for k in range(68)]
    for right, left in _FACE_PAIRS:
        names[right], names[left] = f"right_face_{right}", f"left_face_{right}"
    return tuple(names)


def _hand_from_root(side: str) -> tuple[str, ...]:
    points = (f"{side}_{finger}_{part}" for finger in _FINGERS for part in reversed(_PHALANGES))
    return (f"{side}_hand_root", *points)


COCO_WHOLEBODY_133 = KeypointSet(
    "coco133",
    (
        *COCO_17.names, *_LEFT_FOOT, *(right for _, right in _FEET), *_face_68(),
        *_hand_from_root("left"), *_hand_from_root("right"),
    ),
    (*_FACE, *_face_68()),
)  # fmt: skip
"""COCO-WholeBody: body, feet, 68 points of the face, hands (Jin et al., ECCV 2020)."""

SMPL_24 = KeypointSet("smpl24", JOINT_NAMES, ("head",))
"""SMPL's joints. Its hips lie deeper than a detector's, so it converts to no landmark set."""

KEYPOINT_SETS = {
    each.name: each
    for each in (BLAZEPOSE_33, COCO_17, HALPE_26, COCO_WHOLEBODY_133, MHR_70, SMPL_24)
}

LANDMARKS = len(BLAZEPOSE_33)
"""How many landmarks the fit's tensors and the files hold for a person."""

_SAME_POINT = {
    "left_pinky": "left_pinky_third_joint", "right_pinky": "right_pinky_third_joint",
    "left_index": "left_index_third_joint", "right_index": "right_index_third_joint",
    "left_thumb": "left_thumb_third_joint", "right_thumb": "right_thumb_third_joint",
    "left_foot_index": "left_big_toe_tip", "right_foot_index": "right_big_toe_tip",
}  # fmt: skip
"""BlazePose's name for a point, and MHR's."""

_NEAREST = {
    "left_eye_inner": "left_eye", "left_eye_outer": "left_eye",
    "right_eye_inner": "right_eye", "right_eye_outer": "right_eye",
    "mouth_left": "nose", "mouth_right": "nose",
    "left_pinky": "left_wrist", "left_index": "left_wrist", "left_thumb": "left_wrist",
    "right_pinky": "right_wrist", "right_index": "right_wrist", "right_thumb": "right_wrist",
    "left_heel": "left_ankle", "left_foot_index": "left_ankle",
    "right_heel": "right_ankle", "right_foot_index": "right_ankle",
}  # fmt: skip
"""The point that stands in, unseen, for a landmark that a set lacks: boxes and sizes stay sane."""


@cache
def blazepose_order(keypoints: KeypointSet) -> tuple[np.ndarray, np.ndarray]:
    """Return how a set's points become BlazePose's 33 landmarks.

    Args:
        keypoints: A set that has at least the face's five and the body's twelve points of COCO.

    Returns:
        For each landmark the place (33,) int64 of the point to take, and whether the set really
        has it (33,) bool; where it is False the point is only the nearest one.

    Raises:
        ValueError: The set lacks a point that has no stand-in.
    """
    places, known = [], []
    for name in LANDMARK_NAMES:
        own = next((n for n in (name, _SAME_POINT.get(name)) if n and n in keypoints), None)
        other = _NEAREST.get(name)
        if own is None and (other is None or other not in keypoints):
            raise ValueError(f"{keypoints.name} has no {name}, which the fit needs")
        places.append(keypoints.index(own or str(other)))
        known.append(own is not None)
    out = np.array(places), np.array(known)
    # Callers share them.
    for array in out:
        array.setflags(write=False)
    return out
