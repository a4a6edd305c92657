"""One window's fit as a function of two tensors: what was seen, and what is remembered.

Nothing in it looks at a value on the host, so on a GPU all of it, from the edge maps over the
lifter and the solve to the meshes, is one CUDA graph.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Skeleton, forward_kinematics, place_points
from pipeline.body.model import BodyModel
from pipeline.body.rotations import log_so3
from pipeline.core.skeleton import LANDMARKS
from pipeline.fitting.edges import edge_maps
from pipeline.fitting.initialise import place_by_landmarks, pose_from_landmarks, sized_by_depth
from pipeline.fitting.layout import Layout
from pipeline.fitting.lifter import CONTEXT, LandmarkHistory, Lifter, lift
from pipeline.fitting.observations import known_rays, layout, observations
from pipeline.fitting.solver import (
    BETAS,
    FitConfig,
    Kernels,
    Observations,
    Solution,
    TemporalPrior,
    pose_cost,
    solve_window,
)

_HELD = 1e6
"""Information that holds a shape still once it has been watched long enough."""
_SHAPE_GAIN = 0.25
"""Landmark errors of neighbouring frames are alike, so a window tells less than its rows say."""

MEMORY = Layout(
    rotations=(2, JOINTS, 3, 3),
    transl_m=(2, 3),
    known=(2,),
    betas=(BETAS,),
    shape_information=(BETAS, BETAS),
    rays=(CONTEXT, LANDMARKS, 2),
    visible=(CONTEXT, LANDMARKS),
    world_m=(CONTEXT, LANDMARKS, 3),
    sighted=(CONTEXT,),
)
"""What is remembered of one person between windows, as a row: pose and place of the last two frames
and whether they are known, what is known of the shape, and the last sixteen sightings."""
POSE = ("rotations", "transl_m", "known", "rays", "visible", "world_m", "sighted")
"""What of it is forgotten where somebody is out of sight."""


_PAST = tuple(f.name for f in fields(TemporalPrior) if f.name != "interval_30hz")


def new_memory(config: FitConfig) -> Tensor:
    """The memory (1, MEMORY.size) of somebody never seen."""
    row = MEMORY.row(
        rotations=torch.eye(3).expand(2, JOINTS, 3, 3).numpy(),
        shape_information=config.shape_weight * torch.eye(BETAS).numpy(),
    )
    return torch.from_numpy(row)[None]


def without_pose(memory: Tensor) -> Tensor:
    """Somebody's memory (MEMORY.size,) without their pose and sightings."""
    kept = memory.clone()
    for name in POSE:
        kept[MEMORY.places[name]] = 0.0
    eye = torch.eye(3, device=memory.device).expand(2, JOINTS, 3, 3)
    kept[MEMORY.places["rotations"]] = eye.flatten()
    return kept


