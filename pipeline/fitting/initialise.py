"""A first pose straight from world landmarks: rotate the torso, then each limb, by two vectors.

Closed form (Gram-Schmidt frames, no iterations, no decomposition). A new person, or one whose arm
moved too far for the last pose to help, so starts near the right minimum: Gauss-Newton only finds
the nearest one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.body.kinematics import JOINTS, POSED, Skeleton
from pipeline.core.skeleton import LANDMARK_NAMES, PARENTS
from pipeline.fitting.solver import Observations

_AT = {name: i for i, name in enumerate(LANDMARK_NAMES)}

MAX_LOG_SIZE = 0.35
"""Bound on the logarithm of a person's size over the guessed size: 1.7 m becomes 1.2 to 2.4 m."""

_LIMBS = (
    ("left_shoulder", "left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow", "right_wrist"),
    ("left_hip", "left_knee", "left_ankle"),
    ("right_hip", "right_knee", "right_ankle"),
)
LIMB_LANDMARKS = tuple(tuple(_AT[name] for name in limb) for limb in _LIMBS)
"""The three landmarks along each limb."""
LIMB_JOINTS = ((16, 18), (17, 19), (1, 4), (2, 5))
"""SMPL's joints at the upper and the lower end of each limb's upper part."""
LIMB_AXES = ((0.0, -1.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.0, 0.0))
"""The axes at rest of elbow and knee as hinges: an arm's is vertical, a leg's lies across."""


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True).clamp_min(1e-8)


def frame_of(first: Tensor, second: Tensor) -> Tensor:
    """Return right-handed orthonormal frames (..., 3, 3) of two vectors (..., 3).

    Column 0 lies along ``first``, column 1 as near ``second`` as it can.
    """
    x = _unit(first)
    y = _unit(second - (second * x).sum(-1, keepdim=True) * x)
    return torch.stack((x, y, torch.linalg.cross(x, y)), -1)


def _torso(points: Tensor) -> Tensor:
    """The torso's frame (B, 3, 3): column 0 from hips to shoulders, column 1 from right to left."""
    left = points[..., _AT["left_shoulder"], :] + points[..., _AT["left_hip"], :]
    right = points[..., _AT["right_shoulder"], :] + points[..., _AT["right_hip"], :]
    shoulders = points[..., _AT["left_shoulder"], :] + points[..., _AT["right_shoulder"], :]
    hips = points[..., _AT["left_hip"], :] + points[..., _AT["right_hip"], :]
    return frame_of(shoulders - hips, left - right)


def pose_from_landmarks(skeleton: Skeleton, world: Tensor, betas: Tensor) -> Tensor:
    """Return local rotations (B, 24, 3, 3) that point torso and limbs as landmarks do.

    Args:
        skeleton: The body model's tables.
        world: (B, 33, 3) landmarks in metres with the camera's axes, about any origin.
        betas: (B, 10) shapes, which say how the body stands at rest.

    Returns:
        Rotations of root, shoulders, elbows, hips and knees; every other joint is at rest.
    """
    rest = skeleton.rest[..., 0] + torch.einsum("kcb,nb->nkc", skeleton.rest[..., 1:], betas)
    rotations = torch.eye(3, device=world.device).repeat(len(world), JOINTS, 1, 1)
    root = _torso(world) @ _torso(rest).transpose(-1, -2)
    rotations[:, 0] = root
    across, up, _ = torch.eye(3, device=world.device).unbind()
    # The axis at rest of elbow and knee as hinges: an arm's is vertical, a leg's lies across.
    axis = torch.stack((-up, up, across, across)).expand(len(world), 4, 3)
    top, end = (_unit(part) for part in _limb_vectors(world))
    bend = torch.linalg.cross(top, end)
    # A straight limb has no single plane, so its hinge's axis is taken from the torso; the two are
    # blended over a range of bends, for a hard choice would flip between frames.
    carried = axis @ root.transpose(-1, -2)
    trust = ((bend.norm(dim=-1, keepdim=True) - 0.1) / 0.3).clamp(0.0, 1.0)
    normal = _unit(trust * _unit(bend) + (1 - trust) * carried)
    rest_top, rest_end = _limb_vectors(rest)
    above = frame_of(top, normal) @ frame_of(rest_top, axis).transpose(-1, -2)
    below = frame_of(end, normal) @ frame_of(rest_end, axis).transpose(-1, -2)
    upper = root.transpose(-1, -2)[:, None] @ above
    lower = above.transpose(-1, -2) @ below
    rotations[:, 16:18], rotations[:, 18:20] = upper[:, :2], lower[:, :2]
    rotations[:, 1:3], rotations[:, 4:6] = upper[:, 2:], lower[:, 2:]
    return rotations


