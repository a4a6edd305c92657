"""What SAM 3D Body says of people, in host memory."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.sam3d.branch import Estimate
from pipeline.sam3d.config import CAMERA, KEYPOINTS, POSE
from pipeline.sam3d.heads import HANDS, SCALE, to_camera_axes
from pipeline.sam3d.rig import PARAMETERS, SHAPE, Surface

SMPL_JOINTS = (
    1, 2, 18, 35, 3, 19, 36, 4, 20, 37, 8, 24, 110, 74, 38, 113, 75, 39, 76, 40, 78, 42, 88, 52,
)  # fmt: skip
"""The rig's joints that stand where SMPL's 24 stand, in SMPL's order."""


@dataclass(frozen=True, eq=False)
class MhrPeople:
    """MHR bodies of B people, float32. Lengths are metres in the camera's axes: x right, y down,
    z away.

    Attributes:
        pose: (B, 519), the pose head's numbers.
        camera: (B, 3), the camera head's numbers.
        parameters: (B, 204), the rig's.
        shape: (B, 45), the rig's.
        scale: (B, 28), of which the rig's 68 scales are a linear map.
        hands: (B, 108), left then right.
        translation_m: (B, 3), to be added to the body's points.
        keypoints_m: (B, 70, 3), without the translation.
        keypoints_px: (B, 70, 2) in the image.
        joint_rotations: (B, 24, 3, 3), of the joints `SMPL_JOINTS` in the camera's axes.
        surface_m: (B, S, 3) points of the skin, without the translation.
    """

    pose: np.ndarray
    camera: np.ndarray
    parameters: np.ndarray
    shape: np.ndarray
    scale: np.ndarray
    hands: np.ndarray
    translation_m: np.ndarray
    keypoints_m: np.ndarray
    keypoints_px: np.ndarray
    joint_rotations: np.ndarray
    surface_m: np.ndarray

    def __len__(self) -> int:
        return len(self.pose)

    def rows(self, index: slice | np.ndarray) -> MhrPeople:
        """Return some of the people."""
        return MhrPeople(*(getattr(self, field.name)[index] for field in fields(self)))


_SHAPES: dict[str, tuple[int, ...]] = {
    "pose": (POSE,),
    "camera": (CAMERA,),
    "parameters": (PARAMETERS,),
    "shape": (SHAPE,),
    "scale": (SCALE,),
    "hands": (HANDS,),
    "translation_m": (3,),
    "keypoints_m": (KEYPOINTS, 3),
    "keypoints_px": (KEYPOINTS, 2),
    "joint_rotations": (len(SMPL_JOINTS), 3, 3),
}


class SkinPoints(torch.nn.Module):
    """Points of the rig's skin, each between three vertices.

    Args:
        surface: The rig's whole surface.
        vertices: (S, 3) indices.
        shares: (S, 3) the vertices' shares, which sum to 1.
    """

    def __init__(self, surface: Surface, vertices: np.ndarray, shares: np.ndarray) -> None:
        super().__init__()
        used, places = np.unique(vertices, return_inverse=True)
        matrix = np.zeros((len(vertices), len(used)), np.float32)
        np.put_along_axis(matrix, places.reshape(vertices.shape), shares, axis=1)
        device = surface.base.device
        self._shares = torch.from_numpy(matrix).to(device)
        self._rows = surface.rows(torch.from_numpy(used).to(device))

    def forward(self, joints: Tensor, turned: Tensor, shape: Tensor) -> Tensor:
        """Return the points (B, S, 3) in metres, in the camera's axes, without the translation.

        Args:
            joints: As in `Estimate`, like ``turned``.
            turned: (B, 127, 3, 3).
            shape: (B, 45).
        """
        return to_camera_axes(self._shares @ self._rows(joints, turned, shape))


def smpl_joint_rotations(joints: Tensor) -> Tensor:
    """Return the rotations (B, 24, 3, 3) of `SMPL_JOINTS` in the camera's axes.

    Args:
        joints: (B, 24, 4, 4) their maps, as in `Estimate`.
    """
    turns = joints[..., :3, :3]
    # The rig's joints scale too, and its y and z point the other way than the camera's.
    x, y, z = (turns / turns.norm(dim=-2, keepdim=True)).unbind(-2)
    return torch.stack([x, -y, -z], dim=-2)


class Packer(torch.nn.Module):
    """Packs what is wanted of estimates into one tensor, so that one copy brings it to the host.

    Args:
        surface: The rig's whole surface.
        skin: Vertices (S, 3) and their shares (S, 3), which sum to 1, of points of the skin; None
            for no points.
    """

    def __init__(self, surface: Surface, skin: tuple[np.ndarray, np.ndarray] | None) -> None:
        super().__init__()
        device = surface.base.device
        # On the device already: nothing may be copied there while a CUDA graph is captured.
        self._joints = torch.tensor(SMPL_JOINTS, device=device)
        self._skin = None if skin is None else SkinPoints(surface, *skin)

    def forward(self, estimate: Estimate) -> Tensor:
        """Return all numbers of `MhrPeople` (B, N)."""
        body = estimate.parameters
        values = {
            "pose": estimate.pose,
            "camera": estimate.camera,
            "parameters": body.rig,
            "shape": body.shape,
            "scale": body.scale,
            "hands": body.hands,
            "translation_m": estimate.translation_m,
            "keypoints_m": estimate.keypoints_m,
            "keypoints_px": estimate.keypoints_px,
            "joint_rotations": smpl_joint_rotations(estimate.joints.index_select(1, self._joints)),
        }
        parts = [values[name].flatten(1) for name in _SHAPES]
        if self._skin is not None:
            parts.append(self._skin(estimate.joints, estimate.turned, body.shape).flatten(1))
        return torch.cat(parts, dim=1)


def with_neighbours(
    decoders: Any, looked: Any, body: Estimate, prompts: Tensor, pack: Packer
) -> Tensor:
    """Return the packed answers (B * (1 + M), N) of bodies, each followed by those that the decoder
    makes of the same crop with the prompts of M neighbouring frames.

    Args:
        decoders: The network's (`hands.Decoders`).
        looked: What they made of the crops.
        body: The bodies' estimate.
        prompts: (B, M, P, 3), as of `PromptEncoder`.
        pack: Makes the answers.
    """
    count, times = prompts.shape[:2]
    again = decoders.decode(looked.repeated(times), prompts.flatten(0, 1), body.repeated(times))
    parts = [pack(body)[:, None], pack(again).unflatten(0, (count, times))]
    return torch.cat(parts, dim=1).flatten(0, 1)


def unpack(numbers: np.ndarray) -> MhrPeople:
    """Return the people of rows (B, N) that a `Packer` made."""
    sizes = [prod(shape) for shape in _SHAPES.values()]
    *parts, surface = np.split(numbers, np.cumsum(sizes), axis=1)
    named = {name: part.reshape(-1, *shape) for part, (name, shape) in zip(parts, _SHAPES.items())}
    return MhrPeople(**named, surface_m=surface.reshape(len(surface), -1, 3))
