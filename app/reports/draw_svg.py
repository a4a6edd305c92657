"""Fitted bodies and curves as SVG text that stands inline in a page.

Nothing here has a colour: elements carry classes that ``page.css`` knows. Bodies are drawn in
centimetres, curves in units that are about a pixel on a desk's screen.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES, PARENTS

VIEWS: Mapping[str, np.ndarray] = {
    "camera": np.eye(3),
    "side": np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "above": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
}
"""Where bodies are seen from: the camera, its right, above. Rows are right, down and away on the
page, in the camera's axes."""
_SOLE_CM = 3.0
_J = {name: index for index, name in enumerate(JOINT_NAMES)}

Box = tuple[float, float, float, float]


def views(joints_m: np.ndarray) -> dict[str, np.ndarray]:
    """Return joints as `VIEWS` show them.

    Args:
        joints_m: (F, 24, 3) metres, in a level camera's axes.

    Returns:
        By view (F, 24, 3) centimetres right, down and away from under the frame's own pelvis, on a
        ground that all F frames share.
    """
    at = 100 * np.asarray(joints_m, np.float64)
    # The lowest joint of all frames, so that the ground does not jump from frame to frame.
    foot = at[..., 1][np.isfinite(at[..., 1])].max(initial=-np.inf)
    at = at - at[:, :1] * np.array([1.0, 0.0, 1.0]) - np.array([0.0, foot + _SOLE_CM, 0.0])
    return {name: at @ turn.T for name, turn in VIEWS.items()}


def boxes(projected: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Box]:
    """Return for each view the (left, top, width, height) that holds all bodies of `views`; one
    width, so that panels as wide as each other have one scale."""
    bodies = list(projected)
    found: dict[str, Box] = {}
    points = {name: np.concatenate([each[name].reshape(-1, 3) for each in bodies] or [_EMPTY])
              for name in VIEWS}  # fmt: skip
    known = {name: each[np.isfinite(each).all(1)] for name, each in points.items()}
    half = 12 + max(np.abs(each[:, 0]).max(initial=60.0) for each in known.values())
    for name, each in known.items():
        top = each[:, 1].min(initial=-60.0) - 32
        end = 6.0 if name != "above" else each[:, 1].max(initial=60.0) + 12
        found[name] = (-half, top, 2 * half, end - top)
    return found


_EMPTY = np.empty((0, 3))


def body(
    points_cm: np.ndarray, box: Box, hand: str, label: str, before_cm: np.ndarray | None = None
) -> str:
    """Return a skeleton, (24, 3) of `views`, in its box; the arm of the event's hand stands out,
    and the frame before is a shade behind it."""
    parts = [f'<line class="ground" x1="{box[0]:.0f}" x2="{box[0] + box[2]:.0f}" y1="0" y2="0"/>']
    if before_cm is not None:
        parts += [_bones(before_cm, _bones_of(hand, "arm"), "ghost arm"),
                  _bones(before_cm, _bones_of(hand, "near", "middle", "off"), "ghost")]  # fmt: skip
    # The further side is drawn first; a side is as far away as its hip and shoulder.
    off_away, near_away = (
        points_cm[[_J[f"{side}_hip"], _J[f"{side}_shoulder"]], 2].mean()
        for side in (_across(hand), hand)
    )
    order = ("off", "middle", "near") if off_away >= near_away else ("near", "middle", "off")
    parts += [_bones(points_cm, _bones_of(hand, kind), kind) for kind in order]
    neck, head = points_cm[_J["neck"], :2], points_cm[_J["head"], :2]
    # Bounded below: seen from above, neck and head lie almost on each other.
    up = (head - neck) / max(float(np.linalg.norm(head - neck)), 6.0)
    parts.append(_dot(head + 6 * up, 9.5, "head"))
    parts.append(_bones(points_cm, _bones_of(hand, "arm"), "arm"))
    parts += [_dot(points_cm[_J[f"{hand}_{name}"], :2], 2.2, "joint")
              for name in ("shoulder", "elbow", "wrist")]  # fmt: skip
    view_box = " ".join(f"{number:.0f}" for number in box)
    return f'<svg class="body" viewBox="{view_box}" {_labelled(label)}>{"".join(parts)}</svg>'


def _across(hand: str) -> str:
    return "right" if hand == "left" else "left"


def _bones_of(hand: str, *kinds: str) -> list[int]:
    """Return the joints at the far end of the bones of the event's arm, its side, the middle, the
    other side: "arm", "near", "middle", "off"."""

    def kind(name: str) -> str:
        if name in (f"{hand}_elbow", f"{hand}_wrist", f"{hand}_hand"):
            return "arm"
        return {hand: "near", _across(hand): "off"}.get(name.split("_")[0], "middle")

    return [joint for joint, name in enumerate(JOINT_NAMES) if joint and kind(name) in kinds]


