"""Keeps a source's last frames, so that an event's window can be fitted once it is detected.

A detector sees an event in the frame after it, so the frames about it have gone by: the buffer
keeps the last detected windows (of one frame each) with their pictures, and the people alone of
more frames before those, as context for the fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.core.stats import Stats
from pipeline.runtime.estimator import DetectedWindow, FittedWindow
from pipeline.runtime.event_window import event_window, spaced

_KEPT_FRAMES = 16
_KEPT_S = 0.15
"""A frame is dropped, with its picture, once there are more than `_KEPT_FRAMES` and it is older
than `_KEPT_S`, in seconds."""
_CONTEXT_FRAMES = 96
"""Frames whose people are kept, without their masks."""
EVENT_PERIOD_S = 1 / 30
"""Spacing of the frames of an event's window, in seconds; a faster source has frames in between
that are left out."""


class Watch(Protocol):
    """Looks for events in one source's people; it belongs to the thread that perceives."""

    def see(self, frame: Frame, people: Mapping[int, Person], reset: bool) -> Sequence[Any]:
        """Return the events that this frame shows to have happened.

        Args:
            frame: The next frame of the source.
            people: The people in it, by track id.
            reset: Whether the frames before show other people, as before a cut.

        Returns:
            Each event has the ``frame_id`` that it is about and its person's ``track``.
        """
        ...

    def finish(self) -> None:
        """Take note that no more frames will come."""
        ...


@dataclass(frozen=True, eq=False)
class Event:
    """An event that a `Watch` detected, and the fitted window around it.

    Attributes:
        seen: What `Watch.see` returned.
        window: Up to four frames; the key frame is the event's own.
        fitted: The frames with the person's body, or no body in a frame without the person.
    """

    seen: Any
    window: Window
    fitted: FittedWindow


@dataclass(frozen=True, eq=False)
class EventJob:
    """An event's window with its people, and the people of the frames before it, ready to fit."""

    seen: Any
    detected: DetectedWindow
    before: Sequence[dict[int, Person]]


class EventBuffer:
    """Hands every detected frame to a watch and makes jobs of the events that it sees.

    Args:
        watch: Looks for the events.
        stats: Counts events whose frames are no longer kept as "lost events".
    """

    def __init__(self, watch: Watch, stats: Stats) -> None:
        self.watch, self._stats = watch, stats
        self._recent: deque[DetectedWindow] = deque()
        self._context: deque[tuple[int, dict[int, Person]]] = deque(maxlen=_CONTEXT_FRAMES)

    def add(self, detected: DetectedWindow) -> list[EventJob]:
        """Take a window of one frame; return the events that it shows."""
        (frame,), (people,) = detected.window.frames, detected.people
        if detected.window.reset:
            self._recent.clear()
            self._context.clear()
        self._recent.append(detected)
        while len(self._recent) > _KEPT_FRAMES and _age_s(self._recent[0], frame) > _KEPT_S:
            self._recent.popleft()
        # Masks are large, and the frames before an event are fitted without them.
        bare = {track: replace(person, mask=None) for track, person in people.items()}
        self._context.append((frame.id, bare))
        events = self.watch.see(frame, people, detected.window.reset)
        if not events:
            return []
        kept = {each.window.frames[0].id for each in self._recent}
        # An event about a frame that is no longer kept has no window.
        there = [event for event in events if event.frame_id in kept]
        self._stats.count("lost events", len(events) - len(there))
        return [self._job(event) for event in there]

    def _job(self, event: Any) -> EventJob:
        recent = [each.window.frames[0] for each in self._recent]
        stride = _stride(recent)
        window = event_window(spaced(recent, event.frame_id, EVENT_PERIOD_S), event.frame_id)
        by_id = {each.window.frames[0].id: each.people[0] for each in self._recent}
        people = tuple(by_id[frame.id] for frame in window.frames)
        earlier = [people for number, people in self._context if number < window.frames[0].id]
        # Spaced as the window's frames are, counted back from the window.
        before = earlier[::-1][stride - 1 :: stride][::-1]
        return EventJob(event, DetectedWindow(window, people), before)


def _age_s(detected: DetectedWindow, frame: Frame) -> float:
    return frame.pts_s - detected.window.frames[0].pts_s


def _stride(frames: Sequence[Frame]) -> int:
    """How many frames make about a thirtieth of a second."""
    if len(frames) < 2:
        return 1
    period_s = (frames[-1].pts_s - frames[0].pts_s) / (len(frames) - 1)
    return max(1, round(EVENT_PERIOD_S / max(period_s, 1e-3)))
