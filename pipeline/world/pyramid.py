"""Smaller and smaller copies of a picture, for direct alignment."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

_LEVELS = 3
_LEAST_SIDE_PX = 24
"""The picture is halved so often, first to 320 pixels, while its sides are this long or longer."""
_HALO_PX = 16.0
"""Equal light is taken from a neighbourhood, so a body changes the background beside it."""


class Pyramid:
    """A picture in smaller and smaller copies, without some boxes.

    Args:
        grey: The small copy, uint8 (h, w), as from `Shrunk.grey`.
        boxes_px: (P, 4) boxes x0, y0, x1, y1 that are left out, pixels of the copy; they are grown.
    """

    def __init__(self, grey: np.ndarray, boxes_px: np.ndarray) -> None:
        self._grey = grey
        grow = np.array([-_HALO_PX, -_HALO_PX, _HALO_PX, _HALO_PX])
        self.boxes_px = boxes_px + grow

    @cached_property
    def levels(self) -> list[np.ndarray]:
        """The copies (h, w) float32, the largest first; made when they are first read."""
        levels: list[np.ndarray] = []
        image = self._grey.astype(np.float32)
        while len(levels) < _LEVELS and min(image.shape) >= 2 * _LEAST_SIDE_PX:
            # Each copy's pixel (x, y) is the larger one's (2 x, 2 y).
            image = np.asarray(cv2.pyrDown(image))
            levels.append(np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0)))
        return levels

    def masked(self, level: int) -> np.ndarray:
        """Return which pixels (h, w) of a level are outside the boxes, bool."""
        height, width = self.levels[level].shape
        free = np.ones((height, width), np.uint8)
        for x0, y0, x1, y1 in self.boxes_px / 2.0 ** (level + 1):
            columns = slice(max(0, int(np.floor(x0))), max(0, int(np.ceil(x1)) + 1))
            free[max(0, int(np.floor(y0))) : max(0, int(np.ceil(y1)) + 1), columns] = 0
        return free.astype(bool)
