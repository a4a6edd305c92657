"""A residual for the fit: feet do not sink below a floor (a level camera is assumed)."""

from __future__ import annotations

from torch import Tensor

from pipeline.body.kinematics import Pose, Skeleton, directed_jacobian, place_points
from pipeline.core.skeleton import BLAZEPOSE_33
from pipeline.fitting.solver import robust_cost, robust_weight

FEET = BLAZEPOSE_33.indices("left_heel", "right_heel", "left_foot_index", "right_foot_index")


def ground_rows(
    skeleton: Skeleton, pose: Pose, betas: Tensor, floor_y_m: Tensor, sigma_m: float, robust: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, Jacobian and cost of feet below the floor.

    Args:
        skeleton: The body, reduced for the fit.
        pose: The posed skeleton of B bodies.
        betas: (B, 10) their shapes.
        floor_y_m: (B,) the floor's y in the camera's axes (y points down).
        sigma_m: How far below the floor counts as one standard deviation.
        robust: The Geman-McClure scale, in standard deviations.

    Returns:
        Rows (B, 4) in standard deviations, their derivative (B, 4, 79) to translation (3),
        rotations (66) and betas (10), and the cost (B,).
    """
    points, share = place_points(skeleton.landmarks, pose, betas)
    depth_m = points[:, FEET, 1] - floor_y_m[:, None]
    rows = depth_m.clamp_min(0) / sigma_m
    squared = rows.square()
    strength = robust_weight(squared, robust).sqrt()
    # Only y counts, and only of feet that are below the floor.
    direction = points.new_zeros(points.shape)
    direction[:, FEET, 1] = (depth_m > 0).to(points.dtype) * strength / sigma_m
    jacobian = directed_jacobian(skeleton.landmarks, pose, share, skeleton.below, direction)
    return rows * strength, jacobian[:, FEET], robust_cost(squared, robust).sum(1)
