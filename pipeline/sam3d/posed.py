"""The rig, posed by the parameters of another network than SAM 3D Body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.sam3d.heads import to_camera_axes
from pipeline.sam3d.people import SMPL_JOINTS, SkinPoints, smpl_joint_rotations
from pipeline.sam3d.rig import Rig

_HIPS = slice(1, 3)
"""The places of the hips in `SMPL_JOINTS`. MHR's keypoints of the hips are these joints."""


@dataclass(frozen=True, eq=False)
class PosedPeople:
    """B people, float32: metres in the camera's axes, from the rig's origin.

    Attributes:
        hips_m: (B, 3) the middle of the hips.
        joint_rotations: (B, 24, 3, 3) of the joints `SMPL_JOINTS`.
        surface_m: (B, S, 3) points of the skin; None where none are wanted.
        vertices_m: (B, 18439, 3) the mesh; None where it is not wanted.
    """

    hips_m: np.ndarray
    joint_rotations: np.ndarray
    surface_m: np.ndarray | None
    vertices_m: np.ndarray | None


class PosedRig:
    """Returns joints, points of the skin and meshes for the rig's parameters.

    It keeps the whole surface for meshes alone.

    Args:
        rig: The rig; it is computed where it is.
        skin: The vertices (S, 3) and shares (S, 3) of the points of the skin that are wanted; None
            for none.
        mesh: Whether meshes are wanted.

    Attributes:
        faces: The mesh's triangles; None without a mesh, or where the rig's file has none.
        has_skin: Whether it makes points of the skin.
        report: One line on what it is for.
    """

    def __init__(
        self, rig: Rig, skin: tuple[np.ndarray, np.ndarray] | None = None, mesh: bool = False
    ) -> None:
        self._skeleton = rig.skeleton
        self._device = rig.surface.base.device
        self._skin = None if skin is None else SkinPoints(rig.surface, *skin)
        self._surface = rig.surface if mesh else None
        self.faces = rig.faces if mesh else None
        self.has_skin = skin is not None
        wanted = {"points of the skin": skin is not None, "meshes": mesh}
        what = ", ".join(name for name, is_wanted in wanted.items() if is_wanted)
        self.report = f"MHR rig: {what or 'joints'}, on {self._device}"

    @torch.inference_mode()
    def __call__(self, parameters: np.ndarray, shape: np.ndarray) -> PosedPeople:
        """Return people of the rig's parameters.

        Args:
            parameters: (B, 204).
            shape: (B, 45).
        """
        numbers, of_shape = (
            torch.as_tensor(np.asarray(each, np.float32)).to(self._device)
            for each in (parameters, shape)
        )
        joints, turned = self._skeleton(numbers)
        chosen = joints[:, list(SMPL_JOINTS)]
        skin = None if self._skin is None else self._skin(joints, turned, of_shape)
        surface = self._surface
        mesh = None if surface is None else to_camera_axes(surface(joints, turned, of_shape))
        return PosedPeople(
            to_camera_axes(chosen[:, _HIPS, :3, 3].mean(1)).cpu().numpy(),
            smpl_joint_rotations(chosen).cpu().numpy(),
            None if skin is None else skin.cpu().numpy(),
            None if mesh is None else mesh.cpu().numpy(),
        )
