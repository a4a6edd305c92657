"""Where a person's next crop is, and what is known of a person by its keypoints alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.core.people import Mask, Person, as_blazepose
from pipeline.core.skeleton import BLAZEPOSE_33
from pipeline.perception.blazepose.roi import Roi, roi_between

_MARGIN = 0.05
"""How far a detector's box is beyond the keypoints' on every side, in parts of its longer side:
hair, soles and clothes."""
LEAST_SIDE_PX = 8.0
"""A box with a shorter longer side shows nothing."""
_STRAYED = 0.2
"""A crop whose person's box is this far off it, in parts of its side, is taken again there."""
_FADE_S = 0.25
"""For how long a person is expected to move on as before, in seconds."""
_MASK, _LIMB_WIDTH = 96, 9
"""Side of a rough mask, and width of a limb in it, in its pixels."""
_TRUNK = BLAZEPOSE_33.indices("left_shoulder", "right_shoulder", "right_hip", "left_hip")
_LIMBS = [(11, 13), (13, 15), (12, 14), (14, 16), (23, 25), (25, 27), (24, 26), (26, 28)]
"""Upper arms, forearms, thighs and shanks."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a followed person was last, and how it moves.

    Attributes:
        points: (33, 2) its keypoints as BlazePose's landmarks, pixels.
        box: (4,) pixels around them.
        velocity: (4,) pixels a second of the box's sides.
        time_s: The time of that frame, seconds.
    """

    points: np.ndarray
    box: np.ndarray
    velocity: np.ndarray
    time_s: float

    @classmethod
    def of(cls, person: Person, time_s: float) -> Motion:
        """Return the motion of a person that was seen in one frame only."""
        return cls(
            as_blazepose(person).landmarks_px, person.box_px.astype(float), np.zeros(4), time_s
        )

    def at(self, time_s: float) -> np.ndarray:
        """Return the box (4,) to expect at a time; the velocity fades."""
        ahead_s = float(np.clip(time_s - self.time_s, -_FADE_S, _FADE_S))
        return self.box + self.velocity * ahead_s

    def placed(self, old: Roi, new: Roi, time_s: float) -> Motion:
        """Return the motion of a person whose ROI was moved: the same figure, there, as large."""
        grown = new.side / old.side

        def there(points: np.ndarray) -> np.ndarray:
            return (points - (old.x, old.y)) * grown + (new.x, new.y)

        box = there(self.box.reshape(2, 2)).ravel()
        return Motion(there(self.points), box, np.zeros(4), time_s)

    def drift(self, person: Person, time_s: float) -> float:
        """Return how far a person's keypoints are from where they are expected, in pixels."""
        moved = (self.at(time_s) - self.box).reshape(2, 2).mean(0)
        off = as_blazepose(person).landmarks_px - (self.points + moved)
        return float(np.median(np.linalg.norm(off, axis=1)))

    def then(self, person: Person, time_s: float) -> Motion:
        """Return the motion after the person was seen at a later time."""
        following, step_s = Motion.of(person, time_s), time_s - self.time_s
        if step_s <= 0:
            return following
        # The mean of old and new: a single box is too unsteady to tell a velocity.
        velocity = 0.5 * (self.velocity + (following.box - self.box) / step_s)
        return replace(following, velocity=velocity)


def in_picture(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a box (4,) of keypoints as a detector's: with a margin, cut off by the picture.

    Args:
        box: x0, y0, x1, y1 in pixels.
        size: (H, W) of the picture.
    """
    margin = _MARGIN * longer_side(box)
    grown = box + np.array([-margin, -margin, margin, margin])
    height, width = size
    return np.clip(grown, -0.5, np.tile([width - 0.5, height - 0.5], 2))


def seen_box(person: Person, size: tuple[int, int]) -> np.ndarray:
    """Return the box (4,) around a person as a detector would see it (`in_picture`)."""
    return in_picture(person.box_px.astype(float), size)


def strayed(asked: np.ndarray, found: np.ndarray) -> bool:
    """Return whether a person's box (4,) lies too far off the one that was asked for."""
    return bool(np.abs(asked - found).max() > _STRAYED * longer_side(asked))


def roi_of(person: Person) -> Roi:
    """Return the ROI in which BlazePose's landmark model looks for a measured person.

    As from its own alignment points: about the hips, as large as the farthest keypoint demands, up
    along the spine.
    """
    points = as_blazepose(person).landmarks_px.astype(float)
    hips = points[list(BLAZEPOSE_33.hips)].mean(0)
    spine = points[BLAZEPOSE_33.indices("left_shoulder", "right_shoulder")].mean(0) - hips
    reach = float(np.linalg.norm(points - hips, axis=1).max())
    up = spine / max(float(np.linalg.norm(spine)), 1e-6)
    roi = roi_between(hips.tolist(), (hips + max(reach, 1.0) * up).tolist(), 0.0, person.roi)
    return replace(roi, points=points.astype(np.float32))


def longer_side(box: np.ndarray) -> float:
    """Return the longer side of a box (4,)."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def limbs_mask(person: Person) -> Mask:
    """Return a rough mask of a person of BlazePose's landmarks: trunk, head and limbs."""
    points = person.landmarks_px.astype(float)
    low, side = points.min(0), max(float(np.ptp(points, axis=0).max()), 1.0)
    low, side = low - 0.1 * side, 1.2 * side
    places = np.rint((points - low) * ((_MASK - 1) / side)).astype(np.int32)
    mask = np.zeros((_MASK, _MASK), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(places[_TRUNK]), 1)
    neck = places[_TRUNK[:2]].mean(0).astype(np.int32)
    for start, end in [(places[a], places[b]) for a, b in _LIMBS] + [(places[0], neck)]:
        cv2.line(mask, start.tolist(), end.tolist(), 1, _LIMB_WIDTH)
    scale = side / (_MASK - 1)
    to_image = np.array([[scale, 0, low[0]], [0, scale, low[1]]], np.float32)
    return Mask(mask.astype(np.float32), to_image)
