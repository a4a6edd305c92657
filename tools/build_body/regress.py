"""Sparse regressors: points inside a body as averages of the skin around them."""

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
    """Non-negative weights (n,) of vertices ``near`` (n,), summing to one, whose mean is
    ``points`` (S, 3) in all ``shapes`` (S, V, 3).

    ``hinge``: a joint (3,) of the first shape near the point, and how much (n,) of each vertex
    moves with it. Linear blend skinning leaves the mean where it is when that joint turns if the
    moving shares' weighted mean lies at the joint.
    """
    around = shapes[:, near] - points[:, None]
    rows = [around.transpose(0, 2, 1).reshape(-1, len(near))]
    joint, moving = hinge
    rows.append((moving[:, None] * (shapes[0, near] - joint)).T * _STILL * np.sqrt(len(shapes)))
    size = np.sqrt(len(shapes))
    rows.append(np.full((1, len(near)), _SUM * size))
    # A little pull to equal weights spreads the ring, which averages out the mesh's roughness.
    rows.append(np.eye(len(near)) * _SPREAD * size)
    target = np.zeros(sum(len(row) for row in rows))
    target[-len(near) - 1] = _SUM * size
    solution, _ = nnls(np.concatenate(rows), target)
    solution[solution < 0.0005] = 0.0
    return solution / solution.sum()


def _nearby(points: np.ndarray, place: np.ndarray, trunk: bool) -> np.ndarray:
    """Vertices of the left half (midline included) around a place inside a limb or the trunk,
    thinned to a hundred or two."""
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
    """Regressors (K, V), rows non-negative and summing to one, for K points inside the body.

    ``shapes`` (S, V, 3) symmetric bodies at rest, the average first; ``points`` (S, K, 3) where
    the points lie in them, metres; ``mirror`` (V,) each vertex's mirror image; ``names`` of the
    points, of which every ``right_…`` mirrors its ``left_…``. ``hinges`` names, for points that
    are to stay put when a joint turns, that joint's place (3,) in the average body and the
    share (V,) of each vertex that turns with it.
    """
    rows = np.zeros((len(names), shapes.shape[1]))
    nowhere = (np.zeros(3), np.zeros(shapes.shape[1]))
    for index, name in enumerate(names):
        if name.startswith("right_"):
            continue
        centre = not name.startswith("left_")
        trunk = centre or name.endswith(("collar", "hip"))
        near = _nearby(shapes[0], points[0, index], trunk)
        if centre:
            near = np.unique(np.concatenate([near, mirror[near]]))
        joint, moving = hinges.get(name, nowhere)
        row = np.zeros(shapes.shape[1])
        row[near] = _fit(shapes, points[:, index], near, (joint, moving[near]))
        if centre:
            rows[index] = (row + row[mirror]) / 2
        else:
            rows[index] = row
            rows[names.index(name.replace("left_", "right_"))] = row[mirror]
    return rows
