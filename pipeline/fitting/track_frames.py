"""One person's frames as the second pass reads, fits and writes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.body.rotations import exp_so3, log_so3
from pipeline.fitting.solver import Observations
from pipeline.fitting.track_solver import TrackPoses


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


@dataclass(frozen=True, eq=False)
class TrackFrames:
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


def between(at: np.ndarray, turns: Tensor, transl_m: Tensor) -> tuple[Tensor, Tensor]:
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


def inner(part: slice, wide: slice) -> slice:
    """Return the rows of a part among those that are fitted with it."""
    return slice(part.start - wide.start, part.stop - wide.start)
