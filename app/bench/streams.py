"""Find how many 30 Hz sources a pipeline can process without dropping a frame."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.bench.footage import PERIOD_S
from app.bench.measure import Tick, quantiles
from app.bench.subject import Pipeline
from app.bench.timers import NoTimer
from app.garbage import leave_out_loaded
from pipeline.core.frame import Window

MOST = 512
"""The most streams that are tried."""
_LATE_SHARE = 0.05
"""A probe ends early once more than this share of its windows is late: so is its 95th
percentile."""


@dataclass(frozen=True)
class Probe:
    """The result of one number of streams.

    Attributes:
        streams: The number of sources.
        p50_ms: The median time from a window's arrival to its overlays in host memory.
        p95_ms: The 95th percentile of it.
        cut_short: Whether it ended early because too many windows were late; the times are of the
            windows until then.
    """

    streams: int
    p50_ms: float
    p95_ms: float
    cut_short: bool = False

    @property
    def holds(self) -> bool:
        """Whether the pipeline keeps up with this number of streams."""
        return not self.cut_short and self.p95_ms < 1e3 * PERIOD_S


@dataclass(frozen=True)
class Curve:
    """The largest number of streams that the pipeline keeps up with, 0 for none, and all probes,
    sorted by number."""

    streams: int
    probes: tuple[Probe, ...]

    @property
    def best(self) -> Probe:
        """The probe of ``streams``; if no probe held, the one of the fewest streams."""
        return next((p for p in self.probes if p.streams == self.streams), self.probes[0])


class Clock(Protocol):
    """The time of a probe, in seconds from its first arrival."""

    def now_s(self) -> float: ...

    def wait_until(self, time_s: float) -> None: ...


class WindowMaker(Protocol):
    """Makes the windows of sources: `footage.Player`, or `decoded.DecodedPlayer`."""

    def window(self, source: int, index: int) -> Window: ...

    def close(self) -> None: ...


class Playable(Protocol):
    """Sources that can be probed: `Sources`, or `stream_workers.WorkerSources`.

    Attributes:
        people: The number of people drawn in each measured window.
    """

    people: list[int]

    def prepare(self, streams: int) -> None: ...

    def play(self, streams: int, periods: int) -> Probe: ...


class Sources:
    """Sources that all deliver a window at the same moment, the start of every period: the hardest
    case.

    Their states are reused from probe to probe. New sources first run ``warm`` periods, and every
    probe one, so that the preparations for a new number of streams are not measured.

    Args:
        pipeline: The pipeline.
        player: The frames.
        warm: How many periods new sources run before they are measured.
        clock_s: A monotonic clock in seconds.

    Attributes:
        people: The number of people drawn in each measured window.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        player: WindowMaker,
        warm: int,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pipeline, self._player, self._warm = pipeline, player, warm
        self._clock_s = clock_s
        # Kept from probe to probe: new sources must be warmed up first, which takes time.
        self._states: list[Any] = []
        self._next: list[int] = []
        self._timer = NoTimer()
        self.people: list[int] = []

    def close(self) -> None:
        """Release the frames."""
        self._player.close()

    def prepare(self, streams: int) -> None:
        """Warm up for a number of streams, so that nothing of it is measured."""
        new = streams - len(self._states)
        self._pipeline.warm_up(streams)
        for _ in range(new):
            self._states.append(self._pipeline.begin())
            self._next.append(0)
        # One period at least: a new batch size may compile or capture a graph.
        periods = max(self._warm if new > 0 else 1, 1)
        self._play(streams, periods, _SkippingClock(self._clock_s), decide=False)
        # As the commands do once they are ready.
        leave_out_loaded()

    def play(self, streams: int, periods: int) -> Probe:
        """Measure a number of streams that were prepared, for a number of periods."""
        clock = _SkippingClock(self._clock_s)
        return probe_of(streams, *self.measure(streams, periods, clock))

    def measure(self, streams: int, periods: int, clock: Clock) -> tuple[list[float], bool]:
        """Return the milliseconds from arrival to overlays of each window, and whether it ended
        early because too many were late."""
        self.people.clear()
        return self._play(streams, periods, clock, decide=True)

    def _play(
        self, streams: int, periods: int, clock: Clock, decide: bool
    ) -> tuple[list[float], bool]:
        """Return what `measure` does; without ``decide`` it never ends early.

        A late window delays the ones behind it, as it would live.
        """
        waiting = deque((k * PERIOD_S, s) for k in range(periods) for s in range(streams))
        # One more than the share: so the 95th percentile is certainly late.
        most_late = _LATE_SHARE * len(waiting) + 1 if decide else float("inf")
        in_flight: deque[tuple[Any, list[tuple[float, int]]]] = deque()
        times_ms: list[float] = []
        late = 0
        while (waiting or in_flight) and late <= most_late:
            # A source in flight is left out: its next window needs the state of the last one.
            group = self._group(waiting, clock.now_s(), {s for _, g in in_flight for _, s in g})
            if group and len(in_flight) < self._pipeline.depth:
                for _ in group:
                    waiting.popleft()
                in_flight.append((self._submit([s for _, s in group]), group))
            elif in_flight:
                ticket, done = in_flight.popleft()
                self.people += [window.people for window in self._pipeline.collect(ticket)]
                now_s = clock.now_s()
                times_ms += [1e3 * (now_s - arrival_s) for arrival_s, _ in done]
                late += sum(now_s - arrival_s >= PERIOD_S for arrival_s, _ in done)
            else:
                clock.wait_until(waiting[0][0])
        # Collected also after an early end, or they would disturb the next probe.
        for ticket, _ in in_flight:
            self._pipeline.collect(ticket)
        return times_ms, late > most_late

    def _group(
        self, waiting: deque[tuple[float, int]], now_s: float, busy: set[int]
    ) -> list[tuple[float, int]]:
        """Return the next windows that have arrived: at most one of each source, and none of a
        source whose last window is not finished."""
        group: list[tuple[float, int]] = []
        for arrival_s, source in waiting:
            if len(group) == self._pipeline.at_once or arrival_s > now_s or source in busy:
                # In order of arrival: a busy source holds up those behind it, as a queue would.
                break
            group.append((arrival_s, source))
            busy = busy | {source}
        return group

    def _submit(self, sources: list[int]) -> Any:
        windows = [self._player.window(s, self._next[s]) for s in sources]
        for s in sources:
            self._next[s] += 1
        return self._pipeline.submit(windows, [self._states[s] for s in sources], self._timer)


