"""Points of the background, found in one picture and followed to another."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.core.yuv import Pixels, YuvImage

LONGER_SIDE_PX = 640
"""Pictures are shrunk to this."""
_CELL_PX = 40
_A_CELL = 2
"""Points are spread: this many at most in each cell of that size."""
_PATCH = (15, 15)
_SMOOTH_PX = 1.5
_LEAST_CORNER = 4e-4
"""The smaller eigenvalue of a corner's structure (Shi and Tomasi, Good features to track, 1994), as
OpenCV scales it for grey levels of 0 to 1. Sensor noise of 6 grey levels on a wall has less."""
_BACK_PX = 0.5
"""A point that is followed there and back comes within this, or is not trusted."""
_LEAST_POINTS, _LEAST_CELLS = 12, 6
_STOP = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 15, 0.01)
_EDGE_PX = 8


class Shrunk:
    """The scale from a picture to its small copy.

    Args:
        size: (height, width) of the picture, pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = size
        factor = min(1.0, LONGER_SIDE_PX / max(size))
        self.size = max(1, round(height * factor)), max(1, round(width * factor))
        self.scale = np.array([self.size[1] / width, self.size[0] / height])

    def intrinsics(self, intrinsics: np.ndarray) -> np.ndarray:
        """Return K (3, 3) of the small copy from that of the picture."""
        # Pixel centres are at whole numbers.
        shift = 0.5 * self.scale - 0.5
        change = np.array([[self.scale[0], 0, shift[0]], [0, self.scale[1], shift[1]], [0, 0, 1]])
        return change @ intrinsics

    def grey(self, pixels: Pixels | np.ndarray) -> np.ndarray:
        """Return a picture's small copy, uint8 (h, w), in the light that all pictures share.

        Mean and contrast are made alike in every neighbourhood, so flicker, shadows and exposure
        move no point.

        Args:
            pixels: RGB uint8 (H, W, 3), grey uint8 (H, W), or planes.
        """
        image = pixels.planes[0] if isinstance(pixels, YuvImage) else pixels
        height, width = self.size
        small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        if small.ndim == 3:
            small = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        return _in_equal_light(small)


def _in_equal_light(grey: np.ndarray) -> np.ndarray:
    height, width = grey.shape
    level = grey.astype(np.float32)
    coarse = max(2, width // 8), max(2, height // 8)
    mean, square = (
        cv2.blur(cv2.resize(part, coarse, interpolation=cv2.INTER_AREA), (5, 5))
        for part in (level, level * level)
    )
    # The 6 keep noise where there is nothing else from becoming structure.
    gain = 32.0 / (np.sqrt(np.maximum(square - mean * mean, 0.0)) + 6.0)
    smooth_mean, smooth_gain = (cv2.resize(part, (width, height)) for part in (mean, gain))
    return np.asarray(cv2.convertScaleAbs((level - smooth_mean) * smooth_gain + 128.0))


def find_points(grey: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return corners (N, 2) float32, spread over the picture, pixels.

    Args:
        grey: A small copy of `Shrunk.grey`.
        left_out: (P, 4) boxes x0, y0, x1, y1 in which none is wanted, pixels of the copy.
    """
    height, width = grey.shape
    # Noise differs from pixel to pixel, and a background's structure less.
    strength = cv2.cornerMinEigenVal(cv2.GaussianBlur(grey, (0, 0), _SMOOTH_PX), 5)
    strength[strength < cv2.dilate(strength, np.ones((7, 7), np.uint8))] = 0
    strength[strength < _LEAST_CORNER] = 0
    for x0, y0, x1, y1 in np.clip(left_out, 0, max(height, width)).astype(int):
        strength[y0 : y1 + 1, x0 : x1 + 1] = 0
    strength[:_EDGE_PX] = strength[-_EDGE_PX:] = 0
    strength[:, :_EDGE_PX] = strength[:, -_EDGE_PX:] = 0
    y, x = np.nonzero(strength)
    order = np.argsort(-strength[y, x], kind="stable")
    points = np.column_stack([x, y])[order]
    cell = cells(points)
    # The place of each point among those of its cell, the strongest first.
    by_cell = np.argsort(cell, kind="stable")
    _, start, count = np.unique(cell[by_cell], return_index=True, return_counts=True)
    place = np.empty(len(points), int)
    place[by_cell] = np.arange(len(points)) - np.repeat(start, count)
    return points[place < _A_CELL].astype(np.float32)


def cells(points_px: np.ndarray) -> np.ndarray:
    """Return the number of the cell of the picture in which each point (N, 2) is, (N,) int."""
    x, y = (np.asarray(points_px).T // _CELL_PX).astype(int)
    return y * 1000 + x


def are_enough(points_px: np.ndarray) -> bool:
    """Return whether points (N, 2) are enough for a view: many, and spread over the picture."""
    return len(points_px) >= _LEAST_POINTS and len(np.unique(cells(points_px))) >= _LEAST_CELLS


def in_boxes(points_px: np.ndarray, boxes_px: np.ndarray) -> np.ndarray:
    """Return which points (N, 2) are in one of the boxes (P, 4): (N,) bool."""
    points = points_px[:, None]
    inside: np.ndarray = (points >= boxes_px[:, :2]) & (points <= boxes_px[:, 2:])
    return np.asarray(np.any(np.all(inside, axis=-1), axis=1))


def follow(
    before: np.ndarray,
    now: np.ndarray,
    points_px: np.ndarray,
    guess_px: np.ndarray,
    levels: int,
    check: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Follow points from one picture to another (Bouguet, Pyramidal implementation of the Lucas
    Kanade feature tracker, 2001).

    Args:
        before: The small copy in which the points are.
        now: The small copy in which they are wanted.
        points_px: (N, 2) the points, N of 1 or more.
        guess_px: (N, 2) where they are expected.
        levels: How often the pictures are halved: each doubles the motion that can be followed.
        check: Whether the points are followed back, and have to come back.

    Returns:
        (N, 2) float64 where they are, and (N,) bool whether they were followed.
    """
    start, guess = (np.ascontiguousarray(p, np.float32)[:, None] for p in (points_px, guess_px))
    found, good = _flow(before, now, start, guess, levels)
    if check:
        back, followed = _flow(now, before, found, start, 1)
        good &= followed & (np.abs(back - start).max((1, 2)) < _BACK_PX)
    height, width = now.shape
    places = found[:, 0].astype(float)
    low = _EDGE_PX / 2
    good &= ((places >= low) & (places < (width - low, height - low))).all(1)
    return places, good


def _flow(
    before: np.ndarray, now: np.ndarray, start: np.ndarray, guess: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where points (N, 1, 2) float32 are in the second picture, and which were followed (N,)."""
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        before, now, start, guess.copy(),
        winSize=_PATCH, maxLevel=levels, criteria=_STOP, flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    return np.asarray(found), np.asarray(status)[:, 0] > 0
