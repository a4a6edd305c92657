"""Regions of interest (ROIs): the rotated squares of a picture in which people are found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.core.people import Person
from pipeline.core.records import replaced

SCALE = 1.25
"""Side of an ROI over twice the distance from its centre to its tip (MediaPipe's margin)."""
_MAX_DISTANCE = 0.2
"""ROIs are at the same place when their centres are closer than this, in parts of the smaller
side."""
_MAX_SIDE_RATIO = 1.8
"""... and their sides differ by less than this factor."""
_OFF_TORSO = 0.35
"""Radians between an ROI and the torso from which the ROI follows the torso, ..."""
_LEAST_TORSO = 0.12
"""... where that is at least as long in the picture, in parts of the ROI's side."""
_TORSO = np.array([11, 12, 23, 24])
"""Both shoulders and both hips."""
_TURN_WEIGHT = 0.6
"""Weight of the latest frame in how fast a person turns."""
_FORESEEN_S = 0.2
"""A turn is foreseen for this long."""
_FASTEST_TURN = 20.0
"""Radians a second; a somersault turns at half of this."""

Row = tuple[float, float, float]
"""A row of an affine map of the plane."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """What is known of a tracked person while it overlaps others.

    Attributes:
        person: The person in the last frame.
        time_s: Time of that frame in seconds.
        shown_s: Time of the last frame in which the person was not hidden.
        velocity_px: (2,) pixels a second.
        in_front: The evidence that the person is in front of another one, by the other's id;
            negative for behind.
    """

    person: Person
    time_s: float
    shown_s: float
    velocity_px: np.ndarray
    in_front: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Roi:
    """A rotated square of a picture, and what is known of the person that is tracked in it.

    Attributes:
        x: Centre in pixels, to the right; pixel centres are at whole numbers.
        y: Centre in pixels, down.
        side: Side in pixels.
        angle: Rotation in radians, clockwise on the screen.
        score: The detector's last score here; 0 where it did not run or found nothing.
        id: The id of the tracked person; -1 for one that is not tracked yet.
        frames_missed: Frames in a row in which the person was not found.
        points: (33, 2) the person's last landmarks in pixels; None before the first.
        side_votes: How firmly left and right are known: about how many frames agreed on them.
        age: Frames in which the person was found.
        unconfirmed: Detector passes since one last saw the person.
        by_box: Whether the second detector found the place, which sees a box and no hips.
        overlap: What is known of the person while it overlaps others (`occlusion`).
        time_s: Time of the frame of ``points`` in seconds.
        turn: How fast the person turns in the picture, radians a second, clockwise.
        rest: Frames for which the person's rotation is not doubted again.
    """

    x: float
    y: float
    side: float
    angle: float
    score: float
    id: int = -1
    frames_missed: int = 0
    points: np.ndarray | None = field(default=None, compare=False)
    side_votes: float = field(default=0.0, compare=False)
    age: int = field(default=0, compare=False)
    unconfirmed: int = field(default=0, compare=False)
    by_box: bool = field(default=False, compare=False)
    overlap: Overlap | None = field(default=None, compare=False)
    time_s: float = field(default=math.nan, compare=False)
    turn: float = field(default=0.0, compare=False)
    rest: int = field(default=0, compare=False)

    def rows_to_image(self, size: int) -> tuple[Row, Row]:
        """Return the rows of the map from a crop's pixels to image pixels.

        Args:
            size: Side of the crop in pixels; pixel centres are at whole numbers in both.
        """
        scale = self.side / size
        c, s = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        middle = (size - 1) / 2
        return (c, -s, self.x - (c - s) * middle), (s, c, self.y - (s + c) * middle)

    def to_image(self, size: int) -> np.ndarray:
        """Return the same map as an array (2, 3) float64."""
        return np.array(self.rows_to_image(size))


def continued(before: Roi, after: Roi, time_s: float) -> Roi:
    """Return ``after`` as the next place of a track that was at ``before`` in the frame before.

    It keeps the detector's score of ``before``.

    Args:
        before: Where the track was.
        after: Where it was found.
        time_s: When it was found; earlier than before where tracking goes back in time.
    """
    turn, elapsed_s = 0.0, time_s - before.time_s
    if abs(elapsed_s) > 1e-3:
        now = math.remainder(after.angle - before.angle, 2 * math.pi) / elapsed_s
        # No person turns faster: a mistaken rotation was corrected.
        if abs(now) < _FASTEST_TURN:
            turn = before.turn + _TURN_WEIGHT * (now - before.turn)
    return replaced(
        after, score=before.score, age=before.age + 1, unconfirmed=before.unconfirmed,
        time_s=time_s, turn=turn, rest=max(after.rest, before.rest - 1),
    )  # fmt: skip


def along_torso(roi: Roi) -> Roi:
    """Return the next ROI of a person, turned along the torso where it lies far off it.

    The model's own next ROI stays near the rotation that was asked for, while its landmarks still
    follow the person. A torso that points at the camera says nothing.
    """
    if roi.points is None:
        return roi
    # In plain numbers: numpy takes longer to begin than this takes.
    (ax, ay), (bx, by), (cx, cy), (ex, ey) = roi.points[_TORSO].tolist()
    dx, dy = 0.5 * (ax + bx - cx - ex), 0.5 * (ay + by - cy - ey)
    if math.hypot(dx, dy) < _LEAST_TORSO * roi.side:
        return roi
    off = math.remainder(math.atan2(dx, -dy) - roi.angle, 2 * math.pi)
    return replaced(roi, angle=roi.angle + off) if abs(off) > _OFF_TORSO else roi


def turned(roi: Roi, time_s: float) -> Roi:
    """Return the ROI of a track, turned as far as it turns until a time soon after or before."""
    elapsed_s = time_s - roi.time_s
    if not abs(elapsed_s) <= _FORESEEN_S:
        return roi
    return replaced(roi, angle=roi.angle + roi.turn * elapsed_s)


def roi_between(
    centre: Sequence[float],
    tip: Sequence[float],
    score: float,
    person: int = -1,
    points: np.ndarray | None = None,
) -> Roi:
    """Return the ROI around a centre, rotated so that the tip is up.

    As from MediaPipe's alignment points: the side is twice their distance, times 1.25.

    Args:
        centre: x and y in pixels.
        tip: x and y in pixels.
        score: The detector's score.
        person: The id of the tracked person.
        points: (33, 2) the person's landmarks in pixels, where they are known.
    """
    (x, y), (tip_x, tip_y) = centre, tip
    dx, dy = tip_x - x, tip_y - y
    # Up is -y in an image.
    side, angle = 2 * math.hypot(dx, dy) * SCALE, math.atan2(dx, -dy)
    return Roi(x, y, side, angle, score, person, points=points)


def same_place(roi: Roi, others: Iterable[Roi]) -> int | None:
    """Return the index of the nearest other ROI with about the same centre and side, else None."""
    best, index = _MAX_DISTANCE, None
    for i, other in enumerate(others):
        small, large = sorted((roi.side, other.side))
        distance = math.hypot(roi.x - other.x, roi.y - other.y)
        if large < _MAX_SIDE_RATIO * small and distance < best * small:
            best, index = distance / small, i
    return index


def roi_change(a: Roi, b: Roi) -> float:
    """Return how much an ROI's centre or side changed from a to b, in parts of a's side."""
    return max(math.hypot(a.x - b.x, a.y - b.y), abs(a.side - b.side)) / a.side


def turn_between(a: Roi, b: Roi) -> float:
    """Return the angle between two ROIs in radians, 0 to pi."""
    return abs(math.remainder(b.angle - a.angle, 2 * math.pi))
