"""The window around an event, out of the frames before and after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.frame import Frame, Window


def spaced(frames: Sequence[Frame], event_id: int, period_s: float) -> list[Frame]:
    """Of consecutive frames the event's and, in a faster source, those nearest to every whole
    ``period_s`` before and after it; all of them in one that is hardly faster. Raises KeyError
    when the event's is not among them."""
    t = next((k for k, frame in enumerate(frames) if frame.id == event_id), None)
    if t is None:
        raise KeyError(f"frame {event_id} is no longer kept")
    times = np.array([frame.pts_s for frame in frames])
    if len(times) < 2 or float(np.median(np.diff(times))) > period_s / 1.5:
        return list(frames)
    first, last = (round((times[end] - times[t]) / period_s) for end in (0, -1))
    at = times[t] + period_s * np.arange(first, last + 1)
    picked = {int(np.abs(times - each).argmin()) for each in at} | {t}
    return [frames[k] for k in sorted(picked)]


def event_window(frames: Sequence[Frame], event_id: int) -> Window:
    """The window [t-2, t-1, t, t+1] around frame ``event_id`` = t, which is its key frame.

    ``frames`` are consecutive frames of one source, or `spaced` ones, that hold at least t; the
    window is shorter where they do not reach, and where a discontinuity lies between. Raises
    KeyError when t is not among them.
    """
    at = {frame.id: index for index, frame in enumerate(frames)}
    if event_id not in at:
        raise KeyError(f"frame {event_id} is no longer kept")
    t = at[event_id]
    first, last = t, t
    while first > max(0, t - 2) and not frames[first].discontinuity:
        first -= 1
    if t + 1 < len(frames) and not frames[t + 1].discontinuity:
        last = t + 1
    return Window(tuple(frames[first : last + 1]), key=t - first)
