"""Clip a mesh at the camera's near plane."""

from __future__ import annotations

import numpy as np


def clip_near(
    vertices_m: np.ndarray, values: np.ndarray, faces: np.ndarray, near_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Remove the part of a mesh nearer than ``near_m`` along z (Sutherland and Hodgman, 1974).

    Args:
        vertices_m: (V, 3) float32, metres in the camera's axes.
        values: Values of each vertex (V, C) float32, which are interpolated.
        faces: (F, 3) int32.
        near_m: Distance of the near plane, metres.

    Returns:
        Vertices, values and faces of the rest. A triangle across the plane becomes one or two of
        the same orientation. Unused vertices are removed. The vertices are float64, because a cut
        so near to the camera is strongly enlarged in the image.
    """
    rows = np.concatenate([vertices_m, values], axis=1).astype(np.float64)
    behind = rows[:, 2] < near_m
    corners = behind[faces]
    count = corners.sum(axis=1)
    # Rotate the corners of each cut triangle so that the corner that stands alone comes first.
    one, two = (
        np.take_along_axis(faces[cut], (first[cut, None] + np.arange(3)) % 3, axis=1)
        for cut, first in ((count == 1, corners.argmax(axis=1)), (count == 2, corners.argmin(1)))
    )
    # One corner behind (a): the quadrilateral ab, b, c, ca. Two behind: the corner a, ab, ca.
    crossings = np.concatenate([one[:, :2], one[:, ::2], two[:, :2], two[:, ::2]])
    start, end = rows[crossings[:, 0]], rows[crossings[:, 1]]
    share = (near_m - start[:, 2]) / (end[:, 2] - start[:, 2])
    cut = start + share[:, None] * (end - start)
    # Exactly on the plane, which rounding could miss.
    cut[:, 2] = near_m
    index = len(rows) + np.arange(len(crossings))
    one_ab, one_ca, two_ab, two_ca = np.split(index, np.cumsum([len(one), len(one), len(two)]))
    remaining = np.concatenate(
        [
            faces[count == 0],
            np.stack([one_ab, one[:, 1], one[:, 2]], axis=1),
            np.stack([one_ab, one[:, 2], one_ca], axis=1),
            np.stack([two[:, 0], two_ab, two_ca], axis=1),
        ]
    )
    used, remaining = np.unique(remaining, return_inverse=True)
    rows = np.concatenate([rows, cut])[used]
    return (
        np.ascontiguousarray(rows[:, :3]),
        rows[:, 3:].astype(np.float32),
        remaining.reshape(-1, 3).astype(np.int32),
    )
