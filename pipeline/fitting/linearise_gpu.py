"""`solver.solve_window` in ten Triton launches a step instead of hundreds of torch's.

On a GPU, launching a kernel of this size costs more than running it. The kernels are in
`kernels_gpu` (`pose`, `points`, `motion`) and `system_kernels_gpu` (`system`, `eliminate`, `take`,
`solve`). The numbers are the reference's to rounding, which the tests check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import triton
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Points, Pose, Skeleton
from pipeline.body.kinematics_gpu import LANES, ROUNDS, ancestors, padded
from pipeline.body.prior import LIMIT_SIGMA
from pipeline.fitting import kernels_gpu as kernels
from pipeline.fitting import system_kernels_gpu as system_kernels
from pipeline.fitting.solver import (
    BETAS,
    FIRST_DAMPING,
    FRAME_DIM,
    LEFT_HIP,
    RIGHT_HIP,
    FitConfig,
    Observations,
    Rows,
    Solution,
    State,
    TemporalPrior,
)

COLUMNS = 80
"""Columns of a residual's row: 3 of the translation, 66 of the rotations, 10 of the shape, and the
residual itself, so that one product of rows gives Hessian and gradient."""
MOST_FRAMES = 4
"""Frames of a window: `system_kernels_gpu` eliminates the outer two of four side by side."""
_POINTS = 67
"""33 landmarks in the image, 33 about the mid-hip, and the pelvis; then come surface and skin."""
_FIXED_ROWS = 166
"""Rows of these points: 2, 3 and 1 of each."""
_SYSTEM_WARPS, _SOLVE_WARPS = 4, 4
"""More warps share the products, but each thread factors a triangle on its own."""
_ROW_WIDTHS = {
    "image": 66, "visible": 33, "world_m": 99, "world_spread_m": 99, "world_weight": 33,
    "view": 9, "present": 1, "size": 1, "edge_from": 6, "masked": 1, "root_depth_m": 1,
    "image_spread": 1,
}  # fmt: skip
"""How many numbers of each kind of observation a frame's row holds, in order."""
_START = {name: sum(list(_ROW_WIDTHS.values())[:k]) for k, name in enumerate(_ROW_WIDTHS)}
"""Where each kind begins in a frame's row."""


@dataclass(frozen=True, eq=False)
class PosedBodies:
    """B bodies as the kernels hold them, for blocks of residuals.

    Attributes:
        turns: (B, 9, LANES) world rotations of the joints, which are the lanes.
        joints: (B, 33, LANES) their places in metres (3), then the derivative of coordinate c by
            shape coefficient b at 3 + 10 c + b.
        betas: (P, 10) shapes; every B / P bodies in a row share one.
    """

    turns: Tensor
    joints: Tensor
    betas: Tensor

    def pose(self) -> Pose:
        """Return the bodies as `kinematics.forward_kinematics` returns them."""
        world = self.turns[..., :JOINTS].transpose(1, 2).unflatten(2, (3, 3))
        places = self.joints[..., :JOINTS].transpose(1, 2)
        return Pose(world, places[..., :3], places[..., 3:].unflatten(2, (3, BETAS)))


class RowBlock(Protocol):
    """Residuals beside the fixed ones, such as another view's or a floor's.

    To add some: write a kernel whose programs place a point (`kernels_gpu._placed`) and write its
    rows (`kernels_gpu._row`), and a class with this interface that launches it. Pass it to
    `Linearizer.solve`; `TorchRows` serves until the kernel is there.

    Attributes:
        rows: How many rows a body has.
        costs: How many numbers make up the cost of a body.
    """

    rows: int
    costs: int

    def write(self, bodies: PosedBodies, rows: Tensor, costs: Tensor) -> None:
        """Write every number of a block.

        Args:
            bodies: The bodies at the candidate state.
            rows: (B, rows, COLUMNS) float32, not contiguous in B: derivatives of the weighted
                residuals by translation, rotations and shape, then the weighted residual.
            costs: (B, costs) float32, not contiguous in B: costs after the robust function.
        """
        ...


