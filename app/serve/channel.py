"""One served source: its newest picture, the bodies of the last minutes, and its recordings."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from app.config import OutputConfig
from app.outputs.base import RunInfo
from app.outputs.jsonl import line_of
from app.serve.recordings import Recordings
from app.serve.view_log import ViewLog
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.yuv import Pixels, rgb_of, size_of

_WIDTH = 1280
"""Wider pictures are scaled down to this many pixels."""
_QUALITY = 80
_SNAPSHOT_QUALITY = 95
_WATCHED_S = 5.0
"""Pictures are encoded only while a viewer has asked for one within this time."""
_FILLER_S = 1.0
"""After this time without a frame, viewers get a filler that gives the reason. A source with longer
intervals between its frames is given twice its longest recent interval, up to ``_PATIENCE_S``."""
_PATIENCE_S = 10.0
_GAPS = 8
"""The number of recent intervals between frames that the limit is taken from."""
_MOST_LINES = 18_000
_MOST_LINE_BYTES = 64 << 20
"""The frames whose bodies are stored: ten minutes at 30 frames a second, fewer where crowds make
the lines long."""
_FILLER_SIZE = (540, 960)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Channel:
    """An `Output` that shows frames to viewers. One thread writes to it; any thread may read.

    Its newest picture is encoded as JPEG once for all viewers, and only while there are any. The
    bodies come through a second `Output`, ``fits``: with low latency the bodies in the picture are
    predicted, and the ones that are stored and sent are fitted.

    Args:
        reason: Returns, in a line, why no frames come.
        new_path: Returns the path of the next recording's video.
        clock_s: A monotonic clock in seconds.
        output: How recordings are written.
        over: Returns whether the source has come to its end; its last frame is then shown on.
        first: The number that the pictures' numbers begin after: a viewer of the same source in
            another hub has seen smaller ones.

    Attributes:
        recordings: The recordings of this source.
        fits: The `Output` that takes the fitted bodies.
        view: The fitted bodies for the 3D view.
        people: The number of people in the last frame.
    """

    needs_picture = True
    takes_planes = True
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        reason: Callable[[], str],
        new_path: Callable[[], Path],
        clock_s: Callable[[], float] = time.monotonic,
        output: OutputConfig = OutputConfig(),  # noqa: B008 (frozen)
        over: Callable[[], bool] = lambda: False,
        first: int = 0,
    ) -> None:
        self._reason, self._over = reason, over
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._number = first
        self._jpeg = b""
        self._last: Pixels | None = None
        self._drawn_s, self._asked_s = clock_s(), -math.inf
        self._shown_s = -math.inf
        self._frame_s: float | None = None
        self._gaps_s: deque[float] = deque(maxlen=_GAPS)
        self._size = _FILLER_SIZE
        self._info: RunInfo | None = None
        self._lines: deque[tuple[int, str]] = deque()
        self._line_bytes = 0
        self.recordings = Recordings(output, new_path)
        self.fits = Fits(self)
        self.view = ViewLog()
        self.people = 0

    # The `Output` side: the render loop's thread.

    def open(self, info: RunInfo) -> None:
        self._info = info

    def write(self, frame: Frame, bodies: Bodies, picture: Pixels | None) -> None:
        assert picture is not None, "a channel shows pictures"
        assert self._info is not None, "write() before open()"
        now = self._clock_s()
        # Encoded outside the lock: it takes milliseconds, and viewers wait on the lock.
        jpeg = encode(rgb_of(picture)) if now - self._asked_s < _WATCHED_S else None
        with self._changed:
            self._last, self._size = picture, size_of(picture)
            if self._frame_s is not None:
                self._gaps_s.append(now - self._frame_s)
            self._frame_s = self._drawn_s = now
            self.people = len(bodies)
            if jpeg is not None:
                self._show(jpeg)
            self._changed.notify_all()
        self.recordings.write(self._info, frame, bodies, picture)

    def close(self) -> None:
        self.recordings.end()

    def add_line(self, frame_id: int, line: str) -> None:
        """Store a frame's bodies, as the line of JSON that `line_of` returns."""
        with self._changed:
            self._store_line(frame_id, line)
            self._changed.notify_all()
        self.recordings.add_line(line)

    # The viewers' side: any thread.

    def picture(self, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """Return the newest picture, waiting for one that is newer than ``after``.

        A picture that was made before the viewers paused is too old and is not returned.

        Args:
            after: The number of the last picture that the viewer has; 0 for none.
            timeout_s: How long to wait, in seconds.

        Returns:
            The picture's number and its JPEG, or None at the timeout.
        """
        end = self._clock_s() + timeout_s
        with self._changed:
            # This request starts the encoding: `write` encodes only while one is recent.
            self._asked_s = self._clock_s()
            while not self._has(after):
                self._fill()
                left = end - self._clock_s()
                if self._has(after):
                    break
                if left <= 0:
                    return None
                # Woken four times a second, to see whether a filler is due.
                self._changed.wait(min(left, 0.25))
                self._asked_s = self._clock_s()
            return self._number, self._jpeg

    def snapshot(self) -> bytes:
        """Return the last frame that was drawn as JPEG, in its full size.

        Raises:
            RuntimeError: There is none yet.
        """
        with self._changed:
            last = self._last
        if last is None:
            raise RuntimeError("there is no picture yet")
        return encode(rgb_of(last), max(size_of(last)), _SNAPSHOT_QUALITY)

    def bodies(self, after: int, timeout_s: float = 0.0) -> list[tuple[int, str]]:
        """Return the bodies of the frames after number ``after``, waiting for the first of them.

        Args:
            after: The number of the last frame that the viewer has; -1 for all stored frames.
            timeout_s: How long to wait, in seconds.

        Returns:
            The frames' numbers, in order, each with its line of JSON; empty at the timeout.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest() > after, timeout_s)
            # From the end: thousands of lines are stored, and most requests are for the last few.
            newer = list(takewhile(lambda item: item[0] > after, reversed(self._lines)))
            return newer[::-1]

    def _store_line(self, number: int, line: str) -> None:
        self._lines.append((number, line))
        self._line_bytes += len(line)
        # Both limits, because a crowd makes a line many times longer.
        while len(self._lines) > _MOST_LINES or self._line_bytes > _MOST_LINE_BYTES:
            self._line_bytes -= len(self._lines.popleft()[1])

    def _newest(self) -> int:
        return self._lines[-1][0] if self._lines else -1

    def _has(self, after: int) -> bool:
        age_s = self._clock_s() - self._shown_s
        # The number alone is not enough: nothing was encoded while there were no viewers, so the
        # newest JPEG may be minutes old.
        return self._number > after and age_s <= self._patience_s()

    def _patience_s(self) -> float:
        """Return how long the source may go without a frame, by its recent intervals."""
        return min(max(_FILLER_S, 2 * max(self._gaps_s, default=0.0)), _PATIENCE_S)

    def _fill(self) -> None:
        """Show a filler if no frame came for too long: the last frame of a source that is over,
        else the reason. The caller holds the lock."""
        now = self._clock_s()
        if now - self._drawn_s < self._patience_s():
            return
        # A filler counts as drawn, so that the next one comes only after another interval.
        self._drawn_s = now
        if self._last is not None and self._over():
            # Again and again, because only sending shows that a viewer has left.
            self._show(encode(rgb_of(self._last)))
        else:
            self._show(encode(filler(self._size, self._reason())))

    def _show(self, jpeg: bytes) -> None:
        self._number += 1
        self._jpeg, self._shown_s = jpeg, self._clock_s()


class Fits:
    """An `Output` that hands fitted bodies to a channel. Belongs to one thread."""

    needs_picture = False
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._info: RunInfo | None = None

    def open(self, info: RunInfo) -> None:
        self._info = info

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert self._info is not None, "write() before open()"
        self._channel.add_line(frame.id, line_of(self._info, frame, bodies))
        self._channel.view.add(self._info, frame, bodies)

    def close(self) -> None:
        """Do nothing: closing the channel ends its recordings."""


def encode(picture: np.ndarray, most: int = _WIDTH, quality: int = _QUALITY) -> bytes:
    """Return an RGB picture (H, W, 3) as JPEG, at most ``most`` pixels wide."""
    height, width = picture.shape[:2]
    if width > most:
        # A picture much wider than high still needs one row.
        size = (most, max(round(height * most / width), 1))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG here")
    return bytes(data)


def filler(size: tuple[int, int], reason: str) -> np.ndarray:
    """Return a dark RGB picture (H, W, 3) with the reason for the missing frames in its middle."""
    picture: Any = np.full((*size, 3), (14, 16, 19), np.uint8)
    lines = wrapped(reason or "no picture yet", 46)
    scale = size[1] / 900
    step, top = 34 * scale, size[0] / 2 - 34 * scale * (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        width, height = cv2.getTextSize(line, _FONT, scale, 1)[0]
        at = round((size[1] - width) / 2), round(top + number * step + height / 2)
        cv2.putText(picture, line, at, _FONT, scale, (190, 198, 208), 1, cv2.LINE_AA)
    return picture


def wrapped(text: str, width: int) -> list[str]:
    """Return the text in at most five lines of ``width`` letters, in ASCII: OpenCV's fonts have no
    other letters."""
    lines = [""]
    for word in text.encode("ascii", "replace").decode().split():
        # A long address has no spaces to break at.
        while len(word) > width:
            lines, word = [*lines, word[:width]], word[width:]
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [line for line in lines if line][:5]
