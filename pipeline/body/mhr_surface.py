"""Which points of an MHR body's skin are which of an SMPL body's, and how their joints turn.

MHR is the body of SAM 3D Body and InstantHMR (Momentum Human Rig, Meta, Apache-2.0). Its mesh has
18439 vertices whatever its shape and pose, so a point of its skin is a triangle and a place in it.
`tools/map_mhr_surface/` makes the table from MHR's published data; `mhr_surface_LICENSE.md` says
what of it is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.body.model import BodyModel
from pipeline.body.smpl_landmarks import SMPL_VERTICES
from pipeline.core.npz import read_npz

MHR_SURFACE = Path(__file__).with_name("mhr_surface.npz")
_FREE_BODY = "free"


@dataclass(frozen=True, eq=False)
class SurfaceTable:
    """S points of the skin, spread evenly but for hands and the face.

    Attributes:
        vertices: (S, 3) int64, the corners of an MHR triangle for each point.
        weights: (S, 3) float32, their shares of the point, which sum to 1.
        body_vertices: (S,) int64, the vertex of the SMPL body that is the same point.
    """

    vertices: np.ndarray
    weights: np.ndarray
    body_vertices: np.ndarray

    def points(self, mesh: np.ndarray) -> np.ndarray:
        """Return the points (..., S, 3) of MHR meshes (..., 18439, 3)."""
        return np.einsum("...skc,sk->...sc", mesh[..., self.vertices, :], self.weights)


def surface_table(body: BodyModel) -> SurfaceTable | None:
    """Return the table of a body model; None where it is neither the free body nor SMPL's mesh."""
    kind = "smpl" if len(body.v_template) == SMPL_VERTICES else body.name
    if kind not in ("smpl", _FREE_BODY):
        return None
    names = ("vertices", "weights", "body_vertices")
    vertices, weights, body_vertices = (_arrays()[f"{kind}_{name}"] for name in names)
    return SurfaceTable(
        vertices.astype(np.int64), weights.astype(np.float32), body_vertices.astype(np.int64)
    )


def smpl_rotations(joint_rotations: np.ndarray) -> np.ndarray:
    """Return how SMPL's joints are turned from its rest pose, (..., 24, 3, 3) float32.

    Args:
        joint_rotations: (..., 24, 3, 3) the rotations of MHR's joints that stand where SMPL's 24
            stand (`pipeline.sam3d.people.SMPL_JOINTS`), in the same axes.
    """
    return joint_rotations @ _arrays()["turns"]


@cache
def _arrays() -> dict[str, np.ndarray]:
    return read_npz(MHR_SURFACE)
