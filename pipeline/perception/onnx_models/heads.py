"""Keypoints from the outputs of landmark networks: SimCC's two lines, or a heatmap for each point.

Both are read to a part of a cell: the peak of the parabola through the logarithms of the largest
value and its neighbours, which is exact for a Gaussian (Zhang et al., DARK, CVPR 2020).
"""

from __future__ import annotations

import numpy as np

_TINY = 1e-10
"""Keeps logarithms finite; values below it are no evidence."""


def read_simcc(along_x: np.ndarray, along_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, K, 2) in cells of the two lines, and their confidence (N, K).

    The confidence is the smaller of both maxima, as in RTMPose (Jiang et al., 2023), cut to [0, 1].

    Args:
        along_x: (N, K, Wx) how likely each column is (Li et al., SimCC, ECCV 2022).
        along_y: (N, K, Wy) the same for rows.
    """
    x, top_x = _peak(along_x)
    y, top_y = _peak(along_y)
    return np.stack((x, y), -1), np.clip(np.minimum(top_x, top_y), 0.0, 1.0)


def read_heatmaps(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, K, 2) in cells of the maps, and their confidence (N, K), in [0, 1].

    Args:
        maps: (N, K, h, w) a Gaussian about each point.
    """
    count, points, height, width = maps.shape
    flat = maps.reshape(count, points, -1)
    best = flat.argmax(-1)
    row, column = np.unravel_index(best, (height, width))
    top = np.take_along_axis(flat, best[..., None], -1)[..., 0]
    n, k = np.ogrid[:count, :points]
    x = column + _offset(maps[n, k, row], column)
    y = row + _offset(maps[n, k, :, column], row)
    return np.stack((x, y), -1), np.clip(top, 0.0, 1.0)


def _peak(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where lines (..., W) are largest, to a part of a cell, and how large they are there."""
    cell = lines.argmax(-1)
    return cell + _offset(lines, cell), np.take_along_axis(lines, cell[..., None], -1)[..., 0]


def _offset(lines: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """How far the peak of lines (..., W) is from its largest cell, in [-0.5, 0.5]."""
    # At an end there is no neighbour to compare with.
    inner = np.clip(cell, 1, lines.shape[-1] - 2)
    near = inner[..., None] + np.arange(-1, 2)
    values = np.log(np.maximum(np.take_along_axis(lines, near, -1), _TINY))
    before, at, after = np.moveaxis(values, -1, 0)
    bend = before - 2 * at + after
    offset = np.where(bend < 0, 0.5 * (before - after) / np.minimum(bend, -_TINY), 0.0)
    return np.where(inner == cell, np.clip(offset, -0.5, 0.5), 0.0)
