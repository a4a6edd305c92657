"""One window's fit: damped Gauss-Newton over all people and frames at once, on tensors alone.

Unknowns of one person: for each of T frames a translation (3) and the turns of 22 joints (66),
and one shape (10) for the window. Residuals, each in standard deviations:

- image landmarks, projected through the landmark regressor (robust, weighted by visibility);
- world landmarks about the mid-hip, in the frame of the ray through the person;
- the mask's contour: surface points on the model's rim lie on the mask's edge, and no surface
  point lies outside it;
- root depth, where a depth map gave one;
- the pose prior and joint limits; the shape prior;
- acceleration of every joint's turning and of the root, across the window and from the two
  frames before it; robust, so that a thrown arm is not held back.

Robust terms use Geman-McClure weights, w = (c^2 / (c^2 + r^2))^2, re-weighted every iteration.
A fixed number of steps, no branch on values, no host synchronisation: a solve can be captured in
a CUDA graph. A step that raises a person's cost is taken back and that person's damping raised
(Levenberg-Marquardt).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import solve_triangular
from torch.nn.functional import grid_sample

from pipeline.body.kinematics import (
    POSED,
    Pose,
    Skeleton,
    directed_jacobian,
    forward_kinematics,
    place_points,
    point_jacobian,
    shape_jacobian,
)
from pipeline.body.prior import pose_prior
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.core.skeleton import BLAZEPOSE_33

FRAME_DIM = 3 + 3 * POSED
BETAS = 10
State = tuple[Tensor, ...]
LEFT_HIP, RIGHT_HIP = BLAZEPOSE_33.hips


@dataclass(frozen=True)
class FitConfig:
    """Standard deviations and switches of the fit; every weight is in the unit its name says.

    ``image_sigma`` and ``mask_sigma`` are fractions of the person's height in the image.
    ``*_accel`` are per frame squared, at 30 frames a second.
    """

    iterations: int = 3
    cold_iterations: int = 12
    event_iterations: int = 8
    image_sigma: float = 0.012
    world_sigma_m: float = 0.06
    world_depth_sigma_m: float = 0.10
    mask_sigma: float = 0.02
    mask_weight: float = 1.0
    depth_sigma: float = 0.05
    prior_weight: float = 0.7
    limit_weight: float = 1.0
    shape_weight: float = 1.0
    turn_accel_rad: float = 0.06
    root_accel_m: float = 0.01
    root_depth_accel_m: float = 0.02
    robust: float = 3.0
    smooth_robust: float = 2.0
    surface_points: int = 96
    use_world: bool = True
    use_lifter: bool = True
    use_mask: bool = True
    use_prior: bool = True
    use_smoothness: bool = True
    use_warm_start: bool = True
    hold_shape: bool = True
    use_depth: bool = True
    shape_seconds: float = 3.0


@dataclass(frozen=True, eq=False)
class Observations:
    """What was seen of P people in T frames; all float32.

    ``image`` (P, T, 33, 2) normalised coordinates x/z, y/z; ``visible`` (P, T, 33) in [0, 1];
    ``world_m`` (P, T, 33, 3) with standard deviations ``world_spread_m`` (P, T, 33, 3) along the
    ray frame's axes and weights ``world_weight`` (P, T, 33); ``view`` (P, T, 3, 3) turns the ray
    frame's axes to the camera's; ``present`` (P, T) 0 or 1; ``size`` (P, T) the person's height in
    normalised coordinates;
    ``edge`` (P, T, 3, h, w) signed distance to the mask's contour (positive outside, in
    normalised coordinates) and its gradient; ``edge_from`` (P, T, 2, 3) takes normalised
    coordinates to the edge map's grid coordinates in [-1, 1]; ``masked`` (P, T) 0 or 1;
    ``root_depth_m`` (P, T), 0 where unknown; ``world_known`` (P, T) 0 where the world landmarks
    are only a first guess, made of 2D ones.
    """

    image: Tensor
    visible: Tensor
    world_m: Tensor
    world_spread_m: Tensor
    world_weight: Tensor
    view: Tensor
    present: Tensor
    size: Tensor
    edge: Tensor
    edge_from: Tensor
    masked: Tensor
    root_depth_m: Tensor
    world_known: Tensor


@dataclass(frozen=True, eq=False)
class TemporalPrior:
    """What is known before the window: the two frames before it, ``rotations`` (P, 2, 24, 3, 3),
    ``transl_m`` (P, 2, 3), ``known`` (P, 2) 0 or 1; the shape's mean (P, 10) and information
    (P, 10, 10); and ``interval_30hz`` (P,), the time between frames in thirtieths of a second."""

    rotations: Tensor
    transl_m: Tensor
    known: Tensor
    betas: Tensor
    shape_information: Tensor
    interval_30hz: Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """``rotations`` (P, T, 24, 3, 3), ``transl_m`` (P, T, 3), ``betas`` (P, 10), ``cost`` (P,), the
    mean robust landmark residual ``residual_mean`` (P, T) in standard deviations, and the shape's
    information gathered by this window, (P, 10, 10)."""

    rotations: Tensor
    transl_m: Tensor
    betas: Tensor
    cost: Tensor
    residual_mean: Tensor
    shape_information: Tensor


class Kernels(Protocol):
    """What may stand in for `linearise`, `propose_step` and `kinematics.forward_kinematics` on a
    GPU (`linearise_gpu`)."""

    def of(self, seen: Observations, past: TemporalPrior) -> Callable[[State], State]:
        """`linearise` for one window, as a function of the state."""
        ...

    def propose_step(self, state: State, step: Tensor) -> State: ...

    def forward_kinematics(self, rotations: Tensor, transl: Tensor, betas: Tensor) -> Pose: ...


def robust_weight(squared: Tensor, scale: float) -> Tensor:
    """Geman-McClure weight of a squared residual."""
    return (scale**2 / (scale**2 + squared)) ** 2


def robust_cost(squared: Tensor, scale: float) -> Tensor:
    return scale**2 * squared / (scale**2 + squared)


def solve_window(
    skeleton: Skeleton,
    seen: Observations,
    past: TemporalPrior,
    rotations: Tensor,
    transl_m: Tensor,
    config: FitConfig,
    iterations: int,
    kernels: Kernels | None = None,
) -> Solution:
    """Fit P people over T frames from a first guess (P, T, 24, 3, 3), (P, T, 3). ``kernels`` stand
    in for `linearise` and `propose_step`."""
    if kernels is None:
        propose = propose_step
        model: Callable[[State], State] = lambda at: linearise(skeleton, seen, past, at, config)  # noqa: E731
    else:
        propose, model = kernels.propose_step, kernels.of(seen, past)
    state: State = (rotations, transl_m, past.betas)
    system = model(state)
    damping = torch.full_like(past.interval_30hz, 1e-3)
    for _ in range(iterations):
        factor, _ = torch.linalg.cholesky_ex(_damped(system[1], damping))
        half = solve_triangular(factor, system[2][..., None], upper=False)
        step = solve_triangular(factor.mT, half, upper=True)[..., 0]
        tried = propose(state, step)
        new = model(tried)
        state, system, damping = _judge(state, system, tried, new, damping)
    cost, hessian, _, residual_mean = system
    rotations, transl_m, betas = state
    information = _shape_information(hessian, past)
    return Solution(rotations, transl_m, betas, cost, residual_mean, information)


def _damped(hessian: Tensor, damping: Tensor) -> Tensor:
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    return hessian + torch.diag_embed(damping[:, None] * diagonal + 1e-6)


def propose_step(state: State, step: Tensor) -> State:
    """The state a step down the gradient, of a length that a turn may have."""
    return retract(state, -torch.nan_to_num(step).clamp(-1.5, 1.5))


def _judge(
    state: State, system: State, tried: State, new: State, damping: Tensor
) -> tuple[State, State, Tensor]:
    """For each person the better of two states with what `linearise` found there, and the damping
    of the next step."""
    better = new[0] <= system[0]
    state = tuple(_choose(better, a, b) for a, b in zip(tried, state))
    system = tuple(_choose(better, a, b) for a, b in zip(new, system))
    return state, system, torch.where(better, damping * 0.3, damping * 10.0).clamp(1e-6, 1e6)


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition.reshape(-1, *[1] * (yes.dim() - 1)), yes, no)


def retract(state: State, step: Tensor) -> State:
    """Apply a step (P, T * 69 + 10): R <- R exp(delta), the rest by addition."""
    rotations, transl_m, betas = state
    people, frames = transl_m.shape[:2]
    per_frame = step[:, : frames * FRAME_DIM].reshape(people, frames, FRAME_DIM)
    turns = exp_so3(per_frame[..., 3:].reshape(people, frames, POSED, 3))
    turned = rotations[:, :, :POSED] @ turns
    return (
        torch.cat((turned, rotations[:, :, POSED:]), 2),
        transl_m + per_frame[..., :3],
        betas + step[:, frames * FRAME_DIM :],
    )


def linearise(
    skeleton: Skeleton,
    seen: Observations,
    past: TemporalPrior,
    state: State,
    config: FitConfig,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cost (P,), Hessian (P, D, D), gradient (P, D), misfit (P, T) at a state, D = 69 T + 10."""
    rotations, transl_m, betas = state
    people, frames = transl_m.shape[:2]
    flat = Observations(*(getattr(seen, f.name).flatten(0, 1) for f in fields(seen)))
    each = betas[:, None].expand(people, frames, BETAS).flatten(0, 1)
    pose = forward_kinematics(skeleton, rotations.flatten(0, 1), transl_m.flatten(0, 1), each)

    *data, residual_mean = _landmark_rows(skeleton, pose, each, flat, config)
    parts = [data]
    if config.use_mask:
        parts.append(_contour_rows(skeleton, pose, each, flat, config))
    if config.use_depth:
        parts.append(_depth_rows(skeleton, pose, flat, config))
    rows, jacobian = (torch.cat([part[i] for part in parts], 1) for i in (0, 1))
    cost = torch.stack([part[2] for part in parts]).sum(0)
    block = jacobian.transpose(1, 2) @ jacobian
    slope = (jacobian.transpose(1, 2) @ rows[..., None])[..., 0]
    if config.use_prior:
        cost = cost + _add_prior(block, slope, rotations.flatten(0, 1), skeleton.prior, config)

    block = block.reshape(people, frames, FRAME_DIM + BETAS, FRAME_DIM + BETAS)
    slope = slope.reshape(people, frames, FRAME_DIM + BETAS)
    total = cost.reshape(people, frames).sum(1)
    hessian, gradient = _assemble(block, slope)
    total = total + _add_shape_prior(hessian, gradient, betas, past)
    if config.use_smoothness:
        total = total + _add_smoothness(hessian, gradient, rotations, transl_m, past, config)
    return total, hessian, gradient, residual_mean.reshape(people, frames)


