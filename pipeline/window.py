"""Frames into windows of four: pure logic, no threads and no clock of its own."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.frame import WINDOW_FRAMES, Frame, Window

CUT_SIZE = (64, 36)


class CutDetector:
    """Tells a cut from motion: the whole picture changes at once, and its colours with it.

    A frame is a cut when the mean absolute difference of small grey pictures, each with its mean
    taken away, is both large and far above what this clip has lately shown, and the grey
    histograms hardly overlap or the pictures are uncorrelated. A flash changes the brightness and
    keeps the picture; a fast pan keeps the histogram.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether RGB uint8 ``image`` (H, W, 3) does not continue the one before it."""
        # Every eighth pixel is enough, and far cheaper than averaging all of them.
        step = max(1, min(image.shape[0] // CUT_SIZE[1], image.shape[1] // CUT_SIZE[0]))
        small = cv2.resize(image[::step, ::step], CUT_SIZE, interpolation=cv2.INTER_AREA)
        grey = small.mean(axis=2, dtype=np.float32)
        last, self._last = self._last, grey
        if last is None:
            return False
        difference = float(np.abs((grey - grey.mean()) - (last - last.mean())).mean())
        usual, self._usual = self._usual, 0.9 * self._usual + 0.1 * difference
        if difference < max(10.0, 4.0 * usual):
            return False
        spread = float(grey.std() * last.std())
        alike = float(((grey - grey.mean()) * (last - last.mean())).mean()) / max(spread, 1e-6)
        if alike > 0.5:
            return False
        self._usual = 0.0
        return True


class Windower:
    """Groups one source's frames into windows of four, in order, each frame once.

    A window ends early where the picture is cut, the frame says it does not continue the last, or
    the size changes; the next window then has ``reset`` set, as has the first. ``expire`` ends a
    window whose first frame has waited ``max_wait_ms``, so that a stalled feed still shows what
    it sent.
    """

    def __init__(self, max_wait_ms: float = 500.0, find_cuts: bool = True) -> None:
        self._max_wait_ns = int(max_wait_ms * 1e6)
        self._cuts = CutDetector() if find_cuts else None
        self._frames: list[Frame] = []
        self._reset = True
        self._last: Frame | None = None

    def add(self, frame: Frame) -> list[Window]:
        """Take a frame; return the windows it completes (none, one or two)."""
        done = []
        if self._breaks(frame):
            done += self.finish()
            self._reset = True
        self._last = frame
        self._frames.append(frame)
        if len(self._frames) == WINDOW_FRAMES:
            done += self.finish()
        return done

    def expire(self, now_ns: int) -> list[Window]:
        """End the open window when its first frame was captured too long before ``now_ns``."""
        if self._frames and now_ns - self._frames[0].captured_ns >= self._max_wait_ns:
            return self.finish()
        return []

    def finish(self) -> list[Window]:
        """End the open window, if there is one."""
        if not self._frames:
            return []
        window = Window(tuple(self._frames), key=0, reset=self._reset)
        self._frames, self._reset = [], False
        return [window]

    def _breaks(self, frame: Frame) -> bool:
        cut = self._cuts is not None and self._cuts.is_cut(frame.image)
        last = self._last
        if last is None:
            return False
        return cut or frame.discontinuity or frame.size != last.size or frame.id <= last.id


def event_window(frames: Sequence[Frame], event_id: int) -> Window:
    """The window [t-2, t-1, t, t+1] around frame ``event_id`` = t, which is its key frame.

    ``frames`` are consecutive frames of one source that hold at least t; the window is shorter
    where they do not reach, and where a discontinuity lies between. Raises KeyError when t is not
    among them.
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
