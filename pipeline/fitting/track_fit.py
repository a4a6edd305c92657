"""The second pass over a clip: every track fitted again, as a whole.

The first pass fits windows of four frames as they come. Here the future is known: the lifter reads
a frame's past and its future, one shape is estimated from all frames of a track, smoothness acts
both ways, and feet stay where they stand. How strongly smoothness acts follows the motion: the
accelerations of a first solution say how much those of each joint may vary about that time, so a
still body is steady and a throwing arm is not held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from pipeline.body.kinematics import POSED, forward_kinematics, place_points
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.fitting.contour_cpu import ContourLoop
from pipeline.fitting.feet import FEET, feet_block
from pipeline.fitting.fitter import BodyFitter
from pipeline.fitting.initialise import sized_by_depth
from pipeline.fitting.lift_track import lift_track
from pipeline.fitting.lifter import LandmarkHistory
from pipeline.fitting.observations import edges_of, layout, observations
from pipeline.fitting.solver import BETAS, Observations, RowsOf
from pipeline.fitting.stature import GivenHeight, Stature, given_height, held_to
from pipeline.fitting.track_solver import ShapePrior, TrackPoses, accelerations, solve_track
from pipeline.fitting.window_step import FROZEN, SHAPE_LIMIT
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
AROUND = 3.0
"""Frames at 30 a second over which accelerations are averaged, as a standard deviation."""
LEAST, MOST = 0.05, 1.5
"""Bounds of an acceleration's spread, as parts of the fit's own (`FitConfig.turn_accel_rad`)."""


class _Turn(NamedTuple):
    """Solver steps and `FitConfig.smooth_robust` of one of the two solutions."""

    steps: int
    robust: float


ROUNDS = 2
# Few accelerations surprise once their spread is known.
FIRST, SECOND = _Turn(5, 2.0), _Turn(8, 6.0)


@dataclass(frozen=True, eq=False)
class SeenFrames:
    """One person in N frames, rising, as a first pass saw and fitted it.

    Attributes:
        frame: (N,) int64 numbers of the frames in the source.
        rows: (N, layout(1, outlines=True, surface).size) float32 observations.
        turns: (N, 24, 3) float32 rotations, axis-angle, radians.
        transl_m: (N, 3) float32 metres.
    """

    frame: np.ndarray
    rows: np.ndarray
    turns: np.ndarray
    transl_m: np.ndarray


@dataclass(frozen=True, eq=False)
class FittedFrames:
    """One person's poses in N frames; arrays as in `SeenFrames`.

    ``residual_mean`` (N,) is as in `solver.Solution`.
    """

    turns: np.ndarray
    transl_m: np.ndarray
    residual_mean: np.ndarray


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
        self._camera = camera if camera is not None and camera.moves else None
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
            begin = _limited(held_to(_about(begin), self._stature, given.height_m).betas)
        for part, _ in self._parts(frame):
            frames = self._frames(read(part), given, moved=True)
            poses, shown, _ = self._solve(
                frames, frames.guess(begin), prior, self._usual(frames), FIRST
            )
            shapes.append(shown)
            write(part, frames.fitted(poses, None))
        return np.asarray(_combined(prior, shapes).cpu().numpy(), np.float32)

    @torch.inference_mode()
    def second(
        self,
        frame: np.ndarray,
        read: Read,
        write: Write,
        betas: np.ndarray,
        ground: Ground | None = None,
        given: GivenHeight | None = None,
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
        """
        shape = torch.from_numpy(betas).to(self._fitter.device)
        fixed = ShapePrior(shape, FROZEN * torch.eye(BETAS, device=shape.device))
        for part, wide in self._parts(frame):
            frames = self._frames(read(wide), given)
            poses = frames.guess(shape)
            sigma = self._usual(frames)
            if len(sigma):
                around = AROUND / self._interval_30hz
                bent = accelerations(poses, self._pelvis_m(shape), frames.turn)
                sigma = follow_motion(bent, sigma, around)
            # Again, because where feet stand is known better once they are held.
            for _ in range(ROUNDS):
                feet = self._feet(frames, poses, ground)
                poses, _, residual_mean = self._solve(frames, poses, fixed, sigma, SECOND, [feet])
            inner = slice(part.start - wide.start, part.stop - wide.start)
            write(part, frames.fitted(poses, residual_mean, inner))

    def _parts(self, frame: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """The chunks of a track as rows, each with the rows that are fitted with it."""
        parted = np.diff(frame) > self._gap
        if self._camera is not None:
            # Of two references nothing tells how one lies to the other.
            parted |= np.diff(self._camera.references(frame)) != 0
        ends = [*(np.flatnonzero(parted) + 1).tolist(), len(frame)]
        first = 0
        for end in ends:
            count = max(-(-(end - first) // CHUNK), 1)
            edges = np.linspace(first, end, count + 1).round().astype(int).tolist()
            for a, b in zip(edges, edges[1:]):
                yield slice(a, b), slice(max(a - OVERLAP, first), min(b + OVERLAP, end))
            first = end

    def _frames(
        self, seen: SeenFrames, given: GivenHeight | None = None, *, moved: bool = False
    ) -> _Frames:
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
        turns, transl_m = _between(
            at, torch.from_numpy(seen.turns), torch.from_numpy(seen.transl_m)
        )
        return _Frames(
            Observations(*(getattr(observed, n)[0] for n in observed.__dataclass_fields__)),
            turns.to(device),
            transl_m.to(device) * (given.size if moved and given is not None else 1.0),
            at,
        )

    def _shape_prior(self) -> ShapePrior:
        device, weight = self._fitter.device, self._fitter.config.shape_weight
        eye = torch.eye(BETAS, device=device)
        return ShapePrior(torch.zeros(BETAS, device=device), weight / SHAPE_GAIN * eye)

    def _solve(
        self,
        frames: _Frames,
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

    def _feet(self, frames: _Frames, poses: TrackPoses, ground: Ground | None) -> RowsOf:
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

    def _pelvis_m(self, betas: Tensor) -> Tensor:
        """The pelvis (3,) of a shape at rest."""
        pelvis = self._fitter.skeleton.bones[0]
        return pelvis[:, 0] + pelvis[:, 1:] @ betas

    def _usual(self, frames: _Frames) -> Tensor:
        """The standard deviations (T - 2, 23, 3) of accelerations of any motion."""
        config, count = self._fitter.config, max(len(frames.transl_m) - 2, 0)
        sigma = frames.transl_m.new_full((count, 1 + POSED, 3), config.turn_accel_rad)
        sigma[:, 0, :2] = config.root_accel_m
        sigma[:, 0, 2] = config.root_depth_accel_m
        # As in the solver of windows.
        return sigma * min(max(self._interval_30hz, 0.25), 4.0) ** 1.5


@dataclass(frozen=True, eq=False)
class _Frames:
    """T consecutive frames of a track: observations, a guess, the places of those seen, and the
    camera's rotations, None where it stood still."""

    observed: Observations
    rotations: Tensor
    transl_m: Tensor
    at: np.ndarray
    turn: Tensor | None = None

    def guess(self, betas: Tensor) -> TrackPoses:
        return TrackPoses(self.rotations, self.transl_m, betas)

    def fitted(
        self, poses: TrackPoses, residual_mean: Tensor | None, rows: slice = slice(None)
    ) -> FittedFrames:
        """The poses in the frames that were seen, of these rows."""
        at = torch.from_numpy(self.at[rows]).to(poses.transl_m.device)
        none = torch.zeros_like(poses.transl_m[:, 0])
        mean = none if residual_mean is None else residual_mean
        turns = log_so3(poses.rotations[at])
        return FittedFrames(*(x.cpu().numpy() for x in (turns, poses.transl_m[at], mean[at])))


def _between(at: np.ndarray, turns: Tensor, transl_m: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (T, 24, 3, 3) and translations (T, 3) of all frames from those ``at`` N of them.

    In a gap they go straight from one end to the other: robust smoothness takes a jump for motion.
    """
    frames = np.arange(at[-1] + 1)
    after = np.searchsorted(at, frames)
    before = np.where(at[after] == frames, after, after - 1)
    steps = np.maximum(at[after] - at[before], 1)
    share = torch.from_numpy((frames - at[before]) / steps).float()[:, None]
    first, last = exp_so3(turns[before]), exp_so3(turns[after])
    turned = log_so3(first.transpose(-1, -2) @ last)
    rotations = first @ exp_so3(share[..., None] * turned)
    return rotations, torch.lerp(transl_m[before], transl_m[after], share)


def follow_motion(accelerations: Tensor, usual: Tensor, around: float) -> Tensor:
    """Return the standard deviations of accelerations as a motion shows them.

    Each is the root of the mean square about its time, over the axes of its joint, within `LEAST`
    and `MOST` parts of the usual one.

    Args:
        accelerations: (T, 23, 3) second differences: the root's path, then joints' rotations.
        usual: (T, 23, 3) standard deviations for any motion.
        around: The standard deviation of the average over time, in frames.
    """
    squared = accelerations.square()
    # Along the view the root's path is known far worse than across it.
    across = squared[:, :1, :2].mean(-1, keepdim=True).expand(-1, -1, 2)
    turns = squared[:, 1:].mean(-1, keepdim=True).expand(-1, -1, 3)
    root = torch.cat((across, squared[:, :1, 2:]), -1)
    joined = torch.cat((root, turns), 1).cpu().numpy()
    mean = gaussian_filter1d(joined, around, axis=0, mode="nearest")
    spread = torch.from_numpy(np.sqrt(np.maximum(mean, 0.0))).to(usual)
    return torch.minimum(torch.maximum(spread, LEAST * usual), MOST * usual)


def _combined(prior: ShapePrior, shapes: Sequence[ShapePrior]) -> Tensor:
    """The shape of a track whose parts show ``shapes``, each with the same prior in it."""
    information = prior.information.double()
    pull = information @ prior.betas.double()
    for shape in shapes:
        gained = shape.information.double()
        information = information + gained
        pull = pull + gained @ shape.betas.double()
    return _limited(torch.linalg.solve(information, pull).float())


def _limited(betas: Tensor) -> Tensor:
    return betas.clamp(-SHAPE_LIMIT, SHAPE_LIMIT)


def _about(betas: Tensor) -> ShapePrior:
    """A shape as if it was known a little, so that what holds it changes it least."""
    return ShapePrior(betas, torch.eye(BETAS, device=betas.device))
