"""One source's way through a `StreamScheduler`: its ring, its windows, its results, its events."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipeline.capture.base import Source
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.people import Bodies, Person
from pipeline.core.ring import Closed, Policy, Ring
from pipeline.core.stats import Stats
from pipeline.runtime.event_window import event_window, spaced
from pipeline.runtime.keypoint_estimator import DetectedWindow, KeypointEstimator
from pipeline.runtime.window import Windower, inherit_break

JOIN_S = 10.0
"""How long a thread is given to end."""
_RESULTS = 2
"""Windows of results that wait for whoever takes them."""
_UNDER_WAY = 2
"""Windows of a source between perceiving and its results: one is perceived, one fitted."""
_EVENT_FRAMES = 16
_EVENT_S = 0.15
"""So many frames that were perceived, and for so long, are kept for an event's window."""
_EVENT_CONTEXT = 96
"""Frames whose people are kept, without their masks."""
EVENT_PERIOD_S = 1 / 30
"""The frames of an event's window are about so far apart: of a faster source every second or so."""
_MOST_EVENTS = 64

_SLOW = {"ring full": "output too slow"}
"""Why what is ready to be shown was dropped."""

Fitted = list[tuple[Frame, Bodies]]


class Watch(Protocol):
    """Looks for events in one source's people; belongs to the thread that perceives."""

    def see(self, frame: Frame, people: Mapping[int, Person], reset: bool) -> Sequence[Any]:
        """The events that this frame's people, by track, show to have happened, each with the
        ``frame_id`` it is about and its ``track``. ``reset``: nobody is who they were before."""
        ...

    def finish(self) -> None:
        """No more frames will come."""
        ...


@dataclass(frozen=True, eq=False)
class Event:
    """What a `Watch` saw, and the window around it, fitted: up to four frames with the body of
    whom it is about (none in a frame where they were not seen), the key frame the event's own."""

    seen: Any
    window: Window
    fitted: Fitted


@dataclass(frozen=True, eq=False)
class EventJob:
    """An event's window, its people, and those of the frames before it."""

    stream: VideoStream
    seen: Any
    perceived: DetectedWindow
    before: Sequence[dict[int, Person]]


