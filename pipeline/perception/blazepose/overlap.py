"""Comparing results: whether two are one person, or one is only a part of others."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.core.people import Mask, Person
from pipeline.core.skeleton import LANDMARKS
from pipeline.perception.blazepose.landmarks import OTHER_SIDE

# Every fourth pixel along each side is enough for a share of a mask.
_STEP = 4
_LIMBS = ((11, 13), (13, 15), (12, 14), (14, 16), (11, 12), (11, 23), (12, 24), (23, 24), (23, 25),
          (25, 27), (24, 26), (26, 28), (27, 31), (28, 32), (0, 11), (0, 12))  # fmt: skip
"""The landmarks at the ends of limbs; nose and shoulders stand for head and neck."""
_ENDS = np.array(_LIMBS)
_FACE = 11
"""Landmarks before this one are the face's."""
_BOTH_SIDES = np.stack((np.arange(_FACE, LANDMARKS), OTHER_SIDE[_FACE:]))
"""The landmarks of the limbs, and those on the other side."""
_BREADTH = 0.09
"""A limb's breadth in parts of the person's size."""


def size_px(person: Person) -> float:
    """Return the longer side in pixels of the box around a person's landmarks, 1 at least."""
    return max(_span(person.landmarks_px), 1.0)


def _span(points: np.ndarray) -> float:
    """The longer side of the box around points (N, 2)."""
    # The ufuncs' own reductions: `max` and `ptp` take several times as long for so few numbers.
    return max((np.maximum.reduce(points) - np.minimum.reduce(points)).tolist())


def median_distance(a: Person, b: Person) -> float:
    """Return the median distance of two people's landmarks, in parts of the larger one's size."""
    distances = np.linalg.norm(a.landmarks_px - b.landmarks_px, axis=1)
    return float(np.median(distances)) / max(size_px(a), size_px(b))


def limb_drift(person: Person, points: np.ndarray) -> tuple[float, float]:
    """Return how far a person's limbs moved from ``points``, and the same with sides exchanged.

    Mean distances beyond the motion that all limbs share, in parts of the person's size. Exchanging
    left and right does not change that common motion, so the two numbers compare.

    Args:
        person: The person now.
        points: (33, 2) the person's landmarks in the frame before, in pixels.
    """
    moved = person.landmarks_px[_BOTH_SIDES] - points[_FACE:]
    count = moved.shape[1]
    # The ufuncs' own reductions, as in `size_px`.
    moved -= np.add.reduce(moved, 1, keepdims=True) / count
    moved *= moved
    drift, swapped = np.add.reduce(np.sqrt(moved[..., 0] + moved[..., 1]), 1).tolist()
    scale = count * size_px(person)
    return drift / scale, swapped / scale


def on_mask(person: Person, height: int, width: int) -> float:
    """Return the share of a person's landmarks in the picture that lie on the person's own mask.

    It is low where the network invents most of them. 1 without a mask.
    """
    points = person.landmarks_px
    points = points[((points >= 0) & (points < (width, height))).all(1)]
    if person.mask is None or not len(points):
        return 1.0
    return float(inside(points, person.mask).mean())


def agreement(person: Person) -> float:
    """Return how well a person's limbs agree with the person's own mask, in [0, 1].

    It is the intersection over union of the mask and limbs of a usual breadth. In an ROI at a wrong
    rotation the model is as sure as in the right one, but its landmarks lie across its mask: on
    renders of people upside down, it separates right from wrong answers with an area of 0.94 under
    the ROC curve, and of 0.86 by the presence. 1 without a mask.
    """
    if person.mask is None:
        return 1.0
    back = cv2.invertAffineTransform(person.mask.to_image.astype(np.float64))
    points = person.landmarks_px @ back[:, :2].T + back[:, 2]
    limbs = np.zeros(person.mask.values.shape, np.uint8)
    # Far outside of the mask nothing is drawn, and OpenCV wants no larger numbers.
    ends = np.maximum(np.minimum(points, 5 * len(limbs)), -4 * len(limbs)).astype(np.int32)
    breadth = max(2, round(_BREADTH * _span(points)))
    cv2.polylines(limbs, list(ends[_ENDS]), False, 1, min(breadth, 99))
    mask, drawn = person.mask.values > 0.5, limbs.view(bool)
    shared = int(np.count_nonzero(mask & drawn))
    either = int(np.count_nonzero(mask)) + int(np.count_nonzero(drawn)) - shared
    return shared / max(either, 1)


def share_inside(points: np.ndarray, height: int, width: int) -> float:
    """Return the share of image points (N, 2) that lie in the picture."""
    left, top = np.minimum.reduce(points).tolist()
    right, bottom = np.maximum.reduce(points).tolist()
    # The usual case.
    if left >= 0 and top >= 0 and right < width and bottom < height:
        return 1.0
    return float(((points >= 0) & (points < (width, height))).all(1).mean())


def mask_overlap(person: Person, others: Sequence[Person], size: tuple[int, int]) -> float:
    """Return the share of what is seen of a person that lies on the masks of others, in [0, 1].

    It is near 1 for a leg that was taken for a person, or for a mixture of two tracked people.

    Args:
        person: The person.
        others: The other people.
        size: (H, W) of the picture; what lies beyond it is not seen.
    """
    points = _points(person)
    points = points[((points >= 0) & (points < size[::-1])).all(1)]
    if not len(points):
        return 0.0
    on = np.zeros(len(points), bool)
    for other in others:
        if other.mask is not None:
            on |= inside(points, other.mask)
    return float(on.mean())


def _points(person: Person) -> np.ndarray:
    """Image points (N, 2) all over a person: of the mask, or the landmarks without one."""
    if person.mask is None:
        return person.landmarks_px
    rows, cols = np.nonzero(person.mask.values[::_STEP, ::_STEP] > 0.5)
    # A mask of fewer points than there are landmarks says less than they do.
    if len(rows) < len(person.landmarks_px):
        return person.landmarks_px
    points = np.stack((cols, rows), 1) * float(_STEP)
    return points @ person.mask.to_image[:, :2].T + person.mask.to_image[:, 2]


def inside(points: np.ndarray, mask: Mask) -> np.ndarray:
    """For image points (N, 2), whether each lies on a mask, (N,) bool."""
    return mask.at(points) > 0.5
