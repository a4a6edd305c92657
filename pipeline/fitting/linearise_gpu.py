"""`solver.linearise` in eight or nine Triton kernels instead of hundreds of torch's.

On a GPU, launching a kernel of this size costs more than running it. The kernels are in
`kernels_gpu`. The numbers are the reference's to rounding, which the tests check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch
import triton
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Points, Pose, Skeleton
from pipeline.body.prior import LIMIT_SIGMA
from pipeline.core.skeleton import PARENTS
from pipeline.fitting import kernels_gpu as kernels
from pipeline.fitting.solver import BETAS, FRAME_DIM, FitConfig, Observations, State, TemporalPrior

LANES = 32
"""Lanes of a kernel program: the 24 joints, padded to a power of 2."""
_LANDMARKS = 33
_COLUMNS = 80
"""Columns of a residual's row: 3 of the translation, 66 of the rotations, 10 of the shape, and the
residual itself, so that one product of rows gives Hessian and gradient."""
_ROUNDS = 4
"""Rounds of doubling: ancestors 1, 2, 4 and 8 levels up reach all 15 that a joint can have."""
_RESIDUAL, _WEIGHT, _MASK = 64, 128, 192
"""Offsets in a frame's row of costs: the squared image residuals and their weights, of which
`Solution.residual_mean` is made, and the costs of the contour's points, then of the skin's. Before
them come the costs of the landmarks (0 to 32), of depth (33), of the pose prior (34) and, in a
window's first frame, of smoothness (35)."""
_ROW_WIDTHS = {
    "image": 66, "visible": 33, "world_m": 99, "world_spread_m": 99, "world_weight": 33,
    "view": 9, "present": 1, "size": 1, "edge_from": 6, "masked": 1, "root_depth_m": 1,
    "image_spread": 1,
}  # fmt: skip
"""How many numbers of each kind of observation a frame's row holds, in order."""
_START = {name: sum(list(_ROW_WIDTHS.values())[:k]) for k, name in enumerate(_ROW_WIDTHS)}
"""Where each kind begins in a frame's row."""