class _SkippingClock:
    """A clock that starts at 0 and skips the time in which nothing happens, which would only make a
    probe longer."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._zero_s = clock_s()
        self._least_s = 0.0

    def now_s(self) -> float:
        return max(self._clock_s() - self._zero_s, self._least_s)

    def wait_until(self, time_s: float) -> None:
        self._zero_s -= max(time_s - self.now_s(), 0.0)
        # Rounding could make the time a little too early, and the caller would wait for ever.
        self._least_s = time_s


class LiveClock:
    """A clock that begins at a moment of ``time.monotonic`` and waits: other processes, which begin
    at the same moment, use the same device meanwhile."""

    def __init__(self, begin_s: float) -> None:
        self._begin_s = begin_s

    def now_s(self) -> float:
        """Return the seconds since the beginning; negative before it."""
        return time.monotonic() - self._begin_s

    def wait_until(self, time_s: float) -> None:
        """Sleep until then."""
        while (left_s := time_s - self.now_s()) > 0:
            time.sleep(left_s)


def probe_of(streams: int, times_ms: Sequence[float], cut_short: bool) -> Probe:
    """Return the probe of a number of streams by the milliseconds of their windows."""
    return Probe(streams, *quantiles(times_ms), cut_short)


def search(sources: Playable, periods: int, tick: Tick, most: int = MOST) -> Curve:
    """Find the largest number of streams that holds: double it until it does not, then bisect.

    This assumes that fewer streams never do worse.

    Args:
        sources: The sources.
        periods: How many periods to measure for each number of streams.
        tick: Shows progress.
        most: The most streams to try.

    Raises:
        ValueError: ``most`` is below 1.
    """
    if most < 1:
        raise ValueError(f"at least one stream is probed, not {most}")
    probes: dict[int, Probe] = {}

    def holds(streams: int) -> bool:
        tick(f"{streams} streams")
        sources.prepare(streams)
        probes[streams] = sources.play(streams, periods)
        return probes[streams].holds

    good, bad = 0, 1
    while bad <= most and holds(bad):
        # The last doubling stops at ``most``, which is then probed itself.
        good, bad = bad, min(2 * bad, most) if bad < most else most + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return Curve(good, tuple(probes[n] for n in sorted(probes)))
