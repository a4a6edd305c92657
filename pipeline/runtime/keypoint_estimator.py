"""The estimator that ships: keypoints of a perceiver, tracks, bodies fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies, Person, as_blazepose
from pipeline.core.skeleton import BLAZEPOSE_33
from pipeline.fitting.fitter import BodyFitter, FitJob, FitMemory
from pipeline.perception.areas import EVERYWHERE, Areas
from pipeline.perception.base import People, Perceiver
from pipeline.runtime.estimator import DetectedWindow, FittedWindow
from pipeline.tracking.depth_scale import DepthScale
from pipeline.tracking.tracker import TrackConfig, Tracker

_HIPS = np.array(BLAZEPOSE_33.hips)


@dataclass
class StreamState:
    """What is remembered of one source between windows; made by `KeypointEstimator.begin`.

    ``memory`` and ``tracker`` belong to the perceiving half, the others to the fitting half, so
    the two halves may run in threads of their own.
    """

    tracker: Tracker
    fits: FitMemory = field(default_factory=FitMemory)
    depth: DepthScale = field(default_factory=DepthScale)
    memory: Any = None
    last_pts_s: float | None = None
    fitted_s: dict[int, float] = field(default_factory=dict)
    """When each track of ``fits`` was fitted last."""


class KeypointEstimator:
    """A `BodyEstimator`: perceiver, tracker and fit, one after another.

    Args:
        perceiver: Finds the people.
        fitter: Fits bodies to them.
        fov_deg: The field of view across the image's longer side, if known.
        focal_px: The focal length in pixels, if known.
        intrinsics: K (3, 3) in pixels of every frame, if known; it wins over both.
        tracking: How people are matched from frame to frame.
        depth_scale: Metres a unit of the perceiver's depth maps; None has it found for each source.
        areas: People whose hips are outside are left out.
    """

    def __init__(
        self,
        perceiver: Perceiver,
        fitter: BodyFitter,
        *,
        fov_deg: float | None = None,
        focal_px: float | None = None,
        intrinsics: np.ndarray | None = None,
        tracking: TrackConfig | None = None,
        depth_scale: float | None = None,
        areas: Areas = EVERYWHERE,
    ) -> None:
        self.perceiver = perceiver
        self.fitter = fitter
        self.body, self.device = fitter.body, fitter.device
        self.tracking = tracking or TrackConfig()
        self._lens = (fov_deg, focal_px)
        self._intrinsics = intrinsics
        self._depth_scale = depth_scale
        self._areas = areas

    @property
    def reports(self) -> tuple[str, ...]:
        return tuple(str(report) for report in self.perceiver.reports)

    def begin(self) -> StreamState:
        return StreamState(Tracker(self.tracking), depth=DepthScale(self._depth_scale))

    def intrinsics(self, frame: Frame) -> np.ndarray:
        if self._intrinsics is not None:
            return self._intrinsics
        height, width = frame.size
        return default_intrinsics(height, width, *self._lens)

    def warm_up(self, people: int, *, events: bool = False, low_latency: bool = False) -> None:
        surface = self.perceiver.has_skin
        self.fitter.warm_up(people, surface=surface)
        if low_latency:
            self.fitter.warm_up(people, surface=surface, frames=1)
        if events:
            self.fitter.warm_up_events(surface=surface)

    def close(self) -> None:
        self.perceiver.close()

    def perceive(
        self, windows: Sequence[Window], states: Sequence[StreamState]
    ) -> list[DetectedWindow]:
        windows = [self._prepared(window, state) for window, state in zip(windows, states)]
        found = self.perceiver.perceive_many(windows, [state.memory for state in states])
        # Before any state changes: the scheduler tries a batch that failed again, one by one.
        for window, (people, _) in zip(windows, found, strict=True):
            if len(people) != len(window.frames):
                # Frames would be lost without a word.
                raise ValueError(
                    f"perceiver {self.perceiver.name}: people of {len(people)} frames for a window "
                    f"of {len(window.frames)}"
                )
        out = []
        for window, state, (people, memory) in zip(windows, states, found):
            tracked = self._tracked(window, people, state)
            out.append(DetectedWindow(window, tracked, self.perceiver.unfollowed(memory)))
            state.memory = memory
        return out

    def fit(
        self, detected: Sequence[DetectedWindow], states: Sequence[StreamState]
    ) -> list[FittedWindow]:
        jobs = [self._job(one, state) for one, state in zip(detected, states)]
        fitted = self.fitter.fit_many(jobs)
        for one, state, bodies in zip(detected, states, fitted):
            # After the fit: the scale is learned from bodies that were fitted without it, and a fit
            # that failed may be tried again.
            state.depth.learn(one.people, bodies)
            state.last_pts_s = one.window.frames[-1].pts_s
            self._forget(state, bodies)
        return [_window_of(one, bodies) for one, bodies in zip(detected, fitted)]

    def fit_event(
        self,
        detected: DetectedWindow,
        before: Sequence[dict[int, Person]],
        track: int,
        state: StreamState,
    ) -> FittedWindow:
        # The shape is what the source's windows have shown; the pose is fitted from the frames
        # before the event alone, since a pose fitted on the way is smoothed over the fast moment.
        alone = [
            {track: frame[track]} if track in frame else {}
            for frame in state.depth.place(detected.people)
        ]
        window = detected.window
        lens = self.intrinsics(window.key_frame)
        earlier = [frame.get(track) for frame in before]
        size = window.key_frame.size
        before_it = self.fitter.memory_before(earlier, lens, state.fits, track, size)
        times = [frame.pts_s for frame in window.frames]
        job = FitJob(alone, lens, FitMemory({track: before_it}), _spacing_s(times), True, size)
        return _window_of(detected, self.fitter.fit_many([job])[0])

    def _tracked(
        self, window: Window, people: People, state: StreamState
    ) -> tuple[dict[int, Person], ...]:
        """The people of each frame by track, without those outside of the areas."""
        out = []
        for frame, seen in zip(window.frames, people):
            landmarks = [as_blazepose(person) for person in seen]
            inside = [person for person in landmarks if self._is_inside(person, frame)]
            out.append(state.tracker.assign(inside, frame.pts_s, frame.pixels))
        return tuple(out)

    def _is_inside(self, person: Person, frame: Frame) -> bool:
        (left_x, left_y), (right_x, right_y) = person.landmarks_px[_HIPS].tolist()
        middle = 0.5 * (left_x + right_x), 0.5 * (left_y + right_y)
        return self._areas.keeps(*middle, frame.size)

    def _forget(self, state: StreamState, bodies: Sequence[Bodies]) -> None:
        """Forget the shapes of tracks that the tracker has forgotten too."""
        now_s = state.last_pts_s or 0.0
        state.fitted_s |= {track: now_s for frame in bodies for track in frame.track.tolist()}
        for track, seen_s in list(state.fitted_s.items()):
            if abs(now_s - seen_s) > self.tracking.remember_s + 1.0:
                del state.fitted_s[track]
                state.fits.tracks.pop(track, None)

    def _prepared(self, window: Window, state: StreamState) -> Window:
        """Return the window where the perceiver computes, after forgetting what a reset ends."""
        # The perceiving half alone; `_job` clears the fitting half, in that half's thread.
        if window.reset:
            state.memory = None
            state.tracker.clear()
        return self.perceiver.prepare(window)

    def _job(self, detected: DetectedWindow, state: StreamState) -> FitJob:
        window = detected.window
        if window.reset:
            state.fits.clear()
            state.fitted_s.clear()
            # Behind a cut there may be another camera, with another scale.
            state.depth = DepthScale(self._depth_scale)
            state.last_pts_s = None
        interval_s = _interval_s(window, state)
        lens = self.intrinsics(window.key_frame)
        people = state.depth.place(detected.people)
        return FitJob(people, lens, state.fits, interval_s, size=window.key_frame.size)


def _window_of(detected: DetectedWindow, fitted: Sequence[Bodies]) -> FittedWindow:
    """The frames of a window with their bodies, and beside those the MHR bodies of their tracks."""
    out = []
    for frame, people, bodies in zip(detected.window.frames, detected.people, fitted):
        reported = {track: people[track].mhr for track in bodies.track.tolist() if track in people}
        mhr = {track: body for track, body in reported.items() if body is not None}
        out.append((frame, bodies.with_values(mhr=mhr) if mhr else bodies))
    return out


def _interval_s(window: Window, state: StreamState) -> float:
    """The frames' mean spacing; a live feed that drops frames has wider steps."""
    times = [frame.pts_s for frame in window.frames]
    if state.last_pts_s is not None:
        # The step from the window before counts too; a window of one frame has no other.
        times.insert(0, state.last_pts_s)
    return _spacing_s(times)


def _spacing_s(times: Sequence[float]) -> float:
    if len(times) < 2:
        return 1 / 30
    return min(max((times[-1] - times[0]) / (len(times) - 1), 1 / 240), 1.0)
