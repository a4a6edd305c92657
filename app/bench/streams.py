"""How many 30 Hz sources a pipeline holds without dropping a frame."""

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
_LATE_SHARE = 0.05
"""More late windows than this decide a probe before its end: the 95th percentile is late."""


@dataclass(frozen=True)
class Probe:
    """``streams`` sources: milliseconds from a window's arrival to its overlays in host memory, of
    all windows or, where it was ``cut_short``, of those until too many were late."""

    streams: int
    p50_ms: float
    p95_ms: float
    cut_short: bool = False

    @property
    def holds(self) -> bool:
        return not self.cut_short and self.p95_ms < 1e3 * PERIOD_S


@dataclass(frozen=True)
class Curve:
    """The largest number of streams that held, 0 for none, and all that was probed, by number."""

    streams: int
    probes: tuple[Probe, ...]

    @property
    def best(self) -> Probe:
        """The probe at ``streams``; where none held, the one at the fewest."""
        return next((p for p in self.probes if p.streams == self.streams), self.probes[0])


class Sources:
    """Sources that deliver a window each at every period's start, all at the same moment: the
    hardest case. Their states are kept from probe to probe; new ones have ``warm`` periods first,
    and every probe one, so that what a new number of streams has to prepare is not measured.
    ``people`` collects how many were drawn in each measured window."""

    def __init__(
        self,
        pipeline: Pipeline,
        player: Player,
        warm: int,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pipeline, self._player, self._warm = pipeline, player, warm
        self._clock_s = clock_s
        self._states: list[Any] = []
        self._next: list[int] = []
        self._timer = NoTimer()
        self.people: list[int] = []

    def probe(self, streams: int, periods: int) -> Probe:
        """``periods`` periods of that many sources."""
        new = streams - len(self._states)
        for _ in range(new):
            self._states.append(self._pipeline.begin())
            self._next.append(0)
        self._play(streams, max(self._warm if new > 0 else 1, 1), decide=False)
        self.people.clear()
        taken, cut_short = self._play(streams, periods, decide=True)
        return Probe(streams, *quantiles(taken), cut_short)

    def _play(self, streams: int, periods: int, decide: bool) -> tuple[list[float], bool]:
        """Milliseconds from arrival to overlays of each window; and, if it is to ``decide``,
        whether it ended early because enough were late.

        Time runs as measured while there is work and jumps to the next arrival when all is done,
        so nothing sleeps; a late window delays those behind it as it would live.
        """
        clock = _Clock(self._clock_s)
        waiting = deque((k * PERIOD_S, s) for k in range(periods) for s in range(streams))
        most_late = _LATE_SHARE * len(waiting) + 1 if decide else float("inf")
        flying: deque[tuple[Any, list[tuple[float, int]]]] = deque()
        taken: list[float] = []
        late = 0
        while (waiting or flying) and late <= most_late:
            group = self._group(waiting, clock.now_s(), {s for _, g in flying for _, s in g})
            if group and len(flying) < self._pipeline.depth:
                for _ in group:
                    waiting.popleft()
                flying.append((self._submit([s for _, s in group]), group))
            elif flying:
                ticket, done = flying.popleft()
                self.people += [one.people for one in self._pipeline.collect(ticket)]
                now = clock.now_s()
                taken += [1e3 * (now - result) for result, _ in done]
                late += sum(now - result >= PERIOD_S for result, _ in done)
            else:
                clock.jump_to(waiting[0][0])
        for ticket, _ in flying:
            self._pipeline.collect(ticket)
        return taken, late > most_late

    def _group(
        self, waiting: deque[tuple[float, int]], now_s: float, busy: set[int]
    ) -> list[tuple[float, int]]:
        """The next windows that have arrived, one a source, none of a source still worked on."""
        group: list[tuple[float, int]] = []
        for result, source in waiting:
            if len(group) == self._pipeline.at_once or result > now_s or source in busy:
                break
            group.append((result, source))
            busy = busy | {source}
        return group

    def _submit(self, sources: list[int]) -> Any:
        windows = [self._player.window(s, self._next[s]) for s in sources]
        for s in sources:
            self._next[s] += 1
        return self._pipeline.submit(windows, [self._states[s] for s in sources], self._timer)


class _Clock:
    """A clock from 0 on that can be moved ahead over time in which nothing happens."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._zero_s = clock_s()
        self._least_s = 0.0

    def now_s(self) -> float:
        return max(self._clock_s() - self._zero_s, self._least_s)

    def jump_to(self, time_s: float) -> None:
        self._zero_s -= max(time_s - self.now_s(), 0.0)
        # The difference is rounded; it must not be a moment before.
        self._least_s = time_s


def search(sources: Sources, periods: int, tick: Tick, most: int = MOST) -> Curve:
    """Double the streams until they no longer hold, then halve the gap.

    Takes it that fewer streams never do worse. Raises ValueError when ``most`` is below 1.
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
        good, bad = bad, min(2 * bad, most) if bad < most else most + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return Curve(good, tuple(probes[n] for n in sorted(probes)))
