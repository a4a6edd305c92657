"""Number and time of each frame, from the time stamps of packets and frames. Pure logic."""

from __future__ import annotations

import heapq
from collections import deque

JUMP_S = 1.0
JUMP_PERIODS = 8
_MOST_PENDING = 1024
_MOST_LOST = 64


class Timeline:
    """Converts a stream's time stamps to seconds that always rise.

    Time is ``offset_s`` at ``origin`` (in units of ``time_base_s``; None: the first frame with a
    time stamp). Two cases are jumps: a gap above ``JUMP_S`` and ``JUMP_PERIODS`` frame periods,
    which is kept, and a step back by more than half a period, after which time continues one period
    after the last frame. A smaller step back is no jump; the frame gets a time just after the last
    one. A missing stamp, or the same stamp again (some files state 0 for every frame), gives no
    information: the frame comes one period after the last.
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
        """Return the time of the next frame in seconds, and whether time jumped before it."""
        last, period = self._last_s, self._period_s
        if pts is None or pts == self._last_pts:
            self._last_s = self._offset_s if last is None else last + period
            return self._last_s, False
        if self._origin is None:
            self._origin = pts
            if last is not None:
                # Frames without a time stamp came before; time goes on behind them.
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
                # Slightly behind (jitter, a repeated stamp): later stamps catch up by themselves.
                time_s = last + 0.1 * period
        self._last_s, self._last_pts = time_s, pts
        return time_s, jump


class FrameIndex:
    """Numbers frames by their position in the source.

    Frames are counted as they leave the decoder. After damaged packets, the frames that are
    missing are counted too, so that later frames keep their true number. ``first`` is the number
    of the first frame; packets with a time stamp below ``floor`` belong to frames before it and
    are not counted.
    """

    def __init__(self, first: int = 0, floor: int | None = None) -> None:
        self._next = first
        self._floor = floor
        self._pending: list[int] = []
        self._lost: deque[int] = deque(maxlen=_MOST_LOST)
        self._damaged = False

    def packet(self, pts: int | None) -> None:
        """Note that a packet was read which should become a visible frame."""
        if pts is None or (self._floor is not None and pts < self._floor):
            return
        # Stamps that no frame ever takes would pile up otherwise.
        if len(self._pending) >= _MOST_PENDING:
            self._pending.clear()
        heapq.heappush(self._pending, pts)

    def damage(self) -> None:
        """Note that a packet could not be decoded."""
        self._damaged = True

    def number(self, pts: int | None) -> int | None:
        """Return the number of the frame that left the decoder with the time stamp ``pts``.

        None for a frame that damage delayed until after later ones: the caller skips it.
        """
        if pts in self._lost:
            return None
        lost = []
        while pts is not None and self._pending and self._pending[0] <= pts:
            lost.append(heapq.heappop(self._pending))
        # Without damage, a packet without a frame of its own is no missing frame (a second field,
        # a leading picture without its reference).
        if self._damaged:
            missing = [stamp for stamp in lost if stamp != pts]
            self._lost.extend(missing)
            self._next += len(missing)
        number = self._next
        self._next += 1
        return number
