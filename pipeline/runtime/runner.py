"""One source through a model of its own: a `StreamScheduler` with one lane.

    source --frames--> [ring] --windows--> perceive --[ring]--> fit --[ring]--> you

Frames come out in order, each with the bodies fitted to it. A clip waits, a live feed drops; an
error in any thread ends all of them and is raised where the result is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from pipeline.capture.base import Source
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.stats import Stats
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import Event, Fitted, VideoStream, Watch


class Runner:
    """Runs one source; iterate it for ``(frame, bodies)``, in a ``with`` block. ``opened`` says
    that the source is open already.

    ``stop()`` may be called from any thread or a signal handler: no new frame is captured, what
    is under way is finished and delivered. ``close()`` drops what is under way. Raises what a
    thread raised: a SourceError of capture, or whatever the model or the fit met.
    """

    def __init__(
        self,
        source: Source,
        estimator: KeypointEstimator,
        *,
        stats: Stats | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        opened: bool = False,
        low_latency: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.source = source
        self.estimator = estimator
        self.stats = stats or Stats()
        self.low_latency = low_latency
        self._watch = watch
        self._opened = opened
        self._scheduler = StreamScheduler(estimator, clock_ns=clock_ns)
        self._running: VideoStream | None = None
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
        """Open the source (raises SourceError) and start the threads. Once only."""
        if not self._opened:
            self.source.open()
        self._scheduler.start()
        self._running = self._scheduler.add(
            "", self.source, opened=True, stats=self.stats, low_latency=self.low_latency,
            watch=self._watch,
        )  # fmt: skip
        return self

    def stop(self) -> None:
        """Capture no more; frames already read come out, then the iteration ends."""
        self._stream.stop()

    def close(self) -> None:
        """End now: drop what is under way and wait for the threads. Safe to call twice.

        Frames that were read and not delivered are counted as dropped. Raises RuntimeError when
        a thread does not end within ten seconds.
        """
        self._scheduler.close()
        self.source.close()
        if self._running is not None and not self._done:
            self._running.settle()

    def __iter__(self) -> Iterator[tuple[Frame, Bodies]]:
        for window in self.windows():
            yield from window

    def windows(self) -> Iterator[Fitted]:
        """The frames of one window after another, for whoever draws them together."""
        yield from self._stream.windows()
        self._done = True

    def events(self) -> Iterator[Event]:
        """As `VideoStream.events`."""
        return self._stream.events()

    def newest(self) -> Iterator[Frame]:
        """As `VideoStream.newest`."""
        return self._stream.newest()

    @property
    def _stream(self) -> VideoStream:
        if self._running is None:
            raise RuntimeError("the runner was not started")
        return self._running
