"""The heads: from one token to the rig's parameters, and to the camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d.config import CAMERA, KEYPOINTS, POSE, ModelConfig
from pipeline.sam3d.layers import Mlp
from pipeline.sam3d.rig import JOINTS, SHAPE, VERTICES, Rig, Surface, rotation_of_euler

FACES = 36874
MAPPED_KEYPOINTS = 308
SCALE = 28
SCALES = 68
HAND = 54
HANDS = 2 * HAND
FACE = 72
ROTATION_6D = 6
_HAND_ANGLES = 27
_NOT_HAND = 145
CM_PER_M = 100.0
_RIG_TRANSLATION = 10.0
"""The rig's translation is in decimetres."""

# The body's part of the 519 numbers: 23 rotations of three angles as 6D, 58 angles as (sine,
# cosine), 6 translations. Angles of hands and jaw are among them but come from elsewhere or are
# zero; only the others are read: 12 rotations, and the first 26 and the last 8 angles.
BODY = 260
_ROTATIONS = 12
ROTATION_NUMBERS = slice(0, 6 * _ROTATIONS)
ANGLE_NUMBERS = (slice(138, 138 + 2 * 26), slice(254 - 2 * 8, 254))
TRANSLATION_NUMBERS = slice(254, BODY)
# Their places in the rig's 130 body parameters.
_BODY_PARAMETERS = 130
ROTATION_PLACES = (
    (0, 2, 4), (6, 8, 10), (12, 13, 14), (15, 16, 17), (18, 19, 20), (21, 22, 23),
    (24, 25, 26), (27, 28, 29), (34, 35, 36), (37, 38, 39), (44, 45, 46), (53, 54, 55),
)  # fmt: skip
ANGLE_PLACES = (
    1, 3, 5, 7, 9, 11, *range(30, 34), *range(40, 44), *range(47, 53), *range(56, 62),
    *range(116, 124),
)  # fmt: skip
TRANSLATION_PLACES = tuple(range(124, 130))
RIGHT_HAND = (21, 42)
HAND_JOINTS = (3, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 2, 3, 1, 1)
"""Angles of a hand's joints. Three are a rotation as 6D, one or two are (sine, cosine) each."""


@dataclass(frozen=True, eq=False)
class MhrParameters:
    """What the rig needs to make a body.

    Attributes:
        rig: (B, 204): translation 3 (dm), global rotation 3, body 130, scales 68.
        shape: (B, 45).
        scale: (B, 28), of which the 68 scales are a linear map.
        hands: (B, 108), left then right.
    """

    rig: Tensor
    shape: Tensor
    scale: Tensor
    hands: Tensor


class CameraHead(nn.Module):
    """From the token to the camera's three numbers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.token_width
        self.proj = Mlp(width, width, CAMERA, nn.ReLU())

    def forward(self, token: Tensor) -> Tensor:
        return self.proj(token)


class PoseHead(nn.Module):
    """From the token to the rig's parameters; with the constants of the checkpoint for that."""

    joint_rotation: Tensor
    scale_mean: Tensor
    scale_comps: Tensor
    faces: Tensor
    hand_pose_mean: Tensor
    hand_pose_comps: Tensor
    hand_joint_idxs_left: Tensor
    hand_joint_idxs_right: Tensor
    keypoint_mapping: Tensor
    right_wrist_coords: Tensor
    root_coords: Tensor
    local_to_world_wrist: Tensor
    nonhand_param_idxs: Tensor
    _body_places: Tensor
    vertex_shares: Tensor
    joint_shares: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = Mlp(config.token_width, config.token_width, POSE, nn.ReLU())

        def indices(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.long)

        for name, value in {
            "joint_rotation": torch.zeros(JOINTS, 3, 3),
            "scale_mean": torch.zeros(SCALES),
            "scale_comps": torch.zeros(SCALE, SCALES),
            "faces": indices(FACES, 3),
            "hand_pose_mean": torch.zeros(HAND),
            "hand_pose_comps": torch.eye(HAND),
            "hand_joint_idxs_left": indices(_HAND_ANGLES),
            "hand_joint_idxs_right": indices(_HAND_ANGLES),
            "keypoint_mapping": torch.zeros(MAPPED_KEYPOINTS, VERTICES + JOINTS),
            "right_wrist_coords": torch.zeros(3),
            "root_coords": torch.zeros(3),
            "local_to_world_wrist": torch.zeros(3, 3),
            "nonhand_param_idxs": indices(_NOT_HAND),
        }.items():
            self.register_buffer(name, value)

    def prepare(self, rig: Rig) -> None:
        """Compute what follows from the weights; call it once they are loaded.

        Args:
            rig: The rig.
        """
        mapping = self.keypoint_mapping[:KEYPOINTS]
        of_vertices, of_joints = mapping[:, :VERTICES], mapping[:, VERTICES:]
        used = (of_vertices != 0).any(dim=0).nonzero()[:, 0]
        self.keypoint_surface: Surface = rig.surface.rows(used)
        places = [*chain.from_iterable(ROTATION_PLACES), *ANGLE_PLACES, *TRANSLATION_PLACES]
        for name, value in {
            "vertex_shares": of_vertices[:, used],
            "joint_shares": of_joints,
            "_body_places": torch.tensor(places, device=mapping.device),
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, token: Tensor) -> Tensor:
        """Return the 519 numbers that are added to the first guess."""
        return self.proj(token)

    def mhr_parameters(self, pose: Tensor, hand: bool = False) -> MhrParameters:
        """Return the rig's parameters.

        Args:
            pose: (B, 519), the first guess included.
            hand: Whether it is a right hand's: everything but the hand is at rest, and the body
                stands where its wrist has the global rotation.
        """
        sizes = (ROTATION_6D, BODY, SHAPE, SCALE, HANDS, FACE)
        turn, body, shape, scale, hands, _ = pose.split(sizes, dim=1)
        # The network was trained with the angles about z, y and x where the rig has x, y and z.
        turned = euler_of_rotation(rotation_of_6d(turn)).flip(-1)
        translation = torch.zeros_like(turned)
        if hand:
            rotation = rotation_of_euler(turned) @ self.local_to_world_wrist
            turned = euler_of_rotation(rotation)
            arm = self.right_wrist_coords - self.root_coords
            translation = -(rotation @ arm + self.root_coords)
        root = torch.cat([_RIG_TRANSLATION * translation, turned], dim=1)
        angles = _body_angles(body, self._body_places)
        parameters = self.assemble(root, angles, scale, shape, hands)
        if hand:
            rig = parameters.rig.index_fill(1, self.nonhand_param_idxs, 0.0)
            parameters = replace(parameters, rig=rig)
        return parameters

    def assemble(
        self, root: Tensor, body: Tensor, scale: Tensor, shape: Tensor, hands: Tensor
    ) -> MhrParameters:
        """Return the rig's parameters out of their parts.

        Args:
            root: (B, 6), translation in decimetres and global rotation.
            body: (B, 130) angles and translations; those of the hands are not used.
            scale: (B, 28).
            shape: (B, 45).
            hands: (B, 108), left then right.
        """
        rig = torch.cat([root, body, self.scale_mean + scale @ self.scale_comps], dim=1)
        for indices, numbers in zip(
            (self.hand_joint_idxs_left, self.hand_joint_idxs_right), hands.chunk(2, dim=1)
        ):
            angles = hand_angles(self.hand_pose_mean + numbers @ self.hand_pose_comps)
            rig = rig.index_copy(1, indices, angles)
        return MhrParameters(rig, shape, scale, hands)

    def keypoints(self, maps: Tensor, turned: Tensor, shape: Tensor, hand: bool = False) -> Tensor:
        """Return the keypoints (B, 70, 3) in metres, in the axes of the camera.

        Args:
            maps: (B, 127, 4, 4) of the joints.
            turned: (B, 127, 3, 3), their rotations from rest.
            shape: (B, 45).
            hand: Whether only the right hand's are wanted. The others are zero.
        """
        vertices = self.keypoint_surface(maps, turned, shape)
        points = self.vertex_shares @ vertices + self.joint_shares @ maps[..., :3, 3]
        if hand:
            first, end = RIGHT_HAND
            points = F.pad(points[:, first:end], (0, 0, first, KEYPOINTS - end))
        return to_camera_axes(points)


