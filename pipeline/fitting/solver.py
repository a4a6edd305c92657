"""One window's fit: damped Gauss-Newton over all people and frames at once, on tensors alone.

Unknowns of one person: for each of T frames a translation (3) and the rotations of 22 joints (66),
and one shape (10) for the window. Residuals, each in standard deviations:

- image landmarks, projected through the landmark regressor (robust, weighted by visibility);
- world landmarks about the mid-hip, in the frame of the ray through the person;
- the mask's contour: surface points on the model's rim lie on the mask's edge, and no surface
  point lies outside it;
- root depth, where a depth map gave one;
- points of an MHR body's skin about their middle, where the network knows that body;
- the pose prior and joint limits; the shape prior;
- acceleration of every joint's rotation and of the root, across the window and from the two
  frames before it; robust, so that a throwing arm is not held back.

Robust terms use Geman-McClure weights, w = (c^2 / (c^2 + r^2))^2, computed anew in every iteration
(iteratively re-weighted least squares). The pull w * r of a residual falls to zero as it grows, so
a landmark on the wrong limb stops mattering instead of bending the body; a Huber loss would go on
pulling. The weight is smooth, which spares a branch.

The solver takes a fixed number of steps, branches on no value and never synchronises with the host,
so a solve can be captured in a CUDA graph. A step that raises a person's cost is rejected and that
person's damping raised (Levenberg-Marquardt).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import solve_triangular
from torch.nn.functional import grid_sample

from pipeline.body.kinematics import (
    POSED,
    Points,
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
"""Unknowns of one frame: the translation, then the rotation vectors of 22 joints. SMPL's two hand
joints are not fitted, since the landmarks do not tell how they turn."""
BETAS = 10
State = tuple[Tensor, ...]
"""Rotations (P, T, 24, 3, 3), translations (P, T, 3) and shapes (P, 10)."""
LEFT_HIP, RIGHT_HIP = BLAZEPOSE_33.hips


@dataclass(frozen=True)
class FitConfig:
    """Step counts, standard deviations, weights and switches of the fit.

    A unit in a field's name is the field's unit. "The person's size" is `Observations.size`.

    Attributes:
        iterations: Solver steps for a window in which the last pose of every person is known.
            Few are enough, since the fit begins where the last window ended.
        cold_iterations: Solver steps for a window with at least one person whose last pose is not
            known: a new person, or one who was out of sight. Where the perceiver knows the joints'
            rotations (`pipeline.core.people.Person.start_rotations`), ``iterations`` are enough.
        event_iterations: Solver steps for the window of an event, which always begins without a
            known pose.
        image_sigma: Standard deviation of an image landmark, as a fraction of the person's size.
        world_sigma_m: Standard deviation of a world landmark across the view, in metres. Where
            ``use_lifter`` is on, the lifter's own standard deviations replace it.
        world_depth_sigma_m: The same along the view, where one camera tells less.
        model_sigma_m: How far the body model's landmarks lie from what a network means by the same
            names, as a standard deviation in metres. It adds, in squares, to the one that a
            perceiver states (`pipeline.core.people.Person.world_sigma_m`), in space and in the
            image; the three above are not used then.
        mask_sigma: Standard deviation of a surface point's distance to the mask's edge, as a
            fraction of the person's size.
        mask_weight: Factor on the squared residual of every surface point, besides its weight in
            [0, 1] by how near it is to the model's rim.
        depth_sigma: Standard deviation of the root's depth, as a fraction of that depth.
        prior_weight: Factor on the residuals of the Gaussian pose prior (`pipeline.body.prior`),
            which are in the prior's standard deviations; the cost grows with its square.
        limit_weight: Factor on the residuals of the joint limits, one for each five degrees beyond
            a limit; the cost grows with its square.
        shape_weight: Information (inverse variance) of each shape coefficient about 0 before
            anything has been observed. SMPL's coefficients have a variance of 1; it is larger
            because clothes and masks bias all of a window's residuals in the same way, while the
            information that they add counts them as independent. Where the perceiver states the
            error of its landmarks, it is SMPL's 1.
        surface_model_m: How far an SMPL body's skin lies from an MHR body's, as a standard
            deviation of each coordinate in metres. It adds, in squares, to the one that a perceiver
            states (`pipeline.core.people.Person.surface_sigma_m`).
        turn_accel_rad: Standard deviation of the second difference of a joint's rotation, for each
            axis, in radians at 30 frames a second. It grows with the interval between frames to
            the power of 3/2; intervals count as 1/120 s at least and 4/30 s at most.
        root_accel_m: Standard deviation of the second difference of the root's path across the
            view, in metres at 30 frames a second; it grows with the interval likewise.
        root_depth_accel_m: The same along the view. It is larger, since depth is estimated worse.
        robust: Scale c of the Geman-McClure loss for image landmarks, world landmarks, surface
            points and root depth, in standard deviations. A residual of c has a quarter of the
            weight of a small one.
        smooth_robust: The same for accelerations.
        surface_points: How many points of the mesh are compared with the mask's edge.
        use_world: Whether world landmarks are residuals. The first guess uses them either way.
        use_lifter: Whether `pipeline.fitting.lifter` corrects the world landmarks before the fit.
        use_mask: Whether surface points are held to the mask's edge.
        use_prior: Whether the pose prior and the joint limits act. The shape prior always does.
        use_smoothness: Whether accelerations are penalised.
        use_warm_start: Whether the last pose competes with the pose that the world landmarks show
            for the first guess.
        hold_shape: Whether the shape and the information about it are carried from window to
            window. Without it every window fits its own shape from the prior.
        use_depth: Whether a root depth acts: as a residual, and on the size of world landmarks
            (`pipeline.fitting.initialise.sized_by_depth`).
        use_surface: Whether an MHR body's skin acts, and the pose that comes with it.
        shape_seconds: Time for which a person is observed until the shape is frozen. Only acts
            with ``hold_shape``.
    """

    iterations: int = 3
    cold_iterations: int = 12
    event_iterations: int = 8
    image_sigma: float = 0.012
    world_sigma_m: float = 0.06
    world_depth_sigma_m: float = 0.10
    model_sigma_m: float = 0.02
    mask_sigma: float = 0.016
    mask_weight: float = 1.0
    depth_sigma: float = 0.05
    prior_weight: float = 0.7
    limit_weight: float = 1.0
    shape_weight: float = 20.0
    surface_model_m: float = 0.01
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
    use_surface: bool = True
    shape_seconds: float = 0.5


@dataclass(frozen=True, eq=False)
class Observations:
    """What perception observed of P people in T frames, as tensors of float32.

    Normalised coordinates are x/z and y/z: pixels less the principal point, over the focal length.
    The ray frame of a person has its z axis along the ray from the camera through the person; a
    network that reads a crop describes the person in these axes.

    Attributes:
        image: (P, T, 33, 2) landmarks in normalised coordinates.
        visible: (P, T, 33) visibility of each landmark, in [0, 1].
        world_m: (P, T, 33, 3) world landmarks in metres, in the axes of the ray frame. Only their
            places about the mid-hip count.
        world_spread_m: (P, T, 33, 3) their standard deviations along these axes, in metres.
        world_weight: (P, T, 33) their weights.
        view: (P, T, 3, 3) the rotation from the ray frame to the camera.
        present: (P, T) 1 where the person was found in the frame, else 0.
        size: (P, T) 1.1 times the longer side of the box around the landmarks, in normalised
            coordinates.
        edge: (P, T, 3, h, w) signed distance to the mask's contour in normalised coordinates,
            positive outside, then its gradient by normalised x and y.
        edge_from: (P, T, 2, 3) the map from normalised coordinates to the edge map's grid
            coordinates in [-1, 1].
        masked: (P, T) 1 where there is an edge map, else 0.
        root_depth_m: (P, T) distance of the pelvis along z in metres; 0 where unknown.
        world_known: (P, T) 0 where the world landmarks were only made from 2D ones, as a first
            guess; else 1.
        world_sigma_m: (P, T) the standard deviation that the perceiver states for its world
            landmarks, which are then metric; 0 where it states none.
        image_spread: (P, T) the standard deviation of an image landmark, in normalised coordinates.
        surface_m: (P, T, S, 3) points of an MHR body's skin about their middle, in metres in the
            camera's axes. S is 0 where the window has none.
        surface_weight: (P, T) the weight of each of their coordinates, 1/m^2; 0 where there are
            none.
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
    world_sigma_m: Tensor
    image_spread: Tensor
    surface_m: Tensor
    surface_weight: Tensor


