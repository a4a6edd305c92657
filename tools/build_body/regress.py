"""Fit sparse regressors: points inside a body as averages of the skin around them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

_SUM = 30.0
_STILL = 3.0
_SPREAD = 0.01
_MOST = 160


def _fit(
    shapes: np.ndarray, points: np.ndarray, near: np.ndarray, hinge: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Fit non-negative weights (n,) of the vertices ``near`` (n,), with the sum one, whose mean is
    at ``points`` (S, 3) in all ``shapes`` (S, V, 3).

    ``hinge`` is a joint (3,) of the first shape near the point, and how much (n,) of each vertex
    moves with it. When that joint turns, linear blend skinning leaves the mean where it is if the
    weighted mean of the moving shares is at the joint.
    """
    around = shapes[:, near] - points[:, None]
    rows = [around.transpose(0, 2, 1).reshape(-1, len(near))]
    joint, moving = hinge
    rows.append((moving[:, None] * (shapes[0, near] - joint)).T * _STILL * np.sqrt(len(shapes)))
    size = np.sqrt(len(shapes))
    rows.append(np.full((1, len(near)), _SUM * size))
    # A weak pull towards equal weights spreads them over the ring, so the mesh's roughness
    # averages out.
    rows.append(np.eye(len(near)) * _SPREAD * size)
    target = np.zeros(sum(len(row) for row in rows))
    target[-len(near) - 1] = _SUM * size
    solution, _ = nnls(np.concatenate(rows), target)
    # Tiny weights would only make the file larger.
    solution[solution < 0.0005] = 0.0
    return solution / solution.sum()


def _nearby(points: np.ndarray, place: np.ndarray, trunk: bool) -> np.ndarray:
    """Return vertices of the left half (with the midline) around a place inside a limb or the
    trunk, thinned to at most about two hundred."""
    distance = np.linalg.norm(points - place, axis=1)
    distance[points[:, 0] < -1e-6] = np.inf
    level = np.abs(points[:, 1] - place[1])
    reach = (level < 0.1) & (distance < 0.25) if trunk else distance < 2.2 * distance.min() + 0.03
    near = np.flatnonzero(reach)
    return near[:: len(near) // _MOST + 1]


def fit_rows(
    names: tuple[str, ...],
    shapes: np.ndarray,
    points: np.ndarray,
    mirror: np.ndarray,
    hinges: dict[str, tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Fit regressors of K points inside the body.

    Args:
        names: The names of the points; every ``right_…`` mirrors its ``left_…``.
        shapes: Symmetric bodies at rest (S, V, 3), the average first.
        points: The points in them (S, K, 3), metres.
        mirror: Each vertex's mirror image (V,).
        hinges: By name, for points that must not move when a joint turns: that joint's place (3,)
            in the average body, and the share (V,) of each vertex that turns with it.

    Returns:
        Regressors (K, V); rows are non-negative and sum to one.
    """
    rows = np.zeros((len(names), shapes.shape[1]))
    no_hinge = (np.zeros(3), np.zeros(shapes.shape[1]))
    for index, name in enumerate(names):
        # The right side mirrors the left one, so that both are exactly alike.
        if name.startswith("right_"):
            continue
        centre = not name.startswith("left_")
        trunk = centre or name.endswith(("collar", "hip"))
        near = _nearby(shapes[0], points[0, index], trunk)
        if centre:
            near = np.unique(np.concatenate([near, mirror[near]]))
        joint, moving = hinges.get(name, no_hinge)
        row = np.zeros(shapes.shape[1])
        row[near] = _fit(shapes, points[:, index], near, (joint, moving[near]))
        if centre:
            rows[index] = (row + row[mirror]) / 2
        else:
            rows[index] = row
            rows[names.index(name.replace("left_", "right_"))] = row[mirror]
    return rows
