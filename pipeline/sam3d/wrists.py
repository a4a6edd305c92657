"""Angles of wrists. MHR bends a wrist about x, then z, then y of the turned hand: Rx Rz Ry."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.sam3d.rig import rotation_of_euler

_LIMITS_RAD = ((-2.2, 1.0), (-2.2, 1.5), (-1.2, 1.5))
"""Of the angles about x, z and y."""


def rotation_of_xzy(angles: Tensor) -> Tensor:
    """Return the rotations (..., 3, 3) of angles (..., 3) about x, z and y."""
    x, z, y = angles.unbind(-1)
    zero = torch.zeros_like(x)
    about_x = rotation_of_euler(torch.stack([x, zero, zero], dim=-1))
    about_z = rotation_of_euler(torch.stack([zero, zero, z], dim=-1))
    return about_x @ about_z @ rotation_of_euler(torch.stack([zero, y, zero], dim=-1))


def xzy_of_rotation(rotations: Tensor) -> Tensor:
    """Return the angles (..., 3) about x, z and y of rotations (..., 3, 3)."""
    cos_z = torch.hypot(rotations[..., 0, 0], rotations[..., 0, 2])
    x = torch.atan2(rotations[..., 2, 1], rotations[..., 1, 1])
    z = torch.atan2(-rotations[..., 0, 1], cos_z)
    return torch.stack([x, z, torch.atan2(rotations[..., 0, 2], rotations[..., 0, 0])], dim=-1)


def within_limits(angles: Tensor) -> Tensor:
    """Return the angles (..., 3), or the other three that mean the same rotation, whichever break
    the limits of a wrist less."""
    x, z, y = angles.unbind(-1)
    other = torch.stack([x + torch.pi, torch.pi - z, y + torch.pi], dim=-1)
    other = torch.atan2(other.sin(), other.cos())
    return torch.where(_excess(other) < _excess(angles), other, angles)


def _excess(angles: Tensor) -> Tensor:
    """How far angles (..., 3) are beyond the limits, squared and summed, (..., 1)."""
    beyond = [
        ((low - angle).clamp(min=0) + (angle - high).clamp(min=0)).square()
        for angle, (low, high) in zip(angles.unbind(-1), _LIMITS_RAD)
    ]
    return torch.stack(beyond).sum(0)[..., None]


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Return the angles (...) in radians between rotations (..., 3, 3)."""
    trace = (first * second).sum((-2, -1))
    return ((trace - 1) / 2).clamp(-1, 1).acos()
