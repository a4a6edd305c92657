"""A whole track's fit: the poses of all its frames at once, and one shape.

The residuals are those of `solver`; only the unknowns are coupled otherwise. Smoothness couples a
frame with the two frames before it, so the normal equations of the poses are a band 140 wide,
whatever the number of frames, bordered by the ten of the shape. A banded Cholesky factorisation
(LAPACK's pbtrf) solves T frames in time and memory proportional to T.

Poses are in each frame's own camera axes, in which they were seen. Where the camera turns,
smoothness acts in axes that do not: the body is steady in the world, not in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import cho_solve_banded, cholesky_banded
from torch import Tensor

from pipeline.body.kinematics import POSED, Skeleton
from pipeline.body.rotations import exp_so3
from pipeline.fitting.accelerations import accelerations, resting_pelvis_m
from pipeline.fitting.solver import (
    BETAS,
    FIRST_DAMPING,
    FRAME_DIM,
    FitConfig,
    Observations,
    RowsOf,
    linearise_frames,
    robust_cost,
    robust_weight,
)
from pipeline.fitting.track_poses import ShapePrior, TrackPoses

_BAND = 2 * FRAME_DIM + 2
"""A place's axes of one frame are coupled with all those of another one, where the camera turns."""
_LOWER = np.tril_indices(FRAME_DIM)
_LONGEST_STEP = 1.5
"""No unknown moves by more in a step (radians, metres), as in `solver.propose_step`."""


def solve_track(
    skeleton: Skeleton,
    observed: Observations,
    guess: TrackPoses,
    shape: ShapePrior,
    sigma: Tensor,
    config: FitConfig,
    steps: int,
    contour: RowsOf | None = None,
    blocks: Sequence[RowsOf] = (),
    turn: Tensor | None = None,
) -> tuple[TrackPoses, ShapePrior, Tensor]:
    """Fit one person over T frames by damped Gauss-Newton.

    Args:
        skeleton: The body model's tables, on the device of the observations.
        observed: What perception observed, each array with a leading T; ``present`` is 0 where the
            person was not found, and smoothness alone holds the body there.
        guess: Where to begin.
        shape: What is known of the shape beforehand.
        sigma: (T - 2, 23, 3) the standard deviations of the second differences of the root's path
            in metres, then of the rotations of 22 joints in radians.
        config: Weights and switches.
        steps: How many steps to take.
        contour: Used in place of `solver.contour_rows` where given.
        blocks: Residuals of the T frames beside the fixed ones, as for `solver.linearise_frames`.
        turn: (T, 3, 3) the rotations from each frame's camera axes to axes that stand still; None
            for a camera that does.

    Returns:
        The best poses that the steps reached, never worse than the guess; the shape that these
        frames show, with the information that they add to the prior; and the mean squared residual
        (T,) of the image landmarks, as `solver.Solution.residual_mean`.
    """

    # Of the whole part, and fixed: the cost of a pose must not depend on how it was come by.
    distance_m = float(guess.transl_m[:, 2].median())

    def model(poses: TrackPoses) -> _System:
        return _linearise(
            skeleton, observed, poses, shape, sigma, distance_m, config, contour, blocks, turn
        )

    state, system, damping = guess, model(guess), FIRST_DAMPING
    for _ in range(steps):
        step = _solve(system, damping)
        if step is not None:
            candidate = _moved(state, *step)
            new = model(candidate)
            # Comparison with NaN is false, so a step to a state without a finite cost is rejected.
            if new.cost <= system.cost:
                state, system, damping = candidate, new, max(0.3 * damping, 1e-6)
                continue
        damping = min(10 * damping, 1e6)
    return state, _shown_shape(system, state, shape), system.residual_mean


@dataclass(frozen=True, eq=False)
class _System:
    """The normal equations at a state.

    Attributes:
        cost: The robust cost.
        band: (141, T * 69) float64 the lower band of the poses' Hessian, as scipy's solvers take
            it.
        border: (T * 69, 10) float64 the Hessian between poses and shape.
        corner: (10, 10) float64 the Hessian of the shape.
        slope: (T * 69,) float64 half the cost's slope by the poses.
        slope_shape: (10,) float64 half its slope by the shape.
        residual_mean: (T,) as `solve_track` returns it.
    """

    cost: float
    band: np.ndarray
    border: np.ndarray
    corner: np.ndarray
    slope: np.ndarray
    slope_shape: np.ndarray
    residual_mean: Tensor