class Linearizer:
    """Linearises windows of one body model as `solver.linearise` does.

    Made once for a body model: its tables lie on the skeleton's device. Nothing waits for the
    device, and nothing is copied from the host, so it can be captured in a CUDA graph.

    Args:
        skeleton: The body model's tables, on a GPU.
        config: Weights and switches.
    """

    def __init__(self, skeleton: Skeleton, config: FitConfig) -> None:
        self.config = config
        device = skeleton.bones.device
        self.surface = len(skeleton.surface.mass)
        self.points = _tables(skeleton.landmarks, skeleton.surface)
        self.skin = None if skeleton.skin is None else _tables(skeleton.skin)
        below = torch.zeros(LANES, LANES, device=device)
        below[:JOINTS, :JOINTS] = skeleton.below
        self.below = below
        self.normals = skeleton.normals.contiguous()
        self.bones = _padded(skeleton.bones.permute(1, 2, 0))
        self.prior = _padded(skeleton.prior.permute(0, 2, 1))
        self.ancestors = _ancestors().to(device)

    def bind(self, observed: Observations, past: TemporalPrior) -> Callable[[State], State]:
        """Return the function that linearises one window at a state.

        The window's arrays are packed into rows once, not in every step.

        Args:
            observed: What perception observed.
            past: What is known before the window.

        Returns:
            A function from a state to cost (P,), Hessian (P, D, D), gradient (P, D) and mean
            squared image residual (P, T), as `solver.linearise` returns them.
        """
        parts = [getattr(observed, name) for name in _ROW_WIDTHS]
        # Arrays without a dimension behind P and T hold one number a frame.
        flat = [part.flatten(2) if part.dim() > 2 else part[..., None] for part in parts]
        row = torch.cat(flat, -1).flatten(0, 1).contiguous()
        edge = observed.edge.flatten(0, 1).contiguous()
        skin = observed.surface_m.flatten(0, 1).contiguous()
        weight = (observed.surface_weight * observed.present).flatten().contiguous()
        before = {f.name: getattr(past, f.name).contiguous() for f in fields(TemporalPrior)}
        return lambda state: self._linearise(row, edge, skin, weight, before, state)

    def forward_kinematics(self, rotations: Tensor, transl: Tensor, betas: Tensor) -> Pose:
        """Return what `kinematics.forward_kinematics` returns."""
        turns, joints = self._posed(rotations, transl, betas, 1)
        world = turns[..., :JOINTS].transpose(1, 2).unflatten(2, (3, 3))
        places = joints[..., :JOINTS].transpose(1, 2)
        return Pose(world, places[..., :3], places[..., 3:].unflatten(2, (3, BETAS)))

    def _posed(
        self, rotations: Tensor, transl: Tensor, betas: Tensor, frames: int
    ) -> tuple[Tensor, Tensor]:
        """World rotations (B, 9, LANES) and joints (B, 33, LANES) of B bodies.

        Every ``frames`` bodies in a row share one shape.
        """
        bodies = betas.shape[0] * frames
        turns = rotations.new_empty(bodies, 9, LANES)
        joints = rotations.new_empty(bodies, 33, LANES)
        # A program has 32 lanes, which is one warp; hence the single warp of most kernels.
        kernels.pose[(bodies,)](
            rotations.contiguous(), transl.contiguous(), betas.contiguous(), self.bones,
            self.ancestors, turns, joints,
            FRAMES=frames, LANES=LANES, ROUNDS=_ROUNDS, num_warps=1,
        )  # fmt: skip
        return turns, joints

    @staticmethod
    def propose_step(state: State, step: Tensor) -> State:
        """Return what `solver.propose_step` returns."""
        # The kernels compute addresses from shapes, so every array must be contiguous.
        rotations, transl_m, betas = (part.contiguous() for part in state)
        people, frames = transl_m.shape[:2]
        out = tuple(torch.empty_like(part) for part in (rotations, transl_m, betas))
        kernels.retract[(people * frames,)](
            rotations, transl_m, betas, step.contiguous(), *out,
            FRAMES=frames, LANES=LANES, DIM=FRAME_DIM, num_warps=1,
        )  # fmt: skip
        return out

    def _linearise(
        self,
        observed: Tensor,
        edge: Tensor,
        skin: Tensor,
        skin_weight: Tensor,
        past: dict[str, Tensor],
        state: State,
    ) -> State:
        """One linearisation of packed observations; ``past`` holds `TemporalPrior`'s fields."""
        rotations, transl_m, betas = (part.contiguous() for part in state)
        people, frames = transl_m.shape[:2]
        bodies, config = people * frames, self.config
        skin_points = 0 if self.skin is None else skin.shape[1]
        # Two rows in the image and three in space for each landmark, then the contour, the skin,
        # and depth.
        skin_row = 5 * _LANDMARKS + self.surface
        all_rows = skin_row + 3 * skin_points + 1
        # Triton's ranges are powers of 2.
        places = triton.next_power_of_2(_MASK + self.surface + skin_points)
        # Memory comes uninitialised: the kernels write every number that is read later.
        new = rotations.new_empty
        turns, joints = self._posed(rotations, transl_m, betas, frames)
        points, changes = new(bodies, _LANDMARKS, 3), new(bodies, _LANDMARKS, 3, _COLUMNS)
        rows, costs = new(bodies, all_rows, _COLUMNS), new(bodies, places)
        # A switch is a factor of 0 or 1, so one compiled kernel serves every configuration.
        kernels.points[(bodies, _LANDMARKS + self.surface)](
            turns, joints, betas, *self.points, self.below, self.normals,
            observed, edge, points, changes, rows, costs,
            config.mask_sigma, config.mask_weight * config.use_mask, config.robust,
            FRAMES=frames, LANES=LANES, WIDTH=observed.shape[1], SIDE=edge.shape[-1],
            ROWS=all_rows, LANDMARKS=_LANDMARKS, COLUMNS=_COLUMNS, SIZE=_START["size"],
            PRESENT=_START["present"], MASKED=_START["masked"], EDGE_FROM=_START["edge_from"],
            PLACES=places, MASK=_MASK, num_warps=1,
        )  # fmt: skip
        if self.skin is not None and skin_points:
            kernels.skin[(bodies, skin_points)](
                turns, joints, betas, *self.skin, self.below, skin, skin_weight, rows, costs,
                FRAMES=frames, LANES=LANES, ROWS=all_rows, FIRST=skin_row, COLUMNS=_COLUMNS,
                PLACES=places, COST=_MASK + self.surface, num_warps=1,
            )  # fmt: skip
        kernels.residuals[(bodies, _LANDMARKS + 1)](
            points, changes, joints, observed, rows, costs,
            config.robust, config.depth_sigma, 1.0 * config.use_world, 1.0 * config.use_depth,
            LANES=LANES, WIDTH=observed.shape[1], ROWS=all_rows, LANDMARKS=_LANDMARKS,
            COLUMNS=_COLUMNS, IMAGE=_START["image"], VISIBLE=_START["visible"],
            WORLD=_START["world_m"],
            SPREAD=_START["world_spread_m"], WEIGHT=_START["world_weight"], VIEW=_START["view"],
            PRESENT=_START["present"], IMAGE_SPREAD=_START["image_spread"],
            DEPTH=_START["root_depth_m"], PLACES=places, RESIDUAL=_RESIDUAL,
            TOTAL_WEIGHT=_WEIGHT, num_warps=1,
        )  # fmt: skip
        block = torch.bmm(rows.transpose(1, 2), rows)
        normal, pull = new(bodies, 9, LANES), new(bodies, 3, LANES)
        kernels.priors[(bodies,)](
            rotations, self.prior, normal, pull, costs,
            config.prior_weight, config.limit_weight, LIMIT_SIGMA, 1.0 * config.use_prior,
            LANES=LANES, PLACES=places, num_warps=1,
        )  # fmt: skip
        smooth, drift = new(people, frames, frames, 3, LANES), new(people, frames, 3, LANES)
        kernels.smoothness[(people,)](
            rotations, transl_m, past["rotations"], past["transl_m"], past["known"],
            past["interval_30hz"],
            smooth, drift, costs, config.turn_accel_rad, config.root_accel_m,
            config.root_depth_accel_m, config.smooth_robust, 1.0 * config.use_smoothness,
            FRAMES=frames, LANES=LANES, PLACES=places, num_warps=1,
        )  # fmt: skip
        cost, residual_mean, shape = new(people), new(people, frames), new(people, 16)
        kernels.sums[(people,)](
            costs, betas, past["betas"], past["shape_information"], cost, residual_mean, shape,
            FRAMES=frames, LANDMARKS=_LANDMARKS, PLACES=places, RESIDUAL=_RESIDUAL,
            TOTAL_WEIGHT=_WEIGHT, MASK=_MASK, SURFACE=self.surface + skin_points, num_warps=4,
        )  # fmt: skip
        size = frames * FRAME_DIM + BETAS
        hessian, gradient = new(people, size, size), new(people, size)
        kernels.assemble[(people, size)](
            block, normal, pull, smooth, drift, past["shape_information"], shape,
            hessian, gradient,
            FRAMES=frames, LANES=LANES, COLUMNS=_COLUMNS, DIM=FRAME_DIM,
            BLOCK=triton.next_power_of_2(size), num_warps=2,
        )  # fmt: skip
        return cost, hessian, gradient, residual_mean


