"""A person's motion about an event, kept as it is fitted and completed once it is over."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from app.reports.record import Fitted, Record, bodies_present, timeline_of
from app.reports.reported_event import ReportedEvent

BEFORE_S, AFTER_S = 1.0, 0.5
"""How much of a motion is shown before and after its event."""
# A bound on memory: at 30 frames a second, twenty seconds.
_STEPS = 600
"""Frames that are remembered."""


@dataclass(frozen=True, eq=False)
class _Step:
    pts_s: float
    joints_m: dict[int, np.ndarray]


class Timelines:
    """Collects a run's fits and events, from any threads; ``events`` are those events with all that
    is known of the motion around them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: deque[_Step] = deque(maxlen=_STEPS)
        self._open: list[tuple[Record, list[_Step]]] = []

    def fitted(self, window: Fitted) -> None:
        """Add a window's bodies, in order."""
        for frame, bodies in window:
            here = {
                track: joints
                for track in bodies.track.tolist()
                if (joints := bodies_present(bodies, track)) is not None
            }
            step = _Step(frame.pts_s, here)
            with self._lock:
                self._steps.append(step)
                for record, steps in self._open:
                    # Events stay open: their frames after the event are fitted later.
                    if step.pts_s - record.data["pts_s"] <= AFTER_S:
                        steps.append(step)

    def add(self, record: Record) -> None:
        """Add an event; what came before it is kept with it."""
        with self._lock:
            begun = record.data["pts_s"] - BEFORE_S
            self._open.append((record, [step for step in self._steps if step.pts_s >= begun]))

    def events(self) -> list[ReportedEvent]:
        """Return all events so far."""
        with self._lock:
            every = [(record, list(steps)) for record, steps in self._open]
        return [_reported(record, steps) for record, steps in every]


def _reported(record: Record, steps: list[_Step]) -> ReportedEvent:
    track, at = record.data["person"], record.data["pts_s"]
    frames = [(step.pts_s, step.joints_m[track]) for step in steps if track in step.joints_m]
    return ReportedEvent(
        motion=record.motion,
        event=record.data,
        pictures=record.pictures,
        timeline_s=np.array([pts_s - at for pts_s, _ in frames]),
        timeline=timeline_of(frames, record.data["hand"], record.motion.measures),
        joints_m=record.joints_m,
    )