def _bones(points: np.ndarray, joints: Sequence[int], kind: str) -> str:
    steps, last = [], -1
    for joint in joints:
        ends = points[[PARENTS[joint], joint], :2]
        if not np.isfinite(ends).all():
            continue
        (x0, y0), (x1, y1) = ends
        # A chain of bones is one line, so that its corners are round.
        steps.append("" if PARENTS[joint] == last else f"M{x0:.1f} {y0:.1f}")
        steps.append(f"L{x1:.1f} {y1:.1f}")
        last = joint
    return f'<path class="{kind}" d="{"".join(steps)}"/>'


def _dot(at: np.ndarray, radius: float, kind: str) -> str:
    if not np.isfinite(at).all():
        return ""
    return f'<circle class="{kind}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius}"/>'


def _labelled(label: str) -> str:
    return f'role="img" aria-label="{html.escape(label)}"'


@dataclass(frozen=True)
class Axis:
    """A measure's range, ``low`` to ``high``, between round numbers, with ``ticks``; its ``unit``
    and the ``digits`` of its numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]
    unit: str
    digits: int

    @classmethod
    def of(cls, values: Iterable[float | None], unit: str) -> Axis:
        """Return an axis that holds all values that are numbers."""
        known = [value for value in values if value is not None and math.isfinite(value)] or [0, 1]
        low, high = min(known), max(known)
        # Steps that are read easily: 1, 2, 5 and their decades, and fractions of a turn for angles.
        decades = [m * 10.0**e for e in range(-2, 12) for m in (1, 2, 5)]
        degrees = [5.0, 10, 15, 20, 30, 45, 60, 90, 180]

        def ends(step: float) -> tuple[int, int]:
            first = math.floor(low / step)
            # Equal ends would divide by zero in `part`.
            return first, max(math.ceil(high / step), first + 1)

        steps = degrees + decades if unit == "deg" else decades
        step = next((each for each in steps if np.ptp(ends(each)) <= 5), None)
        # Values so large that no step of the list is wide enough.
        step = step or max(-low, high)
        first, last = ends(step)
        # Rounded, because 3 * 0.1 is not 0.3.
        ticks = tuple(round(step * number, 6) for number in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks, unit, 1 if unit == "deg" else 2)

    def part(self, value: float) -> float:
        """Return where a value lies, from 0 at ``low`` to 1 at ``high``."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, eq=False)
class Line:
    """An event's curve: ``values`` (K,) at ``times_s`` (K,), NaN where unknown, in colour number
    ``colour``; the estimate at the event, with its interval, and what the fit shows there."""

    colour: int
    times_s: np.ndarray
    values: np.ndarray
    value: float | None
    low: float | None
    high: float | None
    fitted: float | None


WIDTH, HEIGHT = 280.0, 168.0
_LEFT, _RIGHT, _TOP, _BOTTOM, _STRIP = 36.0, 10.0, 10.0, 22.0, 58.0


def colour(number: int) -> str:
    """Return the classes of an event's colour: eight, then the same with dashes."""
    return f"k{number % 8}" + (f" dash{min(number // 8, 2)}" if number >= 8 else "")


