"""One window's fit as a function of two tensors: the observations, and what is remembered.

It reads no value on the host. On a GPU all of it, from the edge maps through lifter and solver to
the meshes, is one CUDA graph.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Protocol

import torch
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Skeleton, forward_kinematics, place_points
from pipeline.body.mhr_surface import surface_table
from pipeline.body.model import BodyModel
from pipeline.body.rotations import log_so3
from pipeline.core.skeleton import LANDMARKS
from pipeline.fitting.edges import edge_maps
from pipeline.fitting.initialise import (
    local_rotations,
    place_by_landmarks,
    pose_from_landmarks,
    sized_by_depth,
)
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
from pipeline.fitting.steady_depth import steady_depth

FROZEN = 1e6
"""Information about each shape coefficient that freezes a shape."""
NEAREST_M = 0.1
"""A pelvis nearer than this, or behind the camera, has no distance to filter."""
SHAPE_LIMIT = 4.0
"""No shape coefficient goes beyond this many standard deviations: that is a defect, not a body."""
SHAPE_GAIN = 0.25
"""Share of a window's information about the shape that is kept. Landmark errors of neighbouring
frames are alike, so four frames tell less than four independent ones; without the factor the errors
of the first windows would be held too firmly."""

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
    steady_depth=(2,),
)
"""What is remembered of one person between windows, as a row: the poses and places of the last two
frames and whether they are known, the shape's mean and information, and the landmarks of the last
sixteen frames, which the lifter reads. ``sighted`` is 1 where the person was present.
``steady_depth`` is what the filter of the distance holds."""
POSE_FIELDS = (
    "rotations", "transl_m", "known", "rays", "visible", "world_m", "sighted", "steady_depth",
)  # fmt: skip
"""The arrays of `MEMORY` that are forgotten when a person is out of sight; the shape stays."""


_FROM_MEMORY = tuple(f.name for f in fields(TemporalPrior) if f.name in MEMORY.shapes)
"""The fields of `TemporalPrior` that are remembered; the others are about the window."""


def new_memory(config: FitConfig) -> Tensor:
    """Return the memory (1, MEMORY.size) float32 of a new person: no pose, a mean shape."""
    row = MEMORY.row(
        rotations=torch.eye(3).expand(2, JOINTS, 3, 3).numpy(),
        # Unknown poses are identities, because smoothness takes their logarithm even at weight 0.
        shape_information=config.shape_weight * torch.eye(BETAS).numpy(),
    )
    return torch.from_numpy(row)[None]


def without_pose(memory: Tensor) -> Tensor:
    """Return a memory (MEMORY.size,) without its poses and landmarks; the shape stays."""
    stored = memory.clone()
    for name in POSE_FIELDS:
        stored[MEMORY.places[name]] = 0.0
    # Zeros are no rotation; see `new_memory`.
    eye = torch.eye(3, device=memory.device).expand(2, JOINTS, 3, 3)
    stored[MEMORY.places["rotations"]] = eye.flatten()
    return stored


class WindowParts(Protocol):
    """Faster versions of what comes before the solver and after it: `window_gpu` has them."""

    def prepare(
        self, inputs: Layout, rows: Tensor, memory: Tensor, after: Tensor
    ) -> tuple[Observations, TemporalPrior, tuple[Tensor, Tensor]]:
        """Return observations, what is known before, and the first guess.

        The landmark history is written to ``after``, the memory after the window.
        """
        ...

    def finish(
        self,
        layouts: tuple[Layout, Layout],
        rows: Tensor,
        memory: Tensor,
        after: Tensor,
        observed: Observations,
        solution: Solution,
    ) -> tuple[Tensor, Tensor]:
        """Return results and meshes; the rest of ``after`` is written."""
        ...


class WindowFit:
    """Fits P people over windows of ``frames`` frames; holds no state of any source.

    Args:
        body: The body model, for the meshes.
        skeleton: The body model's tables, for the solver.
        lifter: Corrects world landmarks.
        config: Weights and switches.
        frames: Frames in a window.
        steps: Solver steps.
        outlines: Whether the observations bring outlines in place of edge maps
            (`observations.layout`).
        kernels: Used in place of the solver's own functions.
        surface: How many points of an MHR body's skin the observations bring; 0 for none.
        parts: Used in place of this class's own steps before and after the solver.

    Attributes:
        inputs: The layout of the observations of one person.
        result: The layout of the results of one person.
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
        surface: int = 0,
        parts: WindowParts | None = None,
    ) -> None:
        self.body, self.skeleton, self.lifter, self.config = body, skeleton, lifter, config
        self.frames, self.outlines, self.surface = frames, outlines, surface
        self._kernels, self._parts = kernels, parts
        self.steps = steps
        table = surface_table(body) if surface else None
        self._skin = None
        if table is not None:
            self._skin = torch.from_numpy(table.body_vertices).to(skeleton.bones.device)
        per_frame = layout(frames, outlines, surface)
        # These two are about the whole window, not about a frame.
        self.inputs = Layout(**per_frame.shapes, interval_30hz=(), shape_frozen=())
        self.result = Layout(
            turns=(frames, JOINTS, 3),
            betas=(BETAS,),
            transl_m=(frames, 3),
            joints_m=(frames, JOINTS, 3),
            landmarks_m=(frames, LANDMARKS, 3),
            residual_mean=(frames,),
            cost=(),
            **({"surface_error_m": (frames,)} if surface else {}),
        )

    def __call__(self, rows: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fit one window of P people.

        Args:
            rows: (P, inputs.size) float32 observations. ``interval_30hz`` is the time between
                frames in thirtieths of a second; ``shape_frozen`` is 1 for people whose shape is
                frozen from the next window on.
            memory: (P, MEMORY.size) float32 what is remembered of them.

        Returns:
            The results (P, result.size), the meshes (P, frames, M, V, 3) in metres (M = 2: the
            body's, then the one to draw; M = 1 where they are the same), and the memory after the
            window.
        """
        if self._parts is not None:
            return self._faster(self._parts, rows.contiguous(), memory.contiguous())
        observed, past, history, (rotations, transl_m) = self._prepare(rows, memory)
        solution = solve_window(
            self.skeleton, observed, past, rotations, transl_m, self.config, self.steps,
            self._kernels,
        )  # fmt: skip
        return self._finish(observed, past, solution, history, MEMORY.split(memory))

    def _faster(
        self, parts: WindowParts, rows: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `__call__` returns, by other steps before and after the solver."""
        after = torch.empty_like(memory)
        observed, past, (rotations, transl_m) = parts.prepare(self.inputs, rows, memory, after)
        solution = solve_window(
            self.skeleton, observed, past, rotations, transl_m, self.config, self.steps,
            self._kernels,
        )  # fmt: skip
        layouts = self.inputs, self.result
        result, meshes = parts.finish(layouts, rows, memory, after, observed, solution)
        return result, meshes, after

    def _prepare(
        self, rows: Tensor, memory: Tensor
    ) -> tuple[Observations, TemporalPrior, LandmarkHistory, tuple[Tensor, Tensor]]:
        """Observations, prior, landmark history and first guess of a window."""
        parts, stored = self.inputs.split(rows), MEMORY.split(memory)
        if self.outlines:
            edges = (parts[name].flatten(0, 1) for name in ("inside", "inverse", "scale"))
            parts["edge"] = edge_maps(*edges).unflatten(0, (-1, self.frames))
        observed = observations(parts, self.config)
        past = TemporalPrior(
            **{name: stored[name] for name in _FROM_MEMORY},
            interval_30hz=parts["interval_30hz"],
            shape_frozen=parts["shape_frozen"],
        )
        past = replace(past, shape_information=self._shape_prior(past, observed))
        before = LandmarkHistory(
            stored["rays"], stored["visible"], stored["world_m"], stored["sighted"]
        )
        # The history holds the landmarks as perceived: the lifter was trained on those, not on its
        # own.
        history = before.then(LandmarkHistory.of(observed))
        if self.config.use_lifter:
            observed = lift(self.lifter, observed, history, past.interval_30hz)
        # After the lifter, which replaces the world landmarks and with them their size.
        if self.config.use_depth:
            observed = sized_by_depth(observed)
        guess = self._first_guess(observed, past, self._shown(observed, past, parts))
        return observed, past, history, guess

    def _shape_prior(self, past: TemporalPrior, observed: Observations) -> Tensor:
        """The information (P, 10, 10) about the shape before a window.

        What is remembered holds ``config.shape_weight``, which allows for biased landmarks. Where
        the perceiver states their error, or knows the skin, SMPL's own variance of 1 takes its
        place.
        """
        stated = torch.maximum(observed.world_sigma_m, observed.surface_weight).amax(1) > 0
        less = (self.config.shape_weight - 1.0) * torch.eye(BETAS, device=stated.device)
        less = past.shape_information - less
        return torch.where(stated[:, None, None], less, past.shape_information)

    def _finish(
        self,
        observed: Observations,
        past: TemporalPrior,
        solution: Solution,
        history: LandmarkHistory,
        stored: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        betas = solution.betas.clamp(-SHAPE_LIMIT, SHAPE_LIMIT)
        solution = replace(solution, betas=betas)
        result, vertices, held = self._bodies(observed, solution, past, stored["steady_depth"])
        # As it was remembered, not as `_shape_prior` made it for this window.
        past = replace(past, shape_information=stored["shape_information"])
        return result, vertices, self._remember(past, solution, history, held)

    def _shown(
        self, observed: Observations, past: TemporalPrior, parts: dict[str, Tensor]
    ) -> Tensor:
        """The pose (P * T, 24, 3, 3) that a frame shows: the network's own, or its landmarks'."""
        betas = past.betas.repeat_interleave(self.frames, 0)
        turned = (observed.view[:, :, None] @ observed.world_m[..., None])[..., 0].flatten(0, 1)
        shown = pose_from_landmarks(self.skeleton, turned, betas)
        if self.surface:
            start = local_rotations(parts["start_rotations"].flatten(0, 1))
            known = parts["start_known"].flatten() > 0
            shown = torch.where(known[:, None, None, None], start, shown)
        return shown

    def _first_guess(
        self, observed: Observations, past: TemporalPrior, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """For each frame, the last pose or the one that the frame shows: the cheaper one."""
        people, frames = observed.present.shape
        # A frame without the person holds zeros, from which no pose can be read.
        absent = (observed.present == 0).flatten()
        nearest = nearest_present(shown, observed.present)
        shown = torch.where(absent[:, None, None, None], nearest, shown)
        if self.config.use_warm_start:
            last = past.rotations[:, -1].repeat_interleave(frames, 0)
            places, cost = self._try_poses(torch.stack((shown, last)), observed, past)
            # An absent frame has no landmarks to choose by; it keeps the last pose, if any.
            known = (past.known[:, 1] > 0).repeat_interleave(frames, 0)
            keep = known & ((cost[1] <= cost[0]) | absent)
            best = torch.where(keep[:, None, None, None], last, shown)
            place = torch.where(keep[:, None], places[1], places[0])
        else:
            best, place = shown, self._try_poses(shown[None], observed, past)[0][0]
        # Image landmarks of an absent frame are zeros too, so its place is taken from a neighbour.
        place = nearest_present(place, observed.present)
        return best.unflatten(0, (people, frames)), place.unflatten(0, (people, frames))

    def _try_poses(
        self, rotations: Tensor, observed: Observations, past: TemporalPrior
    ) -> tuple[Tensor, Tensor]:
        """The places of C poses of every frame (C, P * T, 24, 3, 3), and what each costs there.

        Translations (C, P * T, 3) that put them onto their image landmarks, and costs (C, P * T).
        """
        count = len(rotations)
        frames = observed.present.shape[1]
        # `pose_cost` reads neither, and they are too large to repeat for nothing.
        large = {"edge": observed.edge, "surface_m": observed.surface_m}
        small = [f.name for f in fields(observed) if f.name not in large]
        flat = {name: torch.cat([getattr(observed, name).flatten(0, 1)] * count) for name in small}
        stacked = Observations(**flat, **large)
        betas = torch.cat([past.betas.repeat_interleave(frames, 0)] * count)
        turns = rotations.flatten(0, 1)
        zero = torch.zeros_like(turns[:, 0, 0])
        if self._kernels is None:
            pose = forward_kinematics(self.skeleton, turns, zero, betas)
        else:
            pose = self._kernels.forward_kinematics(turns, zero, betas)
        points, _ = place_points(self.skeleton.landmarks, pose, betas)
        transl = place_by_landmarks(points, stacked.image, known_rays(stacked))
        cost = pose_cost(self.skeleton, points + transl[:, None], turns, stacked, self.config)
        return transl.unflatten(0, (count, -1)), cost.unflatten(0, (count, -1))

    def _remember(
        self,
        past: TemporalPrior,
        solution: Solution,
        history: LandmarkHistory,
        held: Tensor,
    ) -> Tensor:
        """The memory (P, MEMORY.size) after a window."""
        betas, information = solution.betas, past.shape_information
        eye = torch.eye(BETAS, device=betas.device)
        if self.config.hold_shape:
            gained = solution.shape_information
            # Symmetrised, because rounding errors would add up over the windows.
            more = information + SHAPE_GAIN * 0.5 * (gained + gained.transpose(1, 2))
            information = torch.where(past.shape_frozen[:, None, None] > 0, FROZEN * eye, more)
        else:
            betas = torch.zeros_like(betas)
            information = (self.config.shape_weight * eye).expand_as(information)
        return MEMORY.join(
            rotations=torch.cat((past.rotations, solution.rotations), 1)[:, -2:],
            transl_m=torch.cat((past.transl_m, solution.transl_m), 1)[:, -2:],
            known=torch.cat((past.known, torch.ones_like(solution.residual_mean)), 1)[:, -2:],
            betas=betas,
            shape_information=information,
            rays=history.rays,
            visible=history.visible,
            world_m=history.world_m,
            sighted=history.known,
            steady_depth=held,
        )

    def _bodies(
        self, observed: Observations, solution: Solution, past: TemporalPrior, held: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Results (P, result.size), meshes (P, frames, M, V, 3) and held distance of a solution.

        The solver goes on from its own places: only what is returned is at the steady distance.
        """
        people, frames = solution.transl_m.shape[:2]
        turns = log_so3(solution.rotations)
        betas = solution.betas.repeat_interleave(frames, 0)
        out = self.body.forward(
            betas,
            turns[:, :, 0].flatten(0, 1),
            turns[:, :, 1:].flatten(0, 1).flatten(1),
            solution.transl_m.flatten(0, 1),
        )
        joints_m = out.joints_m.unflatten(0, (people, frames))
        pelvis_m = joints_m[:, :, 0]
        depth_m = pelvis_m[..., 2].clamp_min(NEAREST_M)
        steady_m, held = steady_depth(depth_m, held, past.known[:, 1], past.interval_30hz)
        # Along the ray through the pelvis, so that the body stays where it is in the picture.
        moved_m = (steady_m / depth_m - 1)[..., None] * pelvis_m
        error = {}
        if self._skin is not None:
            skin_m = out.vertices_m.index_select(1, self._skin).unflatten(0, (people, frames))
            error["surface_error_m"] = _surface_error_m(skin_m, observed)
        result = self.result.join(
            turns=turns,
            betas=solution.betas,
            transl_m=solution.transl_m + moved_m,
            joints_m=joints_m + moved_m[:, :, None],
            landmarks_m=out.landmarks_m.unflatten(0, (people, frames)) + moved_m[:, :, None],
            residual_mean=solution.residual_mean,
            cost=solution.cost,
            **error,
        )
        both = self.body.mannequin is not None
        meshes = torch.stack((out.vertices_m, out.shown_m)[: 1 + both], 1)
        meshes = meshes.unflatten(0, (people, frames)) + moved_m[:, :, None, None]
        return result, meshes, held


def _surface_error_m(skin_m: Tensor, observed: Observations) -> Tensor:
    """The mean distance (P, T) of points (P, T, S, 3) from the observed ones, NaN without them."""
    apart_m = skin_m - skin_m.mean(2, keepdim=True) - observed.surface_m
    error_m = apart_m.norm(dim=-1).mean(-1)
    return error_m.masked_fill(observed.surface_weight * observed.present == 0, torch.nan)


def nearest_present(values: Tensor, present: Tensor) -> Tensor:
    """Return values (P * T, ...) with those of absent frames taken from the nearest present one."""
    people, frames = present.shape
    steps = torch.arange(frames, device=present.device)
    # An absent frame lies further away than any frame of a window, so it is never chosen.
    distance = (steps[:, None] - steps[None]).abs().float() + 1e3 * (1 - present[:, None])
    source = distance.argmin(-1) + frames * torch.arange(people, device=present.device)[:, None]
    return values.index_select(0, source.flatten())
