"""A look into a mask for compiled loops."""

from __future__ import annotations

import numpy as np

from numba_loops import compiled
from pipeline.core.people import Mask

NO_MASK = np.zeros((0, 0), np.float32), np.zeros((2, 3), np.float32)
"""What `parts_of` returns for no mask: one without pixels."""


def parts_of(mask: Mask | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask's values (h, w) and map (2, 3), both float32 and contiguous, for loops."""
    if mask is None:
        return NO_MASK
    values = np.ascontiguousarray(mask.values, np.float32)
    return values, np.ascontiguousarray(mask.to_image, np.float32)


@compiled()
def value_at(values, to_image, x, y):
    """Return what `Mask.at` returns, for one point in pixels."""
    a, b, c, d = to_image[0, 0], to_image[0, 1], to_image[1, 0], to_image[1, 1]
    area = np.float64(a) * d - np.float64(b) * c
    right, down = x - to_image[0, 2], y - to_image[1, 2]
    column, row = np.rint((d * right - b * down) / area), np.rint((a * down - c * right) / area)
    if 0 <= column < values.shape[1] and 0 <= row < values.shape[0]:
        return np.float64(values[int(row), int(column)])
    return 0.0