class TorchRows:
    """A block in torch, as `solver.linearise` takes it: right, but tens of launches a step.

    Args:
        function: Returns rows (B, R), their Jacobian (B, R, 79) and cost (B,).
        rows: R.
    """

    costs = 1

    def __init__(self, function: Callable[[Pose, Tensor], Rows], rows: int) -> None:
        self.rows, self._function = rows, function

    def write(self, bodies: PosedBodies, rows: Tensor, costs: Tensor) -> None:
        """As `RowBlock.write`."""
        shapes = bodies.betas.repeat_interleave(len(rows) // len(bodies.betas), 0)
        values, jacobian, cost = self._function(bodies.pose(), shapes)
        rows[..., :-1], rows[..., -1], costs[:, 0] = jacobian, values, cost


class Linearizer:
    """Fits windows of one body model as `solver.solve_window` does.

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
        self.skin = 0 if skeleton.skin is None else len(skeleton.skin.mass)
        sets = [
            skeleton.landmarks, _about_hips(skeleton.landmarks), _pelvis(skeleton.landmarks),
            skeleton.surface,
        ]  # fmt: skip
        self.points = _tables(*sets, *([] if skeleton.skin is None else [skeleton.skin]))
        below = torch.zeros(LANES, LANES, device=device)
        below[:JOINTS, :JOINTS] = skeleton.below
        self.below = below
        self.normals = skeleton.normals.contiguous()
        self.bones = padded(skeleton.bones.permute(1, 2, 0))
        self.prior = padded(skeleton.prior.permute(0, 2, 1))
        self.ancestors = ancestors().to(device)
        # A cost of NaN: nothing has been accepted yet.
        self.start = torch.tensor([torch.nan, FIRST_DAMPING, 0.0, 0.0], device=device)

    def forward_kinematics(self, rotations: Tensor, transl: Tensor, betas: Tensor) -> Pose:
        """Return what `kinematics.forward_kinematics` returns."""
        state = tuple(part.contiguous() for part in (rotations, transl, betas))
        return self.posed(state, len(betas), 1).pose()

    def posed(
        self, state: State, bodies: int, frames: int,
        step: Tensor | None = None, moved: State | None = None,
    ) -> PosedBodies:  # fmt: skip
        """Return the bodies of a state, every ``frames`` of which share one shape.

        With a ``step`` (P, T * 69 + 10) they are moved by it first, as by `solver.propose_step`,
        and the new state is written to ``moved``.
        """
        rotations, transl, betas = state
        turns = rotations.new_empty(bodies, 9, LANES)
        joints = rotations.new_empty(bodies, 33, LANES)
        # A program has 32 lanes, which is one warp.
        kernels.pose[(bodies,)](
            rotations, transl, betas, betas if step is None else step, *(moved or state),
            self.bones, self.ancestors, turns, joints,
            FRAMES=frames, LANES=LANES, ROUNDS=ROUNDS, DIM=FRAME_DIM, MOVES=step is not None,
            num_warps=1,
        )  # fmt: skip
        return PosedBodies(turns, joints, betas if moved is None else moved[2])

    def solve(
        self,
        observed: Observations,
        past: TemporalPrior,
        rotations: Tensor,
        transl_m: Tensor,
        iterations: int,
        blocks: Sequence[RowBlock] = (),
    ) -> Solution:
        """Return what `solver.solve_window` returns, for windows of `MOST_FRAMES` at most.

        Args:
            observed: What perception observed.
            past: What is known before the window.
            rotations: (P, T, 24, 3, 3) the first guess of the local rotations.
            transl_m: (P, T, 3) the first guess of the translations, in metres.
            iterations: How many steps to take.
            blocks: Residuals beside the fixed ones.

        Returns:
            The best state that each person's steps reached, never worse than the first guess.
        """
        window = WindowSystem(self, observed, past, blocks)
        window.linearise((rotations.contiguous(), transl_m.contiguous(), window.past["betas"]))
        for _ in range(iterations):
            window.solve()
            window.linearise(window.best)
        return window.solution()


class WindowSystem:
    """One window of P people in T frames: its observations, best state and system.

    Args:
        body: The body model's tables.
        observed: What perception observed.
        past: What is known before the window.
        blocks: Residuals beside the fixed ones.

    Attributes:
        candidate: The state that was linearised last.
        best: The best state so far, of which ``block`` is the linearisation.
        block: (P, T, 80, 80) products of the frames' rows, with all that acts on one frame alone.
        coupling: (P, T, T, 80) smoothness between the same unknowns of two frames.
        control: (P, 4) cost of the best state, damping, whether the last candidate was accepted,
            whether the last step failed.
        step: (P, T * 69 + 10) what is subtracted from the best state for the next candidate.
        residual_mean: (P, T) as `Solution.residual_mean`, of the best state.
    """

    def __init__(
        self,
        body: Linearizer,
        observed: Observations,
        past: TemporalPrior,
        blocks: Sequence[RowBlock] = (),
    ) -> None:
        self._body, self._blocks = body, blocks
        people, frames = observed.present.shape
        if frames > MOST_FRAMES:
            raise ValueError(f"a window has {MOST_FRAMES} frames at most, not {frames}")
        self._people, self._frames, bodies = people, frames, people * frames
        # Arrays are packed once, not in every step. Those without a dimension behind P and T hold
        # one number a frame.
        parts = [getattr(observed, name) for name in _ROW_WIDTHS]
        flat = [part.flatten(2) if part.dim() > 2 else part[..., None] for part in parts]
        self._observed = torch.cat(flat, -1)
        # The kernels compute addresses from shapes, so every array must be contiguous.
        self._edge = observed.edge.contiguous()
        self._skin = observed.surface_m.contiguous()
        self._skin_weight = observed.surface_weight.contiguous()
        # One number a person, read where it is: part of a row, as a rule.
        self._frozen = past.shape_frozen, past.shape_frozen.stride(0)
        self.past = {
            f.name: getattr(past, f.name).contiguous()
            for f in fields(TemporalPrior)
            if f.name != "shape_frozen"
        }

        self._skin_points = observed.surface_m.shape[2] if body.skin else 0
        points = _POINTS + body.surface + self._skin_points
        self._own_rows = _FIXED_ROWS + body.surface + 3 * self._skin_points
        # The priors' cost and smoothness's follow the points'.
        self._own_costs = points + 2
        # Memory comes uninitialised: the kernels write every number that is read later.
        new = observed.present.new_empty
        self._rows = new(bodies, self._own_rows + sum(block.rows for block in blocks), COLUMNS)
        self._costs = new(bodies, self._own_costs + sum(block.costs for block in blocks))
        self._fits = new(bodies, 2, 64)
        self._normal, self._pull = new(bodies, 9, LANES), new(bodies, 3, LANES)
        self._smooth = new(people, frames, frames, 3, LANES)
        self._drift = new(people, frames, 3, LANES)
        self.candidate = _new_state(new, people, frames)
        self.best = _new_state(new, people, frames)
        self.block = new(people, frames, COLUMNS, COLUMNS)
        self.coupling = new(people, frames, frames, COLUMNS)
        self._work = new(people, 5, COLUMNS, 3 * COLUMNS)
        self.residual_mean = new(people, frames)
        self._information = new(people, BETAS, BETAS)
        # The first candidate is the first guess itself.
        self.step = self._rows.new_zeros(people, frames * FRAME_DIM + BETAS)
        # One is read while the other is written.
        self.control, self._before = body.start.repeat(people, 1), new(people, 4)

    def linearise(self, state: State) -> None:
        """Linearise at the candidate, ``state`` less the step; replace the system if it is better.

        The candidate itself is kept by the next `solve` or `solution`.
        """
        self.write_rows(state)
        self.decide()

    def write_rows(self, state: State) -> None:
        """Write the rows of all residuals at the candidate, ``state`` less the step."""
        body, config, frames = self._body, self._body.config, self._frames
        bodies = self._people * frames
        posed = body.posed(state, bodies, frames, self.step, self.candidate)
        # A switch is a factor of 0 or 1, so one compiled kernel serves every configuration.
        kernels.points[(bodies, self._own_costs - 2)](
            self.candidate[2], posed.turns, posed.joints, *body.points, body.below, body.normals,
            self._observed, self._edge, self._skin, self._skin_weight,
            self._rows, self._costs, self._fits,
            config.mask_sigma, config.mask_weight * config.use_mask, config.depth_sigma,
            config.robust, 1.0 * config.use_world, 1.0 * config.use_depth,
            FRAMES=frames, LANES=LANES, WIDTH=self._observed.shape[-1],
            SIDE=self._edge.shape[-1], ROWS=self._rows.shape[1], PLACES=self._costs.shape[1],
            SURFACE=body.surface, SKIN=self._skin_points,
            IMAGE=_START["image"], VISIBLE=_START["visible"], WORLD=_START["world_m"],
            SPREAD=_START["world_spread_m"], WEIGHT=_START["world_weight"], VIEW=_START["view"],
            PRESENT=_START["present"], SIZE=_START["size"], EDGE_FROM=_START["edge_from"],
            MASKED=_START["masked"], DEPTH=_START["root_depth_m"],
            IMAGE_SPREAD=_START["image_spread"], num_warps=1,
        )  # fmt: skip
        kernels.motion[(bodies,)](
            *self.candidate[:2], body.prior, self.past["rotations"], self.past["transl_m"],
            self.past["known"], self.past["interval_30hz"],
            self._costs, self._normal, self._pull, self._smooth, self._drift,
            config.prior_weight, config.limit_weight, LIMIT_SIGMA, 1.0 * config.use_prior,
            config.turn_accel_rad, config.root_accel_m, config.root_depth_accel_m,
            config.smooth_robust, 1.0 * config.use_smoothness,
            FRAMES=frames, LANES=LANES, PLACES=self._costs.shape[1], COST=self._own_costs - 2,
            num_warps=1,
        )  # fmt: skip
        row, cost = self._own_rows, self._own_costs
        for block in self._blocks:
            block.write(
                posed,
                self._rows[:, row : row + block.rows],
                self._costs[:, cost : cost + block.costs],
            )
            row, cost = row + block.rows, cost + block.costs

    def decide(self) -> None:
        """Replace the system by the candidate's where that costs no more than the best state."""
        frames = self._frames
        self._before, self.control = self.control, self._before
        system_kernels.system[(self._people * frames, COLUMNS // 16)](
            self._rows, self._normal, self._pull, self._smooth, self._drift, self._costs,
            self.candidate[2], self.past["betas"], self.past["shape_information"],
            self._before, self.control, self.block, self.coupling,
            FRAMES=frames, LANES=LANES, ROWS=self._rows.shape[1], PLACES=self._costs.shape[1],
            BLOCK=triton.next_power_of_2(frames * self._costs.shape[1]), num_warps=_SYSTEM_WARPS,
        )  # fmt: skip

    def solve(self, final: bool = False) -> None:
        """Keep accepted candidates and compute the next step; or, at the end, the information."""
        frames, people = self._frames, self._people
        ends = max(frames - 2, 0)
        between = min(frames, 2)
        if ends:
            self._eliminate(0, ends, final)
        for k in range(between):
            # The rows of the frames that are left and of the shape, then what keeps the candidate.
            strips = 5 * (between - k) + 1 + (k == 0)
            system_kernels.take[(people, strips)](
                self.block, self.coupling, self.past["shape_information"], self.past["betas"],
                self.control, *self._frozen, self._work, self._fits, *self.candidate, *self.best,
                self.residual_mean,
                FRAMES=frames, ENDS=ends, FIRST=k == 0, FINAL=final,
                STATE=triton.next_power_of_2(frames * 216), num_warps=_SOLVE_WARPS,
            )  # fmt: skip
            self._eliminate(4 - between + k, 1, final)
        system_kernels.solve[(people,)](
            self.coupling, self.control, *self._frozen, self._work, self.step, self._information,
            FRAMES=frames, ENDS=ends, FINAL=final, num_warps=_SOLVE_WARPS,
        )  # fmt: skip

    def _eliminate(self, slot: int, programs: int, final: bool) -> None:
        """Eliminate the frames of as many slots as ``programs``, from ``slot`` on."""
        system_kernels.eliminate[(self._people, programs)](
            self.block, self.control, *self._frozen, self._work, slot,
            FRAMES=self._frames, IS_END=slot == 0, FINAL=final, num_warps=_SOLVE_WARPS,
        )  # fmt: skip

    def solution(self) -> Solution:
        """Return the best state with its cost and what the window tells about the shape."""
        self.solve(final=True)
        rotations, transl_m, betas = self.best
        cost = self.control[:, 0]
        return Solution(rotations, transl_m, betas, cost, self.residual_mean, self._information)


def _new_state(new: Callable[..., Tensor], people: int, frames: int) -> State:
    return new(people, frames, JOINTS, 3, 3), new(people, frames, 3), new(people, BETAS)


def _about_hips(landmarks: Points) -> Points:
    """The landmarks about the mid-hip, which is a sum of landmarks, so its moments can be taken off
    theirs."""
    parts = (getattr(landmarks, f.name) for f in fields(Points))
    return Points(*(part - 0.5 * (part[LEFT_HIP] + part[RIGHT_HIP]) for part in parts))


def _pelvis(like: Points) -> Points:
    """The pelvis as a point: all of its mass is on the first joint, without a moment about it."""
    parts = {f.name: torch.zeros_like(getattr(like, f.name)[:1]) for f in fields(Points)}
    parts["mass"][:, :1] = parts["mass_below"][:, :1] = 1.0
    return Points(**parts)


def _tables(*sets: Points) -> tuple[Tensor, Tensor, Tensor]:
    """Moments (K, 3, 11, LANES), masses (K, LANES) and masses below (K, LANES) of sets of points.

    Joints come last: they are the lanes, and neighbouring lanes read neighbouring numbers.
    """
    moment = torch.cat([points.moment for points in sets])
    betas = torch.cat([points.moment_betas for points in sets])
    return (
        padded(torch.cat((moment[..., None], betas), -1).permute(0, 2, 3, 1)),
        padded(torch.cat([points.mass for points in sets])),
        padded(torch.cat([points.mass_below for points in sets])),
    )