@dataclass(frozen=True, eq=False)
class TemporalPrior:
    """What is known of P people before a window.

    Attributes:
        rotations: (P, 2, 24, 3, 3) local rotations in the two frames before the window.
        transl_m: (P, 2, 3) translations in those frames, in metres.
        known: (P, 2) 1 where the person was fitted in that frame, else 0.
        betas: (P, 10) the mean of the shape.
        shape_information: (P, 10, 10) the information (inverse covariance) about that mean.
        interval_30hz: (P,) the time between frames, in thirtieths of a second.
        shape_frozen: (P,) 1 where the shape is frozen from the next window on, else 0. What this
            window tells about such a shape is not asked for.
    """

    rotations: Tensor
    transl_m: Tensor
    known: Tensor
    betas: Tensor
    shape_information: Tensor
    interval_30hz: Tensor
    shape_frozen: Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """The fit of P people in T frames.

    Attributes:
        rotations: (P, T, 24, 3, 3) local rotations, each joint against its parent.
        transl_m: (P, T, 3) translations in metres, in camera axes.
        betas: (P, 10) shapes.
        cost: (P,) the robust cost at the solution.
        residual_mean: (P, T) the mean squared residual of the image landmarks, in squared standard
            deviations, weighted by visibility; each landmark counts 100 at most.
        shape_information: (P, 10, 10) the information about the shape that this window adds; it
            may be zeros for a person of `TemporalPrior.shape_frozen`.
    """

    rotations: Tensor
    transl_m: Tensor
    betas: Tensor
    cost: Tensor
    residual_mean: Tensor
    shape_information: Tensor


