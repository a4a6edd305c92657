"""Frames into windows of four: pure logic, no threads and no clock of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from pipeline.frame import WINDOW_FRAMES, Frame, Window

JUMP_S = 1.0
JUMP_PERIODS = 8
"""Time jumped where frames are further apart than both."""

_SMALL = (64, 36)
_SHIFT = (8, 5)
"""Pictures are compared at this width and height, shifted by so much at most."""


class CutDetector:
    """Tells a cut from motion: nearly the whole picture is another one at once.

    Small grey pictures are compared after the shift that brings them together (phase correlation;
    Kuglin and Hines, 1975), so that a shaken camera is no cut. A cut changes them much more than
    this clip has lately changed (mean absolute difference) and leaves them little alike
    (correlation, which a change of brightness does not touch). A dissolve is not found.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._hann = cv2.createHanningWindow(_SMALL, cv2.CV_32F)
        self._usual = 0.0
        self._seen = 0

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether RGB uint8 ``image`` (H, W, 3) does not continue the one before it."""
        now = _small_grey(image)
        last, self._last = self._last, now
        if last is None:
            return False
        difference, alike = float(np.abs(now - last).mean()), 1.0
        if difference >= 10.0:
            difference, alike = self._compare(last, now)
        # Measured on fast motion, shaken cameras and a thousand splices, as the tests do.
        other_scene = alike < 0.6 and difference >= max(
            10.0, (2.0 if alike < 0.3 else 4.0) * self._usual
        )
        other_take = alike < 0.82 and self._seen >= 3 and difference >= max(12.0, 8.0 * self._usual)
        if other_scene or other_take:
            self._usual, self._seen = 0.0, 0
            return True
        weight = 0.1 if self._seen else 1.0
        self._usual += weight * (difference - self._usual)
        self._seen += 1
        return False

    def _compare(self, last: np.ndarray, now: np.ndarray) -> tuple[float, float]:
        """(difference in grey levels, correlation) as they are, or shifted if that fits better."""
        plain = _difference_and_correlation(last, now)
        # Windowed here: OpenCV's own windowing writes into its inputs.
        (dx, dy), _ = cv2.phaseCorrelate(last * self._hann, now * self._hann)
        if abs(dx) > _SHIFT[0] or abs(dy) > _SHIFT[1]:
            return plain
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(last, shift, _SMALL)
        rows = slice(max(0, math.ceil(dy)), _SMALL[1] + min(0, math.floor(dy)))
        columns = slice(max(0, math.ceil(dx)), _SMALL[0] + min(0, math.floor(dx)))
        shifted = _difference_and_correlation(moved[rows, columns], now[rows, columns])
        return max(plain, shifted, key=lambda pair: pair[1])


def _small_grey(image: np.ndarray) -> np.ndarray:
    """Grey levels about their mean, float32, of a small copy of an RGB image."""
    # Every n-th pixel is enough, and far cheaper than averaging all of them.
    step = max(1, min(image.shape[0] // _SMALL[1], image.shape[1] // _SMALL[0]))
    small = cv2.resize(image[::step, ::step], _SMALL, interpolation=cv2.INTER_AREA)
    grey = small.mean(axis=2, dtype=np.float32)
    return grey - grey.mean()


def _difference_and_correlation(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    one, two = one - one.mean(), two - two.mean()
    spread = max(float(one.std() * two.std()), 1e-6)
    return float(np.abs(one - two).mean()), float((one * two).mean()) / spread


class Windower:
    """Groups one source's frames into windows of four, in order, each frame once.

    A window ends early where the picture is cut, time jumps (in the source, or because frames in
    between were dropped), the frame says it does not continue the last, or size or source change;
    the next window then has ``reset`` set, as has the first. ``expire`` ends a window whose first
    frame has waited ``max_wait_ms`` (infinite for a source that is waited for), so that a
    stalled feed still shows what it sent. ``size`` is how many frames a window has, four at most.
    """

    def __init__(
        self, max_wait_ms: float = 500.0, find_cuts: bool = True, size: int = WINDOW_FRAMES
    ) -> None:
        if not 1 <= size <= WINDOW_FRAMES:
            raise ValueError(f"a window has 1 to {WINDOW_FRAMES} frames, not {size}")
        self._size = size
        self._max_wait_ns = max_wait_ms * 1e6
        self._cuts = CutDetector() if find_cuts else None
        self._frames: list[Frame] = []
        self._reset = True
        self._last: Frame | None = None
        self._period_s: float | None = None

    def add(self, frame: Frame) -> list[Window]:
        """Take a frame; return the windows it completes (none, one or two)."""
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
        # Asked for every frame: it compares each with the one before.
        cut = self._cuts is not None and self._cuts.is_cut(frame.image)
        last = self._last
        if last is None:
            return False
        jumped = self._jumped(last, frame)
        same = (frame.source, frame.size) == (last.source, last.size)
        return cut or jumped or frame.discontinuity or not same

    def _jumped(self, last: Frame, frame: Frame) -> bool:
        """Whether ids or times run back, or times are too far apart for this source's rate."""
        ids, gap_s = frame.id - last.id, frame.pts_s - last.pts_s
        if ids <= 0 or gap_s < 0:
            return True
        period_s = gap_s / ids if self._period_s is None else self._period_s
        jumped = gap_s > max(JUMP_S, JUMP_PERIODS * period_s)
        self._period_s = period_s if jumped else 0.9 * period_s + 0.1 * gap_s / ids
        return jumped


def inherit_break(dropped: Frame, following: Frame) -> Frame:
    """``following`` as it must be when ``dropped`` before it is left out: a break stays a break."""
    return replace(following, discontinuity=True) if dropped.discontinuity else following


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
