"""Events as one HTML file for analysis: pictures, bodies, curves, numbers.

The file stands alone: no network, no other file, and without scripts all but what a pointer shows.
Its markup is in ``templates``, which escape every text; its drawings are of `app.reports.draw_svg`.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.outputs.atomic_file import written_whole
from app.outputs.base import OutputError
from app.reports.draw_svg import Axis, Line, body, colour, curves, interval
from app.reports.reported_event import ReportedEvent, Scales
from pipeline.events.motion import Motion, capitalised

__all__ = ["ReportedEvent", "write_page"]

VIEWS: Mapping[str, str] = {
    "camera": "from the camera",
    "side": "from the camera\N{RIGHT SINGLE QUOTATION MARK}s right",
    "above": "from above, the camera below",
}
"""The words for each of `draw_svg.VIEWS`."""


def write_page(
    folder: Path,
    events: Sequence[ReportedEvent],
    motion: Motion,
    title: str = "",
    name: str = "index.html",
) -> Path:
    """Write ``folder``/index.html.

    Args:
        folder: Made if it is not there.
        events: The events that the page shows, in order.
        motion: The motion that they are events of.
        title: The page's; empty: the motion's own.
        name: The file's, where it is another one.

    Returns:
        The file's path.

    Raises:
        OutputError: The file cannot be written.
    """
    path = folder / name
    html = _Page(events, motion).html(title or motion.report.title)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            part.write_text(html, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    return path


class _Page:
    """The texts and drawings of events for the templates, which escape every text."""

    def __init__(self, events: Sequence[ReportedEvent], motion: Motion) -> None:
        self._events = events
        self._words = motion.report
        self._corrected = motion.measures.estimator is not None
        self._scales = Scales.of(events, motion)

    def html(self, title: str) -> str:
        style, script = (
            files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
        )
        # The page allows its own style and script by their hashes, and nothing from elsewhere.
        policy = (
            f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
            f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
        )
        environment = _environment()
        environment.globals |= {
            "words": self._words, "corrected": self._corrected, "scales": self._scales,
            "views": VIEWS, "colour": colour, "count": _count,
            "offset_name": self._offset_name, "still_value": self._still_value,
            "mean": self._mean, "spread": self._spread, "body_svg": self._body_svg,
            "pose_svg": self._pose_svg, "curves_svg": self._curves_svg,
            "interval_svg": lambda line, axis: Markup(interval(line, axis)),
        }  # fmt: skip
        return environment.get_template("page.html").render(
            title=title, policy=Markup(policy), style=Markup(style), script=Markup(script),
            events=self._events, several=len(self._events) > 1,
            sources=len({event.source for event in self._events}), data=self._data(),
        )  # fmt: skip

    def _data(self) -> dict[str, Any]:
        """Return the data that the script needs."""

        def rounded(values: np.ndarray, digits: int) -> list[float | None]:
            # JSON has no NaN; a number that is not known is null.
            return [round(float(each), digits) if math.isfinite(each) else None for each in values]

        axes = self._scales.axes
        return {
            "span": self._scales.span_s,
            "axes": {
                name: {"low": axis.low, "high": axis.high, "digits": axis.digits}
                for name, axis in axes.items()
            },
            "events": [
                {"times": rounded(np.asarray(event.timeline_s, float), 4),
                 "curves": {name: rounded(event.line(name, number).values, axis.digits)
                            for name, axis in axes.items()}}
                for number, event in enumerate(self._events)
            ],
        }  # fmt: skip

    def _offset_name(self, frames: int) -> str:
        """Return the name of a frame by its distance from the event."""
        sign = "+" if frames > 0 else "\N{MINUS SIGN}"
        return f"t {sign} {abs(frames)}" if frames else self._words.moment

    def _best(self, line: Line) -> float | None:
        """Return the number for an event: its estimate or, where none is learned, the fitted
        body's."""
        return line.value if self._corrected else line.fitted

    def _known(self, events: Sequence[ReportedEvent], name: str) -> list[float]:
        best = (self._best(event.line(name, 0)) for event in events)
        return [value for value in best if value is not None]

    def _mean(self, events: Sequence[ReportedEvent], name: str) -> float | None:
        known = self._known(events, name)
        return float(np.mean(known)) if known else None

    def _spread(self, events: Sequence[ReportedEvent], name: str) -> float | None:
        known = self._known(events, name)
        return float(np.std(known, ddof=1)) if len(known) > 1 else None

    def _still_value(self, shown: Sequence[ReportedEvent], name: str) -> str:
        """Return the number beside a curve while the pointer is elsewhere."""
        best = self._best(shown[0].line(name, 0)) if len(shown) == 1 else None
        return "" if best is None else _figure(best, self._scales.axes[name].digits)

    def _body_svg(self, event: ReportedEvent, number: int, view: str, index: int) -> Markup:
        """Return the body in one of an event's frames, with the frame before as a shade."""
        points = self._scales.projected[number][view]
        label = f"The fitted body {VIEWS[view]}, {self._offset_name(event.frames[index][0])}"
        before = points[index - 1] if index else None
        return Markup(body(points[index], self._scales.boxes[view], event.hand, label, before))

    def _pose_svg(self, event: ReportedEvent, number: int, view: str) -> Markup:
        """Return the body at the event."""
        words = self._words
        label = f"{capitalised(words.noun)} {number + 1} at its {words.moment}, {VIEWS[view]}"
        points = self._scales.projected[number][view][event.key]
        return Markup(body(points, self._scales.boxes[view], event.hand, label))

    def _curves_svg(self, shown: Sequence[ReportedEvent], first: int, name: str) -> Markup:
        """Return one measure's curves of events that are numbered from ``first``."""
        axis, several = self._scales.axes[name], len(shown) > 1
        lines = [event.line(name, first + index) for index, event in enumerate(shown)]
        label = f"{_measure_name(name)} over the time from the {self._words.moment}, {axis.unit}"
        if several:
            label += f" of {_count(len(lines), self._words.noun, self._words.plural)}"
        else:
            label += f". {self._in_words(lines[0], axis)}"
        ends = [shown[0].after_s(offset) for offset, _ in shown[0].frames]
        band = None if several else (ends[0], ends[-1])
        return Markup(
            curves(lines, axis, self._scales.span_s, band, label, moment=self._words.moment,
                   estimates=self._corrected)
        )  # fmt: skip

    def _in_words(self, line: Line, axis: Axis) -> str:
        """Return an event's numbers in words, for a screen reader."""
        moment = self._words.moment
        if self._best(line) is None:
            return f"Not measurable at the {moment}"
        fitted = None if line.fitted is None else _figure(line.fitted, axis.digits)
        if line.value is None:
            return f"Fitted body at the {moment} {fitted}"
        said = f"Estimate at the {moment} {_figure(line.value, axis.digits)}"
        if line.low is not None and line.high is not None:
            low, high = (_figure(each, axis.digits) for each in (line.low, line.high))
            said += f", 95 % interval {low} to {high}"
        return said if fitted is None else f"{said}, fitted {fitted}"


def _environment() -> Environment:
    """Return the templates. They escape every text but a `Markup`, which only this module makes."""
    # Strict, so that a misspelled name in a template is an error and not an empty text.
    made = Environment(
        loader=PackageLoader("app.reports"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    made.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "capitalised": capitalised,
        "figure": _figure,
        "measure_name": _measure_name,
        "shown_time": _shown_time,
        "with_article": lambda noun: f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}",
        "zip": zip,
    }
    return made


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _figure(value: float, digits: int) -> str:
    """Return a number as text: rounded, without a minus before zero, with a true minus."""
    # Adding 0.0 makes 0.0 of -0.0.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _measure_name(measure: str) -> str:
    return measure.replace("_", " ").capitalize()


def _shown_time(text: str) -> str | None:
    """Return an ISO time as it is shown; None for a text that is no time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return f"{time:%Y-%m-%d %H:%M:%S} {time.tzname() or ''}".strip()


def _count(number: int, noun: str, plural: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun if number == 1 else plural}"
