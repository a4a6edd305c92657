"""Fair a mesh: replace the detail of chosen regions by a smooth surface.

The surface minimises its distance to the given vertices, where they are to be kept, plus its
squared Laplacian everywhere (Botsch and Kobbelt, "An intuitive framework for real-time freeform
modeling", SIGGRAPH 2004). The cotangent Laplacian makes the result independent of how finely a
region is meshed; the uniform one spreads vertices evenly and so unfolds thin parts.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

_COTANGENTS = (0.02, 8.0)
"""Limits of a cotangent: the closed mouth and nostrils have needles, whose own are useless."""
_SMALLEST_AREA = 0.02
"""Least area of a vertex, as a share of the median."""


def smooth_step(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return 0 before ``start``, 1 after ``end`` and a cubic between them."""
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def edges_of(faces: np.ndarray) -> np.ndarray:
    """Return every edge (E, 2) of a mesh once, the smaller number first."""
    pairs = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def uniform_laplacian(faces: np.ndarray, count: int) -> sp.csr_matrix:
    """Return the matrix (V, V) that subtracts from each vertex the mean of its neighbours."""
    a, b = edges_of(faces).T
    ones = np.ones(2 * len(a))
    joined = sp.csr_matrix((ones, (np.r_[a, b], np.r_[b, a])), (count, count))
    degree = np.asarray(joined.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.eye(count) - sp.diags(1 / degree) @ joined)


def cotangent_laplacian(
    vertices: np.ndarray, faces: np.ndarray
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return the integrated cotangent Laplacian (V, V) and the area (V,) of each vertex."""
    count = len(vertices)
    row, column, value = [], [], []
    area = np.zeros(count)
    for corner in range(3):
        a, b, c = (faces[:, (corner + step) % 3] for step in range(3))
        u, w = vertices[b] - vertices[a], vertices[c] - vertices[a]
        doubled = np.linalg.norm(np.cross(u, w), axis=1)
        cotangent = np.clip((u * w).sum(axis=1) / np.maximum(doubled, 1e-9), *_COTANGENTS) / 2
        row += [b, c]
        column += [c, b]
        value += [cotangent, cotangent]
        np.add.at(area, a, doubled / 6)
    where = (np.concatenate(row), np.concatenate(column))
    weights = sp.csr_matrix((np.concatenate(value), where), (count, count))
    laplacian = sp.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights
    return sp.csr_matrix(laplacian), np.maximum(area, _SMALLEST_AREA * np.median(area))


class Fairing:
    """A linear map from a mesh's vertices to those of its faired surface.

    Args:
        vertices: The mesh (V, 3) in metres, which gives the cotangents and areas.
        faces: Triangles (F, 3).
        keep: How firmly each vertex keeps its place (V,): 1 follows the surface down to
            ``length_m``, near 0 is free, and a large value is fixed.
        length_m: Detail below this size is smoothed where ``keep`` is 1, metres.
    """

    def __init__(
        self, vertices: np.ndarray, faces: np.ndarray, keep: np.ndarray, length_m: float
    ) -> None:
        laplacian, area = cotangent_laplacian(vertices, faces)
        self._pull = keep * area
        bending = laplacian @ sp.diags(length_m**4 / area) @ laplacian
        self._solver = splu(sp.csc_matrix(sp.diags(self._pull) + bending))

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        """Return the faired vertices (V, 3) of a mesh with these triangles."""
        return self._solver.solve(self._pull[:, None] * vertices)


class Unfolding:
    """A linear map that spreads the free vertices of a mesh evenly between the others.

    Args:
        faces: Triangles (F, 3).
        free: Which vertices may move (V,) bool.
    """

    def __init__(self, faces: np.ndarray, free: np.ndarray) -> None:
        laplacian = uniform_laplacian(faces, len(free))
        self._pull = np.where(free, 1e-4, 1e2)
        self._solver = splu(sp.csc_matrix(sp.diags(self._pull) + laplacian.T @ laplacian))

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        """Return the spread vertices (V, 3)."""
        return self._solver.solve(self._pull[:, None] * vertices)