def _linearise(
    skeleton: Skeleton,
    observed: Observations,
    poses: TrackPoses,
    shape: ShapePrior,
    sigma: Tensor,
    distance_m: float,
    config: FitConfig,
    contour: RowsOf | None = None,
    blocks: Sequence[RowsOf] = (),
    turn: Tensor | None = None,
) -> _System:
    frames = len(poses.transl_m)
    betas = poses.betas.expand(frames, BETAS)
    cost, block, slope, residual_mean = linearise_frames(
        skeleton, observed, poses.rotations, poses.transl_m, betas, config, contour, blocks
    )
    normal, slopes = (part.cpu().numpy().astype(np.float64) for part in (block, slope))
    band = np.zeros((_BAND + 1, frames, FRAME_DIM))
    row, column = _LOWER
    band[row - column, :, column] = normal[:, row, column].T
    total = float(cost.sum())
    pull = slopes[:, :FRAME_DIM]
    if config.use_smoothness and frames > 2:
        pelvis_m = resting_pelvis_m(skeleton, poses.betas)
        total += _add_smoothness(band, pull, poses, pelvis_m, sigma, distance_m, config, turn)
    offset = (poses.betas - shape.betas).cpu().numpy().astype(np.float64)
    information = shape.information.cpu().numpy().astype(np.float64)
    toward = information @ offset
    return _System(
        total + float(offset @ toward),
        band.reshape(_BAND + 1, -1),
        normal[:, :FRAME_DIM, FRAME_DIM:].reshape(-1, BETAS),
        normal[:, FRAME_DIM:, FRAME_DIM:].sum(0) + information,
        pull.reshape(-1),
        slopes[:, FRAME_DIM:].sum(0) + toward,
        residual_mean,
    )


_SIZE_ERROR = 0.05
"""Error of a person's size in the picture, as a part of it, from frame to frame. The distance,
which is read off the size, has it too. So an acceleration along the view is taken for a break of
the motion only where it is larger than that: at twenty metres larger than a metre."""
_FACTORS = (1.0, -2.0, 1.0)
"""Those of an acceleration: x_t - 2 x_{t-1} + x_{t-2}."""


def _add_smoothness(
    band: np.ndarray,
    pull: np.ndarray,
    poses: TrackPoses,
    pelvis_m: Tensor,
    sigma: Tensor,
    distance_m: float,
    config: FitConfig,
    turn: Tensor | None,
) -> float:
    """Add second differences to the band (141, T, 69) and slope (T, 69) in place; return their
    cost. ``distance_m`` is the person's, about."""
    rows = accelerations(poses, pelvis_m, turn)
    squared = (rows / sigma).square()
    across, along, turns = squared[:, 0, :2].sum(-1), squared[:, 0, 2], squared[:, 1:].sum(-1)
    groups = torch.cat((across[:, None], along[:, None], turns), 1)
    scale = torch.full_like(groups, config.smooth_robust)
    scale[:, 1] = torch.maximum(scale[:, 1], _SIZE_ERROR * distance_m / sigma[:, 0, 2])
    cost = float(robust_cost(groups, scale).sum())
    weight = robust_weight(groups, scale)
    root = torch.stack((weight[:, 0], weight[:, 0], weight[:, 1]), -1)[:, None]
    weight = torch.cat((root, weight[:, 2:, None].expand(-1, -1, 3)), 1) / sigma.square()
    weights = weight.flatten(1).cpu().numpy().astype(np.float64)
    pulls = weights * rows.flatten(1).cpu().numpy()
    count = len(rows)
    # A rotation is turned on its right, which no turn of the camera changes: its unknowns are
    # coupled with themselves alone. The first three are the place's, see `_add_path`.
    for later, factor in enumerate(_FACTORS):
        frames = slice(later, later + count)
        band[0, frames, 3:] += factor**2 * weights[:, 3:]
        pull[frames, 3:] += factor * pulls[:, 3:]
        for earlier in range(later):
            at = FRAME_DIM * (later - earlier)
            band[at, earlier : earlier + count, 3:] += factor * _FACTORS[earlier] * weights[:, 3:]
    still = np.broadcast_to(np.eye(3), (count + 2, 3, 3))
    axes = still if turn is None else turn.cpu().numpy().astype(np.float64)
    _add_path(band, pull, axes, weights[:, :3], pulls[:, :3])
    return cost


