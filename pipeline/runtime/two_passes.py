"""Two passes over a clip as two estimators: one that remembers, and one that gives back.

`FirstPass` perceives, tracks and fits as usual, and keeps what it saw in a `TrackStore`.
`refine.refine` then fits every track as a whole. `SecondPass` hands out those bodies, so that a
second run over the same clip draws and writes them as if they had just been fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies, Person
from pipeline.fitting.fitter import certainty
from pipeline.fitting.visibility import picture_sizes
from pipeline.runtime.estimator import DetectedWindow, FittedWindow
from pipeline.runtime.keypoint_estimator import KeypointEstimator, StreamState
from pipeline.runtime.refine import posed_bodies
from pipeline.runtime.track_store import TrackStore
from pipeline.tracking.appearance import Appearance
from pipeline.tracking.tracker import DESCRIBE_S, clear_looks
from pipeline.world.camera_path import CameraPath

_USUAL_S = 1 / 30


class FirstPass:
    """A `BodyEstimator` that keeps what another one sees and fits, for one source.

    Args:
        estimator: The other one; it is not closed.
        store: Where it is kept.

    Attributes:
        camera: Where the camera looked.
    """

    def __init__(self, estimator: KeypointEstimator, store: TrackStore) -> None:
        self._estimator, self._store = estimator, store
        self.camera = CameraPath()
        # Of the frames that are perceived and not fitted yet.
        self._zooms: dict[int, float] = {}
        self.body, self.device = estimator.body, estimator.device
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None
        self._looked_s = -np.inf

    @property
    def reports(self) -> tuple[str, ...]:
        return self._estimator.reports

    @property
    def interval_s(self) -> float:
        """The mean time between the frames that were fitted, in seconds."""
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return _USUAL_S
        spent_s = self._last[1] - self._first[1]
        return max(spent_s, 0.0) / (self._last[0] - self._first[0]) or _USUAL_S

    def begin(self) -> StreamState:
        return self._estimator.begin()

    def intrinsics(self, frame: Frame) -> np.ndarray:
        return self._estimator.intrinsics(frame)

    def perceive(
        self, windows: Sequence[Window], states: Sequence[StreamState]
    ) -> list[DetectedWindow]:
        found = self._estimator.perceive(windows, states)
        for one in found:
            self._look(one)
        return found

    def _look(self, detected: DetectedWindow) -> None:
        """Measure where the camera looks in the frames of a window."""
        for k, (frame, people) in enumerate(zip(detected.window.frames, detected.people)):
            boxes = [person.box_px for person in people.values()]
            self._zooms[frame.id] = self.camera.add(
                frame.id,
                frame.pixels,
                frame.size,
                np.array(boxes, np.float64).reshape(-1, 4),
                self._estimator.intrinsics(frame),
                frame.discontinuity or (k == 0 and detected.window.reset),
            )

    def fit(
        self, detected: Sequence[DetectedWindow], states: Sequence[StreamState]
    ) -> list[FittedWindow]:
        fitted = self._estimator.fit(detected, states)
        for one, window, state in zip(detected, fitted, states):
            people = state.depth.place(one.people)
            if one.window.reset:
                self._store.cuts.append(one.window.frames[0].id)
            for seen, (frame, bodies) in zip(people, window):
                zoom = self._zooms.pop(frame.id, 1.0)
                lens = zoomed(self._estimator.intrinsics(frame), zoom)
                looks = self._looks(frame, seen)
                self._store.add(frame.id, seen, bodies, lens, frame.size, zoom, looks)
                self._last = frame.id, frame.pts_s
                self._first = self._first or self._last
        return fitted

    def _looks(self, frame: Frame, people: dict[int, Person]) -> dict[int, Appearance]:
        """What people look like, in a few frames a second."""
        if abs(frame.pts_s - self._looked_s) < DESCRIBE_S:
            return {}
        self._looked_s = frame.pts_s
        return clear_looks(people, frame.pixels)

    def fit_event(
        self,
        detected: DetectedWindow,
        before: Sequence[dict[int, Person]],
        track: int,
        state: StreamState,
    ) -> FittedWindow:
        return self._estimator.fit_event(detected, before, track, state)

    def warm_up(self, people: int, *, events: bool = False, low_latency: bool = False) -> None:
        self._estimator.warm_up(people, events=events, low_latency=low_latency)

    def close(self) -> None:
        """Nothing: the estimator and the store are others'."""


