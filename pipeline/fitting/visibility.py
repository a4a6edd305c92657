"""What cannot be seen of a person: invented landmarks, what a mask does not show, hidden joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numba_loops import compiled
from pipeline.core.mask_lookup import parts_of, value_at
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
_SEEN, _LIKELY = np.array(CALIBRATION)
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
    right = np.empty((len(seen), len(JOINT_NAMES)), np.float32)
    mean = np.empty(len(seen))
    _see_joints(
        np.ascontiguousarray(seen, np.float32),
        np.ascontiguousarray(joints_m, np.float32),
        np.ascontiguousarray(intrinsics, np.float64),
        sizes, right, mean,
    )  # fmt: skip
    return right, mean


@compiled("void(f4[:, ::1], f4[:, :, ::1], f8[:, :, ::1], f8[:, ::1], f4[:, ::1], f8[::1])")
def _see_joints(seen, joints_m, intrinsics, sizes, right, mean):
    """Fill what `joint_visibility` returns."""
    for n in range(len(seen)):
        total = inside_total = 0.0
        height, width = sizes[n]
        for joint in range(right.shape[1]):
            near = 0.0
            for k in range(LANDMARKS):
                near += LANDMARK_SHARES[joint, k] * seen[n, k]
            x, y, z = joints_m[n, joint]
            # As `camera.project`.
            across, down = x / max(z, 1e-6), y / max(z, 1e-6)
            lens = intrinsics[n]
            u = lens[0, 0] * across + lens[0, 1] * down + lens[0, 2]
            v = lens[1, 0] * across + lens[1, 1] * down + lens[1, 2]
            # A picture without edges shows all.
            inside = 1.0
            if height < np.inf:
                inside = min(max(depth_inside(u, v, height, width), 0.0), 1.0)
            likely = np.interp(near, _SEEN, _LIKELY) * inside
            right[n, joint] = likely
            total += likely
            inside_total += inside
        mean[n] = total / max(inside_total, 1e-6)


@compiled()
def depth_inside(x, y, height, width):
    """Return how deep a point lies inside a picture.

    It is 0 on the picture's edge, negative outside, and 1 where a point is fully in the picture; 0
    where the picture is infinite.
    """
    depth = min(min(x, width - 1.0 - x), min(y, height - 1.0 - y))
    return depth / (_EDGE * max(height, width))


def invented_landmarks(people: Sequence[Person], sizes: np.ndarray) -> np.ndarray:
    """Return how surely the perceiver invented the place of each landmark, (N, 33) in [0, 1].

    It did where the landmark is outside the picture, and where it is hardly visible at the end of a
    limb that begins outside or that the mask does not show: something hides it. The place of a limb
    that the body itself hides is a fair guess, and the mask shows the body there.

    Args:
        people: N people as perceived.
        sizes: As from `picture_sizes`.
    """
    out = np.empty((len(people), LANDMARKS), np.float32)
    for person, (height, width), row in zip(people, sizes.tolist(), out):
        mask, to_image = parts_of(person.mask)
        points = np.ascontiguousarray(person.landmarks_px, np.float32)
        visibility = np.ascontiguousarray(person.visibility, np.float32)
        _invent(points, visibility, mask, to_image, height, width, row)
    return out


@compiled()
def _between(value, none, whole):
    """Return where a value lies between two others, in [0, 1]."""
    return min(max((value - none) / (whole - none), 0.0), 1.0)


@compiled("void(f4[:, ::1], f4[::1], f4[:, ::1], f4[:, ::1], f8, f8, f4[::1])")
def _invent(points, visibility, mask, to_image, height, width, out):
    """Fill the row (33,) of `invented_landmarks`; a mask without pixels is none."""
    doubt, outside = np.empty(LANDMARKS), np.empty(LANDMARKS)
    for k in range(LANDMARKS):
        # How little of the landmark the perceiver sees.
        doubt[k] = _between(np.float64(visibility[k]), _SHOWN, _INVENTED)
        x, y = np.float64(points[k, 0]), np.float64(points[k, 1])
        # A landmark just outside may be one just inside, so that changes gradually.
        outside[k] = min(max(-depth_inside(x, y, height, width), 0.0), 1.0)
    # How surely the limb that ends at each landmark is outside the mask.
    behind = np.zeros(LANDMARKS)
    if len(mask):
        for limb in range(len(_LIMBS)):
            first, last = _LIMBS[limb]
            # Only limbs whose end is in doubt are looked up.
            if doubt[last] > 0:
                shown = 0.0
                for along in _ALONG:
                    x = points[first, 0] + along * (points[last, 0] - points[first, 0])
                    y = points[first, 1] + along * (points[last, 1] - points[first, 1])
                    shown += value_at(mask, to_image, x, y) / len(_ALONG)
                behind[last] = _between(shown, _COVERED, _UNCOVERED)
    for k in range(LANDMARKS):
        # Hands and feet hang on the limb before them.
        invented = doubt[k] * max(behind[k], behind[_BASE[k]])
        beyond = max(outside[k], doubt[k] * outside[_ABOVE[k]])
        out[k] = max(beyond, invented)


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
    for person, (height, width), row, out in zip(people, sizes.tolist(), seen, unknown):
        values, to_image = parts_of(person.mask)
        points = np.ascontiguousarray(person.landmarks_px, np.float32)
        _hide(points, row, values.shape, to_image, height, width, out)
    return unknown


@compiled()
def _place(linear, begin, across, down):
    """Return the place (x, y) in the image of parts of a mask's width and height."""
    x = linear[0, 0] * across + linear[0, 1] * down + begin[0]
    return x, linear[1, 0] * across + linear[1, 1] * down + begin[1]