class VideoStream:
    """One source's way through a `StreamScheduler`. Read its results with ``windows``; any thread
    may ``stop`` it. ``error`` is what ended it, None for its own end.

    With ``low_latency`` the frames to show come from ``newest``: what is read is drawn or dropped
    there, and a frame that perceiving had no time for is counted as "unfitted". With a ``watch``
    its ``events`` come beside the results.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        estimator: KeypointEstimator,
        wake: Callable[[], None],
        *,
        opened: bool = False,
        stats: Stats | None = None,
        low_latency: bool = False,
        watch: Watch | None = None,
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
        self.state = estimator.begin()
        policy = Policy.DROP_OLDEST if source.live else Policy.WAIT
        # Bodies are predicted the better the newer the frame that was fitted last.
        self.frames: Ring[Frame] = Ring(
            1 if low_latency else WINDOW_FRAMES,
            policy,
            on_drop=lambda _, cause: self._lost(1, cause),
            inherit=inherit_break,
        )
        self.fitted: Ring[Fitted] = Ring(
            _RESULTS,
            policy,
            on_drop=lambda fitted, cause: self._lost(len(fitted), _SLOW.get(cause, cause)),
        )
        self._newest: Ring[Frame] | None = None
        if low_latency:
            self._newest = Ring(
                1,
                Policy.DROP_OLDEST,
                on_drop=lambda _, cause: self.stats.drop(_SLOW.get(cause, cause)),
                inherit=inherit_break,
            )
        self._max_wait_ms = 500.0 if source.live else math.inf
        one_by_one = low_latency or watch is not None
        self._windower = Windower(self._max_wait_ms, size=1 if one_by_one else WINDOW_FRAMES)
        self._collected: list[DetectedWindow] = []
        self._recent: deque[DetectedWindow] = deque()
        self._context: deque[tuple[int, dict[int, Person]]] = deque(maxlen=_EVENT_CONTEXT)
        # Rare; whoever does not take them loses the oldest.
        self._events: Ring[Event] = Ring(
            _MOST_EVENTS, Policy.DROP_OLDEST, on_drop=lambda *_: self.stats.count("lost events")
        )
        self._pending: deque[Window] = deque()
        self._finished, self._under_way = False, 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._capture, name=f"capture {name}".strip())

    def windows(self) -> Iterator[Fitted]:
        """The frames of one window after another, each with its bodies; raises what ended the
        source or the model."""
        while True:
            try:
                fitted = self.fitted.get()
            except Closed:
                break
            self._wake()
            yield fitted
        self.ended.wait()
        if self.error is not None:
            raise self.error

    def newest(self) -> Iterator[Frame]:
        """The newest frame again and again, each once, as soon as it is captured; ends with the
        source, whose error ``windows`` raises. For a lane of low latency."""
        assert self._newest is not None, "a lane without low latency has no frames to show"
        with suppress(Closed):
            while True:
                yield self._newest.get()

    def events(self) -> Iterator[Event]:
        """What the watch sees, as it is fitted; ends with the results."""
        with suppress(Closed):
            while True:
                yield self._events.get()

    def stop(self) -> None:
        """Capture no more; frames already read come out, then the results end."""
        self._halted.set()
        self.source.close()

    def start(self) -> None:
        self._thread.start()

    def join(self) -> bool:
        """Whether the source's thread ended in time."""
        self._thread.join(JOIN_S)
        return not self._thread.is_alive()

    def take(self, now_ns: int) -> Window | None:
        """The next window, if there is one and room for its results."""
        room = self.source.live or len(self.fitted) + self._under_way < _RESULTS
        room = room and self._under_way < _UNDER_WAY
        if room or not self.low_latency:
            self._gather(now_ns)
        if self._pending and room:
            with self._lock:
                self._under_way += 1
            return self._pending.popleft()
        if self._finished and not (self._pending or self._under_way or self._collected):
            # Here, in the thread it belongs to, and once.
            if self.watch is not None and not self.ended.is_set():
                self.watch.finish()
            self.finish()
        return None

    def perceived(self, one: DetectedWindow) -> list[DetectedWindow]:
        """What is to be fitted now that a window was perceived: it, or with a watch the four that
        it completes."""
        if self.watch is None:
            return [one]
        done = self._collect() if one.window.reset else []
        self._collected.append(one)
        if len(self._collected) == WINDOW_FRAMES:
            done += self._collect()
        with self._lock:
            self._under_way += len(done) - 1
        return done

    def overdue(self, now_ns: int) -> list[DetectedWindow]:
        """What was collected and need not wait any longer: nothing will come, or not for long."""
        if not self._collected or self._pending or self._under_way:
            return []
        waited_ms = (now_ns - self._collected[0].window.frames[0].captured_ns) / 1e6
        if not (self._finished or waited_ms >= self._max_wait_ms):
            return []
        with self._lock:
            self._under_way += 1
        return self._collect()

    def _collect(self) -> list[DetectedWindow]:
        """Those collected as one window."""
        parts, self._collected = self._collected, []
        if not parts:
            return []
        frames = tuple(part.window.frames[0] for part in parts)
        window = Window(frames, 0, parts[0].window.reset)
        return [DetectedWindow(window, tuple(part.people[0] for part in parts))]

    def watched(self, one: DetectedWindow) -> list[EventJob]:
        """What the watch sees in a perceived frame, ready to be fitted."""
        if self.watch is None:
            return []
        (frame,), (people,) = one.window.frames, one.people
        if one.window.reset:
            self._recent.clear()
            self._context.clear()
        self._recent.append(one)
        while len(self._recent) > _EVENT_FRAMES and _ago_s(self._recent[0], frame) > _EVENT_S:
            self._recent.popleft()
        bare = {track: replace(person, mask=None) for track, person in people.items()}
        self._context.append((frame.id, bare))
        events = self.watch.see(frame, people, one.window.reset)
        if not events:
            return []
        # One about a frame that is long gone has no window.
        kept = {each.window.frames[0].id for each in self._recent}
        there = [seen for seen in events if seen.frame_id in kept]
        self.stats.count("lost events", len(events) - len(there))
        return [self._event(seen) for seen in there]

    def _event(self, seen: Any) -> EventJob:
        recent = [each.window.frames[0] for each in self._recent]
        stride = _stride(recent)
        window = event_window(spaced(recent, seen.frame_id, EVENT_PERIOD_S), seen.frame_id)
        by_id = {each.window.frames[0].id: each.people[0] for each in self._recent}
        people = tuple(by_id[frame.id] for frame in window.frames)
        earlier = [people for number, people in self._context if number < window.frames[0].id]
        before = earlier[::-1][stride - 1 :: stride][::-1]
        return EventJob(self, seen, DetectedWindow(window, people), before)

    def tell(self, event: Event) -> None:
        """An event, fitted."""
        with suppress(Closed):  # where the source was removed meanwhile
            self._events.put(event)

    def deliver(self, fitted: Fitted) -> None:
        """Results of a window that was taken. There is room: a clip's windows are taken only where
        there is, a live feed's push out its oldest."""
        with suppress(Closed):  # where the source was removed meanwhile
            self.fitted.put(fitted)
        with self._lock:
            self._under_way -= 1

    def settle(self) -> None:
        """Count what was read and will never come out as dropped; once nobody reads any more."""
        self.stats.drop("stopped", self.stats.snapshot().in_flight)

    def finish(self, error: BaseException | None = None) -> None:
        """No more results will come."""
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
        """End now; results that are there can still be taken."""
        self._halted.set()
        self.frames.abort()
        self.source.close()

    def _gather(self, now_ns: int) -> None:
        """Frames that came into windows."""
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
        """Frames whose bodies nobody will see; with low latency they were shown all the same."""
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
                self.stats.count("read")
                if self._newest is not None:
                    self._newest.put(frame)
                self.frames.put(frame)
                self._wake()
        except Closed:
            pass
        except BaseException as error:
            if not self._halted.is_set():
                self.error = error
        finally:
            if self._newest is not None:
                self._newest.close()
            self.frames.close()
            self.source.close()
            self._wake()


def _ago_s(one: DetectedWindow, frame: Frame) -> float:
    return frame.pts_s - one.window.frames[0].pts_s


def _stride(frames: Sequence[Frame]) -> int:
    """How many frames make about a thirtieth of a second."""
    if len(frames) < 2:
        return 1
    period_s = (frames[-1].pts_s - frames[0].pts_s) / (len(frames) - 1)
    return max(1, round(EVENT_PERIOD_S / max(period_s, 1e-3)))
