"""Feet that stand: heels and toes are held to where they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.body.kinematics import (
    Points,
    Pose,
    Skeleton,
    place_points,
    point_jacobian,
    shape_jacobian,
)
from pipeline.core.skeleton import LANDMARK_NAMES
from pipeline.fitting.solver import Observations, Rows, robust_cost, robust_weight

FEET = tuple(
    LANDMARK_NAMES.index(f"{side}_{part}")
    for part in ("heel", "foot_index")
    for side in ("left", "right")
)
"""BlazePose's landmarks of the feet: left and right heel, left and right toe."""
SIGMA_M = 0.01
"""Standard deviation of a standing part from its place, for each axis."""
ROBUST = 20.0
"""Scale of the Geman-McClure loss in those. Wide: a distance is often off by a hand's breadth."""


def feet_block(
    skeleton: Skeleton, place_m: Tensor, stands: Tensor
) -> Callable[[Pose, Tensor, Observations], Rows]:
    """Return the residuals of B frames' feet, as `solver.linearise_frames` takes them.

    Args:
        skeleton: The body model's tables.
        place_m: (B, 4, 3) where the parts of `FEET` stand, in the camera's axes.
        stands: (B, 4) 1 for a part that stands, else 0.
    """
    marks = skeleton.landmarks
    chosen = list(FEET)
    points = Points(
        marks.moment[chosen], marks.moment_betas[chosen], marks.mass[chosen],
        marks.mass_below[chosen],
    )  # fmt: skip
    return partial(_feet_rows, points, skeleton.below, place_m, stands)


def _feet_rows(
    feet: Points,
    below: Tensor,
    place_m: Tensor,
    stands: Tensor,
    pose: Pose,
    betas: Tensor,
    observed: Observations,
) -> Rows:
    points, share = place_points(feet, pose, betas)
    rows = (points - place_m) / SIGMA_M
    squared = rows.square().sum(-1)
    strength = (stands * robust_weight(squared, ROBUST)).sqrt()[..., None]
    cost = (stands * robust_cost(squared, ROBUST)).sum(1)
    turn = point_jacobian(feet, pose, share, below)
    eye = torch.eye(3, device=turn.device).expand(*turn.shape[:2], 3, 3)
    jacobian = torch.cat((eye, turn, shape_jacobian(feet, pose)), -1)
    jacobian = jacobian * (strength / SIGMA_M)[..., None]
    return (rows * strength).flatten(1), jacobian.flatten(1, 2), cost
