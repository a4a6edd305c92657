"""The window around an event, out of the frames before and after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.frame import Frame, Window


def spaced(frames: Sequence[Frame], event_id: int, period_s: float) -> list[Frame]:
    """Return frames about ``period_s`` apart, among them the event's frame.

    In a faster source they are the frames nearest to every whole period before and after the event;
    in one that is hardly faster, all frames. The fit and the motions are made for the spacing of 30
    Hz.

    Args:
        frames: Consecutive frames of one source.
        event_id: The id of the event's frame.
        period_s: The wanted spacing in seconds.

    Raises:
        KeyError: The event's frame is not among them.
    """
    t = next((k for k, frame in enumerate(frames) if frame.id == event_id), None)
    if t is None:
        raise KeyError(f"frame {event_id} is no longer kept")
    times = np.array([frame.pts_s for frame in frames])
    # In a source that is hardly faster, leaving frames out would space them too widely.
    if len(times) < 2 or float(np.median(np.diff(times))) > period_s / 1.5:
        return list(frames)
    first, last = (round((times[end] - times[t]) / period_s) for end in (0, -1))
    at = times[t] + period_s * np.arange(first, last + 1)
    # The event's own frame stays, whichever frames are nearest to the periods.
    picked = {int(np.abs(times - time).argmin()) for time in at} | {t}
    return [frames[k] for k in sorted(picked)]


def event_window(frames: Sequence[Frame], event_id: int) -> Window:
    """Return the window [t-2, t-1, t, t+1] around an event's frame t, which is its key frame.

    It is shorter where the frames do not reach, and where a discontinuity lies between.

    Args:
        frames: Consecutive frames of one source, or `spaced` ones.
        event_id: The id of frame t.

    Raises:
        KeyError: Frame t is not among them.
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
