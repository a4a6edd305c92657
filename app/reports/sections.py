"""The parts of a page of throws: one throw's section, the comparison of several, how to read it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from app.reports.draw_svg import VIEWS, Axis, Line, body, colour, curves, interval
from app.reports.reported_event import ReportedEvent, Scales, as_number

_e = html.escape
_NONE = '<abbr class="none" title="not measurable">\N{EN DASH}</abbr>'
_SEEN = {
    "camera": "from the camera",
    "side": "from the camera\N{RIGHT SINGLE QUOTATION MARK}s right",
    "above": "from above, the camera below",
}


def section(throw: ReportedEvent, number: int, several: bool, scales: Scales) -> str:
    """One throw, ``number`` from 0: pictures, bodies, numbers, curves."""
    name = f"throw-{number + 1}"
    which = f'<span class="number">Throw {number + 1}</span> ' if several else ""
    back = '<a class="back" href="#top">All throws</a>' if several else ""
    return (
        f'<section class="throw {colour(number)}" id="{name}" aria-labelledby="{name}-name">'
        f'<div class="head"><h2 id="{name}-name">{chip(number)}{which}{_e(throw.source)}</h2>'
        f"{back}</div>{_facts(throw)}"
        f'<div class="pictures">{_pictures(throw)}</div>{_bodies(throw, number, scales)}'
        f"<h3>At the release</h3>{_table(throw, number, scales)}"
        f"<h3>Over time</h3>{_curves([throw], number, scales)}</section>"
    )


def _facts(throw: ReportedEvent) -> str:
    event = throw.event
    confidence, pts = as_number(event.get("confidence")), as_number(event.get("pts_s"))
    facts = [("Release", f"frame {throw.frame}")]
    facts += [("In the source", f"{pts:.3f} s")] if pts is not None else []
    facts += [("Time", _time(str(event["time"])))] if event.get("time") else []
    facts.append(("Throwing hand", _e(str(event.get("hand") or "unknown"))))
    facts += [("Confidence", f"{100 * confidence:.0f} %")] if confidence is not None else []
    facts += [("Person", _e(str(event["person"])))] if event.get("person") is not None else []
    facts += [("Event", f"<code>{_e(str(event['id']))}</code>")] if event.get("id") else []
    found = "".join(f"<div><dt>{name}</dt><dd>{told}</dd></div>" for name, told in facts)
    return f'<dl class="facts">{found}</dl>'


def _time(text: str) -> str:
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        return _e(text)
    shown = f"{told:%Y-%m-%d %H:%M:%S} {told.tzname() or ''}"
    return f'<time datetime="{_e(text)}">{_e(shown.strip())}</time>'


def _pictures(throw: ReportedEvent) -> str:
    figures, mark = [], ' class="release"'
    for (offset, frame), picture in zip(throw.frames, throw.pictures):
        after = throw.after_s(offset)
        told = f"frame {frame}"
        if after and offset:
            told += f", {'+' if after > 0 else ''}{_figure(1000 * after, 0)} ms"
        figures.append(
            f'<figure{mark if offset == 0 else ""}><img alt="Frame {frame}, '
            f'{_offset(offset)}: the thrower with the fitted body over the picture" '
            f'src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
            f"<figcaption><b>{_offset(offset)}</b> {told}</figcaption></figure>"
        )
    return "".join(figures)


def _offset(frames: int) -> str:
    sign = "+" if frames > 0 else "\N{MINUS SIGN}"
    return f"t {sign} {abs(frames)}" if frames else "release"


def _views(name: str) -> str:
    choices = "".join(
        f'<label><input type="radio" name="{name}-view" value="{view}"'
        f"{' checked' if view == 'camera' else ''}>{view}</label>"
        for view in (*VIEWS, "all")
    )
    return f'<fieldset class="choice"><legend>Bodies seen from</legend>{choices}</fieldset>'


def _bodies(throw: ReportedEvent, number: int, scales: Scales) -> str:
    """The four frames' skeletons, a row for each view."""
    rows = []
    for view, told in _SEEN.items():
        seen = scales.projected[number][view]
        drawn = [
            f"<div><span>{_offset(offset)}</span>"
            + body(seen[index], scales.boxes[view], throw.hand,
                   f"The fitted body {told}, {_offset(offset)}", seen[index - 1] if index else None)
            + "</div>"
            for index, (offset, _) in enumerate(throw.frames)
            if index < len(seen)
        ]  # fmt: skip
        rows.append(f'<div class="row" data-view="{view}"><p>{told}</p>'
                    f'<div class="four">{"".join(drawn)}</div></div>')  # fmt: skip
    return f'<div class="bodies">{_views(f"throw-{number + 1}")}{"".join(rows)}</div>'


