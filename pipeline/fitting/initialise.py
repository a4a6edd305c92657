"""A first pose straight from world landmarks: turn the torso, then each limb, by two vectors.

Closed form (Gram-Schmidt frames, no iterations, no decomposition), so that a new person, or one
whose arm moved too far for the last pose to help, starts in the right valley.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Skeleton
from pipeline.core.skeleton import LANDMARK_NAMES
from pipeline.fitting.solver import Observations

_AT = {name: i for i, name in enumerate(LANDMARK_NAMES)}

_MOST_AWAY = 0.35
"""The logarithm of how much larger or smaller than guessed people are: from 1.2 to 2.4 metres."""

_LIMBS = (
    ("left_shoulder", "left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow", "right_wrist"),
    ("left_hip", "left_knee", "left_ankle"),
    ("right_hip", "right_knee", "right_ankle"),
)
"""Landmarks along each limb. SMPL's shoulders are joints 16 and 17, its elbows 18 and 19, its hips
1 and 2, its knees 4 and 5."""


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
    rest = skeleton.rest[..., 0] + torch.einsum("kcb,nb->nkc", skeleton.rest[..., 1:], betas)
    rotations = torch.eye(3, device=world.device).repeat(len(world), JOINTS, 1, 1)
    root = _torso(world) @ _torso(rest).transpose(-1, -2)
    rotations[:, 0] = root
    across, up, _ = torch.eye(3, device=world.device).unbind()
    # Each hinge's axis at rest: an arm's stands upright, a leg's lies across.
    axis = torch.stack((-up, up, across, across)).expand(len(world), 4, 3)
    top, end = (_unit(part) for part in _along(world))
    bend = torch.linalg.cross(top, end)
    # A straight limb has no plane: its hinge stays where the torso carries it.
    carried = axis @ root.transpose(-1, -2)
    trust = ((bend.norm(dim=-1, keepdim=True) - 0.1) / 0.3).clamp(0.0, 1.0)
    normal = _unit(trust * _unit(bend) + (1 - trust) * carried)
    rest_top, rest_end = _along(rest)
    above = frame_of(top, normal) @ frame_of(rest_top, axis).transpose(-1, -2)
    below = frame_of(end, normal) @ frame_of(rest_end, axis).transpose(-1, -2)
    upper = root.transpose(-1, -2)[:, None] @ above
    lower = above.transpose(-1, -2) @ below
    rotations[:, 16:18], rotations[:, 18:20] = upper[:, :2], lower[:, :2]
    rotations[:, 1:3], rotations[:, 4:6] = upper[:, 2:], lower[:, 2:]
    return rotations


def _along(points: Tensor) -> tuple[Tensor, Tensor]:
    """The limbs' upper and lower parts (B, 4, 3) as vectors between landmarks (B, 33, 3)."""
    a, b, c = (torch.stack([points[:, _AT[names[k]]] for names in _LIMBS], 1) for k in range(3))
    return b - a, c - b


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


def sized_by_depth(seen: Observations) -> Observations:
    """The same, its world landmarks made as large as they must be to look as they do from where a
    depth map says that people are; as they came for people whom no map knows.

    One view does not tell someone small and near from someone tall and far: a network's world
    landmarks hold a guess, which would outweigh what the map says. One size a window.
    """
    turned = (seen.view[:, :, None] @ seen.world_m[..., None])[..., 0]
    weight = seen.visible * seen.present[..., None]
    parts = (each.flatten(0, 1) for each in (turned, seen.image, weight))
    guessed_m = place_by_landmarks(*parts)[:, 2].unflatten(0, seen.present.shape)
    known = seen.present * (seen.root_depth_m > 0)
    ratio = seen.root_depth_m.clamp_min(0.1) / guessed_m.clamp_min(0.1)
    # Beyond this no person is: the map's reading is of something else.
    away = ratio.log().clamp(-_MOST_AWAY, _MOST_AWAY) * known
    size = (away.sum(1) / known.sum(1).clamp_min(1.0)).exp()
    return replace(seen, world_m=seen.world_m * size[:, None, None, None])
