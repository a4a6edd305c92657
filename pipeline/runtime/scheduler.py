"""Runs several sources through one estimator, each with a ring, people and a pace of its own.

    source --frames--> [ring] --windows--+                            +--[ring]--> reader
    source --frames--> [ring] --windows--+--> perceive --[ring]--> fit+--[ring]--> reader
    source --frames--> [ring] --windows--+                            +--[ring]--> reader

The windows that are ready at one time are perceived together and fitted together, at most one of
each source. No source waits for another: not for one that is slow or away, nor for one whose
results are not read. A clip then waits by itself, and a live feed's oldest results are dropped.

A source's error ends that source. Where the estimator fails for a batch, each window is tried
alone, the window at fault is left out and its source begins anew; a source for which a stage fails
`MOST_FAULTS` times one after another ends. An estimator that fails for a black picture too is
broken, which ends all.

With a ``watch`` a source's frames are perceived one by one as they come, and collected to windows
of four for the fit. An event that the watch sees (`pipeline.events`) is fitted at once, before all
that waits, from frames that the stream has kept (`event_buffer`).

With low latency a source's frames also go straight to the reader, the newest in the place of older
ones (`VideoStream.newest`), and perceiving takes the newest frame whenever it is free instead of
waiting for four.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch

from pipeline.capture.base import Source
from pipeline.core.frame import Window
from pipeline.core.ring import Closed, Ring
from pipeline.core.stats import Stats
from pipeline.gpu.transfer import own_stream
from pipeline.runtime.estimator import BodyEstimator, DetectedWindow, FittedWindow
from pipeline.runtime.event_buffer import Event, EventJob, Watch
from pipeline.runtime.faults import (
    Fault,
    check_detected,
    check_fitted,
    fit_blank,
    one_by_one_if_it_fails,
    perceive_blank,
)
from pipeline.runtime.video_stream import JOIN_S, VideoStream

IDLE_S = 0.05
"""Windows also become overdue by the clock alone: all streams are looked at this often."""


class StreamScheduler:
    """Runs any number of sources through one estimator, in a ``with`` block.

    Sources are added and removed while it runs, from any thread.

    Args:
        estimator: Turns windows into bodies.
        clock_ns: The monotonic clock in nanoseconds, for tests.
        on_error: Called with an error of the estimator, which ends every stream.
    """

    def __init__(
        self,
        estimator: BodyEstimator,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.estimator = estimator
        self._clock_ns = clock_ns
        self._on_error = on_error
        self._streams: dict[str, VideoStream] = {}
        self._lock = threading.Lock()
        # Only streams with news are looked at, so that the work for a frame does not grow with the
        # number of sources. A dict, because it keeps the order of arrival.
        self._due: dict[VideoStream, None] = {}
        self._due_lock = threading.Lock()
        self._news = threading.Event()
        self._stopped = threading.Event()
        self._work: Ring[
            list[tuple[VideoStream, DetectedWindow]] | tuple[VideoStream, EventJob]
        ] = Ring(1)
        self._threads = [
            threading.Thread(target=self._guard, args=(step,), name=step.__name__.strip("_"))
            for step in (self._perceive, self._fit)
        ]

    def __enter__(self) -> StreamScheduler:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> StreamScheduler:
        """Start the estimator's two threads; call it once."""
        for thread in self._threads:
            thread.start()
        return self

    @property
    def streams(self) -> list[VideoStream]:
        """The streams that were added and not removed, ended ones too."""
        with self._lock:
            return list(self._streams.values())

    def add(
        self,
        name: str,
        source: Source,
        *,
        opened: bool = False,
        stats: Stats | None = None,
        low_latency: bool = False,
        watch: Watch | None = None,
        state: Any = None,
    ) -> VideoStream:
        """Start a source and return its stream.

        Args:
            name: What the stream is called.
            source: Opened by a thread of its own, unless ``opened``.
            opened: The source is open already.
            stats: Counters to use instead of the stream's own.
            low_latency: As `VideoStream`.
            watch: As `VideoStream`.
            state: As `VideoStream`.

        Raises:
            ValueError: The name is taken, or a watch comes with low latency.
            RuntimeError: The scheduler is closed.
        """
        with self._lock:
            if self._stopped.is_set():
                raise RuntimeError("the scheduler is closed")
            if name in self._streams:
                raise ValueError(f"there is a source named {name} already")
            stream = self._streams[name] = VideoStream(
                name, source, self.estimator, self.wake, opened=opened, stats=stats,
                low_latency=low_latency, watch=watch, state=state,
            )  # fmt: skip
        stream.start()
        return stream

    def remove(self, stream: VideoStream) -> None:
        """End a source and forget it; its frames under way are dropped.

        Raises:
            KeyError: The stream is removed already; another one may have its name.
        """
        with self._lock:
            if self._streams.get(stream.name) is not stream:
                raise KeyError(stream.name)
            del self._streams[stream.name]
        stream.abort()
        stream.finish()
        stream.join()

    def close(self) -> None:
        """End everything.

        Raises:
            RuntimeError: A thread did not end within ten seconds.
        """
        self._stopped.set()
        self._news.set()
        self._work.abort()
        streams = self.streams
        for stream in streams:
            stream.abort()
            stream.finish()
        for thread in self._threads:
            # A thread that was never started cannot be joined.
            if thread.ident is not None:
                thread.join(JOIN_S)
        stuck = [stream.name for stream in streams if not stream.join()]
        stuck += [thread.name for thread in self._threads if thread.is_alive()]
        if stuck:
            raise RuntimeError(f"these did not end within {JOIN_S:g} s: {stuck}")

    def wake(self, stream: VideoStream) -> None:
        """Have the perceiving thread look at a stream: a window of it may be ready."""
        with self._due_lock:
            self._due[stream] = None
        self._news.set()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            with own_stream():
                step()
        except Closed:
            pass
        except BaseException as error:
            self._stopped.set()
            self._work.abort()
            # What was fitted before the error still comes out; the rest is dropped.
            for stream in self.streams:
                stream.halt()
                stream.finish(error)
            if self._on_error is not None:
                self._on_error(error)

    def _perceive(self) -> None:
        next_round_s = 0.0
        while not self._stopped.is_set():
            # Cleared before looking, so that news that comes meanwhile is not lost.
            self._news.clear()
            streams = self._with_news()
            if time.monotonic() >= next_round_s:
                next_round_s = time.monotonic() + IDLE_S
                streams = self.streams
            ready, work = self._take(streams, self._clock_ns())
            if not ready and not work:
                self._news.wait(IDLE_S)
                continue
            begun_ns = self._clock_ns()
            perceived = one_by_one_if_it_fails(self._perceived, ready)
            self._timed("perceive", begun_ns, ready)
            for (stream, window), result in zip(ready, perceived):
                if isinstance(result, Fault):
                    self._skip(stream, "perceive", window, result.error, perceive_blank)
                else:
                    stream.faults.succeeded("perceive")
                    stream.stats.perceived(len(window.frames), result.unfollowed)
                    for job in self._event_jobs(stream, result):
                        self._work.put_first((stream, job))
                    work += [(stream, part) for part in stream.to_fit(result)]
            if work:
                self._work.put(work)

    def _with_news(self) -> list[VideoStream]:
        with self._due_lock:
            due, self._due = self._due, {}
        return list(due)

    def _take(
        self, streams: Sequence[VideoStream], now_ns: int
    ) -> tuple[list[tuple[VideoStream, Window]], list[tuple[VideoStream, DetectedWindow]]]:
        """Return the windows of streams that are ready to be perceived, and those that are overdue
        to be fitted."""
        ready, work = [], []
        for stream in streams:
            # Final, because what a source captured cannot be taken again.
            with stream.guarded("capture", final=True):
                window = stream.take(now_ns)
                if window is not None:
                    ready.append((stream, window))
                    # Its next one may be there already.
                    self.wake(stream)
                work += [(stream, one) for one in stream.overdue(now_ns)]
        return ready, work

    def _perceived(self, ready: Sequence[tuple[VideoStream, Window]]) -> list[DetectedWindow]:
        windows = [window for _, window in ready]
        perceived = self.estimator.perceive(windows, [stream.state for stream, _ in ready])
        for one, window in zip(perceived, windows):
            check_detected(one, window)
        return perceived

    def _event_jobs(self, stream: VideoStream, detected: DetectedWindow) -> list[EventJob]:
        with stream.guarded("event search"):
            return stream.event_jobs(detected)
        return []

    def _fit(self) -> None:
        # The fit's many small products gain nothing from more threads, and the threads would
        # spin on cores that perception and drawing need. Holds for this thread alone.
        torch.set_num_threads(1)
        while True:
            work = self._work.get()
            if isinstance(work, tuple):
                self._fit_event(*work)
            else:
                self._fit_windows(work)
                # They have fewer windows under way now, so their next ones may be taken.
                for stream, _ in work:
                    self.wake(stream)

    def _fit_event(self, stream: VideoStream, job: EventJob) -> None:
        begun_ns = self._clock_ns()
        with stream.guarded("event fit"):
            fitted = self.estimator.fit_event(
                job.detected, job.before, job.seen.track, stream.state
            )
            check_fitted(fitted, job.detected.window)
            stream.stats.timed("event fit", (self._clock_ns() - begun_ns) / 1e6)
            stream.tell(Event(job.seen, job.detected.window, fitted))
            return
        stream.stats.count("lost events")

    def _fit_windows(self, work: list[tuple[VideoStream, DetectedWindow]]) -> None:
        begun_ns = self._clock_ns()
        work = [(stream, stream.anew(detected)) for stream, detected in work]
        results = one_by_one_if_it_fails(self._fitted, work)
        self._timed("fit", begun_ns, [(stream, one.window) for stream, one in work])
        for (stream, one), result in zip(work, results):
            if isinstance(result, Fault):
                self._skip(stream, "fit", one.window, result.error, fit_blank)
            else:
                stream.faults.succeeded("fit")
                stream.deliver(result)

    def _fitted(self, work: Sequence[tuple[VideoStream, DetectedWindow]]) -> list[FittedWindow]:
        detected = [one for _, one in work]
        results = self.estimator.fit(detected, [stream.state for stream, _ in work])
        for result, one in zip(results, detected):
            check_fitted(result, one.window)
        return results

    def _skip(
        self,
        stream: VideoStream,
        stage: str,
        window: Window,
        error: BaseException,
        try_blank: Callable[[BodyEstimator], None],
    ) -> None:
        """Leave a window out; end its source, or all of them, where the fault repeats."""
        stream.skip(stage, window)
        if stream.faults.failed(stage, error):
            stream.fail(error)
            # Raised where a picture of no source fails too: `_guard` then ends all.
            try_blank(self.estimator)

    def _timed(
        self, stage: str, begun_ns: int, batch: Sequence[tuple[VideoStream, Window]]
    ) -> None:
        """Add a batch's time, as milliseconds a frame, to the counters of each of its streams."""
        frames = sum(len(window.frames) for _, window in batch)
        each_ms = (self._clock_ns() - begun_ns) / 1e6 / max(frames, 1)
        for stream, window in batch:
            stream.stats.timed(stage, each_ms)
            stream.stats.worked(stage, each_ms * len(window.frames))
