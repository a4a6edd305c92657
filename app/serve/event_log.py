"""The last events of a served source."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable

import cv2

from app.reports.record import Record, strip_of
from pipeline.core.redact import without_credentials

MOST_EVENTS = 64
"""The number of events that are stored for each source."""
_STRIP_WIDTH = 1280
_QUALITY = 85


class EventLog:
    """The last `MOST_EVENTS` events, numbered from 0. One thread adds events; any may read.

    It is a sink of `EventDispatcher`: calling it with a `Record` adds the event.

    Attributes:
        count: The number of events so far, including the ones no longer stored.
        trouble: Why the last event could not be handed on, in a line; empty if it was.
    """

    def __init__(self) -> None:
        self.trouble = ""
        self._lock = threading.Lock()
        self._events: deque[tuple[int, str, Record]] = deque(maxlen=MOST_EVENTS)
        self.count = 0

    def __call__(self, record: Record) -> None:
        # Made once here and not for each viewer. Outside the lock, as readers wait on it.
        line = json.dumps(record.data, allow_nan=False, separators=(",", ":"))
        with self._lock:
            self._events.append((self.count, line, record))
            self.count += 1

    def guarded(self, sink: Callable[[Record], None]) -> Callable[[Record], None]:
        """Return the sink, with its errors stored as ``trouble`` and not raised.

        A webhook that fails must not end the source.
        """

        def deliver(record: Record) -> None:
            try:
                sink(record)
                self.trouble = ""
            except Exception as error:
                # A webhook's error may name its URL, which may hold a login.
                self.trouble = f"an event could not be handed on: {without_credentials(str(error))}"

        return deliver

    def after(self, number: int) -> list[tuple[int, str]]:
        """Return the stored events after ``number`` (-1: all), each with its line of JSON."""
        with self._lock:
            return [(index, line) for index, line, _ in self._events if index > number]

    def strip(self, number: int) -> bytes:
        """Return the pictures of an event side by side, as one JPEG.

        Raises:
            KeyError: No event of that number is stored.
        """
        with self._lock:
            record = next((record for index, _, record in self._events if index == number), None)
        if record is None:
            raise KeyError(number)
        # Outside the lock: drawing takes milliseconds, and the writing thread would wait.
        picture = strip_of(record)
        height = max(1, round(picture.shape[0] * _STRIP_WIDTH / picture.shape[1]))
        small = cv2.resize(picture, (_STRIP_WIDTH, height), interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(
            ".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )  # fmt: skip
        assert done, "OpenCV writes JPEG"
        return bytes(data)