def landmark_residuals(
    points: Tensor, seen: Observations, config: FitConfig
) -> list[tuple[Tensor, Tensor]]:
    """Residuals of landmarks at ``points`` (B, 33, 3) and their weights: in the image
    ((B, 33, 2), (B, 33)), then of world landmarks ((B, 33, 3), (B, 33)) where they are used."""
    present = seen.present[:, None]
    sigma = (config.image_sigma * seen.size).clamp_min(1e-6)[:, None, None]
    image = (points[..., :2] / points[..., 2:].clamp_min(0.1) - seen.image) / sigma
    out = [(image, (seen.visible * present).clamp_min(0.0))]
    if config.use_world:
        about = points - 0.5 * (points[:, LEFT_HIP] + points[:, RIGHT_HIP])[:, None]
        hips = 0.5 * (seen.world_m[:, LEFT_HIP] + seen.world_m[:, RIGHT_HIP])
        back = seen.view.transpose(-1, -2)[:, None]
        apart = (back @ about[..., None])[..., 0] - (seen.world_m - hips[:, None])
        out.append((apart / seen.world_spread_m, seen.world_weight * present))
    return out


def pose_cost(
    skeleton: Skeleton, points: Tensor, rotations: Tensor, seen: Observations, config: FitConfig
) -> Tensor:
    """What landmarks and prior say of poses (B, 24, 3, 3) with landmarks at ``points``, (B,)."""
    cost = torch.zeros_like(seen.present)
    for rows, weight in landmark_residuals(points, seen, config):
        cost = cost + (weight * robust_cost(rows.square().sum(-1), config.robust)).sum(1)
    if config.use_prior:
        rows, _ = pose_prior(log_so3(rotations[:, :POSED]), skeleton.prior)
        gauss, limits = rows.square().flatten(2).sum(2).unbind(1)
        cost = cost + config.prior_weight**2 * gauss + config.limit_weight**2 * limits
    return cost


