"""What a file with meshes shows of a person: the free body, or bones where the body is licensed."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np
import torch

from app.exports.recording import Track
from pipeline.body.kinematics import vertex_normals
from pipeline.body.load import load_body
from pipeline.body.model import BodyModel
from pipeline.core.skeleton import PARENTS

INFLUENCES = 4
"""The most joints that move a vertex of a figure."""
_PARENTS = list(PARENTS[1:])
_BONE_WIDTH, _BONE_MIDDLE = 0.15, 0.2
"""How wide a bone is against its length, and at which share of the length it is widest."""


class Figure(Protocol):
    """A mesh that SMPL's joints move by linear blend skinning.

    Attributes:
        faces: Triangles (F, 3) uint16, counter-clockwise seen from outside.
        joints: The joints that move each vertex (V, 4) uint8; 0 where the weight is 0.
        weights: Their weights (V, 4) float32, which sum to one.
    """

    faces: np.ndarray
    joints: np.ndarray
    weights: np.ndarray

    def rest(self, track: Track) -> tuple[np.ndarray, np.ndarray]:
        """Return a person's joints (24, 3) and vertices (V, 3) in SMPL's rest pose, metres."""
        ...


class FreeFigure:
    """The `Figure` of the free body: the mannequin, in the person's shape."""

    def __init__(self) -> None:
        self._body = free_body()
        weights = self._body.weights.numpy()
        self.faces = self._body.faces.astype(np.uint16)
        order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
        self.weights = np.take_along_axis(weights, order, 1)
        self.joints = np.where(self.weights > 0, order, 0).astype(np.uint8)

    def rest(self, track: Track) -> tuple[np.ndarray, np.ndarray]:
        body = self._body
        betas = torch.as_tensor(track.betas, dtype=torch.float32)
        output = body.forward(betas[None], torch.zeros(1, 3), torch.zeros(1, 69), torch.zeros(1, 3))
        return output.joints_m[0].numpy(), output.shown_m[0].numpy()


class BoneFigure:
    """The `Figure` of a skeleton alone: a double pyramid from each joint's parent to the joint."""

    def __init__(self) -> None:
        # Each face has vertices of its own, so that it is lit as a plane.
        self.faces = np.arange(23 * 24, dtype=np.uint16).reshape(-1, 3)
        self.joints = np.zeros((23 * 24, INFLUENCES), np.uint8)
        self.joints[:, 0] = np.repeat(_PARENTS, 24)
        self.weights = np.zeros((23 * 24, INFLUENCES), np.float32)
        self.weights[:, 0] = 1

    def rest(self, track: Track) -> tuple[np.ndarray, np.ndarray]:
        joints = track.rest_offsets_m.copy()
        for joint, parent in enumerate(_PARENTS, 1):
            joints[joint] += joints[parent]
        bones = [_bone(joints[parent], joints[joint]) for joint, parent in enumerate(_PARENTS, 1)]
        return joints, np.concatenate(bones)


def _bone(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the corners (24, 3) of the eight triangles of a bone."""
    along = end - start
    length = np.sqrt(along @ along)
    # Two directions at right angles to the bone and to each other, as long as the bone.
    across = np.cross(along, np.eye(3)[np.abs(along).argmin()])
    across *= length / np.sqrt(across @ across)
    other = np.cross(along, across) / length
    ring = (
        start + _BONE_MIDDLE * along + _BONE_WIDTH / 2 * np.array([across, other, -across, -other])
    )
    sides = [(ring[side], ring[(side + 1) % 4]) for side in range(4)]
    corners = [[start, second, first] for first, second in sides]
    corners += [[end, first, second] for first, second in sides]
    return np.array(corners).reshape(24, 3)


@cache
def free_body() -> BodyModel:
    """Return the free body, read once."""
    return load_body(None)


def normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the unit normals (V, 3) float32 of a closed mesh (V, 3), (F, 3)."""
    return vertex_normals(torch.from_numpy(vertices_m.astype(np.float32)), faces).numpy()
