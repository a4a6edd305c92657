"""Grouping frames into windows of four: pure logic, without threads or a clock of its own."""

from __future__ import annotations

from dataclasses import replace

from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.runtime.cuts import CutDetector

JUMP_S = 1.0
JUMP_PERIODS = 8
"""Time jumped where frames are further apart than both: seconds, and periods of the source."""


class Windower:
    """Groups one source's frames into windows, in order, each frame once.

    A window ends early where the picture is cut, where time jumps (in the source, or because frames
    in between were dropped), where the frame is marked as a discontinuity, and where size or source
    change. The next window then has ``reset`` set, as has the first. `expire` ends a window whose
    first frame has waited too long, so that a stalled feed still shows what it sent.

    Args:
        max_wait_ms: Longest wait of a window's first frame, in milliseconds; infinite for a source
            that may stall without harm, such as a file.
        find_cuts: Whether to look for cuts in the picture.
        size: Frames in a window, one to four.
        begins: Whether the first window has ``reset`` set: False where its frames continue those
            of another windower.

    Raises:
        ValueError: ``size`` is out of range.
    """

    def __init__(
        self,
        max_wait_ms: float = 500.0,
        find_cuts: bool = True,
        size: int = WINDOW_FRAMES,
        begins: bool = True,
    ) -> None:
        if not 1 <= size <= WINDOW_FRAMES:
            raise ValueError(f"a window has 1 to {WINDOW_FRAMES} frames, not {size}")
        self._size = size
        self._max_wait_ns = max_wait_ms * 1e6
        self._cuts = CutDetector() if find_cuts else None
        self._frames: list[Frame] = []
        self._reset = begins
        self._last: Frame | None = None
        self._period_s: float | None = None

    def add(self, frame: Frame) -> list[Window]:
        """Take a frame; return the windows that it completes: none, one or two."""
        done = []
        if self._breaks(frame):
            done += self.finish()
            self._reset = True
        self._last = frame
        self._frames.append(frame)
        if len(self._frames) == self._size:
            done += self.finish()
        return done

    def expire(self, now_ns: int) -> list[Window]:
        """End the open window if its first frame was captured ``max_wait_ms`` before ``now_ns``."""
        if self._frames and now_ns - self._frames[0].captured_ns >= self._max_wait_ns:
            return self.finish()
        return []

    def finish(self) -> list[Window]:
        """End the open window, if there is one, and return it in a list."""
        if not self._frames:
            return []
        window = Window(tuple(self._frames), key=0, reset=self._reset)
        self._frames, self._reset = [], False
        return [window]

    def _breaks(self, frame: Frame) -> bool:
        """Whether a frame does not continue the one before it."""
        # The detector must see every frame, since it compares each with the one before.
        cut = self._cuts is not None and self._cuts.is_cut(frame.pixels)
        last = self._last
        if last is None:
            return False
        jumped = self._jumped(last, frame)
        same = (frame.source, frame.size) == (last.source, last.size)
        return cut or jumped or frame.discontinuity or not same

    def _jumped(self, last: Frame, frame: Frame) -> bool:
        """Whether ids or times run backward, or times are too far apart for this source's rate."""
        ids, gap_s = frame.id - last.id, frame.pts_s - last.pts_s
        if ids <= 0 or gap_s < 0:
            return True
        # Per id, so that frames dropped in between do not lengthen the period.
        period_s = gap_s / ids if self._period_s is None else self._period_s
        jumped = gap_s > max(JUMP_S, JUMP_PERIODS * period_s)
        # A jump says nothing about the source's rate.
        self._period_s = period_s if jumped else 0.9 * period_s + 0.1 * gap_s / ids
        return jumped


def inherit_break(dropped: Frame, following: Frame) -> Frame:
    """Return ``following``, as a discontinuity if the frame ``dropped`` before it was one."""
    return replace(following, discontinuity=True) if dropped.discontinuity else following
