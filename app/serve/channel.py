"""One served source: its newest picture, its bodies of the last minutes, its recording."""

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
from app.serve.recorder import Recordings
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

_WIDTH = 1280
"""Pictures are sent no wider."""
_QUALITY = 80
_WATCHED_S = 5.0
"""A picture is made for who asked within that time."""
_FILLER_S = 1.0
"""Without a frame for so long a filler tells why; a source whose frames are further apart is given
twice as long as they were, up to the next."""
_PATIENCE_S = 10.0
_GAPS = 8
_KEPT = 18_000
_KEPT_BYTES = 64 << 20
"""Frames whose bodies are kept: ten minutes of thirty a second, fewer where crowds fill the
bytes."""
_FILLER_SIZE = (540, 960)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Channel:
    """An `Output` that shows instead of writing. Written to by one thread, read by any.

    ``fits`` is another, for its bodies: with low latency those in the picture are predicted, those
    told are fitted. ``reason`` says why no frames come, in a line; ``output`` how recordings are
    written.
    """

    needs_picture = True
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        reason: Callable[[], str],
        clock_s: Callable[[], float] = time.monotonic,
        output: OutputConfig = OutputConfig(),  # noqa: B008 (frozen)
    ) -> None:
        self._reason = reason
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._number = 0
        self._jpeg = b""
        self._drawn_s, self._asked_s = clock_s(), -math.inf
        self._shown_s = -math.inf
        self._frame_s: float | None = None
        self._gaps_s: deque[float] = deque(maxlen=_GAPS)
        self._size = _FILLER_SIZE
        self._info: RunInfo | None = None
        self._lines: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self.recordings = Recordings(output)
        self.fits = Fits(self)
        self.people = 0

    # As an output.

    def open(self, info: RunInfo) -> None:
        self._info = info

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert picture is not None, "a channel shows pictures"
        assert self._info is not None, "write() before open()"
        now = self._clock_s()
        jpeg = encode(picture) if now - self._asked_s < _WATCHED_S else None
        with self._changed:
            self._size = picture.shape[:2]
            if self._frame_s is not None:
                self._gaps_s.append(now - self._frame_s)
            self._frame_s = self._drawn_s = now
            self.people = len(bodies)
            if jpeg is not None:
                self._show(jpeg)
            self._changed.notify_all()
        self.recordings.write(self._info, frame, bodies, picture)

    def close(self) -> None:
        self.recordings.record(None)

    def tell(self, frame_id: int, line: str) -> None:
        """A frame's bodies as `line_of` gives them."""
        with self._changed:
            self._keep(frame_id, line)
            self._changed.notify_all()
        self.recordings.tell(line)

    # For those who watch.

    def picture(self, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """The newest picture as JPEG and its number, once it is newer than ``after`` and not from
        when nobody asked; None at the timeout."""
        end = self._clock_s() + timeout_s
        with self._changed:
            self._asked_s = self._clock_s()
            while not self._has(after):
                self._fill()
                left = end - self._clock_s()
                if self._has(after):
                    break
                if left <= 0:
                    return None
                self._changed.wait(min(left, 0.25))
                self._asked_s = self._clock_s()
            return self._number, self._jpeg

    def bodies(self, after: int, timeout_s: float = 0.0) -> list[tuple[int, str]]:
        """The frames since number ``after`` (-1: all that are kept), each with its line of JSON,
        waiting for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest() > after, timeout_s)
            # From the end: thousands are kept, and most who ask want the last.
            newer = list(takewhile(lambda each: each[0] > after, reversed(self._lines)))
            return newer[::-1]

    def _keep(self, number: int, line: str) -> None:
        self._lines.append((number, line))
        self._bytes += len(line)
        while len(self._lines) > _KEPT or self._bytes > _KEPT_BYTES:
            self._bytes -= len(self._lines.popleft()[1])

    def _newest(self) -> int:
        return self._lines[-1][0] if self._lines else -1

    def _has(self, after: int) -> bool:
        old_s = self._clock_s() - self._shown_s
        return self._number > after and old_s <= self._patience_s()

    def _patience_s(self) -> float:
        """How long no frame comes in a source as it was lately."""
        return min(max(_FILLER_S, 2 * max(self._gaps_s, default=0.0)), _PATIENCE_S)

    def _fill(self) -> None:
        """Under the lock: a picture of why there is none, where there has been none for long."""
        now = self._clock_s()
        if now - self._drawn_s < self._patience_s():
            return
        self._drawn_s = now
        self._show(encode(filler(self._size, self._reason())))

    def _show(self, jpeg: bytes) -> None:
        self._number += 1
        self._jpeg, self._shown_s = jpeg, self._clock_s()


class Fits:
    """An `Output` that hands bodies to a channel. Belongs to one thread."""

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
        self._channel.tell(frame.id, line_of(self._info, frame, bodies))

    def close(self) -> None:
        """The channel's own ends it."""


def encode(picture: np.ndarray) -> bytes:
    """An RGB picture as JPEG, made smaller if it is wide."""
    height, width = picture.shape[:2]
    if width > _WIDTH:
        size = (_WIDTH, max(round(height * _WIDTH / width), 1))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG here")
    return bytes(data)


def filler(size: tuple[int, int], reason: str) -> np.ndarray:
    """A dark picture (H, W, 3) that says why there is no other, in its middle."""
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
    """Text in lines of at most ``width`` letters, five at most; OpenCV's fonts know ASCII only."""
    lines = [""]
    for word in text.encode("ascii", "replace").decode().split():
        while len(word) > width:
            lines, word = [*lines, word[:width]], word[width:]
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [line for line in lines if line][:5]