def zoomed(intrinsics: np.ndarray, zoom: float) -> np.ndarray:
    """Return K (3, 3) of a camera that is zoomed; the same array without a zoom."""
    return intrinsics if zoom == 1.0 else intrinsics @ np.diag([zoom, zoom, 1.0])


class SecondPass:
    """A `BodyEstimator` that gives the bodies of a `TrackStore` for the frames of its source.

    Args:
        estimator: The one of the first pass; it is not closed.
        store: Finished, and usually refined.
        camera: Where the camera looked in the first pass.
    """

    def __init__(
        self, estimator: KeypointEstimator, store: TrackStore, camera: CameraPath | None = None
    ) -> None:
        self._estimator, self._store = estimator, store
        self.camera = camera or CameraPath()
        self.body, self.device = estimator.body, estimator.device

    @property
    def reports(self) -> tuple[str, ...]:
        return self._estimator.reports

    def begin(self) -> None:
        """Nothing is remembered between windows."""

    def intrinsics(self, frame: Frame) -> np.ndarray:
        zoom = float(self.camera.zoom(np.array([frame.id]))[0])
        return zoomed(self._estimator.intrinsics(frame), zoom)

    @property
    def turn_of(self) -> Callable[[Frame], np.ndarray] | None:
        """What returns the rotation (3,) float32, axis-angle, from the camera's axes in a frame to
        those of its reference; None for a camera that stood still."""
        if not self.camera.moves:
            return None
        return lambda frame: self.camera.rotvec(np.array([frame.id]))[0]

    def perceive(self, windows: Sequence[Window], states: Sequence[Any]) -> list[DetectedWindow]:
        return [DetectedWindow(window, ({},) * len(window.frames)) for window in windows]

    def fit(self, detected: Sequence[DetectedWindow], states: Sequence[Any]) -> list[FittedWindow]:
        return [[(frame, self._bodies(frame)) for frame in one.window.frames] for one in detected]

    def _bodies(self, frame: Frame) -> Bodies:
        stored, betas = self._store.bodies(frame.id)
        if not len(stored.track):
            return self._estimator.fitter.no_bodies()
        pose = stored.turns.reshape(-1, 72)
        posed = posed_bodies(self._estimator, stored.turns, stored.transl_m, betas)
        joints_m = posed.joints_m.cpu().numpy()
        lenses = np.broadcast_to(self.intrinsics(frame), (len(pose), 3, 3))
        sizes = picture_sizes([frame.size] * len(pose))
        visibility, score = certainty(
            stored.seen, stored.score, joints_m, lenses, sizes, stored.residual_mean
        )
        return Bodies(
            stored.track,
            score,
            pose[:, :3],
            pose[:, 3:],
            betas,
            stored.transl_m,
            joints_m,
            posed.landmarks_m.cpu().numpy(),
            posed.vertices_m.cpu().numpy(),
            visibility,
            None if posed.shown_m is posed.vertices_m else posed.shown_m.cpu().numpy(),
        )

    def fit_event(
        self,
        detected: DetectedWindow,
        before: Sequence[dict[int, Person]],
        track: int,
        state: Any,
    ) -> FittedWindow:
        raise NotImplementedError("events are fitted as they come, in one pass")

    def warm_up(self, people: int, *, events: bool = False, low_latency: bool = False) -> None:
        """Nothing: no network runs."""

    def close(self) -> None:
        """Nothing: the estimator and the store are others'."""