def _add_path(
    band: np.ndarray, pull: np.ndarray, axes: np.ndarray, weights: np.ndarray, pulls: np.ndarray
) -> None:
    """Add the accelerations (T - 2, 3) of the path, whose unknowns are in the axes (T, 3, 3)."""
    count = len(weights)
    middle = axes[1:-1].transpose(0, 2, 1)
    change = [f * middle @ axes[k : k + count] for k, f in enumerate(_FACTORS)]
    for later in range(len(_FACTORS)):
        pull[later : later + count, :3] += np.einsum("tij,ti->tj", change[later], pulls)
        for earlier in range(later + 1):
            both = np.einsum("tki,tk,tkj->tij", change[later], weights, change[earlier])
            for i in range(3):
                for j in range(3 if later > earlier else i + 1):
                    at = FRAME_DIM * (later - earlier) + i - j
                    band[at, earlier : earlier + count, j] += both[:, i, j]


def _solve(system: _System, damping: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the step of the poses (T, 69) and of the shape (10,); None without a factorisation."""
    band = system.band.copy()
    band[0] += damping * band[0] + 1e-6
    corner = system.corner + np.diag(damping * np.diag(system.corner) + 1e-6)
    try:
        factor = cholesky_banded(band, overwrite_ab=True, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    sides = np.concatenate((system.slope[:, None], system.border), 1)
    solved = cho_solve_banded((factor, True), sides, check_finite=False)
    # The poses are eliminated first (Schur complement), because their band stays a band.
    reduced = corner - system.border.T @ solved[:, 1:]
    betas = np.linalg.solve(reduced, system.slope_shape - system.border.T @ solved[:, 0])
    poses = solved[:, 0] - solved[:, 1:] @ betas
    if not (np.isfinite(poses).all() and np.isfinite(betas).all()):
        return None
    return poses.reshape(-1, FRAME_DIM), betas


def _shown_shape(system: _System, poses: TrackPoses, prior: ShapePrior) -> ShapePrior:
    """The shape that the frames show by themselves: the optimum without the prior, and the
    information about it (the Schur complement, as in `solver.Solution.shape_information`)."""
    device = poses.betas.device
    band = system.band.copy()
    # A frame without the person leaves directions without any information.
    band[0] += 1e-4 * band[0] + 1e-2
    values, axes = np.zeros(BETAS), np.eye(BETAS)
    with suppress(np.linalg.LinAlgError):
        factor = cholesky_banded(band, overwrite_ab=True, lower=True, check_finite=False)
        solved = cho_solve_banded((factor, True), system.border, check_finite=False)
        before = prior.information.cpu().numpy().astype(np.float64)
        information = system.corner - system.border.T @ solved - before
        values, axes = np.linalg.eigh(0.5 * (information + information.T))
    # Rounding may leave a little less than nothing.
    values = np.maximum(values, 0.0)
    gained = torch.from_numpy((axes * values) @ axes.T).to(device)
    # At the optimum the pulls of frames and prior cancel.
    pull = prior.information.double() @ (poses.betas - prior.betas).double()
    known = axes / np.maximum(values, 1e-9) @ axes.T
    own = poses.betas.double() + torch.from_numpy(known).to(device) @ pull
    return ShapePrior(own, gained)


def _moved(poses: TrackPoses, step: np.ndarray, step_shape: np.ndarray) -> TrackPoses:
    """Return the poses after a step is subtracted: R <- R exp(delta), else by addition."""
    device = poses.transl_m.device
    move = torch.from_numpy(-step).float().clamp(-_LONGEST_STEP, _LONGEST_STEP).to(device)
    turns = exp_so3(move[:, 3:].reshape(-1, POSED, 3))
    turned = poses.rotations[:, :POSED] @ turns
    shaped = torch.from_numpy(-step_shape).float().clamp(-_LONGEST_STEP, _LONGEST_STEP).to(device)
    return replace(
        poses,
        rotations=torch.cat((turned, poses.rotations[:, POSED:]), 1),
        transl_m=poses.transl_m + move[:, :3],
        betas=poses.betas + shaped,
    )
