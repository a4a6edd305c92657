"""The second pass over a clip: every track fitted again, as a whole.

The first pass fits windows of four frames as they come. Here the future is known: the lifter reads
a frame's past and its future, one shape is estimated from all frames of a track, smoothness acts
both ways, and feet stay where they stand. How strongly smoothness acts follows the motion: the
accelerations of a first solution say how much those of each joint may vary about that time, so a
still body is steady and a throwing arm is not held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.body.kinematics import POSED, forward_kinematics, place_points
from pipeline.fitting.accelerations import AROUND, accelerations, follow_motion, resting_pelvis_m
from pipeline.fitting.contour_cpu import ContourLoop
from pipeline.fitting.feet import FEET, feet_block
from pipeline.fitting.fitter import BodyFitter
from pipeline.fitting.initialise import sized_by_depth
from pipeline.fitting.lift_track import lift_track
from pipeline.fitting.lifter import LandmarkHistory
from pipeline.fitting.observations import edges_of, layout, observations
from pipeline.fitting.solver import BETAS, Observations, RowsOf
from pipeline.fitting.stature import GivenHeight, Stature, given_height, held_to
from pipeline.fitting.track_frames import FittedFrames, SeenFrames, TrackFrames, between, inner
from pipeline.fitting.track_poses import ShapePrior, TrackPoses, about, combined, limited
from pipeline.fitting.track_solver import solve_track
from pipeline.fitting.window_step import FROZEN
from pipeline.world.camera_path import CameraPath
from pipeline.world.ground import Ground
from pipeline.world.standing import standing

CHUNK = 300
"""Frames that are fitted at once; memory is proportional to it."""
OVERLAP = 30
"""Frames on both sides of a chunk that are fitted with it and fitted again with its neighbour, so
that every frame that is kept knows a second of past and future."""
LONGEST_GAP_S = 0.5
"""Beyond it nothing joins what comes before a gap to what comes after it."""
SEEN = 0.5
"""A part of a foot must be as visible as this to stand."""
SHAPE_GAIN = 0.15
"""Share of a frame's information about the shape that counts: errors of neighbouring frames are
alike, so T frames tell far less than T independent ones."""


class _Turn(NamedTuple):
    """Solver steps and `FitConfig.smooth_robust` of one of the two solutions."""

    steps: int
    robust: float


ROUNDS = 2
# Few accelerations surprise once their spread is known.
FIRST, SECOND = _Turn(5, 2.0), _Turn(8, 6.0)

Read = Callable[[slice], SeenFrames]
Write = Callable[[slice, FittedFrames], None]


class TrackFitter:
    """Fits whole tracks of one source.

    Args:
        fitter: Has the body model, the weights and the device.
        interval_s: Time between the source's frames, in seconds.
        surface: How many points of an MHR body's skin the rows bring; 0 for none.
        camera: Where the camera looked; None for one that stood still.
    """

    def __init__(
        self,
        fitter: BodyFitter,
        interval_s: float,
        surface: int = 0,
        camera: CameraPath | None = None,
    ) -> None:
        self._fitter, self._surface = fitter, surface
        self._path = camera or CameraPath()
        self._interval_30hz = 30.0 * min(max(interval_s, 1 / 240), 1.0)
        self._gap = max(round(LONGEST_GAP_S / interval_s), 1)
        self._stature = Stature.of(fitter.body)

    def given(self, betas: np.ndarray, height_m: float) -> GivenHeight:
        """Return a person's height for another `first`, and for `second`.

        Args:
            betas: (10,) the shape that `first` returned without it.
            height_m: Metres.
        """
        shape = torch.from_numpy(betas).to(self._fitter.device)
        return given_height(self._stature, shape, height_m)

    @torch.inference_mode()
    def first(
        self,
        frame: np.ndarray,
        read: Read,
        write: Write,
        betas: np.ndarray,
        given: GivenHeight | None = None,
    ) -> np.ndarray:
        """Fit one track with the fit's own smoothness; only a chunk of it is in memory at a time.

        Args:
            frame: (N,) int64 the numbers of its frames, rising.
            read: Returns a part of the track, by rows.
            write: Takes the poses of a part.
            betas: (10,) the shape that the first pass ended with.
            given: The person's height, as `given` returns it for the shape found without it. Then
                ``betas`` and the poses are those found without it.

        Returns:
            The track's shape (10,) float32.
        """
        begin = torch.from_numpy(betas.astype(np.float32)).to(self._fitter.device)
        prior, shapes = self._shape_prior(), []
        if given is not None:
            prior = held_to(prior, self._stature, given.height_m)
            begin = limited(held_to(about(begin), self._stature, given.height_m).betas)
        for part, wide in self._parts(frame):
            frames = self._frames(read(wide), given, moved=True)
            poses, shown, _ = self._solve(
                frames, frames.guess(begin), prior, self._usual(frames), FIRST
            )
            shapes.append(shown)
            write(part, frames.fitted(poses, None, inner(part, wide)))
        return np.asarray(combined(prior, shapes).cpu().numpy(), np.float32)

    @torch.inference_mode()
    def second(
        self,
        frame: np.ndarray,
        read: Read,
        write: Write,
        betas: np.ndarray,
        ground: Ground | None = None,
        given: GivenHeight | None = None,
        reference: int | None = None,
    ) -> None:
        """Fit one track again from what `first` wrote: with the shape that it returned, with
        smoothness that follows the motion, and with feet that stay where they stand.

        Args:
            frame: As for `first`, like ``read`` and ``write``.
            read: Returns a part of the track with the poses of `first`.
            write: Takes the poses of a part.
            betas: (10,) the track's shape.
            ground: Gravity and the floor; None takes the picture's upright for up.
            given: The person's height that `first` had last.
            reference: The camera's reference (`CameraPath.references`) in whose axes the ground is;
                None for all.
        """
        shape = torch.from_numpy(betas).to(self._fitter.device)
        fixed = ShapePrior(shape, FROZEN * torch.eye(BETAS, device=shape.device))
        for part, wide in self._parts(frame):
            frames = self._frames(read(wide), given)
            poses = frames.guess(shape)
            sigma = self._usual(frames)
            if len(sigma):
                around = AROUND / self._interval_30hz
                pelvis_m = resting_pelvis_m(self._fitter.skeleton, shape)
                bent = accelerations(poses, pelvis_m, frames.turn)
                sigma = follow_motion(bent, sigma, around)
            # Again, because where feet stand is known better once they are held.
            here = self._path.references(frame[[part.start]])[0]
            own = ground if reference in (None, here) else None
            for _ in range(ROUNDS):
                feet = self._feet(frames, poses, own)
                poses, _, residual_mean = self._solve(frames, poses, fixed, sigma, SECOND, [feet])
            write(part, frames.fitted(poses, residual_mean, inner(part, wide)))

    def _parts(self, frame: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """The chunks of a track as rows, each with the rows that are fitted with it."""
        parted = np.diff(frame) > self._gap
        # Of two references nothing tells how one lies to the other.
        parted |= np.diff(self._path.references(frame)) != 0
        ends = [*(np.flatnonzero(parted) + 1).tolist(), len(frame)]
        first = 0
        for end in ends:
            # By frames, not by rows: memory is taken for those in gaps too.
            begun, span = frame[first], frame[end - 1] + 1 - frame[first]
            marks = begun + np.linspace(0, span, max(-(-span // CHUNK), 1) + 1)
            edges = np.unique(np.searchsorted(frame, marks)).tolist()
            for a, b in zip(edges, edges[1:]):
                low, high = frame[a] - OVERLAP, frame[b - 1] + OVERLAP
                wide = np.searchsorted(frame, low), np.searchsorted(frame, high, "right")
                yield slice(a, b), slice(max(int(wide[0]), first), min(int(wide[1]), end))
            first = end

    def _frames(
        self, seen: SeenFrames, given: GivenHeight | None = None, *, moved: bool = False
    ) -> TrackFrames:
        """A part of a track with the frames in its gaps, and its observations.

        With a given height the world landmarks have its size; ``moved``: the bodies begin at the
        distance that goes with it.
        """
        at = (seen.frame - seen.frame[0]).astype(int)
        shape = layout(1, outlines=True, surface=self._surface)
        rows = np.zeros((at[-1] + 1, shape.size), np.float32)
        out = shape.split(rows)
        # As `write_rows` leaves absent frames: nothing is divided by zero.
        out["view"][:], out["size"][:] = np.eye(3, dtype=np.float32), 1.0
        if self._surface:
            out["start_rotations"][:] = np.eye(3, dtype=np.float32)
        rows[at] = seen.rows
        parts = {name: value[:, 0] for name, value in out.items()}
        masked = parts["masked"] > 0
        edge = np.zeros((len(rows), 3, *parts["inside"].shape[1:]), np.float32)
        edge[masked] = edges_of(*(parts[n][masked] for n in ("inside", "inverse", "scale")))
        device, config = self._fitter.device, self._fitter.config
        tensors = {
            name: torch.from_numpy(value)[None].to(device)
            for name, value in (parts | {"edge": edge}).items()
        }
        observed = observations(tensors, config)
        interval = torch.full((1,), self._interval_30hz, device=device)
        if config.use_lifter:
            history = LandmarkHistory.of(observed)
            observed = lift_track(self._fitter.lifter, observed, history, interval)
        if config.use_depth:
            observed = sized_by_depth(observed)
        if given is not None:
            # Last, because the size was found with the observations so far.
            observed = replace(
                observed,
                world_m=observed.world_m * given.size,
                surface_m=observed.surface_m * given.size,
            )
        turns, transl_m = between(at, torch.from_numpy(seen.turns), torch.from_numpy(seen.transl_m))
        turn = None
        if self._path.moves:
            numbers = np.arange(seen.frame[0], seen.frame[-1] + 1)
            turn = torch.from_numpy(self._path.rotations(numbers)).to(device)
        return TrackFrames(
            Observations(*(getattr(observed, n)[0] for n in observed.__dataclass_fields__)),
            turns.to(device),
            transl_m.to(device) * (given.size if moved and given is not None else 1.0),
            at,
            turn,
        )

    def _shape_prior(self) -> ShapePrior:
        device, weight = self._fitter.device, self._fitter.config.shape_weight
        eye = torch.eye(BETAS, device=device)
        return ShapePrior(torch.zeros(BETAS, device=device), weight / SHAPE_GAIN * eye)

    def _solve(
        self,
        frames: TrackFrames,
        poses: TrackPoses,
        shape: ShapePrior,
        sigma: Tensor,
        turn: _Turn,
        blocks: Sequence[RowsOf] = (),
    ) -> tuple[TrackPoses, ShapePrior, Tensor]:
        kernels = self._fitter.kernels
        contour = kernels.rows if isinstance(kernels, ContourLoop) else None
        config = replace(self._fitter.config, smooth_robust=turn.robust)
        return solve_track(
            self._fitter.skeleton, frames.observed, poses, shape, sigma, config, turn.steps,
            contour, blocks, frames.turn,
        )  # fmt: skip

    def _feet(self, frames: TrackFrames, poses: TrackPoses, ground: Ground | None) -> RowsOf:
        """The residuals of the feet that stand in a solution."""
        skeleton, chosen = self._fitter.skeleton, list(FEET)
        betas = poses.betas.expand(len(poses.transl_m), BETAS)
        pose = forward_kinematics(skeleton, poses.rotations, poses.transl_m, betas)
        points = place_points(skeleton.landmarks, pose, betas)[0][:, chosen]
        seen = frames.observed.visible[:, chosen] * frames.observed.present[:, None] > SEEN
        # In axes that stand still: about the camera's centre, as far away as in its own.
        if frames.turn is not None:
            points = points @ frames.turn.transpose(-1, -2)
        found = standing(
            points.cpu().numpy(), seen.cpu().numpy(), self._interval_30hz / 30.0, ground
        )
        place_m, stands = (torch.from_numpy(part).to(points) for part in found)
        if frames.turn is not None:
            place_m = place_m @ frames.turn
        return feet_block(skeleton, place_m, stands)

    def _usual(self, frames: TrackFrames) -> Tensor:
        """The standard deviations (T - 2, 23, 3) of accelerations of any motion."""
        config, count = self._fitter.config, max(len(frames.transl_m) - 2, 0)
        sigma = frames.transl_m.new_full((count, 1 + POSED, 3), config.turn_accel_rad)
        sigma[:, 0, :2] = config.root_accel_m
        sigma[:, 0, 2] = config.root_depth_accel_m
        # As in the solver of windows.
        return sigma * min(max(self._interval_30hz, 0.25), 4.0) ** 1.5
