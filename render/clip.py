"""Clipping of a mesh at the camera's near plane."""

from __future__ import annotations

import numpy as np


def clip_near(
    vertices_m: np.ndarray, level: np.ndarray, faces: np.ndarray, near_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut away what lies nearer than ``near_m`` along z (Sutherland and Hodgman, 1974).

    ``vertices_m`` (V, 3) float32, ``level`` (V,) a float32 value carried by each vertex, ``faces``
    (F, 3) int32. Returns the three of the part that remains: triangles across the plane are cut
    into one or two, which turn the same way. Vertices that no triangle uses are gone; those that
    remain are float64, as a cut so near to the camera is seen much enlarged.
    """
    values = np.concatenate([vertices_m, level[:, None]], axis=1).astype(np.float64)
    behind = values[:, 2] < near_m
    corners = behind[faces]
    count = corners.sum(axis=1)
    one, two = (
        np.take_along_axis(faces[rows], (first[rows, None] + np.arange(3)) % 3, axis=1)
        for rows, first in ((count == 1, corners.argmax(axis=1)), (count == 2, corners.argmin(1)))
    )
    # One corner behind (a): the quadrilateral ab, b, c, ca. Two behind: the corner a, ab, ca.
    crossings = np.concatenate([one[:, :2], one[:, ::2], two[:, :2], two[:, ::2]])
    start, end = values[crossings[:, 0]], values[crossings[:, 1]]
    share = (near_m - start[:, 2]) / (end[:, 2] - start[:, 2])
    cut = start + share[:, None] * (end - start)
    cut[:, 2] = near_m
    index = len(values) + np.arange(len(crossings))
    one_ab, one_ca, two_ab, two_ca = np.split(index, np.cumsum([len(one), len(one), len(two)]))
    kept = np.concatenate(
        [
            faces[count == 0],
            np.stack([one_ab, one[:, 1], one[:, 2]], axis=1),
            np.stack([one_ab, one[:, 2], one_ca], axis=1),
            np.stack([two[:, 0], two_ab, two_ca], axis=1),
        ]
    )
    used, kept = np.unique(kept, return_inverse=True)
    values = np.concatenate([values, cut])[used]
    return (
        np.ascontiguousarray(values[:, :3]),
        values[:, 3].astype(np.float32),
        kept.reshape(-1, 3).astype(np.int32),
    )
