"""Where perception meets the body: a window of frames in, bodies for each frame out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies, Person
from pipeline.fitting.fitter import BodyFitter, FitJob, FitMemory
from pipeline.perception.base import Perceiver
from pipeline.tracking.depth_scale import DepthScale
from pipeline.tracking.tracker import TrackConfig, Tracker


@dataclass
class StreamState:
    """All that is remembered of one source between windows; made by ``KeypointEstimator.begin``.

    ``memory``, ``tracker`` belong to the perceiving half, ``fits`` and ``depth`` to the fitting
    half, so the two halves may run in threads of their own.
    """

    tracker: Tracker
    fits: FitMemory = field(default_factory=FitMemory)
    depth: DepthScale = field(default_factory=DepthScale)
    memory: Any = None
    last_pts_s: float | None = None


@dataclass(frozen=True, eq=False)
class DetectedWindow:
    """A window and, for each of its frames, the people by track."""

    window: Window
    people: tuple[dict[int, Person], ...]


class KeypointEstimator:
    """Perceiver, tracker and fit, one after another; holds no state of any source.

    ``depth_scale`` is metres a unit of the perceiver's depth maps, None where that is to be found
    for each source.
    """

    def __init__(
        self,
        perceiver: Perceiver,
        fitter: BodyFitter,
        *,
        fov_deg: float | None = None,
        focal_px: float | None = None,
        tracking: TrackConfig | None = None,
        depth_scale: float | None = None,
    ) -> None:
        self.perceiver = perceiver
        self.fitter = fitter
        self.tracking = tracking or TrackConfig()
        self._lens = (fov_deg, focal_px)
        self._depth_scale = depth_scale

    def begin(self) -> StreamState:
        """An empty state for a new source."""
        return StreamState(Tracker(self.tracking), depth=DepthScale(self._depth_scale))

    def intrinsics(self, frame: Frame) -> np.ndarray:
        """K (3, 3) of the frame's source: one a size, never one a frame."""
        height, width = frame.size
        return default_intrinsics(height, width, *self._lens)

    def perceive(self, window: Window, state: StreamState) -> DetectedWindow:
        """The people in every frame of a window, by track."""
        window = self._opened(window, state)
        embedding = self.perceiver.embed(window, state.memory)
        people, state.memory = self.perceiver.decode(embedding, window)
        return self._tracked(window, people, state)

    def fit(self, perceived: DetectedWindow, state: StreamState) -> list[tuple[Frame, Bodies]]:
        """Bodies for every frame of a perceived window."""
        return self.fit_many([perceived], [state])[0]

    def _opened(self, window: Window, state: StreamState) -> Window:
        """The window ready to be perceived, and forgotten what does not belong to it."""
        if window.reset:
            state.memory = None
            state.tracker.clear()
        return self.perceiver.prepare(window)

    @staticmethod
    def _tracked(
        window: Window, people: Sequence[tuple[Person, ...]], state: StreamState
    ) -> DetectedWindow:
        tracked = tuple(
            state.tracker.assign(seen, frame.pts_s) for frame, seen in zip(window.frames, people)
        )
        return DetectedWindow(window, tracked)

    def _job(self, perceived: DetectedWindow, state: StreamState) -> FitJob:
        window = perceived.window
        if window.reset:
            state.fits.clear()
            state.depth = DepthScale(self._depth_scale)
            state.last_pts_s = None
        interval_s = self._interval_s(window, state)
        state.last_pts_s = window.frames[-1].pts_s
        lens = self.intrinsics(window.key_frame)
        return FitJob(state.depth.place(perceived.people), lens, state.fits, interval_s)

    @property
    def engines(self) -> tuple[str, ...]:
        """What runs the networks, in a line each, where that was a choice."""
        return tuple(str(report) for report in getattr(self.perceiver, "reports", ()))

    def many(
        self, windows: Sequence[Window], states: Sequence[StreamState]
    ) -> list[list[tuple[Frame, Bodies]]]:
        """One window of each of several sources in one go: what calling it with each would give."""
        return self.fit_many(self.perceive_many(windows, states), states)

    def perceive_many(
        self, windows: Sequence[Window], states: Sequence[StreamState]
    ) -> list[DetectedWindow]:
        """`perceive` for several sources, together where the perceiver can."""
        together = getattr(self.perceiver, "perceive_many", None)
        if together is None:
            return [self.perceive(window, state) for window, state in zip(windows, states)]
        windows = [self._opened(window, state) for window, state in zip(windows, states)]
        found = together(windows, [state.memory for state in states])
        out = []
        for window, state, (people, memory) in zip(windows, states, found):
            state.memory = memory
            out.append(self._tracked(window, people, state))
        return out

    def fit_many(
        self, perceived: Sequence[DetectedWindow], states: Sequence[StreamState]
    ) -> list[list[tuple[Frame, Bodies]]]:
        """`fit` for several sources, their people together."""
        jobs = [self._job(one, state) for one, state in zip(perceived, states)]
        fitted = self.fitter.fit_many(jobs)
        for one, state, bodies in zip(perceived, states, fitted):
            state.depth.learn(one.people, bodies)
        return [list(zip(one.window.frames, bodies)) for one, bodies in zip(perceived, fitted)]

    def fit_event(
        self,
        perceived: DetectedWindow,
        before: Sequence[dict[int, Person]],
        track: int,
        state: StreamState,
    ) -> list[tuple[Frame, Bodies]]:
        """One person's bodies in the frames of an event, at full quality: from the ``before``
        frames' people and what is known of their shape, but no pose that was fitted on the way.
        Changes nothing of ``state``."""
        alone = [
            {track: frame[track]} if track in frame else {}
            for frame in state.depth.place(perceived.people)
        ]
        window = perceived.window
        lens = self.intrinsics(window.key_frame)
        earlier = [frame.get(track) for frame in before]
        memory = FitMemory({track: self.fitter.recalled(earlier, lens, state.fits, track)})
        times = [frame.pts_s for frame in window.frames]
        job = FitJob(alone, lens, memory, _spacing_s(times), event=True)
        return list(zip(window.frames, self.fitter.fit_many([job])[0]))

    def __call__(self, window: Window, state: StreamState) -> list[tuple[Frame, Bodies]]:
        return self.fit(self.perceive(window, state), state)

    @staticmethod
    def _interval_s(window: Window, state: StreamState) -> float:
        """The frames' mean spacing; a live feed that drops frames has wider steps."""
        times = [frame.pts_s for frame in window.frames]
        if state.last_pts_s is not None:
            times.insert(0, state.last_pts_s)
        return _spacing_s(times)


def _spacing_s(times: Sequence[float]) -> float:
    if len(times) < 2:
        return 1 / 30
    return min(max((times[-1] - times[0]) / (len(times) - 1), 1 / 240), 1.0)