def without_face(pose: Tensor) -> Tensor:
    """Return the 519 numbers (B, 519) with zeros for the face, which is not estimated."""
    return F.pad(pose[:, :-FACE], (0, FACE))


def to_camera_axes(points_cm: Tensor) -> Tensor:
    """Return points (..., 3) of the rig in metres, x right, y down, z away from the camera."""
    x, y, z = points_cm.unbind(-1)
    return torch.stack([x, -y, -z], dim=-1) / CM_PER_M


def rotation_of_6d(numbers: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) of their first two columns (..., 6), made orthonormal
    (Zhou et al., On the Continuity of Rotation Representations, CVPR 2019)."""
    x = F.normalize(numbers[..., :3], dim=-1)
    second = numbers[..., 3:]
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def euler_of_rotation(rotations: Tensor) -> Tensor:
    """Return the angles (..., 3) about x, then y, then z, of rotations (..., 3, 3): Rz Ry Rx."""
    cos_y = torch.hypot(rotations[..., 0, 0], rotations[..., 1, 0])
    # At y = 90 degrees x and z turn about one axis: all of it counts as x.
    locked = cos_y < 1e-6
    x = torch.where(
        locked,
        torch.atan2(-rotations[..., 1, 2], rotations[..., 1, 1]),
        torch.atan2(rotations[..., 2, 1], rotations[..., 2, 2]),
    )
    y = torch.atan2(-rotations[..., 2, 0], cos_y)
    z = torch.atan2(rotations[..., 1, 0], rotations[..., 0, 0])
    return torch.stack([x, y, torch.where(locked, torch.zeros_like(z), z)], dim=-1)


def hand_angles(numbers: Tensor) -> Tensor:
    """Return the 27 angles (B, 27) of a hand's 54 numbers (B, 54)."""
    parts = numbers.split([2 * count for count in HAND_JOINTS], dim=1)
    angles = [
        euler_of_rotation(rotation_of_6d(part)) if count == 3 else _angles(part)
        for part, count in zip(parts, HAND_JOINTS)
    ]
    return torch.cat(angles, dim=1)


def _angles(numbers: Tensor) -> Tensor:
    """Angles (B, N) of their sines and cosines (B, 2 N)."""
    return torch.atan2(numbers[:, 0::2], numbers[:, 1::2])


def _body_angles(body: Tensor, places: Tensor) -> Tensor:
    """The rig's body parameters (B, 130) of the body's 260 numbers; hands are zero."""
    rotations = rotation_of_6d(body[:, ROTATION_NUMBERS].unflatten(1, (_ROTATIONS, 6)))
    angles = _angles(torch.cat([body[:, part] for part in ANGLE_NUMBERS], dim=1))
    values = torch.cat(
        [euler_of_rotation(rotations).flatten(1), angles, body[:, TRANSLATION_NUMBERS]], dim=1
    )
    return body.new_zeros(len(body), _BODY_PARAMETERS).index_copy(1, places, values)
