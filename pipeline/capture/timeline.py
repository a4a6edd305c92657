"""Which frame this is and when: from the packets' and frames' time stamps, pure logic."""

from __future__ import annotations

import heapq
from collections import deque

JUMP_S = 1.0
JUMP_PERIODS = 8
_MOST_PENDING = 1024
_MOST_LOST = 64


class Timeline:
    """A stream's time stamps as seconds that always rise.

    Time is 0 at ``origin`` (in units of ``time_base_s``; None: at the first frame that has a time
    stamp) plus ``offset_s``. A gap above ``JUMP_S`` and ``JUMP_PERIODS`` frame periods is kept,
    a step back of more than half a period is joined on, one period after the last frame: both are
    jumps. Smaller steps back are none, and get a time just after. A missing stamp, or the last
    one again (some files say 0 for every frame), says nothing: one period after the last frame.
    """

    def __init__(
        self,
        time_base_s: float,
        fps: float | None,
        origin: int | None = None,
        offset_s: float = 0.0,
    ) -> None:
        self._time_base_s = time_base_s
        self._period_s = 1.0 / fps if fps else 1.0 / 30.0
        self._origin = origin
        self._offset_s = offset_s
        self._last_s: float | None = None
        self._last_pts: int | None = None

    def place(self, pts: int | None) -> tuple[float, bool]:
        """The time in seconds of the next frame, and whether time jumped before it."""
        last, period = self._last_s, self._period_s
        if pts is None or pts == self._last_pts:
            self._last_s = self._offset_s if last is None else last + period
            return self._last_s, False
        if self._origin is None:
            self._origin = pts
            if last is not None:
                self._offset_s = last + period
        time_s = (pts - self._origin) * self._time_base_s + self._offset_s
        jump = False
        if last is not None:
            before = self._last_pts if self._last_pts is not None else pts
            gap = (pts - before) * self._time_base_s
            back = gap < -0.5 * period
            jump = back or gap > max(JUMP_S, JUMP_PERIODS * period)
            if back or time_s < last - JUMP_S:
                self._offset_s += last + period - time_s
                time_s = last + period
            elif time_s <= last:
                # Behind by a little (jitter, a stamp said twice): stamps catch up by themselves.
                time_s = last + 0.1 * period
        self._last_s, self._last_pts = time_s, pts
        return time_s, jump


class FrameIndex:
    """Numbers frames by their place in the source.

    Frames are counted as they come out of the decoder; where packets were damaged, the frames
    that never came are counted too, so that later frames keep their true number. ``first`` is
    the number of the first frame, ``floor`` the time stamp below which packets do not count
    (they belong to frames before it).
    """

    def __init__(self, first: int = 0, floor: int | None = None) -> None:
        self._next = first
        self._floor = floor
        self._pending: list[int] = []
        self._lost: deque[int] = deque(maxlen=_MOST_LOST)
        self._damaged = False

    def packet(self, pts: int | None) -> None:
        """A packet that should become a visible frame was read."""
        if pts is None or (self._floor is not None and pts < self._floor):
            return
        if len(self._pending) >= _MOST_PENDING:
            self._pending.clear()
        heapq.heappush(self._pending, pts)

    def damage(self) -> None:
        """A packet could not be decoded."""
        self._damaged = True

    def number(self, pts: int | None) -> int | None:
        """The number of the frame that came out of the decoder, with its time stamp.

        None for one that damage held back so long that later ones came before it: skip it.
        """
        if pts in self._lost:
            return None
        lost = []
        while pts is not None and self._pending and self._pending[0] <= pts:
            lost.append(heapq.heappop(self._pending))
        # Without damage a packet that made no frame was none (a second field, a leading picture
        # without its reference).
        if self._damaged:
            missing = [each for each in lost if each != pts]
            self._lost.extend(missing)
            self._next += len(missing)
        number = self._next
        self._next += 1
        return number
