"""SMPL in torch: a body mesh from shape and pose (Loper et al., SMPL, SIGGRAPH Asia 2015)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.body.rotations import exp_so3
from pipeline.core.skeleton import PARENTS

# The joints below the pelvis by their depth in SMPL's tree: one batched product places each level.
LEVELS = (
    (1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12, 13, 14),
    (15, 16, 17), (18, 19), (20, 21), (22, 23),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class BodyOutput:
    """A batch of posed bodies, in float32 metres in the axes of ``transl_m``.

    Attributes:
        vertices_m: The mesh (B, V, 3).
        joints_m: SMPL's joints (B, 24, 3).
        landmarks_m: BlazePose's landmarks, regressed from the mesh (B, 33, 3).
        shown_m: The mesh that is drawn (B, V, 3): the mannequin, or ``vertices_m`` itself for a
            model without one.
    """

    vertices_m: Tensor
    joints_m: Tensor
    landmarks_m: Tensor
    shown_m: Tensor


@dataclass(frozen=True, eq=False)
class BodyModel:
    """A body model in SMPL's format. All tensors are float32 on one device.

    Rest pose and axes are SMPL's: arms out along x, the person's left at +x, y up, the face along
    +z. The rows of the regressors and of the skinning weights sum to one.

    Attributes:
        name: The model's name.
        gender: "female", "male" or "neutral".
        v_template: Mean shape at rest (V, 3), metres.
        shapedirs: Shape blend shapes (V, 3, 10), metres per unit of beta.
        posedirs: Pose blend shapes (V, 3, 207), metres per entry of the rotation matrices minus
            the identity; None for a model without them.
        joint_regressor: Joints from vertices (24, V).
        weights: Skinning weights (V, 24).
        faces: Triangles (F, 3), int32.
        landmark_regressor: BlazePose's landmarks from vertices (33, V).
        joint_template: The joints of ``v_template`` (24, 3).
        joint_shapedirs: The joints of ``shapedirs`` (24, 3, 10).
        mannequin: What moves each vertex at rest to the mesh that is drawn (V, 3, 11), metres: at
            beta 0, then its change with each beta; None draws the body itself.
    """

    name: str
    gender: str
    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor | None
    joint_regressor: Tensor
    weights: Tensor
    faces: np.ndarray
    landmark_regressor: Tensor
    joint_template: Tensor
    joint_shapedirs: Tensor
    mannequin: Tensor | None = None

    def to(self, device: torch.device | str) -> BodyModel:
        """Return the same model with its tensors on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def forward(
        self, betas: Tensor, global_orient: Tensor, body_pose: Tensor, transl_m: Tensor
    ) -> BodyOutput:
        """Pose a batch of bodies. Differentiable in all arguments.

        The pelvis joint is the centre of the global rotation, and ``transl_m`` is added last.
        Equations 2 to 4 and 8 to 10 of the paper. All arguments are float32 on the model's device.

        Args:
            betas: Shape coefficients (B, 10).
            global_orient: Rotation of the pelvis (B, 3), axis-angle, radians.
            body_pose: Rotations of the other 23 joints (B, 69), axis-angle, radians.
            transl_m: Translation (B, 3), metres.

        Returns:
            Meshes, joints and landmarks of the B bodies.
        """
        batch = betas.shape[0]
        shaped = self.v_template + torch.einsum("vci,bi->bvc", self.shapedirs, betas)
        rest = self.joint_template + torch.einsum("jci,bi->bjc", self.joint_shapedirs, betas)
        pose = torch.cat([global_orient, body_pose], dim=1).view(batch, 24, 3)
        rotations = exp_so3(pose)
        if self.posedirs is not None:
            identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
            feature = (rotations[:, 1:] - identity).flatten(1)
            shaped = shaped + torch.einsum("vcp,bp->bvc", self.posedirs, feature)
        world, joints = place_joints(rotations, rest)
        joints = joints + transl_m[:, None]
        blended = self._blend(world, joints, rest)
        vertices = shown = _skin(shaped, blended)
        if self.mannequin is not None:
            change = torch.einsum("vci,bi->bvc", self.mannequin[..., 1:], betas)
            shown = _skin(shaped + self.mannequin[..., 0] + change, blended)
        return BodyOutput(vertices, joints, self.landmark_regressor @ vertices, shown)

    __call__ = forward

    def _blend(self, world: Tensor, joints: Tensor, rest: Tensor) -> Tensor:
        """The transforms (B, 3, 4, V) of the vertices, blended of those of the joints: rotations
        (B, 24, 3, 3) about ``rest`` (B, 24, 3) to ``joints``."""
        shift = joints - (world @ rest[..., None]).squeeze(-1)
        transforms = torch.cat([world, shift[..., None]], dim=-1)
        # One product blends the (24, 12) tables of transforms. Its result (B, 3, 4, V) keeps the
        # long axis contiguous: on a CPU several times faster than a 4x4 matrix for each vertex.
        tables = transforms.permute(0, 2, 3, 1).reshape(-1, 24)
        return (tables @ self.weights.T).view(len(world), 3, 4, -1)


def _skin(shaped: Tensor, blended: Tensor) -> Tensor:
    """Vertices (B, V, 3) moved by their blended transforms (B, 3, 4, V)."""
    points = shaped.transpose(1, 2)[:, None]
    posed = (blended[:, :, :3] * points).sum(dim=2) + blended[:, :, 3]
    return posed.transpose(1, 2).contiguous()


def place_joints(rotations: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the world rotations and positions of SMPL's joints (forward kinematics).

    Args:
        rotations: Rotation of each joint relative to its parent (B, 24, 3, 3).
        rest: Joints at rest (B, 24, 3), metres.

    Returns:
        World rotations (B, 24, 3, 3) and positions (B, 24, 3); the pelvis keeps its rest position.
    """
    world: list[Tensor] = [rotations[:, 0]] * 24
    place: list[Tensor] = [rest[:, 0]] * 24
    bones = rest[:, 1:] - torch.stack([rest[:, parent] for parent in PARENTS[1:]], dim=1)
    for level in LEVELS:
        first, end = level[0], level[-1] + 1
        parents = torch.stack([world[PARENTS[joint]] for joint in level], dim=1)
        turned = parents @ rotations[:, first:end]
        moved = (parents @ bones[:, first - 1 : end - 1, :, None]).squeeze(-1)
        for index, joint in enumerate(level):
            world[joint] = turned[:, index]
            place[joint] = place[PARENTS[joint]] + moved[:, index]
    return torch.stack(world, dim=1), torch.stack(place, dim=1)