class WindowFit:
    """Fits P people over windows of ``frames`` frames; holds no state.

    ``steps`` are the solver's: few do where everybody's last pose is known. ``outlines`` says how
    the observations' edges come (`observe.layout`). ``kernels`` stand in for the solver's.
    """

    def __init__(
        self,
        body: BodyModel,
        skeleton: Skeleton,
        lifter: Lifter,
        config: FitConfig,
        frames: int,
        steps: int,
        outlines: bool,
        kernels: Kernels | None = None,
    ) -> None:
        self.body, self.skeleton, self.lifter, self.config = body, skeleton, lifter, config
        self.frames, self.outlines = frames, outlines
        self._kernels = kernels
        self.steps = steps
        seen = layout(frames, outlines)
        # The last two are about the window, not about a frame.
        self.seen = Layout(**seen.shapes, interval_30hz=(), shape_frozen=())
        self.result = Layout(
            turns=(frames, JOINTS, 3),
            betas=(BETAS,),
            transl_m=(frames, 3),
            joints_m=(frames, JOINTS, 3),
            landmarks_m=(frames, LANDMARKS, 3),
            residual_mean=(frames,),
            cost=(),
        )

    def __call__(self, rows: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``rows`` (P, seen.size) and ``memory`` (P, MEMORY.size) float32 -> ``result`` rows, the
        meshes (P, frames, V, 3) in metres, and the memory after the window.

        In ``rows``, ``interval_30hz`` is the time between frames in thirtieths of a second, and
        ``shape_frozen`` 1 for people watched long enough for their shape to be held from now on.
        """
        seen, past, sightings, shape_frozen, (rotations, transl_m) = self._before(rows, memory)
        solution = solve_window(
            self.skeleton, seen, past, rotations, transl_m, self.config, self.steps,
            self._kernels,
        )  # fmt: skip
        return self._after(past, solution, sightings, shape_frozen)

    def _before(
        self, rows: Tensor, memory: Tensor
    ) -> tuple[Observations, TemporalPrior, LandmarkHistory, Tensor, tuple[Tensor, Tensor]]:
        """What was seen, the past, the sightings with the window's own, who is settled (P,), and
        the first guess."""
        parts, kept = self.seen.split(rows), MEMORY.split(memory)
        if self.outlines:
            edges = (parts[name].flatten(0, 1) for name in ("inside", "inverse", "scale"))
            parts["edge"] = edge_maps(*edges).unflatten(0, (-1, self.frames))
        seen = observations(parts, self.config)
        past = TemporalPrior(
            **{name: kept[name] for name in _PAST}, interval_30hz=parts["interval_30hz"]
        )
        before = LandmarkHistory(kept["rays"], kept["visible"], kept["world_m"], kept["sighted"])
        sightings = before.then(LandmarkHistory.of(seen))
        if self.config.use_lifter:
            seen = lift(self.lifter, seen, sightings, past.interval_30hz)
        if self.config.use_depth:
            seen = sized_by_depth(seen)
        return seen, past, sightings, parts["shape_frozen"], self._first_guess(seen, past)

    def _after(
        self,
        past: TemporalPrior,
        solution: Solution,
        sightings: LandmarkHistory,
        shape_frozen: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        memory = self._remember(past, solution, sightings, shape_frozen)
        return *self._bodies(solution), memory

    def _first_guess(self, seen: Observations, past: TemporalPrior) -> tuple[Tensor, Tensor]:
        """The last pose, or the pose that the world landmarks show: whichever fits a frame."""
        people, frames = seen.present.shape
        betas = past.betas.repeat_interleave(frames, 0)
        turned = (seen.view[:, :, None] @ seen.world_m[..., None])[..., 0].flatten(0, 1)
        shown = pose_from_landmarks(self.skeleton, turned, betas)
        absent = (seen.present == 0).flatten()
        nearest = nearest_present(shown, seen.present)
        shown = torch.where(absent[:, None, None, None], nearest, shown)
        if self.config.use_warm_start:
            last = past.rotations[:, -1].repeat_interleave(frames, 0)
            places, cost = self._try_poses(torch.stack((shown, last)), seen, past)
            known = (past.known[:, 1] > 0).repeat_interleave(frames, 0)
            keep = known & ((cost[1] <= cost[0]) | absent)
            best = torch.where(keep[:, None, None, None], last, shown)
            place = torch.where(keep[:, None], places[1], places[0])
        else:
            best, place = shown, self._try_poses(shown[None], seen, past)[0][0]
        place = nearest_present(place, seen.present)
        return best.unflatten(0, (people, frames)), place.unflatten(0, (people, frames))

    def _try_poses(
        self, rotations: Tensor, seen: Observations, past: TemporalPrior
    ) -> tuple[Tensor, Tensor]:
        """Where C poses of every frame (C, P * T, 24, 3, 3) must stand, (C, P * T, 3), and what
        each costs there on its own, (C, P * T)."""
        count = len(rotations)
        frames = seen.present.shape[1]
        # The edge maps are large and not asked.
        small = [f.name for f in fields(seen) if f.name != "edge"]
        flat = {name: torch.cat([getattr(seen, name).flatten(0, 1)] * count) for name in small}
        alone = Observations(**flat, edge=seen.edge)
        betas = torch.cat([past.betas.repeat_interleave(frames, 0)] * count)
        turns = rotations.flatten(0, 1)
        zero = torch.zeros_like(turns[:, 0, 0])
        if self._kernels is None:
            pose = forward_kinematics(self.skeleton, turns, zero, betas)
        else:
            pose = self._kernels.forward_kinematics(turns, zero, betas)
        points, _ = place_points(self.skeleton.landmarks, pose, betas)
        transl = place_by_landmarks(points, alone.image, known_rays(alone))
        cost = pose_cost(self.skeleton, points + transl[:, None], turns, alone, self.config)
        return transl.unflatten(0, (count, -1)), cost.unflatten(0, (count, -1))

    def _remember(
        self,
        past: TemporalPrior,
        solution: Solution,
        sightings: LandmarkHistory,
        shape_frozen: Tensor,
    ) -> Tensor:
        betas, information = solution.betas, past.shape_information
        eye = torch.eye(BETAS, device=betas.device)
        if self.config.hold_shape:
            gained = solution.shape_information
            more = information + _SHAPE_GAIN * 0.5 * (gained + gained.transpose(1, 2))
            information = torch.where(shape_frozen[:, None, None] > 0, _HELD * eye, more)
        else:
            betas = torch.zeros_like(betas)
            information = (self.config.shape_weight * eye).expand_as(information)
        return MEMORY.join(
            rotations=torch.cat((past.rotations, solution.rotations), 1)[:, -2:],
            transl_m=torch.cat((past.transl_m, solution.transl_m), 1)[:, -2:],
            known=torch.cat((past.known, torch.ones_like(solution.residual_mean)), 1)[:, -2:],
            betas=betas,
            shape_information=information,
            rays=sightings.rays,
            visible=sightings.visible,
            world_m=sightings.world_m,
            sighted=sightings.known,
        )

    def _bodies(self, solution: Solution) -> tuple[Tensor, Tensor]:
        people, frames = solution.transl_m.shape[:2]
        turns = log_so3(solution.rotations)
        betas = solution.betas.repeat_interleave(frames, 0)
        out = self.body.forward(
            betas,
            turns[:, :, 0].flatten(0, 1),
            turns[:, :, 1:].flatten(0, 1).flatten(1),
            solution.transl_m.flatten(0, 1),
        )
        result = self.result.join(
            turns=turns,
            betas=solution.betas,
            transl_m=solution.transl_m,
            joints_m=out.joints_m.unflatten(0, (people, frames)),
            landmarks_m=out.landmarks_m.unflatten(0, (people, frames)),
            residual_mean=solution.residual_mean,
            cost=solution.cost,
        )
        return result, out.vertices_m.unflatten(0, (people, frames))


def nearest_present(values: Tensor, present: Tensor) -> Tensor:
    """(P * T, ...) with absent frames' values taken from the nearest present one."""
    people, frames = present.shape
    steps = torch.arange(frames, device=present.device)
    apart = (steps[:, None] - steps[None]).abs().float() + 1e3 * (1 - present[:, None])
    source = apart.argmin(-1) + frames * torch.arange(people, device=present.device)[:, None]
    return values.index_select(0, source.flatten())
