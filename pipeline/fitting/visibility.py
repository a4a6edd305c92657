"""What cannot be seen of a person: invented landmarks, what a mask does not show, hidden joints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

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


def picture_sizes(sizes: Sequence[tuple[int, int] | None]) -> np.ndarray:
    """Return heights and widths (N, 2) float64; infinite ones for None, a picture without edges."""
    return np.array([size or (np.inf, np.inf) for size in sizes], np.float64).reshape(-1, 2)


def seen_landmarks(people: Sequence[Person], sizes: np.ndarray) -> np.ndarray:
    """Return the landmarks' visibility (N, 33) float32 without what is invented.

    Args:
        people: N people as perceived.
        sizes: As from `picture_sizes`.
    """
    visibility = np.array([person.visibility for person in people], np.float32)
    return visibility * (1.0 - invented_landmarks(people, sizes))


def joint_visibility(
    seen: np.ndarray, joints_m: np.ndarray, intrinsics: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how visible each SMPL joint of fitted bodies is, and the means in their pictures.

    The first, (N, 24) float32 in [0, 1], is the probability that the joint lies where it is seen:
    within 0.2 of the torso's length in the image (as in PCK), which says the same as "unseen" where
    it is low. It follows by a calibrated curve from the mean visibility of the landmarks next to
    the joint, and is 0 for a joint outside the picture. The second, (N,), is the mean probability
    of the joints in the picture, 0 if there are none.

    Args:
        seen: (N, 33) as from `seen_landmarks`.
        joints_m: The fitted joints (N, 24, 3) in metres.
        intrinsics: (N, 3, 3) the cameras' K in pixels.
        sizes: As from `picture_sizes`.
    """
    right = np.interp(seen @ LANDMARK_SHARES.T, *CALIBRATION)
    inside = _clipped(depth_inside(project(joints_m, intrinsics), sizes[:, None]))
    inside[np.isinf(sizes[:, 0])] = 1.0
    right = right * inside
    return right.astype(np.float32), right.sum(1) / np.maximum(inside.sum(1), 1e-6)


def _clipped(shares: np.ndarray) -> np.ndarray:
    """The shares in [0, 1]; `np.clip` takes several times as long to begin."""
    return np.minimum(np.maximum(shares, 0.0), 1.0)


