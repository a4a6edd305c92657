"""Conversions of rotations. Interfaces use axis-angle, computations use matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def skew(vectors: Tensor) -> Tensor:
    """Return cross-product matrices (..., 3, 3) of vectors (..., 3): skew(a) @ b == cross(a, b)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (zero, -z, y, z, zero, -x, -y, x, zero)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def exp_so3(axis_angle: Tensor) -> Tensor:
    """Return the rotation matrices (..., 3, 3) of axis-angle vectors (..., 3) in radians.

    Rodrigues' formula ``I + sin(t)/t K + (1 - cos(t))/t^2 K^2``; differentiable everywhere, also at
    the zero rotation.
    """
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = squared < 1e-8
    # Both sides of a `where` are computed; at 1 the unused side has a finite value and gradient.
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    # 2 sin^2(t/2) equals 1 - cos(t) without cancellation for small t.
    sine = torch.where(small, 1 - squared / 6, torch.sin(angle) / angle)
    half = torch.sin(angle / 2) / angle
    cosine = torch.where(small, 0.5 - squared / 24, 2 * half * half)
    cross = skew(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sine * cross + cosine * (cross @ cross)


def quaternion_from_matrix(matrix: Tensor) -> Tensor:
    """Return unit quaternions (w, x, y, z) with w >= 0, (..., 4), of rotations (..., 3, 3).

    Any component can be the divisor. The largest is taken, so that every rotation is well
    conditioned (Shepperd, Quaternion from rotation matrix, 1978).
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrix.flatten(-2).unbind(-1)
    # Row i of this symmetric matrix is 4 q_i q.
    rows = (
        (1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01),
        (m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20),
        (m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12),
        (m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22),
    )
    table = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    best = table.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = table.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = row / row.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def log_so3(matrix: Tensor) -> Tensor:
    """Return the axis-angle vectors (..., 3) of rotations (..., 3, 3), at most pi radians long.

    It goes through quaternions, so it is exact to rounding both near 0 and near pi. At pi both
    signs are right; one of them is returned.
    """
    quaternion = quaternion_from_matrix(matrix)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    squared = (imaginary * imaginary).sum(-1, keepdim=True)
    small = squared < 1e-10
    # As in `exp_so3`: the unused side must stay finite.
    sine = torch.where(small, torch.ones_like(squared), squared).sqrt()
    # Near the zero rotation w is about 1, so the bound only keeps the unused side finite.
    scale = torch.where(small, 2 / real.clamp(min=0.5), 2 * torch.atan2(sine, real) / sine)
    return scale * imaginary
