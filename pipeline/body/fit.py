"""Fitting SMPL bodies to everybody in a window, and what is remembered of them between windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.body.initialise import place_by_landmarks, pose_from_landmarks
from pipeline.body.kinematics import Skeleton, forward_kinematics, place_points
from pipeline.body.lifter import Lifter, Sightings, lift
from pipeline.body.model import BodyModel
from pipeline.body.observe import known_rays, observe
from pipeline.body.rotations import log_so3
from pipeline.body.solve import (
    BETAS,
    FitConfig,
    Observations,
    Past,
    Solution,
    pose_cost,
    solve_window,
)
from pipeline.people import Bodies, Person

_HELD = 1e6
"""Information that holds a shape still once it has been watched long enough."""
_SHAPE_GAIN = 0.25
"""Landmark errors of neighbouring frames are alike, so a window tells less than its rows say."""


@dataclass(frozen=True, eq=False)
class TrackFit:
    """What is remembered of one person: the last two frames' pose and the shape so far."""

    rotations: Tensor
    transl_m: Tensor
    known: Tensor
    betas: Tensor
    shape_information: Tensor
    sightings: Sightings
    seconds: float = 0.0


@dataclass
class FitMemory:
    """A source's people, by track. Hand the same one to every window; ``clear`` at a cut."""

    tracks: dict[int, TrackFit] = field(default_factory=dict)

    def clear(self) -> None:
        self.tracks.clear()