def depth_inside(points_px: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return how deep points (..., 2) lie inside pictures, (...).

    It is 0 on the picture's edge, negative outside, and 1 where a point is fully in the picture.

    Args:
        points_px: The points.
        size: (..., 2) heights and widths; 0 comes out where they are infinite.
    """
    depths = np.minimum(points_px, size[..., ::-1] - 1.0 - points_px)
    return np.minimum(depths[..., 0], depths[..., 1]) / (_EDGE * np.maximum.reduce(size, -1))


def invented_landmarks(people: Sequence[Person], sizes: np.ndarray) -> np.ndarray:
    """Return how surely the perceiver invented the place of each landmark, (N, 33) in [0, 1].

    It did where the landmark is outside the picture, and where it is hardly visible at the end of a
    limb that begins outside or that the mask does not show: something hides it. The place of a limb
    that the body itself hides is a fair guess, and the mask shows the body there.

    Args:
        people: N people as perceived.
        sizes: As from `picture_sizes`.
    """
    visibility = np.array([person.visibility for person in people])
    # How little of each landmark the perceiver sees.
    doubt = _clipped((_SHOWN - visibility) / (_SHOWN - _INVENTED))
    invented = np.zeros(doubt.shape)
    for k in np.flatnonzero((doubt[:, _LIMBS[:, 1]] > 0).any(1)).tolist():
        invented[k] = doubt[k] * _behind_something(people[k], doubt[k])
    points_px = np.array([person.landmarks_px for person in people])
    # A landmark just outside may be one just inside, so that changes gradually.
    outside = _clipped(-depth_inside(points_px, sizes[:, None]))
    beyond = np.maximum(outside, doubt * outside[:, _ABOVE])
    return np.maximum(beyond, invented).astype(np.float32)


def _behind_something(person: Person, doubt: np.ndarray) -> np.ndarray:
    """How surely the limb that ends at each landmark is outside the mask, (33,) in [0, 1].

    Only limbs whose end is in doubt are looked up.
    """
    out = np.zeros(LANDMARKS)
    if person.mask is None:
        return out
    limbs = _LIMBS[doubt[_LIMBS[:, 1]] > 0]
    first, last = person.landmarks_px[limbs].swapaxes(0, 1)[..., None, :]
    shown = person.mask.at(first + _ALONG[:, None] * (last - first)).mean(1)
    out[limbs[:, 1]] = _clipped((_COVERED - shown) / (_COVERED - _UNCOVERED))
    # Hands and feet hang on the limb before them.
    return np.maximum(out, out[_BASE])


def hidden_parts(
    people: Sequence[Person], side: int, sizes: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Return where people's masks say nothing about the body, (N, side, side) bool.

    A mask says nothing outside the picture, where it has to end, nor around a hidden limb: there it
    ends at what hides the limb, which may be the body itself. The surroundings of a limb are the
    pixels to which no other landmark, and no middle of another limb, is nearer.

    Args:
        people: N people with masks.
        side: Pixels along each side of the result, which covers the whole mask.
        sizes: As from `picture_sizes`.
        seen: (N, 33) as from `seen_landmarks`.
    """
    unknown = np.zeros((len(people), side, side), bool)
    masks = [person.mask for person in people if person.mask is not None]
    corners_px = _places_px(masks, _CORNERS)
    beyond = np.flatnonzero((depth_inside(corners_px, sizes[:, None]) < 0).any(1))
    if len(beyond):
        places = _places_px([masks[k] for k in beyond], _grid(side))
        x, y = places[..., 0], places[..., 1]
        height, width = (sizes[beyond] - 1).T[..., None]
        outside = (x < 0) | (y < 0) | (x > width) | (y > height)
        unknown[beyond] = outside.reshape(-1, side, side)
    unseen = np.concatenate((seen, seen[:, _LIMBS].min(2)), 1) < _HIDDEN
    hidden = np.flatnonzero(unseen.any(1)).tolist()
    if hidden:
        points = np.array([people[k].landmarks_px for k in hidden])
        marks = np.concatenate((points, points[:, _LIMBS].mean(2)), 1)
        # Coarser: what hides a limb is not known to a pixel, and this runs for every frame.
        at = _places_px([masks[k] for k in hidden], _grid(side // _COARSE))
        # |a - b|^2 without the term that all marks share.
        apart = (marks**2).sum(2)[:, None] - 2 * at @ marks.swapaxes(1, 2)
        coarse = np.take_along_axis(unseen[hidden], apart.argmin(2), 1)
        coarse = coarse.reshape(-1, side // _COARSE, side // _COARSE)
        unknown[hidden] |= coarse.repeat(_COARSE, 1).repeat(_COARSE, 2)
    return unknown


_CORNERS = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])


@cache
def _grid(side: int) -> np.ndarray:
    """The centres (side * side, 2) of an even grid's pixels, in parts of its width and height."""
    steps = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def _places_px(masks: Sequence[Mask], parts: np.ndarray) -> np.ndarray:
    """The places (N, M, 2) in the image of points (M, 2) in parts of a mask's width and height."""
    sides = np.array([mask.values.shape[::-1] for mask in masks])
    to_image = np.array([mask.to_image for mask in masks])
    # Pixel centres are at whole numbers, so a mask begins half a pixel before the first one.
    first = to_image[:, :, 2:] - 0.5 * (to_image[:, :, :1] + to_image[:, :, 1:2])
    linear = to_image[:, :, :2] * sides[:, None]
    # Products by hand: numpy multiplies many small matrices slowly.
    places = linear[:, :, :1] * parts[:, 0] + linear[:, :, 1:] * parts[:, 1] + first
    return places.swapaxes(1, 2)