@compiled("void(f4[:, ::1], f4[::1], UniTuple(i8, 2), f4[:, ::1], f8, f8, b1[:, ::1])")
def _hide(points, seen, shape, to_image, height, width, out):
    """Fill one person's map of `hidden_parts`, (side, side), which is False before."""
    side, limbs = len(out), len(_LIMBS)
    # Pixel centres are at whole numbers, so a mask begins half a pixel before the first one.
    # Places (x, y) are ``linear`` times parts of the mask's width and height, and ``begin``.
    linear, begin = np.empty((2, 2)), np.empty(2)
    for axis in range(2):
        right, below = np.float64(to_image[axis, 0]), np.float64(to_image[axis, 1])
        linear[axis, 0], linear[axis, 1] = right * shape[1], below * shape[0]
        begin[axis] = to_image[axis, 2] - 0.5 * (right + below)
    # A picture without edges has no outside, and a mask whose corners are inside is inside.
    middle = begin + 0.5 * (linear[:, 0] + linear[:, 1])
    reach = 0.5 * (np.abs(linear[:, 0]) + np.abs(linear[:, 1]))
    low, high = middle - reach, middle + reach
    within = low[0] >= 0 and low[1] >= 0 and high[0] <= width - 1 and high[1] <= height - 1
    for row in range(0 if within or height == np.inf else side):
        for column in range(side):
            x, y = _place(linear, begin, (column + 0.5) / side, (row + 0.5) / side)
            out[row, column] = x < 0 or y < 0 or x > width - 1 or y > height - 1
    # All landmarks, then the middles of limbs.
    count = LANDMARKS + limbs
    marks, unseen = np.empty((count, 2)), np.empty(count, np.bool_)
    for k in range(LANDMARKS):
        marks[k], unseen[k] = points[k], seen[k] < _HIDDEN
    for limb in range(limbs):
        first, last = _LIMBS[limb]
        k = LANDMARKS + limb
        marks[k], unseen[k] = 0.5 * (marks[first] + marks[last]), unseen[first] or unseen[last]
    if not unseen.any():
        return
    # Coarser: what hides a limb is not known to a pixel, and this runs for every frame.
    coarse = side // _COARSE
    for row in range(coarse):
        for column in range(coarse):
            x, y = _place(linear, begin, (column + 0.5) / coarse, (row + 0.5) / coarse)
            nearest, least = 0, np.inf
            for k in range(count):
                apart = (marks[k, 0] - x) ** 2 + (marks[k, 1] - y) ** 2
                if apart < least:
                    nearest, least = k, apart
            if unseen[nearest]:
                top, left = _COARSE * row, _COARSE * column
                out[top : top + _COARSE, left : left + _COARSE] = True