def _landmark_rows(skeleton, pose, betas, seen, config):
    """Rows (B, R), Jacobian (B, R, 79), cost (B,) and misfit (B,) of the landmarks."""
    points, share = place_points(skeleton.landmarks, pose, betas)
    jacobian = _full_jacobian(skeleton, skeleton.landmarks, pose, share)
    sigma = (config.image_sigma * seen.size).clamp_min(1e-6)[:, None, None, None]
    moved = 0.5 * (jacobian[:, LEFT_HIP] + jacobian[:, RIGHT_HIP])
    back = seen.view.transpose(-1, -2)[:, None]
    cost, out, jacobians = torch.zeros_like(seen.present), [], []
    for k, (rows, weight) in enumerate(landmark_residuals(points, seen, config)):
        squared = rows.square().sum(-1)
        strength = (weight * robust_weight(squared, config.robust)).sqrt()[..., None]
        cost = cost + (weight * robust_cost(squared, config.robust)).sum(1)
        out.append((rows * strength).flatten(1))
        if k == 0:
            residual_mean = (weight * squared.clamp_max(100.0)).sum(1) / weight.sum(1).clamp_min(
                1e-6
            )
            change = (_project(points)[1] @ jacobian) * (strength[..., None] / sigma)
        else:
            scaled = (strength / seen.world_spread_m)[..., None]
            change = (back @ (jacobian - moved[:, None])) * scaled
        jacobians.append(change.flatten(1, 2))
    return torch.cat(out, 1), torch.cat(jacobians, 1), cost, residual_mean


