"""What cannot be seen of a person: invented landmarks, what a mask does not show, hidden joints."""

from __future__ import annotations

import numpy as np

from pipeline.core.camera import project
from pipeline.core.people import Mask, Person
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
"""A point is fully in the picture this far from the edge, as a fraction of the longer side."""
_INVENTED, _SHOWN = 0.15, 0.4
"""Visibility up to which the place of a landmark is doubted, and from which on it is not."""
_UNCOVERED, _COVERED = 0.1, 0.5
"""Share of a limb in the mask up to which something hides it, and from which on nothing does."""
_HIDDEN = 0.3
"""A landmark that is less visible than this is taken as hidden."""
CALIBRATION = (
    (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
    (0.18, 0.31, 0.61, 0.85, 0.87, 0.88, 0.98),
)
"""Visibilities, and the probabilities that a joint with them lies within 0.2 of the torso's length
of its true place; straight lines between. Measured by `benchmarks/calibration.py`."""
_ABOVE_NAMES = {
    "elbow": "shoulder", "wrist": "elbow", "pinky": "elbow", "index": "elbow", "thumb": "elbow",
    "knee": "hip", "ankle": "knee", "heel": "knee", "foot_index": "knee",
}  # fmt: skip
_LIMBS = np.array(
    [
        BLAZEPOSE_33.indices(f"{side}_{_ABOVE_NAMES[end]}", f"{side}_{end}")
        for side in ("left", "right")
        for end in ("elbow", "wrist", "knee", "ankle")
    ]
)
"""The landmarks at both ends of each part of a limb, (8, 2)."""


_BASE_NAMES = {
    "pinky": "wrist", "index": "wrist", "thumb": "wrist", "heel": "ankle", "foot_index": "ankle",
}  # fmt: skip


def _landmarks_by(names: dict[str, str]) -> np.ndarray:
    """The landmark of the same side that is named for each landmark, else itself, (33,)."""
    out = []
    for name in BLAZEPOSE_33.names:
        side, _, part = name.partition("_")
        out.append(BLAZEPOSE_33.index(f"{side}_{names[part]}" if part in names else name))
    return np.array(out)


_ABOVE = _landmarks_by(_ABOVE_NAMES)
"""The landmark at which each landmark's limb begins, itself for trunk and head."""
_BASE = _landmarks_by(_BASE_NAMES)
"""The landmark on which each point of a hand or foot hangs, itself for all others."""
_ALONG = np.linspace(0.2, 0.8, 4)
"""Where a limb is looked up in the mask, as shares of its length."""
_COARSE = 4
"""Pixels of an outline along a pixel of the map of what is hidden."""


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
) -> tuple[np.ndarray, float]:
    """Return how visible each SMPL joint of a fitted body is, and their mean in the picture.

    The first, (24,) float32 in [0, 1], is the probability that the joint lies where it is seen:
    within 0.2 of the torso's length in the image (as in PCK), which says the same as "unseen" where
    it is low. It follows by a calibrated curve from the mean visibility of the landmarks next to
    the joint, and is 0 for a joint outside the picture. The second is the mean probability of the
    joints in the picture, 0 if there are none.

    Args:
        person: The person as perceived.
        joints_m: The fitted joints (24, 3) in metres.
        intrinsics: (3, 3) the camera's K in pixels.
        size: The picture's height and width in pixels; None where it is not known.
    """
    visible = LANDMARK_SHARES @ (person.visibility * (1.0 - invented_landmarks(person, size)))
    right = np.interp(visible, *CALIBRATION)
    if size is None:
        return right.astype(np.float32), float(right.mean())
    inside = np.clip(depth_inside(project(joints_m, intrinsics), size), 0.0, 1.0)
    right = right * inside
    return right.astype(np.float32), float(right.sum() / max(inside.sum(), 1e-6))


