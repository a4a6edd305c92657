"""Closest points of meshes, where normals agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

_NORMAL_M = 0.05
"""Normals that differ by a radian count like points so far apart."""
_NEIGHBOURS = 24
"""How many triangles are looked at for a point, the nearest first by centre and normal."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles that are asked for their closest points.

    Attributes:
        vertices: (V, 3) metres.
        faces: (F, 3).
        normals: (F, 3) unit vectors.
        tree: Of the triangles' centres and normals.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    tree: cKDTree

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray) -> Mesh:
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        normals = np.cross(b - a, c - a)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        centres = np.hstack(((a + b + c) / 3, _NORMAL_M * normals))
        return cls(vertices, faces, normals, cKDTree(centres))

    def at(self, corners: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Return the points (N, 3) of corners (N, 3) and their shares (N, 3)."""
        return (shares[..., None] * self.vertices[corners]).sum(-2)

    def closest(
        self, points: np.ndarray, normals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the closest places to points (N, 3) where the normals (N, 3) are alike.

        Triangles' corners (N, 3), the corners' shares (N, 3), the cosine between normals (N,).
        """
        _, near = self.tree.query(np.hstack((points, _NORMAL_M * normals)), _NEIGHBOURS)
        corners = self.faces[near]
        shares = closest_shares(points[:, None], self.vertices[corners])
        places = self.at(corners, shares)
        turned = self.normals[near] - normals[:, None]
        apart = ((places - points[:, None]) ** 2).sum(-1)
        apart += 0.2 * _NORMAL_M**2 * (turned**2).sum(-1)
        best = np.arange(len(points)), apart.argmin(1)
        cosine = (self.normals[near[best]] * normals).sum(-1)
        return corners[best], shares[best], cosine


def closest_shares(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the corners' shares (..., 3) of the points of triangles (..., 3, 3) closest to
    ``points`` (..., 3)."""
    a, b, c = (triangles[..., k, :] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(-1).clip(1e-30)
    v = (np.cross(points - a, c - a) * normal).sum(-1) / area
    w = (np.cross(b - a, points - a) * normal).sum(-1) / area
    shares = np.stack((1 - v - w, v, w), -1)
    outside = (shares < 0).any(-1)
    nearest = np.full(outside.shape, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, edge = triangles[..., i, :], triangles[..., j, :] - triangles[..., i, :]
        along = ((points - start) * edge).sum(-1) / (edge**2).sum(-1).clip(1e-30)
        along = along.clip(0, 1)
        apart = ((start + along[..., None] * edge - points) ** 2).sum(-1)
        use = outside & (apart < nearest)
        nearest = np.where(use, apart, nearest)
        on_edge = np.zeros_like(shares)
        on_edge[..., i], on_edge[..., j] = 1 - along, along
        shares[use] = on_edge[use]
    return shares