class BodyFitter:
    """Fits one body model; holds no state of any source, so one serves them all."""

    def __init__(
        self, body: BodyModel, config: FitConfig | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.config = config or FitConfig()
        self.device = torch.device(device)
        self.body = body.to(self.device)
        self.skeleton = Skeleton.of(self.body, self.config.surface_points)
        self.lifter = Lifter.load(self.device)

    @torch.inference_mode()
    def fit(
        self,
        people: Sequence[dict[int, Person]],
        intrinsics: np.ndarray,
        memory: FitMemory,
        interval_s: float = 1 / 30,
    ) -> list[Bodies]:
        """Fit one window: for each of its T frames the people by track -> Bodies for each frame.

        ``intrinsics`` (3, 3) pixels; ``interval_s`` between frames. ``memory`` is updated; tracks
        that are in no frame lose their pose but keep their shape. Returns T Bodies, each with the
        people seen in that frame, by rising track. Raises FloatingPointError when a fit is not
        finite.
        """
        tracks = sorted(set().union(*people)) if people else []
        self._forget(memory, tracks)
        if not tracks:
            return [self.no_bodies() for _ in people]
        rows = [[frame.get(track) for frame in people] for track in tracks]
        seen = observe(rows, intrinsics, self.device)
        past = self._recall(memory, tracks, interval_s)
        before = self._sightings(memory, tracks)
        after = before.then(Sightings.of(seen))
        seen = self._with_depth(seen, before, past)
        warm = bool((past.known[:, 1] > 0).all())
        rotations, transl_m = self._first_guess(seen, past)
        steps = self.config.iterations if warm else self.config.cold_iterations
        solution = solve_window(self.skeleton, seen, past, rotations, transl_m, self.config, steps)
        if not bool(torch.isfinite(solution.cost).all()):
            raise FloatingPointError("the body fit did not stay finite")
        self._remember(memory, tracks, past, solution, after, len(people) * interval_s)
        return self._bodies(tracks, rows, solution)

    def no_bodies(self) -> Bodies:
        """Bodies of a frame with nobody in it."""
        vertices = len(self.body.v_template)
        shapes = ((3,), (69,), (10,), (3,), (24, 3), (33, 3), (vertices, 3))
        return Bodies(
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            *(np.zeros((0, *shape), np.float32) for shape in shapes),
        )

    def _recall(self, memory: FitMemory, tracks: list[int], interval_s: float) -> Past:
        kept = [memory.tracks.get(track) or self._stranger() for track in tracks]
        names = ("rotations", "transl_m", "known", "betas", "shape_information")
        pace = torch.full((len(tracks),), 30.0 * interval_s, device=self.device)
        parts = {name: torch.stack([getattr(k, name) for k in kept]) for name in names}
        return Past(**parts, pace=pace)

    def _stranger(self) -> TrackFit:
        eye = torch.eye(3, device=self.device).expand(2, 24, 3, 3)
        zero = torch.zeros(2, 3, device=self.device)
        information = self.config.shape_weight * torch.eye(BETAS, device=self.device)
        shape = torch.zeros(BETAS, device=self.device)
        nothing = Sightings.none(1, self.device).person(0)
        return TrackFit(eye, zero, zero[:, 0], shape, information, nothing)

    def _sightings(self, memory: FitMemory, tracks: list[int]) -> Sightings:
        kept = [memory.tracks.get(track) or self._stranger() for track in tracks]
        return Sightings.together([k.sightings for k in kept])

    def _with_depth(self, seen: Observations, before: Sightings, past: Past) -> Observations:
        """World landmarks as the lifter sees them, or as they came, and how far to trust them."""
        if self.config.use_lifter:
            return lift(self.lifter, seen, before, past.pace)
        across, along = self.config.world_sigma_m, self.config.world_depth_sigma_m
        spread = seen.world_m.new_tensor([across, across, along])
        return replace(seen, world_spread_m=spread.expand_as(seen.world_m))

    def _forget(self, memory: FitMemory, tracks: list[int]) -> None:
        for track, kept in memory.tracks.items():
            if track not in tracks and bool(kept.known.any()):
                memory.tracks[track] = replace(
                    kept,
                    known=torch.zeros_like(kept.known),
                    sightings=Sightings.none(1, self.device).person(0),
                )

    def _first_guess(self, seen: Observations, past: Past) -> tuple[Tensor, Tensor]:
        """The last pose, or the pose that the world landmarks show: whichever fits a frame."""
        people, frames = seen.present.shape
        betas = past.betas.repeat_interleave(frames, 0)
        turned = (seen.view[:, :, None] @ seen.world_m[..., None])[..., 0].flatten(0, 1)
        shown = pose_from_landmarks(self.skeleton, turned, betas)
        absent = (seen.present == 0).flatten()
        nearest = self._nearest_present(shown, seen.present)
        shown = torch.where(absent[:, None, None, None], nearest, shown)
        known = (past.known[:, 1] > 0).repeat_interleave(frames)
        if not (self.config.use_warm_start and bool(known.any())):
            place, _ = self._try_poses(shown[None], seen, past)
            best = shown
        else:
            last = past.rotations[:, -1].repeat_interleave(frames, 0)
            places, cost = self._try_poses(torch.stack((shown, last)), seen, past)
            keep = known & ((cost[1] <= cost[0]) | absent)
            best = torch.where(keep[:, None, None, None], last, shown)
            place = torch.where(keep[:, None], places[1], places[0])[None]
        place = self._nearest_present(place[0], seen.present)
        return best.unflatten(0, (people, frames)), place.unflatten(0, (people, frames))

    def _try_poses(
        self, rotations: Tensor, seen: Observations, past: Past
    ) -> tuple[Tensor, Tensor]:
        """Where C poses of every frame (C, P * T, 24, 3, 3) must stand, (C, P * T, 3), and what
        each costs there on its own, (C, P * T)."""
        count = len(rotations)
        frames = seen.present.shape[1]
        alone = Observations(
            **{
                f.name: torch.cat([getattr(seen, f.name).flatten(0, 1)] * count)
                for f in fields(seen)
            }
        )

        def each(value: Tensor) -> Tensor:
            return torch.cat([value.repeat_interleave(frames, 0)] * count)

        betas, turns = each(past.betas), rotations.flatten(0, 1)
        zero = torch.zeros_like(turns[:, 0, 0])
        pose = forward_kinematics(self.skeleton, turns, zero, betas)
        points, _ = place_points(self.skeleton.landmarks, pose, betas)
        transl = place_by_landmarks(points, alone.image, known_rays(alone))
        cost = pose_cost(points + transl[:, None], turns, alone, self.config)
        return transl.unflatten(0, (count, -1)), cost.unflatten(0, (count, -1))

    @staticmethod
    def _nearest_present(values: Tensor, present: Tensor) -> Tensor:
        """(P * T, ...) with absent frames' values taken from the nearest present one."""
        people, frames = present.shape
        steps = torch.arange(frames, device=present.device)
        apart = (steps[:, None] - steps[None]).abs().float() + 1e3 * (1 - present[:, None])
        source = apart.argmin(-1) + frames * torch.arange(people, device=present.device)[:, None]
        return values[source.flatten()]

    def _remember(
        self,
        memory: FitMemory,
        tracks: list[int],
        past: Past,
        solution: Solution,
        sightings: Sightings,
        seconds: float,
    ) -> None:
        chain = torch.cat((past.rotations, solution.rotations), 1)[:, -2:]
        path = torch.cat((past.transl_m, solution.transl_m), 1)[:, -2:]
        known = torch.cat((past.known, torch.ones_like(solution.misfit)), 1)[:, -2:]
        for p, track in enumerate(tracks):
            before = memory.tracks.get(track)
            watched = (before.seconds if before else 0.0) + seconds
            betas, information = solution.betas[p], past.shape_information[p]
            if not self.config.hold_shape:
                fresh = self._stranger()
                betas, information = fresh.betas, fresh.shape_information
            elif watched >= self.config.shape_seconds:
                information = _HELD * torch.eye(BETAS, device=self.device)
            else:
                gained = solution.shape_information[p]
                information = information + _SHAPE_GAIN * 0.5 * (gained + gained.T)
            memory.tracks[track] = TrackFit(
                chain[p], path[p], known[p], betas, information, sightings.person(p), watched
            )

    def _bodies(
        self, tracks: list[int], rows: list[list[Person | None]], solution: Solution
    ) -> list[Bodies]:
        people, frames = solution.transl_m.shape[:2]
        turns = log_so3(solution.rotations).flatten(0, 1)
        betas = solution.betas.repeat_interleave(frames, 0)
        transl = solution.transl_m.flatten(0, 1)
        out = self.body.forward(betas, turns[:, 0], turns[:, 1:].flatten(1), transl)
        parts = (turns[:, 0], turns[:, 1:].flatten(1), betas, transl)
        arrays = [
            part.unflatten(0, (people, frames)).cpu().numpy()
            for part in (*parts, out.joints_m, out.landmarks_m, out.vertices_m)
        ]
        misfit = solution.misfit.cpu().numpy()
        bodies = []
        for t in range(frames):
            seen = {p: person for p, row in enumerate(rows) if (person := row[t]) is not None}
            here = list(seen)
            # A fit seven deviations off its landmarks counts about a third.
            score = [seen[p].score * float(np.exp(-misfit[p, t] / 50.0)) for p in here]
            bodies.append(
                Bodies(
                    np.array([tracks[p] for p in here], np.int64),
                    np.array(score, np.float32),
                    *(array[here, t] for array in arrays),
                )
            )
        return bodies