def local_rotations(world: Tensor) -> Tensor:
    """Return rotations (B, 24, 3, 3) against the joints' parents, with the hands at rest.

    Args:
        world: (B, 24, 3, 3) rotations from the rest pose in the camera's axes.
    """
    above = torch.stack([world[:, parent] for parent in PARENTS[1:POSED]], 1)
    # The fit does not turn hands, so theirs would stay as they once were.
    hands = torch.eye(3, device=world.device).expand(len(world), JOINTS - POSED, 3, 3)
    return torch.cat((world[:, :1], above.mT @ world[:, 1:POSED], hands), 1)


def _limb_vectors(points: Tensor) -> tuple[Tensor, Tensor]:
    """The limbs' upper and lower parts (B, 4, 3) as vectors between landmarks (B, 33, 3)."""
    a, b, c = (torch.stack([points[:, _AT[names[k]]] for names in _LIMBS], 1) for k in range(3))
    return b - a, c - b


def place_by_landmarks(points: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the translation (B, 3) in metres that puts points onto their image.

    Least squares of (X + t_x) - u (Z + t_z) = 0 and the same for y and v, which is linear in t. The
    points end at least 0.3 m in front of the camera.

    Args:
        points: (B, K, 3) in metres.
        target: (B, K, 2) their places in normalised image coordinates (x/z, y/z).
        weight: (B, K) weights of the residuals.
    """
    known = weight.square()[..., None]
    # Without a visible landmark the small constants keep the divisions finite.
    total = known.sum(1, keepdim=True) + 1e-6
    value = target * points[..., 2:] - points[..., :2]
    # Relative to the weighted means, t_x and t_y drop out and t_z remains.
    middle, mean = ((known * part).sum(1, keepdim=True) / total for part in (target, value))
    difference = known * (target - middle)
    spread = (difference * (target - middle)).sum((1, 2)) + 1e-6
    depth = -(difference * (value - mean)).sum((1, 2)) / spread
    across = mean[:, 0] + middle[:, 0] * depth[:, None]
    nearest = 0.3 - points[..., 2].amin(1)
    return torch.cat((across, torch.maximum(depth, nearest)[:, None]), 1)


def sized_by_depth(observed: Observations) -> Observations:
    """Return the observations with world landmarks of the size that a depth map implies.

    One view does not distinguish a small person near the camera from a tall one far away. World
    landmarks carry the network's guess of the size, which would outweigh the map's depth in the
    fit. So they are scaled by measured over implied depth, one scale for each person and window;
    those of a person without a root depth stay as they were.
    """
    turned = (observed.view[:, :, None] @ observed.world_m[..., None])[..., 0]
    weight = observed.visible * observed.present[..., None]
    parts = (part.flatten(0, 1) for part in (turned, observed.image, weight))
    depth_by_size_m = place_by_landmarks(*parts)[:, 2].unflatten(0, observed.present.shape)
    # Landmarks whose error is stated are metric: their size is as good as the map's.
    sizeless = observed.world_sigma_m == 0
    known = observed.present * (observed.root_depth_m > 0) * sizeless
    ratio = observed.root_depth_m.clamp_min(0.1) / depth_by_size_m.clamp_min(0.1)
    # No person is smaller or larger than that: the map was read on something else.
    log_size = ratio.log().clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE) * known
    size = (log_size.sum(1) / known.sum(1).clamp_min(1.0)).exp()
    return replace(observed, world_m=observed.world_m * size[:, None, None, None])
