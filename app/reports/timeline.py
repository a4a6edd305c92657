"""A person's motion about an event, kept as it is fitted and completed once it is over."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from app.reports.page import Throw
from app.reports.record import Fitted, Record, bodies_present, timeline_of

BEFORE_S, AFTER_S = 1.0, 0.5
"""What of a motion is shown about its event."""
_KEPT = 600


@dataclass(frozen=True, eq=False)
class _Step:
    pts_s: float
    joints_m: dict[int, np.ndarray]


class Timelines:
    """Told a run's fits and events by any threads; ``throws`` are its events with all that is
    known of the motion about them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: deque[_Step] = deque(maxlen=_KEPT)
        self._open: list[tuple[Record, list[_Step]]] = []

    def fitted(self, window: Fitted) -> None:
        """A window's bodies, in order."""
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
                    if step.pts_s - record.data["pts_s"] <= AFTER_S:
                        steps.append(step)

    def event(self, record: Record) -> None:
        """An event; what came before it is kept with it."""
        with self._lock:
            begun = record.data["pts_s"] - BEFORE_S
            self._open.append((record, [each for each in self._steps if each.pts_s >= begun]))

    def throws(self) -> list[Throw]:
        """Everything told so far."""
        with self._lock:
            every = [(record, list(steps)) for record, steps in self._open]
        return [_throw(record, steps) for record, steps in every]


def _throw(record: Record, steps: list[_Step]) -> Throw:
    track, at = record.data["person"], record.data["pts_s"]
    frames = [(each.pts_s, each.joints_m[track]) for each in steps if track in each.joints_m]
    return Throw(
        event=record.data,
        pictures=record.pictures,
        timeline_s=np.array([pts_s - at for pts_s, _ in frames]),
        timeline=timeline_of(frames, record.data["hand"]),
        joints_m=record.joints_m,
    )
