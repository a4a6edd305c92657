"""A served source's last events, for whoever asks."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable

import cv2

from app.reports.record import Record, strip_of
from pipeline.core.redact import without_credentials

MOST_EVENTS = 64
"""Events of a source that are kept."""
_STRIP_WIDTH = 1280
_QUALITY = 85


class EventLog:
    """Told events by one thread, asked by any. Events are numbered from 0; ``trouble`` is why the
    last one could not be handed on, in a line."""

    def __init__(self) -> None:
        self.trouble = ""
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, str, Record]] = deque(maxlen=MOST_EVENTS)
        self.count = 0

    def __call__(self, record: Record) -> None:
        line = json.dumps(record.data, allow_nan=False, separators=(",", ":"))
        with self._lock:
            self._kept.append((self.count, line, record))
            self.count += 1

    def unharmed_by(self, sink: Callable[[Record], None]) -> Callable[[Record], None]:
        """The sink, whose errors are kept as ``trouble``: the source goes on."""

        def tell(record: Record) -> None:
            try:
                sink(record)
                self.trouble = ""
            except Exception as error:
                self.trouble = f"an event could not be handed on: {without_credentials(str(error))}"

        return tell

    def after(self, number: int) -> list[tuple[int, str]]:
        """Those above ``number`` (-1: all that are kept), each with its line of JSON."""
        with self._lock:
            return [(at, line) for at, line, _ in self._kept if at > number]

    def strip(self, number: int) -> bytes:
        """An event's pictures side by side, as JPEG. Raises KeyError."""
        with self._lock:
            found = next((record for at, _, record in self._kept if at == number), None)
        if found is None:
            raise KeyError(number)
        picture = strip_of(found)
        height = max(1, round(picture.shape[0] * _STRIP_WIDTH / picture.shape[1]))
        small = cv2.resize(picture, (_STRIP_WIDTH, height), interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(
            ".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )  # fmt: skip
        assert done, "OpenCV writes JPEG"
        return bytes(data)