def _tables(*sets: Points) -> tuple[Tensor, Tensor, Tensor]:
    """Moments (K, 3, 11, LANES), masses (K, LANES) and masses below (K, LANES) of sets of points.

    Joints come last: they are the lanes, and neighbouring lanes read neighbouring numbers.
    """
    moment = torch.cat([points.moment for points in sets])
    betas = torch.cat([points.moment_betas for points in sets])
    return (
        _padded(torch.cat((moment[..., None], betas), -1).permute(0, 2, 3, 1)),
        _padded(torch.cat([points.mass for points in sets])),
        _padded(torch.cat([points.mass_below for points in sets])),
    )


def _padded(values: Tensor) -> Tensor:
    """The last dimension padded with zeros to `LANES`."""
    return torch.nn.functional.pad(values, (0, LANES - values.shape[-1])).contiguous()


def _ancestors() -> Tensor:
    """(ROUNDS, LANES) int32: each joint's ancestor 1, 2, 4 and 8 levels up, -1 where none is."""
    up = torch.full((LANES,), -1, dtype=torch.int64)
    up[:JOINTS] = torch.tensor(PARENTS)
    rounds = [up]
    for _ in range(_ROUNDS - 1):
        last = rounds[-1]
        rounds.append(torch.where(last < 0, -1, last[last.clamp_min(0)]))
    return torch.stack(rounds).to(torch.int32)