Rows = tuple[Tensor, Tensor, Tensor]
"""Weighted residuals (B, R), their Jacobian (B, R, 79) and the cost (B,)."""
RowsOf = Callable[[Pose, Tensor, Observations], Rows]
"""Residuals of B posed bodies with shapes (B, 10), such as `contour_rows` of one body model."""
FIRST_DAMPING = 1e-3


class Kernels(Protocol):
    """Faster versions of the solver's functions: `linearise_gpu` and `contour_cpu` have them."""

    def solve(
        self,
        observed: Observations,
        past: TemporalPrior,
        rotations: Tensor,
        transl_m: Tensor,
        iterations: int,
    ) -> Solution:
        """Return what `solve_window` returns."""
        ...

    def forward_kinematics(self, rotations: Tensor, transl: Tensor, betas: Tensor) -> Pose:
        """Return what `kinematics.forward_kinematics` returns."""
        ...


def robust_weight(squared: Tensor, scale: float | Tensor) -> Tensor:
    """Return the Geman-McClure weight of squared residuals, in (0, 1].

    It is the derivative of `robust_cost` by the squared residual (Geman and McClure, Statistical
    methods for tomographic image reconstruction, 1987).
    """
    return (scale**2 / (scale**2 + squared)) ** 2


def robust_cost(squared: Tensor, scale: float | Tensor) -> Tensor:
    """Return the Geman-McClure cost of squared residuals, below ``scale`` squared."""
    return scale**2 * squared / (scale**2 + squared)


def solve_window(
    skeleton: Skeleton,
    observed: Observations,
    past: TemporalPrior,
    rotations: Tensor,
    transl_m: Tensor,
    config: FitConfig,
    iterations: int,
    kernels: Kernels | None = None,
) -> Solution:
    """Fit P people over T frames by damped Gauss-Newton.

    Nothing in it depends on a value on the host, so it can be captured in a CUDA graph.

    Args:
        skeleton: The body model's tables, on the device of the observations.
        observed: What perception observed.
        past: What is known before the window; the shape begins at its mean.
        rotations: (P, T, 24, 3, 3) the first guess of the local rotations.
        transl_m: (P, T, 3) the first guess of the translations, in metres.
        config: Weights and switches; its step counts are not read.
        iterations: How many steps to take.
        kernels: Used in place of `gauss_newton` and `linearise` where given.

    Returns:
        The best state that each person's steps reached, never worse than the first guess.
    """
    if kernels is not None:
        return kernels.solve(observed, past, rotations, transl_m, iterations)
    model = partial(linearise, skeleton, observed, past, config=config)
    return gauss_newton(model, past, rotations, transl_m, iterations)


