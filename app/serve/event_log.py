"""The last events of a served source."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from app.outputs.background_writer import BackgroundWriter
from app.reports.record import Record, strip_of
from app.serve.recordings import HANGS_S
from pipeline.core.redact import without_credentials

MOST_EVENTS = 64
"""The number of events that are stored for each source."""
_STRIP_WIDTH = 1280
_QUALITY = 85


StoredEvent = tuple[int, str, bytes]
"""An event's number, its line of JSON, and its pictures side by side as JPEG."""


@dataclass(frozen=True)
class StoredEvents:
    """The number of events so far, and the last of them."""

    count: int
    events: tuple[StoredEvent, ...]


class EventLog:
    """The last `MOST_EVENTS` events, numbered from 0. One thread adds events; any may read.

    It is a sink of `EventDispatcher`: calling it with a `Record` adds the event.

    Args:
        after: What the log of the same source in another hub had stored; this one goes on from it.

    Attributes:
        count: The number of events so far, including the ones no longer stored.
    """

    def __init__(self, after: StoredEvents | None = None) -> None:
        self._lock = threading.Lock()
        self._events: deque[StoredEvent] = deque(() if after is None else after.events, MOST_EVENTS)
        self.count = 0 if after is None else after.count

    def __call__(self, record: Record) -> None:
        # Made once here and not for each viewer. Outside the lock, as readers wait on it.
        line = json.dumps(record.data, allow_nan=False, separators=(",", ":"))
        strip = _strip(record)
        with self._lock:
            self._events.append((self.count, line, strip))
            self.count += 1

    def stored(self) -> StoredEvents:
        """Return what is stored, for the log of another hub."""
        with self._lock:
            return StoredEvents(self.count, tuple(self._events))

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
            strip = next((strip for index, _, strip in self._events if index == number), None)
        if strip is None:
            raise KeyError(number)
        return strip


def _strip(record: Record) -> bytes:
    picture = strip_of(record)
    height = max(1, round(picture.shape[0] * _STRIP_WIDTH / picture.shape[1]))
    small = cv2.resize(picture, (_STRIP_WIDTH, height), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done, "OpenCV writes JPEG"
    return bytes(data)


class EventForwarder:
    """A sink that hands events on to another one, in a thread of its own.

    A webhook's outbox is on a disk: neither that it hangs nor that it fails may keep an event from
    the page, or end the source. One thread hands events in; any may read.

    Args:
        name: The source's name.
        sink: Gets every event.

    Attributes:
        lost: The number of events that the sink did not take.
    """

    def __init__(self, name: str, sink: Callable[[Record], None]) -> None:
        self._name, self._sink = name, sink
        self._refused, self._problem = 0, ""
        self._writer: BackgroundWriter[Record] = BackgroundWriter(
            f"events of {name}", self._deliver, lambda: None, MOST_EVENTS, live=True
        )

    def __call__(self, record: Record) -> None:
        self._writer.put(record)

    @property
    def lost(self) -> int:
        return self._refused + self._writer.dropped

    @property
    def trouble(self) -> str:
        """Why events are not handed on, in a line; empty if they are."""
        if self._writer.busy_s > HANGS_S:
            return f"events wait: their disk has not answered for {self._writer.busy_s:.0f} s"
        return self._problem

    def close(self) -> None:
        """Hand on what waits, for a bounded time.

        Raises:
            OutputError: The disk does not answer.
        """
        self._writer.close()

    def _deliver(self, record: Record) -> None:
        try:
            self._sink(record)
            self._problem = ""
        except Exception as error:
            self._refused += 1
            # A webhook's error may name its URL, which may hold a login.
            words = without_credentials(str(error))
            self._problem = f"an event could not be handed on: {words}"