def _table(throw: ReportedEvent, number: int, scales: Scales) -> str:
    rows = []
    for name, axis in scales.axes.items():
        line = throw.line(name, number)
        rows.append(
            f'<tr><th scope="row">{_measure(name, scales)}</th>'
            f'<td class="estimate">{_value(line.value, axis)}</td>'
            f'<td class="between"><span>{_range(line, axis)}</span>{interval(line, axis)}</td>'
            f'<td class="fit">{_value(line.fitted, axis)}</td><td class="unit">{_e(axis.unit)}</td>'
            f'<td class="definition">{_e(scales.definitions[name])}</td></tr>'
        )
    return (
        '<table class="measures"><thead><tr><th scope="col">Measure</th>'
        '<th scope="col"><i class="dot value"></i>Estimate</th>'
        '<th scope="col"><i class="dash"></i>95&nbsp;% interval</th>'
        '<th scope="col"><i class="dot fitted"></i>Fitted body</th>'
        '<th scope="col" class="unit">Unit</th>'
        '<th scope="col" class="definition">Definition</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _curves(throws: Sequence[ReportedEvent], first: int, scales: Scales) -> str:
    """Small multiples, one for each measure, of throws that are numbered from ``first``."""
    figures = []
    several = len(throws) > 1
    ends = [throws[0].after_s(offset) for offset, _ in throws[0].frames]
    band = None if several else (ends[0], ends[-1])
    for name, axis in scales.axes.items():
        lines = [throw.line(name, first + index) for index, throw in enumerate(throws)]
        said = "" if several else _estimate(lines[0], axis)
        label = f"{_name(name)} over the time from the release, {axis.unit}"
        label += f" of {count(len(lines), 'throw')}" if several else f". {said}"
        figures.append(
            f'<figure data-measure="{_e(name)}"><figcaption><b>{_measure(name, scales)}</b> '
            f'<span class="unit">{_e(axis.unit)}</span>'
            f"<output>{_short(lines[0], axis, several)}</output>"
            f"</figcaption>{curves(lines, axis, scales.span_s, band, label)}</figure>"
        )
    scrub = "" if several else (
        f'<label class="scrub" hidden>Fitted body at <input type="range" min="0" '
        f'max="{max(len(throws[0].timeline_s) - 1, 0)}"><output></output></label>')  # fmt: skip
    figures.append(_key(several))
    return f'{scrub}<div class="curves" data-first="{first}">{"".join(figures)}</div>'


def _estimate(line: Line, axis: Axis) -> str:
    if line.value is None:
        return "Not measurable at the release"
    told = f"Estimate at the release {_figure(line.value, axis.digits)}"
    told += f", 95 % interval {_range(line, axis)}" if None not in (line.low, line.high) else ""
    fitted = line.fitted
    return told + (f", fitted {_figure(fitted, axis.digits)}" if fitted is not None else "")


def _short(line: Line, axis: Axis, several: bool) -> str:
    return "" if several or line.value is None else _figure(line.value, axis.digits)


def _key(several: bool) -> str:
    where = "at the right" if several else "at the release"
    more = "" if several else (
        '<li><i class="dot fitted"></i>fitted body at the release</li>'
        '<li><i class="four"></i>the four pictures</li>')  # fmt: skip
    return (f'<ul class="key"><li><i class="line"></i>fitted body, frame by frame</li>'
            f'<li><i class="dot value barred"></i>'
            f"estimate and 95&nbsp;% interval, {where}</li>{more}</ul>")  # fmt: skip


def comparison(throws: Sequence[ReportedEvent], scales: Scales) -> str:
    """Several throws together: numbers, curves over each other, poses side by side."""
    legend = "".join(
        f'<li><label>{chip(number)}<input type="checkbox" data-throw="{number}" checked> '
        f"{number + 1} <span>{_e(throw.source)}</span></label></li>"
        for number, throw in enumerate(throws)
    )
    poses = []
    for view, told in _SEEN.items():
        drawn = []
        for number, throw in enumerate(throws):
            label = f"Throw {number + 1} at its release, {told}"
            svg = body(
                scales.projected[number][view][throw.key], scales.boxes[view], throw.hand, label
            )
            drawn.append(f'<a class="{colour(number)}" data-throw="{number}" '
                         f'href="#throw-{number + 1}">{svg}'
                         f"<span>{number + 1}</span></a>")  # fmt: skip
        poses.append(f'<div class="row" data-view="{view}"><p>{told}</p>'
                     f'<div class="poses">{"".join(drawn)}</div></div>')  # fmt: skip
    return (
        '<section class="comparison" id="comparison" aria-labelledby="comparison-name">'
        '<div class="head"><h2 id="comparison-name">All throws</h2></div>'
        f"{_compared(throws, scales)}"
        f'<div class="legend"><p>Show</p><ul>{legend}</ul></div>'
        f"<h3>Over time, from each release</h3>{_curves(throws, 0, scales)}"
        f'<h3>At the release</h3><div class="bodies">{_views("comparison")}{"".join(poses)}</div>'
        "</section>"
    )


def _compared(throws: Sequence[ReportedEvent], scales: Scales) -> str:
    """Throws by measures, with mean and spread."""
    head, rows, feet = [], [], {"Mean": list[str](), "Spread (SD)": list[str]()}
    for name, axis in scales.axes.items():
        head.append(f'<th scope="col">{_measure(name, scales)} '
                    f'<small>{_e(axis.unit)}</small></th>')  # fmt: skip
        known = [value for throw in throws if (value := throw.line(name, 0).value) is not None]
        feet["Mean"].append(f"<td>{_value(float(np.mean(known)) if known else None, axis)}</td>")
        spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
        feet["Spread (SD)"].append(f"<td>{_value(spread, axis)}</td>")
    for number, throw in enumerate(throws):
        lines = [(throw.line(name, number), axis) for name, axis in scales.axes.items()]
        cells = [f"<td>{_value(line.value, axis)}<small>{_range(line, axis)}</small></td>"
                 for line, axis in lines]  # fmt: skip
        rows.append(f'<tr data-throw="{number}"><th scope="row"><a href="#throw-{number + 1}">'
                    f"{chip(number)}{number + 1} <span>{_e(throw.source)}</span></a></th>"
                    f"{''.join(cells)}</tr>")  # fmt: skip
    titles = {"Mean": "of the estimates", "Spread (SD)": "standard deviation of the estimates"}
    foot = "".join(f'<tr><th scope="row"><abbr title="{titles[name]}">{name}</abbr></th>'
                   f"{''.join(cells)}</tr>" for name, cells in feet.items())  # fmt: skip
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Throws by measures"><table>'
        f'<thead><tr><th scope="col">Throw</th>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def reading(scales: Scales) -> str:
    """What the numbers are, in words."""
    terms = "".join(
        f"<div><dt>{_e(_name(name))} <small>{_e(scales.axes[name].unit)}</small></dt>"
        f"<dd>{_e(text)}</dd></div>"
        for name, text in scales.definitions.items()
    )
    return f"""<section class="reading" aria-labelledby="reading-name">
<h2 id="reading-name">How to read this</h2>
<p><b>Estimate</b> is what the throw measured at the release, corrected by what fits are known to
get wrong. Its interval is made to hold the true value 95 times in 100, for throws and views like
those that it was learned from; a wide one owes much to what throws are like. <b>Fitted body</b> is
what the fitted mesh itself shows, uncorrected; curves and skeletons are the fitted body alone.</p>
<dl>{terms}</dl></section>"""


def _figure(value: float, digits: int) -> str:
    """A number as it is shown: rounded, never minus nothing, with a true minus."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _value(value: float | None, axis: Axis) -> str:
    return _NONE if value is None else _figure(value, axis.digits)


def _range(line: Line, axis: Axis) -> str:
    if line.low is None or line.high is None:
        return _NONE
    return f"{_figure(line.low, axis.digits)} to {_figure(line.high, axis.digits)}"


def _name(measure: str) -> str:
    return measure.replace("_", " ").capitalize()


def _measure(name: str, scales: Scales) -> str:
    return f'<abbr title="{_e(scales.definitions[name])}">{_e(_name(name))}</abbr>'


def chip(number: int) -> str:
    """A throw's colour."""
    return f'<i class="chip {colour(number)}"></i>'


def count(number: int, word: str) -> str:
    """So many of them."""
    return f"{number} {word}{'' if number == 1 else 's'}"
