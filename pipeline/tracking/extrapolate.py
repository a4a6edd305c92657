"""Predicted bodies: from the last fits to the time of a frame that has not been fitted yet.

Rotations continue at their last angular velocity and places at their last velocity across the view.
Both die away (the damped trend of Gardner and McKenzie, 1985, in continuous time): after tau
seconds a body has moved by velocity * T * (1 - exp(-tau / T)). The distance from the camera is
held, because its velocity is mostly noise. The time constants are those that came nearest to the
later fits, over horizons of two to eight frames of ten clips (docs/results/live.md).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.body.model import BodyModel
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.core.camera import project
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

TURN_S = 0.06
PLACE_S = 0.12
"""Time constants T in seconds, of rotations and of places."""
BASE_S = 1 / 15
"""A velocity is that between the last fit and the one about this many seconds before it: between
neighbouring frames it would be mostly noise."""
LONGEST_S = 0.5
"""A person whose last fit is older than this many seconds is not predicted."""
_FITS = 4
"""Fits that are kept of each person."""
_PREDICTIONS = 64
"""Predictions that are kept for comparison with the fit that follows."""
_ERRORS = 20_000
"""Errors of which `Predictor.error` reports the percentiles."""


@dataclass(frozen=True)
class PredictionError:
    """How far predicted joints were from those that were fitted later.

    Attributes:
        count: How many predictions were compared, one for each person and frame.
        p50_px: Median of the mean distance of a person's joints, in pixels of the image.
        p95_px: Its 95th percentile.
        ahead_p50_ms: Median of how far ahead was predicted, in milliseconds.
        ahead_p95_ms: Its 95th percentile.
    """

    count: int
    p50_px: float
    p95_px: float
    ahead_p50_ms: float
    ahead_p95_ms: float


@dataclass(frozen=True, eq=False)
class _Fit:
    """One person's fit.

    ``pose`` (24, 3) axis-angle, ``ray`` (2,) and ``depth_m`` of the pelvis, and ``from_pelvis_m``
    (3,) from there to ``transl_m``; ``visibility`` (24,) of the joints.
    """

    pts_s: float
    score: float
    pose: np.ndarray
    betas: np.ndarray
    ray: np.ndarray
    depth_m: float
    from_pelvis_m: np.ndarray
    visibility: np.ndarray


class Predictor:
    """Predicts one source's bodies.

    `observe` takes every fit and `predict` answers for any frame; each may be called by a thread of
    its own.

    Args:
        body: The body model, with which meshes are made.
        empty: The bodies of a frame without people.
    """

    def __init__(self, body: BodyModel, empty: Bodies) -> None:
        self._body = body
        self._empty = empty
        self._lock = threading.Lock()
        self._fits: dict[int, deque[_Fit]] = {}
        self._last_tracks: tuple[int, ...] = ()
        self._first_id = 0
        self._predicted: OrderedDict[int, tuple[Bodies, float]] = OrderedDict()
        self._errors: deque[tuple[float, float]] = deque(maxlen=_ERRORS)

    def observe(self, frame: Frame, bodies: Bodies, intrinsics: np.ndarray) -> None:
        """Take the fit of a frame.

        Fits come in the order of their frames. One from before the last discontinuity is ignored.

        Args:
            frame: The frame.
            bodies: The bodies that were fitted to it.
            intrinsics: (3, 3) the camera's K in pixels, for the error.
        """
        with self._lock:
            if frame.id < self._first_id:
                return
            predicted = self._predicted.pop(frame.id, None)
            if predicted is not None:
                self._compare(*predicted, bodies, intrinsics)
            self._last_tracks = tuple(bodies.track.tolist())
            # Only people of the last fit are predicted, so the fits of others are forgotten.
            self._fits = {
                track: self._fits.get(track, deque(maxlen=_FITS)) for track in self._last_tracks
            }  # fmt: skip
            for row, track in enumerate(self._last_tracks):
                self._fits[track].append(_fit_of(frame.pts_s, bodies, row))

    def predict(self, frame: Frame) -> Bodies:
        """Return the bodies of the last fit, moved to the time of a frame, by rising track id.

        A frame that begins after a discontinuity has none, and a person whose last fit is older
        than ``LONGEST_S`` is left out.

        Args:
            frame: The frame; only its id, its time and its discontinuity count.
        """
        with self._lock:
            if frame.discontinuity:
                self._fits, self._last_tracks, self._first_id = {}, (), frame.id
                self._predicted.clear()
            # Copied under the lock; making the bodies takes long and runs without it.
            recent = [
                (track, list(self._fits[track]))
                for track in self._last_tracks
                if frame.pts_s - self._fits[track][-1].pts_s <= LONGEST_S
            ]
        bodies = self._extrapolate(frame.pts_s, recent) if recent else self._empty
        if recent:
            ahead_s = frame.pts_s - recent[0][1][-1].pts_s
            with self._lock:
                self._predicted[frame.id] = bodies, ahead_s
                # Frames that are never fitted would otherwise stay for ever.
                if len(self._predicted) > _PREDICTIONS:
                    self._predicted.popitem(last=False)
        return bodies

    def error(self) -> PredictionError | None:
        """Return the error of the people and frames compared so far; None before the first."""
        with self._lock:
            if not self._errors:
                return None
            px, ahead = np.array(self._errors).T
        p50, p95 = np.percentile(px, (50, 95))
        ahead50, ahead95 = np.percentile(1e3 * ahead, (50, 95))
        return PredictionError(len(px), float(p50), float(p95), float(ahead50), float(ahead95))

    def _compare(
        self, predicted: Bodies, ahead_s: float, fitted: Bodies, intrinsics: np.ndarray
    ) -> None:
        """Note the error of each person who is in both the prediction and the fit."""
        rows = {track: row for row, track in enumerate(predicted.track.tolist())}
        for row, track in enumerate(fitted.track.tolist()):
            if track in rows:
                actual_px = project(fitted.joints_m[row], intrinsics)
                error_px = project(predicted.joints_m[rows[track]], intrinsics) - actual_px
                self._errors.append((float(np.linalg.norm(error_px, axis=-1).mean()), ahead_s))

    @torch.inference_mode()
    def _extrapolate(self, pts_s: float, people: list[tuple[int, list[_Fit]]]) -> Bodies:
        """The bodies of ``people``, each with its fits, at a time."""
        last = [fits[-1] for _, fits in people]
        before = [_before(fits) for _, fits in people]
        # The only fit of a person is its own predecessor: the span is zero, and so is the change.
        span = np.array([max(b.pts_s - a.pts_s, 1e-3) for a, b in zip(before, last)])
        # A frame may be older than the last fit; its body stays where that fit was.
        ahead = np.array([max(pts_s - fit.pts_s, 0.0) for fit in last])
        # The way ahead as a share of the change over the span.
        turned = TURN_S * (1 - np.exp(-ahead / TURN_S)) / span
        moved = PLACE_S * (1 - np.exp(-ahead / PLACE_S)) / span

        old, new = (_tensor([fit.pose for fit in fits]) for fits in (before, last))
        turns = exp_so3(new)
        change = log_so3(exp_so3(old).transpose(-1, -2) @ turns)
        pose = log_so3(turns @ exp_so3(change * _tensor(turned)[:, None, None]))

        ray = np.stack([b.ray + part * (b.ray - a.ray)
                        for a, b, part in zip(before, last, moved)])  # fmt: skip
        depth = np.array([fit.depth_m for fit in last])
        pelvis = np.column_stack([ray * depth[:, None], depth])
        transl = pelvis + np.stack([fit.from_pelvis_m for fit in last])
        betas = np.stack([fit.betas for fit in last])

        device = self._body.v_template.device
        out = self._body.forward(
            _tensor(betas).to(device), pose[:, 0].to(device), pose[:, 1:].flatten(1).to(device),
            _tensor(transl).to(device),
        )  # fmt: skip
        return Bodies(
            np.array([track for track, _ in people], np.int64),
            np.array([fit.score for fit in last], np.float32),
            pose[:, 0].numpy(),
            pose[:, 1:].flatten(1).numpy(),
            betas,
            np.asarray(transl, np.float32),
            out.joints_m.cpu().numpy(),
            out.landmarks_m.cpu().numpy(),
            out.vertices_m.cpu().numpy(),
            np.stack([fit.visibility for fit in last]),
            out.shown_m.cpu().numpy(),
        )


def _fit_of(pts_s: float, bodies: Bodies, row: int) -> _Fit:
    pelvis = bodies.joints_m[row, 0]
    pose = np.concatenate([bodies.global_orient[row], bodies.body_pose[row]]).reshape(24, 3)
    # The ray divides by the depth.
    depth = max(float(pelvis[2]), 1e-3)
    return _Fit(
        pts_s, float(bodies.score[row]), pose, bodies.betas[row], pelvis[:2] / depth, depth,
        bodies.transl_m[row] - pelvis, bodies.joint_visibility[row],
    )  # fmt: skip


def _before(fits: list[_Fit]) -> _Fit:
    """The fit from which the velocity is measured; the last fit itself where it is the only one."""
    last = fits[-1].pts_s
    return min(fits[:-1] or fits, key=lambda fit: abs(last - fit.pts_s - BASE_S))


def _tensor(values: object) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