def gauss_newton(
    model: Callable[[State], State],
    past: TemporalPrior,
    rotations: Tensor,
    transl_m: Tensor,
    iterations: int,
) -> Solution:
    """Return what `solve_window` returns, for a window that ``model`` linearises.

    Args:
        model: `linearise` as a function of the state alone.
        past: What is known before the window.
        rotations: (P, T, 24, 3, 3) the first guess of the local rotations.
        transl_m: (P, T, 3) the first guess of the translations, in metres.
        iterations: How many steps to take.
    """
    state: State = (rotations, transl_m, past.betas)
    # Each state keeps its linearisation, so a rejected step costs no second one.
    system = model(state)
    damping = torch.full_like(past.interval_30hz, FIRST_DAMPING)
    for _ in range(iterations):
        # `cholesky_ex` raises nothing, so the host need not wait for the outcome. Triangular solves
        # can be captured; torch's batched `cholesky_solve` (MAGMA) allocates memory and cannot.
        factor, failed = torch.linalg.cholesky_ex(_damped(system[1], damping))
        half = solve_triangular(factor, system[2][..., None], upper=False)
        step = solve_triangular(factor.mT, half, upper=True)[..., 0]
        candidate = propose_step(state, step)
        new = model(candidate)
        # What a factorisation that failed leaves is no step. Comparison with NaN is false, so a
        # step to a state without a finite cost is rejected too.
        better = (new[0] <= system[0]) & (failed == 0)
        state, system = _choose(better, candidate, state), _choose(better, new, system)
        # Damping rises by more (10) than it falls (0.3): of a window's three steps, one rejected
        # step should be enough to make the next one short. The bounds keep it within float32.
        damping = torch.where(better, damping * 0.3, damping * 10.0).clamp(1e-6, 1e6)
    cost, hessian, _, residual_mean = system
    rotations, transl_m, betas = state
    information = _shape_information(hessian, past)
    return Solution(rotations, transl_m, betas, cost, residual_mean, information)


def _damped(hessian: Tensor, damping: Tensor) -> Tensor:
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    # Marquardt scales with the diagonal, so that radians and metres are damped alike. The constant
    # keeps the matrix positive definite where an unknown has no residual at all.
    return hessian + torch.diag_embed(damping[:, None] * diagonal + 1e-6)


def propose_step(state: State, step: Tensor) -> State:
    """Return the state after a Gauss-Newton step (P, T * 69 + 10) is subtracted.

    No unknown moves by more than 1.5 (radians, metres): beyond that the linearisation says nothing.
    A step that is not a number, from a factorisation that failed, becomes zero.
    """
    return retract(state, -torch.nan_to_num(step).clamp(-1.5, 1.5))


