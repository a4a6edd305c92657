"""What happened and how long it took: counts by stage and cause, times, latency."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

KEPT = 20_000
"""Samples kept for a stage's quantiles; older ones are forgotten, so memory stays bounded."""

LATENCY_EDGES_MS = (25.0, 50.0, 100.0, 150.0, 200.0, 300.0, 500.0, 750.0, 1e3, 2e3, 5e3, 10e3)
STAGE_EDGES_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3)
"""Upper edges of the histograms' bins."""


@dataclass(frozen=True)
class Quantiles:
    """Of one stage's or the latency's samples, in milliseconds."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Histogram:
    """All samples since the start: how many were at most each of ``edges_ms``, how many there
    are, and their sum."""

    edges_ms: tuple[float, ...]
    at_most: tuple[int, ...]
    count: int
    sum_ms: float


@dataclass(frozen=True)
class Snapshot:
    """Counts and times so far. ``stages_ms`` are per frame; ``fps`` is drawn frames a second
    from the capture of the first one to the last one drawn. Quantiles are of the last samples,
    histograms of all. ``unfitted`` frames were shown, but nobody was fitted in them (low latency
    only); ``lost_events`` were seen and could not be told."""

    read: int
    drawn: int
    dropped: dict[str, int]
    stages_ms: dict[str, Quantiles]
    latency_ms: Quantiles | None
    fps: float
    latency: Histogram
    stages: dict[str, Histogram]
    unfitted: int = 0
    lost_events: int = 0

    @property
    def in_flight(self) -> int:
        return self.read - self.drawn - sum(self.dropped.values())


class Stats:
    """Thread-safe counters and timers of one source. Law: read = drawn + dropped + in flight."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._latency: deque[float] = deque(maxlen=KEPT)
        self._latency_bins = _Bins(LATENCY_EDGES_MS)
        self._stage_bins: dict[str, _Bins] = defaultdict(lambda: _Bins(STAGE_EDGES_MS))
        self._first_ns = self._last_ns = 0
        self._recent: deque[int] = deque(maxlen=60)

    def count(self, what: str, number: int = 1) -> None:
        """Add to ``read`` or any other count."""
        with self._lock:
            self._counts[what] += number

    def drop(self, cause: str, number: int = 1) -> None:
        """Frames that were read and will never be drawn, by cause."""
        if number:
            with self._lock:
                self._dropped[cause] += number

    def drew(self, captured_ns: int) -> None:
        """One frame reached the outputs; its latency runs from capture to now."""
        now = self._clock_ns()
        with self._lock:
            self._counts["drawn"] += 1
            self._latency.append((now - captured_ns) / 1e6)
            self._latency_bins.add(self._latency[-1])
            self._first_ns = self._first_ns or captured_ns
            self._last_ns = now
            self._recent.append(now)

    @contextmanager
    def time(self, stage: str, frames: int = 1) -> Iterator[None]:
        """Time a block that works on ``frames`` frames; the sample is milliseconds a frame."""
        start = self._clock_ns()
        try:
            yield
        finally:
            self.timed(stage, (self._clock_ns() - start) / 1e6 / max(frames, 1))

    def timed(self, stage: str, spent_ms: float) -> None:
        """A sample of a stage: milliseconds a frame."""
        with self._lock:
            self._stages[stage].append(spent_ms)
            self._stage_bins[stage].add(spent_ms)

    def live_fps(self) -> float:
        """Frames a second over the last sixty drawn; 0 before the second one."""
        with self._lock:
            if len(self._recent) < 2:
                return 0.0
            return (len(self._recent) - 1) * 1e9 / max(self._recent[-1] - self._recent[0], 1)

    def live_latency_ms(self) -> float:
        """Latency of the last frame drawn, in milliseconds; 0 before the first."""
        with self._lock:
            return self._latency[-1] if self._latency else 0.0

    def snapshot(self) -> Snapshot:
        with self._lock:
            drawn = self._counts["drawn"]
            span_s = (self._last_ns - self._first_ns) / 1e9
            return Snapshot(
                read=self._counts["read"],
                drawn=drawn,
                dropped=dict(self._dropped),
                stages_ms={name: _quantiles(times) for name, times in self._stages.items()},
                latency_ms=_quantiles(self._latency) if self._latency else None,
                fps=drawn / span_s if span_s > 0 else 0.0,
                latency=self._latency_bins.histogram(),
                stages={name: bins.histogram() for name, bins in self._stage_bins.items()},
                unfitted=self._counts["unfitted"],
                lost_events=self._counts["lost events"],
            )


def _quantiles(samples: deque[float]) -> Quantiles:
    p50, p95, p99 = np.percentile(np.fromiter(samples, float), (50, 95, 99))
    return Quantiles(len(samples), float(p50), float(p95), float(p99))


class _Bins:
    """Counts of samples between edges; the last bin is open."""

    def __init__(self, edges_ms: tuple[float, ...]) -> None:
        self._edges_ms = edges_ms
        self._counts = [0] * (len(edges_ms) + 1)
        self._sum_ms = 0.0

    def add(self, sample_ms: float) -> None:
        self._counts[bisect_left(self._edges_ms, sample_ms)] += 1
        self._sum_ms += sample_ms

    def histogram(self) -> Histogram:
        *at_most, count = accumulate(self._counts)
        return Histogram(self._edges_ms, tuple(at_most), count, self._sum_ms)