def depth_inside(points_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return how deep points (..., 2) lie inside a picture of ``size`` (height, width), (...).

    It is 0 on the picture's edge, negative outside, and 1 where a point is fully in the picture.
    """
    last = np.array([size[1] - 1, size[0] - 1])
    return np.minimum(points_px, last - points_px).min(-1) / (_EDGE * max(size))


def invented_landmarks(person: Person, size: tuple[int, int] | None) -> np.ndarray:
    """Return how surely the perceiver invented the place of each landmark, (33,) in [0, 1].

    It did where the landmark is outside the picture, and where it is hardly visible at the end of a
    limb that begins outside or that the mask does not show: something hides it. The place of a limb
    that the body itself hides is a fair guess, and the mask shows the body there.

    Args:
        person: The person as perceived.
        size: The picture's height and width in pixels; None takes everything as inside it.
    """
    doubt = _doubt(person)
    invented = doubt * _behind_something(person, doubt)
    if size is None:
        return np.asarray(invented, np.float32)
    # A landmark just outside may be one just inside, so that changes gradually.
    outside = np.clip(-depth_inside(person.landmarks_px, size), 0.0, 1.0)
    return np.maximum(np.maximum(outside, doubt * outside[_ABOVE]), invented).astype(np.float32)


def _doubt(person: Person) -> np.ndarray:
    """How little of each landmark the perceiver sees, (33,) in [0, 1]."""
    return np.clip((_SHOWN - person.visibility) / (_SHOWN - _INVENTED), 0.0, 1.0)


def _behind_something(person: Person, doubt: np.ndarray) -> np.ndarray:
    """How surely the limb that ends at each landmark is outside the mask, (33,) in [0, 1].

    Only limbs whose end is in doubt are looked up.
    """
    out = np.zeros(LANDMARKS)
    limbs = _LIMBS[doubt[_LIMBS[:, 1]] > 0]
    if person.mask is None or not len(limbs):
        return out
    first, last = person.landmarks_px[limbs].swapaxes(0, 1)[..., None, :]
    shown = person.mask.at(first + _ALONG[:, None] * (last - first)).mean(1)
    out[limbs[:, 1]] = np.clip((_COVERED - shown) / (_COVERED - _UNCOVERED), 0.0, 1.0)
    # Hands and feet hang on the limb before them.
    return np.maximum(out, out[_BASE])


def hidden_parts(
    person: Person, side: int, size: tuple[int, int] | None, visible: np.ndarray | None = None
) -> np.ndarray:
    """Return where a person's mask says nothing about the body, (side, side) bool.

    It says nothing outside the picture, where it has to end, nor around a hidden limb: there it
    ends at what hides the limb, which may be the body itself. The surroundings of a limb are the
    pixels to which no other landmark, and no middle of another limb, is nearer.

    Args:
        person: The person, with a mask.
        side: Pixels along each side of the result, which covers the whole mask.
        size: The picture's height and width in pixels; None takes everything as inside it.
        visible: (33,) the landmarks' visibility without what is invented, if it is at hand.
    """
    assert person.mask is not None
    unknown = np.zeros((side, side), bool)
    corners_px = _places_px(person.mask, 2, whole=True)
    if size is not None and (depth_inside(corners_px, size) < 0).any():
        unknown |= depth_inside(_places_px(person.mask, side), size) < 0
    if visible is None:
        visible = person.visibility * (1.0 - invented_landmarks(person, size))
    unseen = np.append(visible, visible[_LIMBS].min(1)) < _HIDDEN
    if unseen.any():
        marks = np.concatenate((person.landmarks_px, person.landmarks_px[_LIMBS].mean(1)))
        # Coarser: what hides a limb is not known to a pixel, and this runs for every frame.
        at = _places_px(person.mask, side // _COARSE).reshape(-1, 2)
        # |a - b|^2 without the term that all marks share.
        nearest = ((marks**2).sum(1) - 2 * at @ marks.T).argmin(1)
        coarse = unseen[nearest].reshape(side // _COARSE, side // _COARSE)
        unknown |= coarse.repeat(_COARSE, 0).repeat(_COARSE, 1)
    return unknown


def _places_px(mask: Mask, side: int, whole: bool = False) -> np.ndarray:
    """The places (side, side, 2) in the image of an even grid over a mask.

    They are the centres of the grid's pixels; with ``whole`` they reach to the mask's corners.
    """
    height, width = mask.values.shape
    steps = np.linspace(0, 1, side) if whole else (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(steps * width - 0.5, steps * height - 0.5)
    return np.stack((x, y), -1) @ mask.to_image[:, :2].T + mask.to_image[:, 2]