def _choose(condition: Tensor, yes: State, no: State) -> State:
    """Each person's part of ``yes`` where the condition (P,) holds, else of ``no``."""
    return tuple(
        torch.where(condition.reshape(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(yes, no)
    )


def retract(state: State, step: Tensor) -> State:
    """Return the state moved by a step (P, T * 69 + 10): R <- R exp(delta), else by addition."""
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


def linearise_frames(
    skeleton: Skeleton,
    observed: Observations,
    rotations: Tensor,
    transl_m: Tensor,
    betas: Tensor,
    config: FitConfig,
    contour: RowsOf | None = None,
    blocks: Sequence[RowsOf] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Linearise the residuals that concern single frames, B of them, each by itself.

    Args:
        skeleton: The body model's tables.
        observed: What perception observed, each array with a leading B.
        rotations: (B, 24, 3, 3) local rotations.
        transl_m: (B, 3) translations in metres.
        betas: (B, 10) shapes.
        config: Weights and switches.
        contour: Used in place of `contour_rows` where given.
        blocks: Residuals beside the fixed ones.

    Returns:
        The cost (B,); the Hessian (B, 79, 79) and half the cost's slope (B, 79) by translation,
        rotation vectors and shape; and the mean squared image residual (B,).
    """
    pose = forward_kinematics(skeleton, rotations, transl_m, betas)
    *landmark_part, residual_mean = _landmark_rows(skeleton, pose, betas, observed, config)
    parts: list[Sequence[Tensor]] = [landmark_part]
    if config.use_mask:
        contour = contour or partial(contour_rows, skeleton, config=config)
        parts.append(contour(pose, betas, observed))
    if config.use_depth:
        parts.append(_depth_rows(skeleton, pose, observed, config))
    # How many points there are is the window's kind, not a value.
    if skeleton.skin is not None and observed.surface_m.shape[1]:
        parts.append(surface_rows(skeleton.skin, pose, betas, observed, skeleton.below))
    parts.extend(block(pose, betas, observed) for block in blocks)
    # All terms' rows are stacked, so that one matrix product gives the Hessian of all of them.
    rows, jacobian = (torch.cat([part[i] for part in parts], 1) for i in (0, 1))
    cost = torch.stack([part[2] for part in parts]).sum(0)
    block = jacobian.transpose(1, 2) @ jacobian
    slope = (jacobian.transpose(1, 2) @ rows[..., None])[..., 0]
    # The prior acts on single joints: adding 3 x 3 blocks costs less than a row for each angle.
    if config.use_prior:
        cost = cost + _add_prior(block, slope, rotations, skeleton.prior, config)
    return cost, block, slope, residual_mean


def linearise(
    skeleton: Skeleton,
    observed: Observations,
    past: TemporalPrior,
    state: State,
    config: FitConfig,
    contour: RowsOf | None = None,
    blocks: Sequence[RowsOf] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Linearise every residual at a state; D = 69 T + 10 unknowns.

    The Hessian is Gauss-Newton's, J^T W J, with the robust weights of this state. Unknowns are
    ordered frame by frame (translation, then 22 rotation vectors), the shape last.

    Args:
        skeleton: The body model's tables.
        observed: What perception observed.
        past: What is known before the window.
        state: Rotations (P, T, 24, 3, 3), translations (P, T, 3) and shapes (P, 10).
        config: Weights and switches.
        contour: Used in place of `contour_rows` where given.
        blocks: Residuals beside the fixed ones.

    Returns:
        The cost (P,); the Hessian (P, D, D); the gradient (P, D), half the cost's slope as is usual
        for Gauss-Newton; and the mean squared image residual (P, T), as in
        `Solution.residual_mean`.
    """
    rotations, transl_m, betas = state
    people, frames = transl_m.shape[:2]
    # Up to the shape prior and smoothness each frame stands alone: all are one batch.
    flat = Observations(*(getattr(observed, f.name).flatten(0, 1) for f in fields(observed)))
    shapes = betas[:, None].expand(people, frames, BETAS).flatten(0, 1)
    cost, block, slope, residual_mean = linearise_frames(
        skeleton, flat, rotations.flatten(0, 1), transl_m.flatten(0, 1), shapes, config, contour,
        blocks,
    )  # fmt: skip
    block = block.reshape(people, frames, FRAME_DIM + BETAS, FRAME_DIM + BETAS)
    slope = slope.reshape(people, frames, FRAME_DIM + BETAS)
    total = cost.reshape(people, frames).sum(1)
    hessian, gradient = _assemble(block, slope)
    # These terms act on the window as a whole, so they are added after the frames are assembled.
    total = total + _add_shape_prior(hessian, gradient, betas, past)
    if config.use_smoothness:
        total = total + _add_smoothness(hessian, gradient, rotations, transl_m, past, config)
    return total, hessian, gradient, residual_mean.reshape(people, frames)


def landmark_residuals(
    points: Tensor, observed: Observations, config: FitConfig
) -> list[tuple[Tensor, Tensor]]:
    """Return the residuals of landmarks at ``points`` (B, 33, 3) and their weights.

    First those in the image, (B, 33, 2) with weights (B, 33); then, with ``use_world``, those of
    the world landmarks, (B, 33, 3) with weights (B, 33). All are in standard deviations.
    """
    present = observed.present[:, None]
    sigma = observed.image_spread.clamp_min(1e-6)[:, None, None]
    image = (points[..., :2] / points[..., 2:].clamp_min(0.1) - observed.image) / sigma
    # The rows take the root of this weight, so it must not be negative.
    out = [(image, (observed.visible * present).clamp_min(0.0))]
    if config.use_world:
        # World landmarks have no origin of their own, so both sides are taken about the mid-hip.
        relative = points - 0.5 * (points[:, LEFT_HIP] + points[:, RIGHT_HIP])[:, None]
        hips = 0.5 * (observed.world_m[:, LEFT_HIP] + observed.world_m[:, RIGHT_HIP])
        to_ray = observed.view.transpose(-1, -2)[:, None]
        difference_m = (to_ray @ relative[..., None])[..., 0] - (observed.world_m - hips[:, None])
        out.append((difference_m / observed.world_spread_m, observed.world_weight * present))
    return out


def pose_cost(
    skeleton: Skeleton, points: Tensor, rotations: Tensor, observed: Observations, config: FitConfig
) -> Tensor:
    """Return the cost (B,) of landmarks and pose prior at poses (B, 24, 3, 3).

    ``points`` (B, 33, 3) are the poses' landmarks in metres. Masks, depth and smoothness are left
    out: this only chooses between first guesses.
    """
    cost = torch.zeros_like(observed.present)
    for rows, weight in landmark_residuals(points, observed, config):
        cost = cost + (weight * robust_cost(rows.square().sum(-1), config.robust)).sum(1)
    if config.use_prior:
        rows, _ = pose_prior(log_so3(rotations[:, :POSED]), skeleton.prior)
        gauss, limits = rows.square().flatten(2).sum(2).unbind(1)
        cost = cost + config.prior_weight**2 * gauss + config.limit_weight**2 * limits
    return cost


def _landmark_rows(
    skeleton: Skeleton, pose: Pose, betas: Tensor, observed: Observations, config: FitConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows (B, R), Jacobian (B, R, 79), cost (B,) and mean squared residual (B,) of landmarks."""
    points, share = place_points(skeleton.landmarks, pose, betas)
    jacobian = _full_jacobian(skeleton, skeleton.landmarks, pose, share)
    sigma = observed.image_spread.clamp_min(1e-6)[:, None, None, None]
    hip_jacobian = 0.5 * (jacobian[:, LEFT_HIP] + jacobian[:, RIGHT_HIP])
    to_ray = observed.view.transpose(-1, -2)[:, None]
    cost, out, jacobians = torch.zeros_like(observed.present), [], []
    for k, (rows, weight) in enumerate(landmark_residuals(points, observed, config)):
        # The coordinates of a landmark share one weight, since a misplaced one is wrong in all of
        # them.
        squared = rows.square().sum(-1)
        # The root of the weight, because the product of the rows squares it.
        strength = (weight * robust_weight(squared, config.robust)).sqrt()[..., None]
        cost = cost + (weight * robust_cost(squared, config.robust)).sum(1)
        out.append((rows * strength).flatten(1))
        if k == 0:
            residual_mean = (weight * squared.clamp_max(100.0)).sum(1) / weight.sum(1).clamp_min(
                1e-6
            )
            change = (_project(points)[1] @ jacobian) * (strength[..., None] / sigma)
        else:
            scaled = (strength / observed.world_spread_m)[..., None]
            change = (to_ray @ (jacobian - hip_jacobian[:, None])) * scaled
        jacobians.append(change.flatten(1, 2))
    return torch.cat(out, 1), torch.cat(jacobians, 1), cost, residual_mean


def _full_jacobian(skeleton: Skeleton, points: Points, pose: Pose, share: Tensor) -> Tensor:
    """The derivative (B, K, 3, 79) of points by translation, rotations and shape."""
    turn = point_jacobian(points, pose, share, skeleton.below)
    shape = shape_jacobian(points, pose)
    eye = torch.eye(3, device=turn.device).expand(*turn.shape[:2], 3, 3)
    return torch.cat((eye, turn, shape), -1)


def _project(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return normalised coordinates (..., 2) and their derivative (..., 2, 3)."""
    # A point behind the camera would project upside down; at 0.1 m it is still wrong, but finite.
    inverse = 1.0 / points[..., 2].clamp_min(0.1)
    projected = points[..., :2] * inverse[..., None]
    zero = torch.zeros_like(inverse)
    x = torch.stack((inverse, zero, -projected[..., 0] * inverse), -1)
    y = torch.stack((zero, inverse, -projected[..., 1] * inverse), -1)
    return projected, torch.stack((x, y), -2)


def contour_rows(
    skeleton: Skeleton, pose: Pose, betas: Tensor, observed: Observations, config: FitConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a row for each surface point, its distance to the mask's edge: (B, K).

    Then the rows' Jacobian (B, K, 79) and their cost (B,). A point counts where it is on the
    model's rim or outside the mask: rim points inside the mask pull outward, points outside it pull
    inward. The rest may lie anywhere inside the mask.
    """
    points, share = place_points(skeleton.surface, pose, betas)
    turned = torch.einsum("kj,njrc->nkrc", skeleton.surface.mass, pose.rotations)
    normals = (turned @ skeleton.normals[..., None])[..., 0]
    rays = points / points.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    facing = (normals * rays).sum(-1)
    projected, to_image = _project(points)
    grid = (observed.edge_from[:, None, :, :2] @ projected[..., None])[..., 0]
    grid = grid + observed.edge_from[:, None, :, 2]
    # Beyond the map its border is read. A zero there would mean "on the contour" and pull nothing.
    sampled = grid_sample(observed.edge, grid[:, None], align_corners=True, padding_mode="border")
    distance, slope = sampled[:, 0, 0], sampled[:, 1:, 0].transpose(1, 2)

    sigma = (config.mask_sigma * observed.size).clamp_min(1e-6)[:, None]
    rows = distance / sigma
    # On the rim the surface is seen edge-on: its normal is across the ray.
    rim = torch.exp(-((facing / 0.25) ** 2))
    weight = torch.maximum(rim, (distance > 0).to(rim.dtype))
    weight = config.mask_weight * weight * (observed.masked * observed.present)[:, None]
    squared = rows.square()
    strength = (weight * robust_weight(squared, config.robust)).sqrt()
    cost = (weight * robust_cost(squared, config.robust)).sum(1)
    direction = (slope[..., None, :] @ to_image)[..., 0, :] * (strength / sigma)[..., None]
    jacobian = directed_jacobian(skeleton.surface, pose, share, skeleton.below, direction)
    return rows * strength, jacobian, cost


def _depth_rows(
    skeleton: Skeleton, pose: Pose, observed: Observations, config: FitConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """One row for the root's distance against a depth map's, relative to it and robust."""
    known = observed.present * (observed.root_depth_m > 0)
    # An unknown depth is 0 and has no weight; the floor only keeps its row finite.
    sigma = config.depth_sigma * observed.root_depth_m.clamp_min(0.1)
    row = (pose.joints[:, 0, 2] - observed.root_depth_m) / sigma
    strength = (known * robust_weight(row.square(), config.robust)).sqrt()
    jacobian = row.new_zeros(len(row), 1, FRAME_DIM + BETAS)
    # The pelvis moves with the translation and the shape alone: no rotation moves it.
    jacobian[:, 0, 2] = strength / sigma
    jacobian[:, 0, FRAME_DIM:] = pose.joints_betas[:, 0, 2] * (strength / sigma)[:, None]
    cost = known * robust_cost(row.square(), config.robust)
    return (row * strength)[:, None], jacobian, cost


def surface_rows(
    skin: Points, pose: Pose, betas: Tensor, observed: Observations, below: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows (B, 3 S) of an MHR body's skin, their Jacobian (B, 3 S, 79) and cost (B,).

    Both skins are about their middles, so the translation does not matter. The rows are not robust:
    the points are one body's, of which none goes astray alone.
    """
    points, share = place_points(skin, pose, betas)
    turn = point_jacobian(skin, pose, share, below)
    still = turn.new_zeros(*turn.shape[:3], 3)
    strength = (observed.surface_weight * observed.present).sqrt()[:, None, None]
    rows = (points - observed.surface_m) * strength
    jacobian = torch.cat((still, turn, shape_jacobian(skin, pose)), -1) * strength[..., None]
    return rows.flatten(1), jacobian.flatten(1, 2), rows.square().flatten(1).sum(1)


def _add_prior(
    block: Tensor, slope: Tensor, rotations: Tensor, table: Tensor, config: FitConfig
) -> Tensor:
    """Add pose prior and joint limits to the frames' blocks in place; return their cost (B,)."""
    phi = log_so3(rotations[:, :POSED])
    rows, change = (
        torch.stack((config.prior_weight * each[:, 0], config.limit_weight * each[:, 1]), 1)
        for each in pose_prior(phi, table)
    )
    # d(phi)/d(delta) under R <- R exp(delta). The rows of both terms are functions of phi alone,
    # so they share this derivative, and each joint has a 3 x 3 block of its own.
    turn = inverse_right_jacobian(phi)
    across = turn.transpose(-1, -2)
    normal = across @ (change.square().sum(1)[..., None] * turn)
    pull = (across @ (rows * change).sum(1)[..., None])[..., 0]
    inner = block[:, 3:FRAME_DIM, 3:FRAME_DIM].unflatten(1, (POSED, 3)).unflatten(3, (POSED, 3))
    torch.diagonal(inner, dim1=1, dim2=3).add_(normal.permute(0, 2, 3, 1))
    slope[:, 3:FRAME_DIM] += pull.flatten(1)
    return rows.square().flatten(1).sum(1)


def inverse_right_jacobian(phi: Tensor) -> Tensor:
    """Return J_r^-1 on SO(3) at rotation vectors (..., 3), as (..., 3, 3).

    Chirikjian, Stochastic Models, Information Theory, and Lie Groups, volume 2, 2011, eq. 10.86.
    """
    squared = phi.square().sum(-1, keepdim=True).clamp_min(1e-8)
    angle = squared.sqrt()
    # Half of 180 degrees is the tangent's pole, so the angle stops just short of it.
    half = (0.5 * angle).clamp_max(1.5)
    # Near zero the two terms of the closed form cancel in float32, so their series is used.
    factor = torch.where(
        angle < 1e-2, 1.0 / 12 + squared / 720, 1.0 / squared - 1.0 / (2 * angle * torch.tan(half))
    )[..., None]
    x, y, z = phi.unbind(-1)
    zero = torch.zeros_like(x)
    hat = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, device=phi.device)
    return eye + 0.5 * hat + factor * (hat @ hat)


def _assemble(block: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The Hessian and gradient of a window: frames' blocks on the diagonal, the shape as border."""
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


def _add_shape_prior(
    hessian: Tensor, gradient: Tensor, betas: Tensor, past: TemporalPrior
) -> Tensor:
    """Add the shape's mean and information in place; return their cost (P,)."""
    offset = betas - past.betas
    pull = (past.shape_information @ offset[..., None])[..., 0]
    hessian[:, -BETAS:, -BETAS:] += past.shape_information
    gradient[:, -BETAS:] += pull
    return (offset * pull).sum(1)


def _add_smoothness(
    hessian: Tensor,
    gradient: Tensor,
    rotations: Tensor,
    transl_m: Tensor,
    past: TemporalPrior,
    config: FitConfig,
) -> Tensor:
    """Add second differences of every joint's rotation and of the root's path; return their cost.

    With e_t = log(R_{t-1}^T R_t), the acceleration is e_t - e_{t-1}. To first order, steps delta
    change it by delta_t - 2 delta_{t-1} + delta_{t-2}, which couples only the same unknown of
    different frames.
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
    # Slices are filled; assigning to one element would copy from the host, which no CUDA graph
    # can hold.
    sigma[0, :2], sigma[0, 2:] = config.root_accel_m, config.root_depth_accel_m
    sigma = sigma * past.interval_30hz.clamp(0.25, 4.0)[:, None, None] ** 1.5

    # Frames of the window count even without the person: smoothness alone holds the body there.
    known = torch.cat((past.known, torch.ones_like(transl_m[..., 0])), 1)
    known = known[:, 2:] * known[:, 1:-1] * known[:, :-2]
    squared = (rows / sigma[:, None]).square().sum(-1)
    weight = known[..., None] * robust_weight(squared, config.smooth_robust)
    cost = (known[..., None] * robust_cost(squared, config.smooth_robust)).flatten(1).sum(1)
    weight = (weight[..., None] / sigma[:, None].square()).flatten(2)
    value = rows.flatten(2)
    eye = torch.eye(frames + 2, device=path.device, dtype=path.dtype)
    # The two past frames are fixed, so only the window's columns remain.
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
    """The information about the shape that this window adds: the Schur complement, less the prior.

    Eliminating poses and places accounts for what they could explain of the same residuals.
    """
    inner, border = hessian[:, :-BETAS, :-BETAS], hessian[:, :-BETAS, -BETAS:]
    # A frame without the person leaves directions without any information, and the matrix singular.
    diagonal = torch.diagonal(inner, dim1=1, dim2=2)
    factor, _ = torch.linalg.cholesky_ex(inner + torch.diag_embed(1e-4 * diagonal + 1e-2))
    half = solve_triangular(factor, border, upper=False)
    known = hessian[:, -BETAS:, -BETAS:] - half.mT @ half
    # A factorisation that failed says nothing about the shape, so it adds no information.
    return torch.nan_to_num(known - past.shape_information)
