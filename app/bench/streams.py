"""Find how many 30 Hz sources a pipeline can process without dropping a frame."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.bench.footage import PERIOD_S, Player
from app.bench.measure import Tick, quantiles
from app.bench.subject import Pipeline
from app.bench.timers import NoTimer

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
        player: Player,
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

    def probe(self, streams: int, periods: int) -> Probe:
        """Measure a number of streams for a number of periods."""
        new = streams - len(self._states)
        for _ in range(new):
            self._states.append(self._pipeline.begin())
            self._next.append(0)
        # One period at least: a new batch size may compile or capture a graph.
        self._play(streams, max(self._warm if new > 0 else 1, 1), decide=False)
        self.people.clear()
        times_ms, cut_short = self._play(streams, periods, decide=True)
        return Probe(streams, *quantiles(times_ms), cut_short)

    def _play(self, streams: int, periods: int, decide: bool) -> tuple[list[float], bool]:
        """Return the milliseconds from arrival to overlays of each window; and, with ``decide``,
        whether it ended early because too many were late.

        The clock runs as measured while there is work and jumps to the next arrival when all is
        done, so nothing sleeps; a late window delays the ones behind it, as it would live.
        """
        clock = _Clock(self._clock_s)
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
                # Skipped, not slept: idle time would only make the probe longer.
                clock.jump_to(waiting[0][0])
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


class _Clock:
    """A clock that starts at 0 and can skip time in which nothing happens."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._zero_s = clock_s()
        self._least_s = 0.0

    def now_s(self) -> float:
        return max(self._clock_s() - self._zero_s, self._least_s)

    def jump_to(self, time_s: float) -> None:
        self._zero_s -= max(time_s - self.now_s(), 0.0)
        # Rounding could make the time a little too early, and the caller would jump for ever.
        self._least_s = time_s


def search(sources: Sources, periods: int, tick: Tick, most: int = MOST) -> Curve:
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
        probes[streams] = sources.probe(streams, periods)
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
