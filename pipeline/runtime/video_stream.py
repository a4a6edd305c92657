"""One source's way through a `StreamScheduler`: its frames, windows, results and events."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from pipeline.capture.base import Source
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.ring import Closed, Policy, Ring
from pipeline.core.stats import Stats
from pipeline.runtime.cuts import CutDetector
from pipeline.runtime.estimator import BodyEstimator, DetectedWindow, FittedWindow
from pipeline.runtime.event_buffer import Event, EventBuffer, EventJob, Watch
from pipeline.runtime.faults import ENDS_ALL, FaultLog, as_exception
from pipeline.runtime.window import Windower, inherit_break

JOIN_S = 10.0
"""How long a thread may take to end."""
_RESULTS = 2
"""Windows of results that wait for the reader."""
_UNDER_WAY = 2
"""A source's windows between perceiving and its results: one is perceived, one fitted."""
_MOST_EVENTS = 64
_LIVE_WAIT_MS = 500.0
"""A live source's unfinished window is closed after this long, so that a stall shows its last
frames."""

_REASONS = {"ring full": "output too slow"}
"""Why results that are ready were dropped, as the summary says it."""


class VideoStream:
    """One source in a `StreamScheduler`; read its results with `windows`, end it with `stop`.

    Any thread may call `stop`, `windows`, `newest` and `events`; the scheduler calls the rest.

    Args:
        name: The stream's name in the scheduler.
        source: Where frames come from.
        estimator: Makes this source's state.
        wake: Called with the stream when something of it may be ready for the scheduler.
        opened: The source is open already.
        stats: Counters to use instead of the stream's own.
        low_latency: Frames to show come from `newest` as soon as they are captured; a frame that
            perceiving had no time for is counted as "unfitted".
        watch: Looks for events in every frame; they come from `events`.
        state: What the estimator remembered of the same source in another stream, whose time and
            numbers this one's frames continue; None begins anew.

    Attributes:
        faults: The faults of its stages.
        error: What ended the stream, None for the source's own end.
        ended: Set once no more results will come.

    Raises:
        ValueError: A watch with low latency, which leaves frames out.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        estimator: BodyEstimator,
        wake: Callable[[VideoStream], None],
        *,
        opened: bool = False,
        stats: Stats | None = None,
        low_latency: bool = False,
        watch: Watch | None = None,
        state: Any = None,
    ) -> None:
        if watch is not None and low_latency:
            raise ValueError("events are seen in every frame; low latency leaves some out")
        self.name = name
        self.source = source
        self.low_latency = low_latency
        self.watch = watch
        self.estimator = estimator
        self.stats = stats or Stats()
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self._wake = wake
        self._opened = opened
        self._halted = threading.Event()
        self.state = estimator.begin() if state is None else state
        # A clip waits for the model; a live source cannot.
        policy = Policy.DROP_OLDEST if source.live else Policy.WAIT
        # With low latency the newest frame alone waits: bodies are extrapolated from the last fit,
        # and the newer the fitted frame, the shorter the way.
        self.frames: Ring[Frame] = Ring(
            1 if low_latency else WINDOW_FRAMES,
            policy,
            on_drop=lambda _, cause: self._lost(1, cause),
            inherit=inherit_break,
        )
        self.fitted: Ring[FittedWindow] = Ring(
            _RESULTS,
            policy,
            on_drop=lambda fitted, cause: self._lost(len(fitted), _REASONS.get(cause, cause)),
        )
        self._newest: Ring[Frame] | None = None
        if low_latency:
            self._newest = Ring(
                1,
                Policy.DROP_OLDEST,
                on_drop=lambda _, cause: self.stats.drop(_REASONS.get(cause, cause)),
                inherit=inherit_break,
            )
        self._max_wait_ms = _LIVE_WAIT_MS if source.live else math.inf
        # Neither may wait until four frames are there.
        one_by_one = low_latency or watch is not None
        # Cuts are found in the source's own thread: the scheduler's is shared by all sources.
        self._windower = Windower(
            self._max_wait_ms,
            find_cuts=False,
            size=1 if one_by_one else WINDOW_FRAMES,
            begins=state is None,
        )
        self._cuts = CutDetector()
        self._event_buffer = None if watch is None else EventBuffer(watch, self.stats)
        self._collected: list[DetectedWindow] = []
        # Events are rare; a reader that does not take them loses the oldest.
        self._events: Ring[Event] = Ring(
            _MOST_EVENTS, Policy.DROP_OLDEST, on_drop=lambda *_: self.stats.count("lost events")
        )
        self._pending: deque[Window] = deque()
        self._finished, self._under_way = False, 0
        self.faults = FaultLog()
        self._perceive_anew = self._fit_anew = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._capture, name=f"capture {name}".strip())

    # For the reader of the results.

    def windows(self) -> Iterator[FittedWindow]:
        """Yield the frames of one window after another, each with its bodies.

        Raises:
            BaseException: What ended the source or the model.
        """
        while True:
            try:
                fitted = self.fitted.get()
            except Closed:
                break
            # There is room again, so the scheduler may take a clip's next window.
            self._wake(self)
            yield fitted
        # The error is set before `ended`, so it can be read from here on.
        self.ended.wait()
        if self.error is not None:
            raise self.error

    def newest(self) -> Iterator[Frame]:
        """Yield the newest frame, each once, as soon as it is captured; low latency only.

        Ends with the source, whose error `windows` raises.
        """
        assert self._newest is not None, "a stream without low latency has no frames to show"
        with suppress(Closed):
            while True:
                yield self._newest.get()

    def events(self) -> Iterator[Event]:
        """Yield what the watch sees, as it is fitted; ends with the results."""
        with suppress(Closed):
            while True:
                yield self._events.get()

    def stop(self) -> None:
        """Capture no more; frames that were read come out, then the results end."""
        # Set first: errors of a source that is being closed mean nothing.
        self._halted.set()
        self._close_source()

    def settle(self) -> None:
        """Count what was read and will never come out as dropped; call it when reading is over."""
        self.stats.drop("stopped", self.stats.snapshot().in_flight)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The last fault of each stage that failed, a line each."""
        # A stream alone has no name.
        before = f"{self.name}: " if self.name else ""
        return tuple(before + line for line in self.faults.reasons)

    # For the scheduler's perceiving thread.

    def start(self) -> None:
        """Start capturing, in a thread of its own."""
        self._thread.start()

    def join(self) -> bool:
        """Return whether the capturing thread has ended in time."""
        self._thread.join(JOIN_S)
        return not self._thread.is_alive()

    def take(self, now_ns: int) -> Window | None:
        """Return the next window, if there is one and room for its results."""
        if self.ended.is_set():
            return None
        room = self.source.live or len(self.fitted) + self._under_way < _RESULTS
        room = room and self._under_way < _UNDER_WAY
        # With low latency frames are taken as late as possible, so that the newest one is fitted.
        if room or not self.low_latency:
            self._gather(now_ns)
        if self._pending and room:
            with self._lock:
                self._under_way += 1
            window = self._pending.popleft()
            if self._perceive_anew:
                self._perceive_anew, window = False, replace(window, reset=True)
            return window
        if self._finished and not (self._pending or self._under_way or self._collected):
            # The watch belongs to this thread, so it is finished here, and once.
            if self.watch is not None and not self.ended.is_set():
                self.watch.finish()
            self.finish()
        return None

    def to_fit(self, detected: DetectedWindow) -> list[DetectedWindow]:
        """Return what is to be fitted now that a window was perceived.

        That is the window itself; with a watch, whose windows hold one frame, the window of four
        that it completes.
        """
        if self.watch is None:
            return [detected]
        done = self._collect() if detected.window.reset else []
        self._collected.append(detected)
        if len(self._collected) == WINDOW_FRAMES:
            done += self._collect()
        # `take` counted this window of one frame; it counts on only as part of a window of four.
        with self._lock:
            self._under_way += len(done) - 1
        return done

    def overdue(self, now_ns: int) -> list[DetectedWindow]:
        """Return an unfinished window of four that should wait no longer for its last frames."""
        # What is still under way may complete the window.
        if self.ended.is_set() or not self._collected or self._pending or self._under_way:
            return []
        waited_ms = (now_ns - self._collected[0].window.frames[0].captured_ns) / 1e6
        if not (self._finished or waited_ms >= self._max_wait_ms):
            return []
        with self._lock:
            self._under_way += 1
        return self._collect()

    def event_jobs(self, detected: DetectedWindow) -> list[EventJob]:
        """Return the events that a perceived frame shows, ready to be fitted."""
        return [] if self._event_buffer is None else self._event_buffer.add(detected)

    # For both of the scheduler's threads.

    @contextmanager
    def guarded(self, stage: str, *, final: bool = False) -> Iterator[None]:
        """Take an error in the block as a fault of this source alone.

        Args:
            stage: The stage that the block is of.
            final: Whether the first fault ends the source.
        """
        try:
            yield
            self.faults.succeeded(stage)
        except ENDS_ALL:
            raise
        except BaseException as error:
            if self.faults.failed(stage, error) or final:
                self.fail(error)

    def skip(self, stage: str, window: Window) -> None:
        """Leave out a window that was under way."""
        # What is remembered of the source may be the cause, so that is forgotten.
        self._perceive_anew = self._fit_anew = True
        self._lost(len(window.frames), f"{stage} failed")
        with self._lock:
            self._under_way -= 1

    def fail(self, error: BaseException) -> None:
        """End because of a fault, without waiting; results that are there can still be read."""
        self._halted.set()
        self.frames.abort()
        if self._newest is not None:
            self._newest.close()
        self.finish(as_exception(error))

    # For the scheduler's fitting thread.

    def anew(self, detected: DetectedWindow) -> DetectedWindow:
        """Return a window, as the first one of the source if a stage failed before it."""
        if not self._fit_anew:
            return detected
        self._fit_anew = False
        return replace(detected, window=replace(detected.window, reset=True))

    def tell(self, event: Event) -> None:
        """Hand a fitted event to the reader."""
        with suppress(Closed):  # The stream was removed meanwhile.
            self._events.put(event)

    def deliver(self, fitted: FittedWindow) -> None:
        """Hand a window's results to the reader.

        There is room: a clip's windows are taken only where there is, and a live feed's results
        push out the oldest.
        """
        with suppress(Closed):  # The stream was removed meanwhile.
            self.fitted.put(fitted)
        with self._lock:
            self._under_way -= 1

    # For the scheduler's ends.

    def finish(self, error: BaseException | None = None) -> None:
        """End the results; those that are there can still be read."""
        self.error = self.error or error
        self.fitted.close()
        self._events.close()
        self.ended.set()

    def abort(self) -> None:
        """End now and throw away what is under way."""
        self.halt()
        self.fitted.abort()
        if self._newest is not None:
            self._newest.abort()

    def halt(self) -> None:
        """End now; results that are there can still be read."""
        self._halted.set()
        self.frames.abort()
        self._close_source()

    def _close_source(self) -> None:
        # Several sources are ended one after another: one that cannot be closed must not keep the
        # others open.
        try:
            self.source.close()
        except Exception as error:
            self.faults.failed("closing", error)

    def _collect(self) -> list[DetectedWindow]:
        """The collected windows of one frame as one window."""
        parts, self._collected = self._collected, []
        if not parts:
            return []
        frames = tuple(part.window.frames[0] for part in parts)
        window = Window(frames, 0, parts[0].window.reset)
        return [DetectedWindow(window, tuple(part.people[0] for part in parts))]

    def _gather(self, now_ns: int) -> None:
        """Make windows of the frames that came."""
        # While windows wait, frames stay in the ring, whose policy bounds them.
        if self._finished or self._pending:
            return
        try:
            frames = self.frames.get_batch(WINDOW_FRAMES, 0.0)
        except TimeoutError:
            self._pending.extend(self._windower.expire(now_ns))
        except Closed:
            self._pending.extend(self._windower.finish())
            self._finished = True
        else:
            for frame in frames:
                self._pending.extend(self._windower.add(frame))

    def _lost(self, number: int, cause: str) -> None:
        """Count frames without bodies: with low latency they were shown all the same."""
        if self.low_latency:
            self.stats.count("unfitted", number)
        else:
            self.stats.drop(cause, number)

    def _capture(self) -> None:
        try:
            if not self._opened:
                self.source.open()
            for frame in self.source.frames():
                if self._halted.is_set():
                    break
                self.stats.read(frame.id)
                if self._cuts.is_cut(frame.pixels):
                    frame = replace(frame, discontinuity=True)
                # To the reader first, because the second ring may make this thread wait.
                if self._newest is not None:
                    self._newest.put(frame)
                self.frames.put(frame)
                self._wake(self)
        except Closed:
            pass
        except BaseException as error:
            # After a halt the source is being torn down, and its complaints mean nothing.
            if not self._halted.is_set():
                self.error = as_exception(error)
        finally:
            if self._newest is not None:
                self._newest.close()
            self.frames.close()
            self._close_source()
            self._wake(self)
