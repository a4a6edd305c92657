"""Close the left foot of the free body as a shoe does: the toes become one smooth tip."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull

_CAP_M = (0.0, 0.010, -0.004)
"""A shoe's tip is higher than toes are, metres."""
_INSIDE_M = (0.0, -0.007, -0.030)
"""A point inside the forefoot, from the joint between foot and toes, metres."""


def close_toes(
    vertices: np.ndarray,
    unfolded: np.ndarray,
    share: np.ndarray,
    foot: np.ndarray,
    toes: np.ndarray,
    joint: np.ndarray,
) -> np.ndarray:
    """Return the vertices (V, 3) with the forefoot moved onto the foot's convex hull.

    The toes are thin and stand side by side, so that their own vertices cannot be moved straight to
    the hull. They are spread evenly first, and then move away from a point inside the forefoot.

    Args:
        vertices: The body (V, 3), metres, y up.
        unfolded: The same with the toes' vertices spread (`fairing.Unfolding`).
        share: The share of the move that each vertex takes (V,).
        foot: The vertices of the foot (V,) bool.
        toes: The vertices of the toes (V,) bool.
        joint: The joint between foot and toes (3,).
    """
    hull = ConvexHull(np.concatenate([vertices[foot], vertices[toes] + _CAP_M]))
    moved = share > 0
    target = _onto_hull(unfolded[moved], joint + _INSIDE_M, hull.equations)
    out = vertices.copy()
    out[moved] += share[moved, None] * (target - vertices[moved])
    return out


def _onto_hull(points: np.ndarray, inside: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Where rays from a point inside through ``points`` (N, 3) leave a hull with these planes."""
    ray = points - inside
    approach = ray @ planes[:, :3].T
    left = -(planes[:, :3] @ inside + planes[:, 3])
    times = np.where(approach > 1e-9, left / np.maximum(approach, 1e-9), np.inf)
    return inside + ray * times.min(axis=1, keepdims=True)
