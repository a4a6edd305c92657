"""Regions: the turned squares of a picture in which people are looked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

SCALE = 1.25
_NEAR = 0.2
_ALIKE = 1.8


@dataclass(frozen=True, slots=True)
class Roi:
    """A turned square: centre and side in pixels (pixel centres at whole numbers), ``angle`` in
    radians, clockwise on the screen.

    ``score`` is how sure the detector is of somebody here, 0 when it was not asked or saw nobody;
    ``id`` names the person followed in it (-1: not followed yet); ``frames_missed`` counts frames
    in a row without the person, whose landmarks (33, 2) were last seen at ``points`` (None: never)
    and whose left and right are as sure as ``side_votes`` frames that agreed on them.
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

    def to_image(self, size: int) -> np.ndarray:
        """(2, 3) float64: pixels of a ``size`` square crop -> image pixels, centres at whole
        numbers in both."""
        scale = self.side / size
        c, s = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        middle = (size - 1) / 2
        return np.array(
            [
                [c, -s, self.x - (c - s) * middle],
                [s, c, self.y - (s + c) * middle],
            ]
        )


def roi_between(centre: np.ndarray, tip: np.ndarray, score: float, person: int = -1) -> Roi:
    """The region around ``centre``, turned so that ``tip`` is up. Both (2,) pixels.

    MediaPipe's alignment points: the side is twice their distance times 1.25.
    """
    dx, dy = (tip - centre).astype(float)
    angle = float(np.arctan2(dx, -dy))
    side = 2 * float(np.hypot(dx, dy)) * SCALE
    return Roi(float(centre[0]), float(centre[1]), side, angle, score, person)


def same_place(roi: Roi, others: Iterable[Roi]) -> int | None:
    """Index of the nearest of the others that has about the same centre and side, else None."""
    best, index = _NEAR, None
    for i, other in enumerate(others):
        small, large = sorted((roi.side, other.side))
        apart = float(np.hypot(roi.x - other.x, roi.y - other.y))
        if large < _ALIKE * small and apart < best * small:
            best, index = apart / small, i
    return index


def moved(a: Roi, b: Roi) -> float:
    """How much a region's centre or side changed from a to b, in parts of a's side."""
    return max(float(np.hypot(a.x - b.x, a.y - b.y)), abs(a.side - b.side)) / a.side
