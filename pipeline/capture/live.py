"""Network feeds and cameras: sources that come, go and do not wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from pipeline.capture.base import Halt, SourceInfo, SourceOptions
from pipeline.capture.errors import SourceUnreachable
from pipeline.capture.feed import Feed
from pipeline.frame import Frame
from pipeline.ring import Closed, Policy, Ring

_POLL_S = 0.05
_JOIN_S = 1.0


class LiveSource:
    """A feed read by a thread of its own, so that nobody waits for FFmpeg who wants to stop.

    A camera that hangs can block FFmpeg for seconds, or for ever. Then ``open()``, ``frames()``
    and ``close()`` still end within a second or so; the thread (a daemon) frees the container
    when FFmpeg lets go. Until ``frames()`` is called the newest frame takes the place of the one
    before it, so that what was opened long ago does not begin in the past; from then on each
    frame is waited for. Id and time count from the first frame handed out.
    """

    def __init__(self, feed: Feed, options: SourceOptions, halt: Halt) -> None:
        self._feed = feed
        self._options = options
        self._halt = halt
        self.name = feed.name
        self.live = not feed.download if options.live is None else options.live
        self.warnings = feed.warnings
        self._ring: Ring[Frame] = Ring(1, Policy.DROP_OLDEST if self.live else Policy.WAIT)
        self._thread = threading.Thread(target=self._run, name=f"feed {self.name}", daemon=True)
        self._opened = threading.Event()
        self._reading = False
        self._error: BaseException | None = None

    @property
    def info(self) -> SourceInfo:
        return replace(self._feed.info, live=self.live)

    def open(self) -> None:
        """Connect and decode the first frame, trying again until ``retry_s`` has passed."""
        self._thread.start()
        while not self._opened.wait(_POLL_S):
            if self._halt.is_set():
                raise SourceUnreachable(f"{self.name}: stopped before its first frame came")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._halt.set()
        self._ring.abort()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def frames(self) -> Iterator[Frame]:
        """The frames, once. Raises SourceLost when it is lost and does not come back in time."""
        if not self._opened.is_set() or self._error is not None or self._reading:
            raise RuntimeError(f"{self.name} is not open, or was read already")
        self._reading = True
        self._ring.policy = Policy.WAIT
        first: Frame | None = None
        try:
            for frame in self._taken():
                if first is None:
                    first, frame = frame, replace(frame, discontinuity=False)
                pts_s = frame.pts_s - first.pts_s
                if pts_s >= self._options.end_s:
                    return
                if pts_s >= self._options.start_s:
                    yield replace(frame, id=frame.id - first.id, pts_s=pts_s)
        finally:
            self._halt.set()
            self._ring.abort()

    def _taken(self) -> Iterator[Frame]:
        """Frames out of the ring until it ends or is halted. Raises what ended it."""
        while not self._halt.is_set():
            try:
                yield self._ring.get(_POLL_S)
            except TimeoutError:
                continue
            except Closed:
                break
        if self._error is not None and not self._halt.is_set():
            raise self._error

    def _run(self) -> None:
        """The thread: frames into the ring. The container is opened, read and closed here."""
        try:
            self._feed.open()
            self._opened.set()
            for frame in self._feed.frames():
                self._ring.put(frame)
        except Closed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._feed.close()
            self._ring.close()
            self._opened.set()
