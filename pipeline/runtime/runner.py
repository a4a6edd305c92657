"""Runs one source through an estimator: a `StreamScheduler` with one stream.

    source --frames--> [ring] --windows--> perceive --[ring]--> fit --[ring]--> reader

Frames come out in order, each with the bodies fitted to it. A clip waits, a live feed drops. An
error that ends the source is raised where the results are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from pipeline.capture.base import Source
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.stats import Stats
from pipeline.runtime.estimator import BodyEstimator, FittedWindow
from pipeline.runtime.event_buffer import Event, Watch
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream


class Runner:
    """Runs one source in a ``with`` block; iterate it for ``(frame, bodies)``.

    Args:
        source: Where frames come from.
        estimator: Turns windows of frames into bodies.
        stats: Counters to use instead of the runner's own.
        clock_ns: The monotonic clock in nanoseconds, for tests.
        opened: The source is open already.
        low_latency: Frames to show come from `newest` as soon as they are captured.
        watch: Looks for events in every frame; they come from `events`.
        close_estimator: Whether `close` closes the estimator too, because nothing else has it.

    Raises:
        SourceError: The source cannot be opened, or is lost; raised by ``with`` or by iterating.
        Exception: Whatever the estimator raised; raised by iterating.
    """

    def __init__(
        self,
        source: Source,
        estimator: BodyEstimator,
        *,
        stats: Stats | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        opened: bool = False,
        low_latency: bool = False,
        watch: Watch | None = None,
        close_estimator: bool = False,
    ) -> None:
        self.source = source
        self.estimator = estimator
        self.stats = stats or Stats()
        self.low_latency = low_latency
        self._watch = watch
        self._opened = opened
        self._close_estimator = close_estimator
        self._scheduler = StreamScheduler(estimator, clock_ns=clock_ns)
        self._started: VideoStream | None = None
        self._done = False

    def __enter__(self) -> Runner:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Runner:
        """Open the source and start the threads; call it once.

        Raises:
            SourceError: The source cannot be opened.
        """
        if not self._opened:
            self.source.open()
        self._scheduler.start()
        self._started = self._scheduler.add(
            "", self.source, opened=True, stats=self.stats, low_latency=self.low_latency,
            watch=self._watch,
        )  # fmt: skip
        return self

    def stop(self) -> None:
        """Capture no more; frames that were read come out, then the iteration ends.

        Any thread and any signal handler may call it.
        """
        self._stream.stop()

    def close(self) -> None:
        """End now: drop what is under way and wait for the threads. Safe to call twice.

        Frames that were read and not delivered are counted as dropped.

        Raises:
            RuntimeError: A thread did not end within ten seconds.
        """
        self._scheduler.close()
        self.source.close()
        if self._close_estimator:
            self.estimator.close()
        # A run that was read to its end has nothing left under way.
        if self._started is not None and not self._done:
            self._started.settle()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The faults that did not end the run, as `VideoStream.warnings`."""
        return self._stream.warnings

    def __iter__(self) -> Iterator[tuple[Frame, Bodies]]:
        for window in self.windows():
            yield from window

    def windows(self) -> Iterator[FittedWindow]:
        """Yield the frames of one window after another, for a renderer that draws them together."""
        yield from self._stream.windows()
        self._done = True

    def events(self) -> Iterator[Event]:
        """Yield events, as `VideoStream.events`."""
        return self._stream.events()

    def newest(self) -> Iterator[Frame]:
        """Yield the newest frames, as `VideoStream.newest`."""
        return self._stream.newest()

    @property
    def _stream(self) -> VideoStream:
        if self._started is None:
            raise RuntimeError("the runner was not started")
        return self._started
