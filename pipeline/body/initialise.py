"""A first pose straight from world landmarks: turn the torso, then each limb, by two vectors.

Closed form (Gram-Schmidt frames, no iterations, no decomposition), so that a new person, or one
whose arm moved too far for the last pose to help, starts in the right valley.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Skeleton, forward_kinematics, place_points
from pipeline.people import LANDMARK_NAMES

_AT = {name: i for i, name in enumerate(LANDMARK_NAMES)}

# upper joint, lower joint, landmarks along the limb, the hinge's axis at rest.
_LIMBS = (
    (16, 18, ("left_shoulder", "left_elbow", "left_wrist"), "down"),
    (17, 19, ("right_shoulder", "right_elbow", "right_wrist"), "up"),
    (1, 4, ("left_hip", "left_knee", "left_ankle"), "left"),
    (2, 5, ("right_hip", "right_knee", "right_ankle"), "left"),
)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True).clamp_min(1e-8)


def frame_of(first: Tensor, second: Tensor) -> Tensor:
    """Right-handed orthonormal frames (..., 3, 3): column 0 along ``first``, column 1 nearest
    ``second``."""
    x = _unit(first)
    y = _unit(second - (second * x).sum(-1, keepdim=True) * x)
    return torch.stack((x, y, torch.linalg.cross(x, y)), -1)


def _torso(points: Tensor) -> Tensor:
    left = points[..., _AT["left_shoulder"], :] + points[..., _AT["left_hip"], :]
    right = points[..., _AT["right_shoulder"], :] + points[..., _AT["right_hip"], :]
    shoulders = points[..., _AT["left_shoulder"], :] + points[..., _AT["right_shoulder"], :]
    hips = points[..., _AT["left_hip"], :] + points[..., _AT["right_hip"], :]
    return frame_of(shoulders - hips, left - right)


def pose_from_landmarks(skeleton: Skeleton, world: Tensor, betas: Tensor) -> Tensor:
    """Local rotations (B, 24, 3, 3) that point torso and limbs as ``world`` (B, 33, 3) does.

    ``world`` is in metres with the camera's axes (any origin); ``betas`` (B, 10).
    """
    batch = len(world)
    eye = torch.eye(3, device=world.device).expand(batch, JOINTS, 3, 3)
    zero = torch.zeros(batch, 3, device=world.device)
    rest, _ = place_points(
        skeleton.landmarks, forward_kinematics(skeleton, eye, zero, betas), betas
    )
    rotations = eye.clone()
    axes = {"down": -eye[:, 0, 1], "up": eye[:, 0, 1], "left": eye[:, 0, 0]}
    root = _torso(world) @ _torso(rest).transpose(-1, -2)
    rotations[:, 0] = root
    for upper, lower, names, hinge in _LIMBS:
        a, b, c = (_AT[name] for name in names)
        axis = axes[hinge]
        top, end = _unit(world[:, b] - world[:, a]), _unit(world[:, c] - world[:, b])
        bend = torch.linalg.cross(top, end)
        # A straight limb has no plane: its hinge stays where the torso carries it.
        carried = (root @ axis[..., None])[..., 0]
        trust = ((bend.norm(dim=-1, keepdim=True) - 0.1) / 0.3).clamp(0.0, 1.0)
        normal = _unit(trust * _unit(bend) + (1 - trust) * carried)
        rest_top, rest_end = rest[:, b] - rest[:, a], rest[:, c] - rest[:, b]
        above = frame_of(top, normal) @ frame_of(rest_top, axis).transpose(-1, -2)
        below = frame_of(end, normal) @ frame_of(rest_end, axis).transpose(-1, -2)
        rotations[:, upper] = root.transpose(-1, -2) @ above
        rotations[:, lower] = above.transpose(-1, -2) @ below
    return rotations


def place_by_landmarks(points: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The translation (B, 3) in metres that puts ``points`` (B, K, 3) onto ``target``.

    ``target`` (B, K, 2) are normalised image coordinates (x/z, y/z), ``weight`` (B, K). Least
    squares of (X + t_x) - u (Z + t_z) = 0, linear in t; the result lies in front of the camera.
    """
    known = weight.square()[..., None]
    total = known.sum(1, keepdim=True) + 1e-6
    value = target * points[..., 2:] - points[..., :2]
    # About the weighted means two of the three unknowns drop out.
    middle, mean = ((known * each).sum(1, keepdim=True) / total for each in (target, value))
    apart = known * (target - middle)
    spread = (apart * (target - middle)).sum((1, 2)) + 1e-6
    away = -(apart * (value - mean)).sum((1, 2)) / spread
    across = mean[:, 0] + middle[:, 0] * away[:, None]
    near = 0.3 - points[..., 2].amin(1)
    return torch.cat((across, torch.maximum(away, near)[:, None]), 1)