def curves(
    lines: Sequence[Line],
    axis: Axis,
    span_s: tuple[float, float],
    band_s: tuple[float | None, float | None] | None,
    label: str,
    *,
    moment: str,
    estimates: bool = True,
) -> str:
    """Return curves over the time from the event.

    Args:
        lines: The curves. One has its estimate and interval at 0; those of several stand in a strip
            of their own on the right.
        axis: The measure's.
        span_s: The time that is shown.
        band_s: Where the pictures are from; an end that is None is the event.
        label: The text for screen readers.
        moment: The name of the time 0.
        estimates: Whether there are any, and so a strip.
    """
    several = len(lines) > 1
    strip = several and estimates
    right = WIDTH - _RIGHT - (_STRIP if strip else 0.0)

    def x(time_s: float) -> float:
        return _LEFT + (time_s - span_s[0]) / (span_s[1] - span_s[0]) * (right - _LEFT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - axis.part(value) * (HEIGHT - _TOP - _BOTTOM)

    parts = []
    if band_s is not None:
        first, last = (x(end if end is not None else 0.0) for end in band_s)
        parts.append(f'<rect class="band" x="{first:.1f}" y="{_TOP}" width="{last - first:.1f}" '
                     f'height="{HEIGHT - _TOP - _BOTTOM}"/>')  # fmt: skip
    for tick in axis.ticks:
        kind = "grid zero" if tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{_LEFT} {y(tick):.1f}H{WIDTH - _RIGHT}"/>'
                     f'<text class="y" x="{_LEFT - 6}" y="{y(tick) + 3.5:.1f}">{signed(tick)}'
                     "</text>")  # fmt: skip
    for tick in np.arange(math.ceil(2 * span_s[0]), math.floor(2 * span_s[1]) + 1) / 2:
        word = f"{signed(tick)} s" if tick else html.escape(moment)
        # The last word ends where the curves do.
        kind = "x last" if x(tick) > right - 12 else "x"
        parts.append(f'<text class="{kind}" x="{x(tick):.1f}" y="{HEIGHT - 6}">{word}</text>')
    parts.append(f'<path class="moment" d="M{x(0):.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
    if strip:
        parts.append(
            f'<text class="x" x="{right + 0.5 * _STRIP + 4}" y="{HEIGHT - 6}">estimates</text>'
        )
    pitch = min(9.0, (_STRIP - 14) / max(len(lines), 1))
    for number, line in enumerate(lines):
        at = x(0) if not several else right + 11 + pitch * (number + 0.5)
        at += 0 if not several else 0.5 * (_STRIP - 14 - pitch * len(lines))
        marks = [f'<path class="curve" d="{_path(line, axis, x, y)}"/>']
        if line.low is not None and line.high is not None:
            cap = 3.5 if not several else 0.3 * pitch
            marks.append(f'<path class="interval" d="M{at:.1f} {y(line.low):.1f}V{y(line.high):.1f}'
                         f"M{at - cap:.1f} {y(line.low):.1f}h{2 * cap:.1f}"
                         f'M{at - cap:.1f} {y(line.high):.1f}h{2 * cap:.1f}"/>')  # fmt: skip
        if line.fitted is not None and not several:
            marks.append(_dot(np.array([at, y(line.fitted)]), 3.4, "fitted"))
        if line.value is not None:
            marks.append(_dot(np.array([at, y(line.value)]), 3.4 if not several else 3.0, "value"))
        # Outside of the drawing until the page's script moves it.
        marks.append('<circle class="at" r="3.2" cx="-9" cy="-9"/>')
        parts.append(f'<g class="{colour(line.colour)}" data-event="{line.colour}">'
                     f"{''.join(marks)}</g>")  # fmt: skip
    parts.append(
        f'<path class="cursor" d="M0 {_TOP}V{HEIGHT - _BOTTOM}" transform="translate(-9)"/>'
    )
    if not any(np.isfinite(line.values).any() or line.value is not None for line in lines):
        parts.append(f'<text class="x" x="{0.5 * (_LEFT + right)}" y="{0.45 * HEIGHT}">'
                     "not measurable</text>")  # fmt: skip
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" data-left="{_LEFT}" '
        f'data-right="{right}" data-top="{_TOP}" data-bottom="{HEIGHT - _BOTTOM}" '
        f"{_labelled(label)}>"
        f"{''.join(parts)}</svg>"
    )


def _path(line: Line, axis: Axis, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """Return the curve, broken where a value is unknown and where an angle passes 180 degrees."""
    steps, last = [], math.nan
    for time_s, value in zip(line.times_s, line.values):
        if math.isfinite(value):
            # A step of more than half a turn is an angle that went past 180 degrees.
            joined = abs(value - last) <= (180 if axis.unit == "deg" else math.inf)
            # A point alone is a line of no length, which round caps make a dot.
            steps.append(f"{'L' if joined else 'M'}{x(time_s):.1f} {y(value):.1f}")
            steps.append("" if joined else "h0")
        last = value
    return "".join(steps)


def interval(line: Line, axis: Axis) -> str:
    """Return an estimate, its interval and the fitted value on a measure's axis. The numbers beside
    it say the same, so it is hidden from screen readers."""
    width, middle = 120.0, 8.0

    def x(value: float) -> float:
        return 5 + axis.part(value) * (width - 10)

    parts = [f'<path class="track" d="M5 {middle}H{width - 5}"/>']
    if line.low is not None and line.high is not None:
        parts.append(f'<path class="range" d="M{x(line.low):.1f} {middle}H{x(line.high):.1f}"/>')
    if line.fitted is not None:
        parts.append(_dot(np.array([x(line.fitted), middle]), 3.6, "fitted"))
    if line.value is not None:
        parts.append(_dot(np.array([x(line.value), middle]), 3.6, "value"))
    return (f'<svg class="bar" viewBox="0 0 {width:.0f} 16" aria-hidden="true">'
            f"{''.join(parts)}</svg>")  # fmt: skip


def signed(value: float) -> str:
    """Return a tick's number, shortest, with a true minus."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
