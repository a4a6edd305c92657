"""An event as a page shows it, and the scales that all events of a page share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.reports.draw_svg import Axis, Box, Line, boxes, views
from pipeline.events.motion import Motion


@dataclass(frozen=True, eq=False)
class ReportedEvent:
    """An event as the page shows it.

    Attributes:
        motion: The motion it is an event of.
        event: The JSON object of the event, as `app.reports.record.record_of` makes it.
        pictures: JPEGs of the frames [t-2, t-1, t, t+1], cuts of one size.
        timeline_s: (K,) rises, seconds from the event.
        timeline: Measures by name, (K,) in their units, as the fitted body shows them, NaN where
            unknown.
        joints_m: (4, 24, 3) the four frames' fitted joints, metres, in the camera's axes.
    """

    motion: Motion
    event: Mapping[str, Any]
    pictures: Sequence[bytes]
    timeline_s: np.ndarray
    timeline: Mapping[str, np.ndarray]
    joints_m: np.ndarray

    @property
    def frame(self) -> int:
        """The event's frame, by its number in the source."""
        return self.event[self.motion.frame_key]

    @property
    def frames(self) -> list[tuple[int, int]]:
        """The four frames: how far from the event, and the number in the source."""
        # An event without these numbers has the usual window about it.
        numbers = self.event.get("frames") or range(self.frame - 2, self.frame + 2)
        return [(number - self.frame, number) for number in numbers]

    @property
    def key(self) -> int:
        """The event's index among the four frames."""
        return next((index for index, (offset, _) in enumerate(self.frames) if offset == 0), 2)

    @property
    def hand(self) -> str:
        return "left" if self.event.get("hand") == "left" else "right"

    def after_s(self, frames: int) -> float | None:
        """Return the seconds from the event to a frame; None beyond the timeline."""
        # The bodies have exact times; a frame without a body takes the timeline's.
        for body in self.event.get("bodies") or ():
            if body.get("frame") == self.frame + frames:
                return float(body["pts_s"]) - float(self.event["pts_s"])
        if not len(self.timeline_s):
            return None
        at = int(np.abs(self.timeline_s).argmin()) + frames
        return float(self.timeline_s[at]) if 0 <= at < len(self.timeline_s) else None

    @property
    def source(self) -> str:
        """The source's name, not escaped for HTML."""
        return str(self.event.get("source") or "unknown source")

    def text(self, key: str) -> str:
        """Return the event's text under a key, not escaped for HTML; empty without it."""
        value = self.event.get(key)
        return "" if value is None else str(value)

    def number(self, key: str) -> float | None:
        """Return the number under a key, None if there is none."""
        return as_number(self.event.get(key))

    def line(self, name: str, number: int) -> Line:
        """Return a measure's curve and estimate, in the colour of event ``number`` from 0."""
        estimate = (self.event.get("measures") or {}).get(name) or {}
        # A measure that the timeline lacks is unknown everywhere.
        values = np.asarray(self.timeline.get(name, np.full(len(self.timeline_s), np.nan)), float)
        numbers = (as_number(estimate.get(part)) for part in ("value", "low", "high", "fitted"))
        return Line(number, np.asarray(self.timeline_s, float), values, *numbers)


_TEXTS = ("unit", "definition")


@dataclass(frozen=True, eq=False)
class Scales:
    """The scales that all events of a page share, so that they can be compared by eye.

    Attributes:
        axes: Each measure's axis.
        definitions: Each measure's definition.
        span_s: The time that curves span.
        projected: Each event's bodies as `views` shows them.
        boxes: The box that holds them, by view.
    """

    axes: Mapping[str, Axis]
    definitions: Mapping[str, str]
    span_s: tuple[float, float]
    projected: Sequence[Mapping[str, np.ndarray]]
    boxes: Mapping[str, Box]

    @classmethod
    def of(cls, events: Sequence[ReportedEvent], motion: Motion) -> Scales:
        """Return the scales that events of one motion share."""
        known = {
            name: (each.unit, each.definition) for name, each in motion.measures.definitions.items()
        }
        for event in events:
            for name, each in (event.event.get("measures") or {}).items():
                before = known.get(name, ("", ""))
                if each:
                    unit, definition = (str(each.get(part) or "") for part in _TEXTS)
                    known[name] = (unit or before[0], definition or before[1])
        axes = {}
        for name, (unit, _) in known.items():
            lines = [event.line(name, 0) for event in events]
            numbers = [value for line in lines for value in line.values]
            numbers += [part for a in lines for part in (a.value, a.low, a.high, a.fitted)]
            axes[name] = Axis.of(numbers, unit)
        times = [time for event in events for time in event.timeline_s]
        span = (min(times, default=-1.0), max(times, default=0.5))
        # At least a tenth of a second on both sides: a span of no length cannot be drawn.
        span = (min(span[0], -0.1), max(span[1], 0.1))
        projected = [views(event.joints_m) for event in events]
        texts = {name: text for name, (_, text) in known.items()}
        return cls(axes, texts, span, projected, boxes(projected))


def as_number(value: Any) -> float | None:
    """Return a finite number, or None."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None