def _full_jacobian(skeleton, points, pose, share):
    turn = point_jacobian(points, pose, share, skeleton.below)
    shape = shape_jacobian(points, pose)
    eye = torch.eye(3, device=turn.device).expand(*turn.shape[:2], 3, 3)
    return torch.cat((eye, turn, shape), -1)


def _project(points: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised coordinates (..., 2) and their derivative (..., 2, 3)."""
    inverse = 1.0 / points[..., 2].clamp_min(0.1)
    projected = points[..., :2] * inverse[..., None]
    zero = torch.zeros_like(inverse)
    x = torch.stack((inverse, zero, -projected[..., 0] * inverse), -1)
    y = torch.stack((zero, inverse, -projected[..., 1] * inverse), -1)
    return projected, torch.stack((x, y), -2)


def _contour_rows(skeleton, pose, betas, seen, config):
    """One row a surface point: its distance to the mask's edge, where it is on the model's rim
    or outside the mask."""
    points, share = place_points(skeleton.surface, pose, betas)
    turned = torch.einsum("kj,njrc->nkrc", skeleton.surface.mass, pose.rotations)
    normals = (turned @ skeleton.normals[..., None])[..., 0]
    rays = points / points.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    facing = (normals * rays).sum(-1)
    projected, to_image = _project(points)
    grid = (seen.edge_from[:, None, :, :2] @ projected[..., None])[..., 0]
    grid = grid + seen.edge_from[:, None, :, 2]
    sampled = grid_sample(seen.edge, grid[:, None], align_corners=True, padding_mode="border")
    distance, slope = sampled[:, 0, 0], sampled[:, 1:, 0].transpose(1, 2)

    sigma = (config.mask_sigma * seen.size).clamp_min(1e-6)[:, None]
    rows = distance / sigma
    rim = torch.exp(-((facing / 0.25) ** 2))
    weight = torch.maximum(rim, (distance > 0).to(rim.dtype))
    weight = config.mask_weight * weight * (seen.masked * seen.present)[:, None]
    squared = rows.square()
    strength = (weight * robust_weight(squared, config.robust)).sqrt()
    cost = (weight * robust_cost(squared, config.robust)).sum(1)
    direction = (slope[..., None, :] @ to_image)[..., 0, :] * (strength / sigma)[..., None]
    jacobian = directed_jacobian(skeleton.surface, pose, share, skeleton.below, direction)
    return rows * strength, jacobian, cost


def _depth_rows(skeleton, pose, seen, config):
    """The root's distance against a depth map's, relative to it and robust."""
    known = seen.present * (seen.root_depth_m > 0)
    sigma = config.depth_sigma * seen.root_depth_m.clamp_min(0.1)
    row = (pose.joints[:, 0, 2] - seen.root_depth_m) / sigma
    strength = (known * robust_weight(row.square(), config.robust)).sqrt()
    jacobian = row.new_zeros(len(row), 1, FRAME_DIM + BETAS)
    jacobian[:, 0, 2] = strength / sigma
    jacobian[:, 0, FRAME_DIM:] = pose.joints_betas[:, 0, 2] * (strength / sigma)[:, None]
    cost = known * robust_cost(row.square(), config.robust)
    return (row * strength)[:, None], jacobian, cost


def _add_prior(block, slope, rotations, table, config):
    phi = log_so3(rotations[:, :POSED])
    rows, change = (
        torch.stack((config.prior_weight * each[:, 0], config.limit_weight * each[:, 1]), 1)
        for each in pose_prior(phi, table)
    )
    # d(phi)/d(delta) under R <- R exp(delta); both rows of an angle share its turn.
    turn = inverse_right_jacobian(phi)
    across = turn.transpose(-1, -2)
    normal = across @ (change.square().sum(1)[..., None] * turn)
    pull = (across @ (rows * change).sum(1)[..., None])[..., 0]
    inner = block[:, 3:FRAME_DIM, 3:FRAME_DIM].unflatten(1, (POSED, 3)).unflatten(3, (POSED, 3))
    torch.diagonal(inner, dim1=1, dim2=3).add_(normal.permute(0, 2, 3, 1))
    slope[:, 3:FRAME_DIM] += pull.flatten(1)
    return rows.square().flatten(1).sum(1)


def inverse_right_jacobian(phi: Tensor) -> Tensor:
    """J_r^-1 on SO(3) (Chirikjian, Stochastic Models, 2011, eq. 10.86), (..., 3) -> (..., 3, 3)."""
    squared = phi.square().sum(-1, keepdim=True).clamp_min(1e-8)
    angle = squared.sqrt()
    half = (0.5 * angle).clamp_max(1.5)
    factor = torch.where(
        angle < 1e-2, 1.0 / 12 + squared / 720, 1.0 / squared - 1.0 / (2 * angle * torch.tan(half))
    )[..., None]
    x, y, z = phi.unbind(-1)
    zero = torch.zeros_like(x)
    hat = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, device=phi.device)
    return eye + 0.5 * hat + factor * (hat @ hat)


def _assemble(block: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Frames' blocks on the diagonal, the shape as a shared border."""
    people, frames = block.shape[:2]
    size = frames * FRAME_DIM
    hessian = block.new_zeros(people, size + BETAS, size + BETAS)
    for t in range(frames):
        at = slice(t * FRAME_DIM, (t + 1) * FRAME_DIM)
        hessian[:, at, at] = block[:, t, :FRAME_DIM, :FRAME_DIM]
        hessian[:, at, size:] = block[:, t, :FRAME_DIM, FRAME_DIM:]
        hessian[:, size:, at] = block[:, t, FRAME_DIM:, :FRAME_DIM]
    hessian[:, size:, size:] = block[:, :, FRAME_DIM:, FRAME_DIM:].sum(1)
    gradient = torch.cat((slope[..., :FRAME_DIM].flatten(1), slope[..., FRAME_DIM:].sum(1)), 1)
    return hessian, gradient


def _add_shape_prior(hessian, gradient, betas, past):
    away = betas - past.betas
    pull = (past.shape_information @ away[..., None])[..., 0]
    hessian[:, -BETAS:, -BETAS:] += past.shape_information
    gradient[:, -BETAS:] += pull
    return (away * pull).sum(1)


def _add_smoothness(hessian, gradient, rotations, transl_m, past, config):
    """Second differences of every joint's turning and of the root's path.

    With e_t = log(R_{t-1}^T R_t), the acceleration is e_t - e_{t-1}, and to first order
    delta_t - 2 delta_{t-1} + delta_{t-2} changes it.
    """
    people, frames = transl_m.shape[:2]
    chain = torch.cat((past.rotations, rotations), 1)[:, :, :POSED]
    path = torch.cat((past.transl_m, transl_m), 1)
    turned = log_so3(chain[:, :-1].transpose(-1, -2) @ chain[:, 1:])
    rows = torch.cat(
        (
            (path[:, 2:] - 2 * path[:, 1:-1] + path[:, :-2])[:, :, None],
            turned[:, 1:] - turned[:, :-1],
        ),
        2,
    )
    # A second difference of a random acceleration grows with the 3/2 power of the interval.
    sigma = path.new_full((1 + POSED, 3), config.turn_accel_rad)
    # A single place would be copied from the host, which no CUDA graph can hold; parts are filled.
    sigma[0, :2], sigma[0, 2:] = config.root_accel_m, config.root_depth_accel_m
    sigma = sigma * past.interval_30hz.clamp(0.25, 4.0)[:, None, None] ** 1.5

    known = torch.cat((past.known, torch.ones_like(transl_m[..., 0])), 1)
    known = known[:, 2:] * known[:, 1:-1] * known[:, :-2]
    squared = (rows / sigma[:, None]).square().sum(-1)
    weight = known[..., None] * robust_weight(squared, config.smooth_robust)
    cost = (known[..., None] * robust_cost(squared, config.smooth_robust)).flatten(1).sum(1)
    weight = (weight[..., None] / sigma[:, None].square()).flatten(2)
    value = rows.flatten(2)
    eye = torch.eye(frames + 2, device=path.device, dtype=path.dtype)
    difference = (eye[2:] - 2 * eye[1:-1] + eye[:-2])[:, 2:]
    normal = torch.einsum("pad,as,at->pdst", weight, difference, difference)
    pull = torch.einsum("pad,pad,at->ptd", weight, value, difference)
    size = frames * FRAME_DIM
    inner = hessian[:, :size, :size].unflatten(1, (frames, FRAME_DIM))
    inner = inner.unflatten(3, (frames, FRAME_DIM))
    torch.diagonal(inner, dim1=2, dim2=4).add_(normal.permute(0, 2, 3, 1))
    gradient[:, :size] += pull.flatten(1)
    return cost


def _shape_information(hessian: Tensor, past: TemporalPrior) -> Tensor:
    """What this window alone says of the shape: the Schur complement, less the prior."""
    inner, border = hessian[:, :-BETAS, :-BETAS], hessian[:, :-BETAS, -BETAS:]
    # A frame without the person leaves directions without any information.
    diagonal = torch.diagonal(inner, dim1=1, dim2=2)
    factor, _ = torch.linalg.cholesky_ex(inner + torch.diag_embed(1e-4 * diagonal + 1e-2))
    half = solve_triangular(factor, border, upper=False)
    known = hessian[:, -BETAS:, -BETAS:] - half.mT @ half
    return torch.nan_to_num(known - past.shape_information)
