"""A throw as a page shows it, and the scales that all throws of a page share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.reports.draw_svg import Axis, Box, Line, boxes, views
from pipeline.events.motions.throw.measures import MEASURES


@dataclass(frozen=True, eq=False)
class Throw:
    """A throw as the page shows it.

    ``event`` is the JSON object of the event (schema ``bodystream.release/1``); ``pictures`` JPEGs
    of the frames [t-2, t-1, t, t+1], crops of one size. ``timeline_s`` (K,) rises, seconds from the
    release; ``timeline`` has measures by name, (K,) in the units of `MEASURES`, as the fitted body
    shows them, NaN where unknown. ``joints_m`` (4, 24, 3) are the four frames' fitted joints,
    metres, in the camera's axes.
    """

    event: Mapping[str, Any]
    pictures: Sequence[bytes]
    timeline_s: np.ndarray
    timeline: Mapping[str, np.ndarray]
    joints_m: np.ndarray

    @property
    def frames(self) -> list[tuple[int, int]]:
        """The four frames: how far from the release, and the number in the source."""
        release = self.event["release_frame"]
        numbers = self.event.get("frames") or range(release - 2, release + 2)
        return [(number - release, number) for number in numbers]

    @property
    def key(self) -> int:
        """The release's place among the four."""
        return next((index for index, (offset, _) in enumerate(self.frames) if offset == 0), 2)

    @property
    def hand(self) -> str:
        return "left" if self.event.get("hand") == "left" else "right"

    def after_s(self, frames: int) -> float | None:
        """Seconds from the release to a frame; None beyond the timeline."""
        for body in self.event.get("bodies") or ():
            if body.get("frame") == self.event["release_frame"] + frames:
                return float(body["pts_s"]) - float(self.event["pts_s"])
        if not len(self.timeline_s):
            return None
        at = int(np.abs(self.timeline_s).argmin()) + frames
        return float(self.timeline_s[at]) if 0 <= at < len(self.timeline_s) else None

    @property
    def source(self) -> str:
        """The source's name, whatever it holds: not HTML yet."""
        return str(self.event.get("source") or "unknown source")

    def line(self, name: str, number: int) -> Line:
        """A measure's curve and estimate, as throw ``number`` from 0."""
        told = (self.event.get("measures") or {}).get(name) or {}
        values = np.asarray(self.timeline.get(name, np.full(len(self.timeline_s), np.nan)), float)
        numbers = (as_number(told.get(part)) for part in ("value", "low", "high", "fitted"))
        return Line(number, np.asarray(self.timeline_s, float), values, *numbers)


_TEXTS = ("unit", "definition")


@dataclass(frozen=True, eq=False)
class Scales:
    """What all throws of a page share, so that they can be compared by eye.

    Each measure's axis and ``definitions``, the time that curves span, what is ``seen`` of each
    throw's bodies (`views`), and the ``boxes`` that hold them.
    """

    axes: Mapping[str, Axis]
    definitions: Mapping[str, str]
    span_s: tuple[float, float]
    seen: Sequence[Mapping[str, np.ndarray]]
    boxes: Mapping[str, Box]

    @classmethod
    def of(cls, throws: Sequence[Throw]) -> Scales:
        told = {name: (each.unit, each.definition) for name, each in MEASURES.items()}
        for throw in throws:
            for name, each in (throw.event.get("measures") or {}).items():
                before = told.get(name, ("", ""))
                if each:
                    unit, definition = (str(each.get(part) or "") for part in _TEXTS)
                    told[name] = (unit or before[0], definition or before[1])
        axes = {}
        for name, (unit, _) in told.items():
            lines = [throw.line(name, 0) for throw in throws]
            known = [each for line in lines for each in line.values]
            known += [each for a in lines for each in (a.value, a.low, a.high, a.fitted)]
            axes[name] = Axis.of(known, unit)
        times = [time for throw in throws for time in throw.timeline_s]
        span = (min(times, default=-1.0), max(times, default=0.5))
        span = (min(span[0], -0.1), max(span[1], 0.1))
        seen = [views(throw.joints_m) for throw in throws]
        return cls(axes, {name: text for name, (_, text) in told.items()}, span, seen, boxes(seen))


def as_number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None
