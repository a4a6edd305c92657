"""SMPL: a body mesh from shape and pose (Loper et al., SMPL, SIGGRAPH Asia 2015), in torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.body.rotations import exp_so3
from pipeline.core.skeleton import PARENTS

# Joints of equal depth in SMPL's tree, below the pelvis: one batched product places each level.
LEVELS = (
    (1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12, 13, 14),
    (15, 16, 17), (18, 19), (20, 21), (22, 23),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class BodyOutput:
    """Posed bodies: ``vertices_m`` (B, V, 3), ``joints_m`` (B, 24, 3) and BlazePose's landmarks
    read off the mesh, ``landmarks_m`` (B, 33, 3); float32 metres in the axes of ``transl_m``."""

    vertices_m: Tensor
    joints_m: Tensor
    landmarks_m: Tensor


@dataclass(frozen=True, eq=False)
class BodyModel:
    """A body in SMPL's format. All tensors are float32 on one device.

    ``v_template`` (V, 3) the mean shape at rest in metres, ``shapedirs`` (V, 3, 10) metres per
    unit of beta, ``posedirs`` (V, 3, 207) metres per entry of the rotation matrices minus the
    identity, None for a model without pose blend shapes; ``joint_regressor`` (24, V), ``weights``
    (V, 24) the skinning weights, ``landmark_regressor`` (33, V), all with rows that sum to one;
    ``faces`` (F, 3) int32. ``joint_template`` (24, 3) and ``joint_shapedirs`` (24, 3, 10) are the
    joints of ``v_template`` and ``shapedirs``. Rest pose and axes are SMPL's: arms out along x,
    the person's left at +x, y up, the face along +z.
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

    def to(self, device: torch.device | str) -> BodyModel:
        """The same body with its tensors on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def forward(
        self, betas: Tensor, global_orient: Tensor, body_pose: Tensor, transl_m: Tensor
    ) -> BodyOutput:
        """Pose a batch of bodies; differentiable in all four.

        ``betas`` (B, 10), ``global_orient`` (B, 3) and ``body_pose`` (B, 69) axis-angle radians,
        ``transl_m`` (B, 3) metres; float32 on the model's device. The pelvis joint is the centre
        of the global rotation and ``transl_m`` is added last. Equations 2 to 4 and 8 to 10 of the
        paper.
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
        vertices = self._skin(shaped, world, joints, rest)
        return BodyOutput(vertices, joints, self.landmark_regressor @ vertices)

    __call__ = forward

    def _skin(self, shaped: Tensor, world: Tensor, joints: Tensor, rest: Tensor) -> Tensor:
        """Linear blend skinning of (B, V, 3) by joint rotations (B, 24, 3, 3) about ``rest``."""
        shift = joints - (world @ rest[..., None]).squeeze(-1)
        transforms = torch.cat([world, shift[..., None]], dim=-1)
        # Blending (24, 12) tables by one product, laid out (B, 3, 4, V), keeps the long axis
        # contiguous: several times quicker on a CPU than a 4x4 matrix for each vertex.
        tables = transforms.permute(0, 2, 3, 1).reshape(-1, 24)
        blended = (tables @ self.weights.T).view(len(shaped), 3, 4, -1)
        points = shaped.transpose(1, 2)[:, None]
        posed = (blended[:, :, :3] * points).sum(dim=2) + blended[:, :, 3]
        return posed.transpose(1, 2).contiguous()


def place_joints(rotations: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Forward kinematics over SMPL's tree.

    ``rotations`` (B, 24, 3, 3) each joint's rotation relative to its parent, ``rest`` (B, 24, 3)
    joints at rest. Returns world rotations (B, 24, 3, 3) and places (B, 24, 3), the pelvis
    staying where it rests.
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
