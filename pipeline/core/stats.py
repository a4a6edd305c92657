"""Counts, stage times and latency of a running source."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

KEPT = 20_000
"""Number of latest samples from which quantiles are computed, so that memory stays bounded."""

LATENCY_EDGES_MS = (25.0, 50.0, 100.0, 150.0, 200.0, 300.0, 500.0, 750.0, 1e3, 2e3, 5e3, 10e3)
STAGE_EDGES_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3)
"""Upper edges of the histograms' bins."""


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of the samples of a stage or of the latency.

    Attributes:
        count: Number of samples.
        p50_ms: The median, in milliseconds; ``p95_ms`` and ``p99_ms`` likewise.
    """

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Histogram:
    """All samples since the start, as a cumulative histogram.

    Attributes:
        edges_ms: Upper edges of the bins, in milliseconds.
        at_most: For each edge, the number of samples up to it.
        count: Number of all samples.
        sum_ms: Their sum, in milliseconds.
    """

    edges_ms: tuple[float, ...]
    at_most: tuple[int, ...]
    count: int
    sum_ms: float


@dataclass(frozen=True)
class Snapshot:
    """Counts and times so far. Quantiles are of the latest samples, histograms of all.

    Attributes:
        read: Frames read from the source.
        drawn: Frames that reached the outputs.
        dropped: Frames that were read and will never be drawn, by cause.
        stages_ms: Quantiles of each stage's time per frame, by the stage's name.
        latency_ms: Quantiles of the time from capture to output; None before the first frame.
        fps: Drawn frames a second, from the capture of the first to the output of the last.
        latency: Histogram of the latency.
        stages: Histograms of the stages' times per frame, by the stage's name.
        unfitted: Frames that were shown without a fit of their own (low latency only).
        lost_events: Events that were detected but could not be reported.
        unfollowed: People in the last window who are not followed, since all places are taken.
        most_unfollowed: The most of them in any window.
        frames_unfollowed: Frames of windows with such people.
        last_read: The number of the last frame that was read; -1 before the first.
        busy_ms: The time that each stage of the model has worked for this source, in milliseconds,
            its share of batches with others.
    """

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
    unfollowed: int = 0
    most_unfollowed: int = 0
    frames_unfollowed: int = 0
    last_read: int = -1
    busy_ms: dict[str, float] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Frames that were read and are neither drawn nor dropped yet."""
        return self.read - self.drawn - sum(self.dropped.values())


class Stats:
    """Thread-safe counters and timers of one source.

    At any time ``read == drawn + dropped + in_flight``.

    Args:
        clock_ns: The monotonic clock, in nanoseconds.
        after: What the same source had counted before, in another process: counts and histograms go
            on from there. Its frames in flight must be counted as dropped by now.
    """

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        after: Snapshot | None = None,
    ) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._busy_ms: defaultdict[str, float] = defaultdict(float)
        self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._latency: deque[float] = deque(maxlen=KEPT)
        self._latency_bins = _Bins(LATENCY_EDGES_MS)
        self._stage_bins: dict[str, _Bins] = defaultdict(lambda: _Bins(STAGE_EDGES_MS))
        self._unfollowed = self._most_unfollowed = 0
        self._first_ns = self._last_ns = 0
        self._last_read = -1
        self._recent: deque[int] = deque(maxlen=60)
        if after is not None:
            self._go_on(after)

    def _go_on(self, after: Snapshot) -> None:
        self._counts.update(
            {
                "read": after.read,
                "drawn": after.drawn,
                "unfitted": after.unfitted,
                "lost events": after.lost_events,
                "unfollowed": after.frames_unfollowed,
            }
        )
        self._dropped.update(after.dropped)
        self._busy_ms.update(after.busy_ms)
        self._most_unfollowed = after.most_unfollowed
        self._last_read = after.last_read
        self._latency_bins.add_all(after.latency)
        for stage, histogram in after.stages.items():
            self._stage_bins[stage].add_all(histogram)

    def count(self, name: str, number: int = 1) -> None:
        """Add ``number`` to the count ``name``: "read", "unfitted" or "lost events"."""
        with self._lock:
            self._counts[name] += number

    def read(self, frame_id: int) -> None:
        """Count a frame that was read from the source, by its number there."""
        with self._lock:
            self._counts["read"] += 1
            self._last_read = frame_id

    def perceived(self, frames: int, unfollowed: int) -> None:
        """Take note of how many people in a window of ``frames`` frames are not followed."""
        with self._lock:
            self._unfollowed = unfollowed
            self._most_unfollowed = max(self._most_unfollowed, unfollowed)
            self._counts["unfollowed"] += frames if unfollowed else 0

    def drop(self, cause: str, number: int = 1) -> None:
        """Count frames that were read and will never be drawn, by cause."""
        if number:
            with self._lock:
                self._dropped[cause] += number

    def drew(self, captured_ns: int) -> None:
        """Count a frame that reached the outputs. Its latency runs from ``captured_ns`` to now."""
        now = self._clock_ns()
        with self._lock:
            self._counts["drawn"] += 1
            self._latency.append((now - captured_ns) / 1e6)
            self._latency_bins.add(self._latency[-1])
            # From the first capture, so that the rate counts the start too.
            self._first_ns = self._first_ns or captured_ns
            self._last_ns = now
            self._recent.append(now)

    @contextmanager
    def time(self, stage: str, frames: int = 1) -> Iterator[None]:
        """Time a block that works on ``frames`` frames. The sample is its time per frame."""
        start = self._clock_ns()
        try:
            yield
        finally:
            self.timed(stage, (self._clock_ns() - start) / 1e6 / max(frames, 1))

    def timed(self, stage: str, spent_ms: float) -> None:
        """Add a sample to a stage: milliseconds per frame."""
        with self._lock:
            self._stages[stage].append(spent_ms)
            self._stage_bins[stage].add(spent_ms)

    def worked(self, stage: str, spent_ms: float) -> None:
        """Add to the time that a stage of the model has worked for this source, in milliseconds."""
        with self._lock:
            self._busy_ms[stage] += spent_ms

    def live_fps(self) -> float:
        """Return the frames a second over the last 60 drawn frames; 0 before the second one."""
        with self._lock:
            if len(self._recent) < 2:
                return 0.0
            return (len(self._recent) - 1) * 1e9 / max(self._recent[-1] - self._recent[0], 1)

    def live_latency_ms(self) -> float:
        """Return the latency of the last drawn frame in milliseconds; 0 before the first."""
        with self._lock:
            return self._latency[-1] if self._latency else 0.0

    def snapshot(self, quantiles: bool = True) -> Snapshot:
        """Return the counts and times so far, all of one moment.

        Args:
            quantiles: Whether the quantiles are computed, which takes milliseconds.
        """
        with self._lock:
            drawn = self._counts["drawn"]
            span_s = (self._last_ns - self._first_ns) / 1e9
            return Snapshot(
                read=self._counts["read"],
                drawn=drawn,
                dropped=dict(self._dropped),
                stages_ms={
                    name: _quantiles(times) for name, times in self._stages.items() if quantiles
                },
                latency_ms=_quantiles(self._latency) if self._latency and quantiles else None,
                fps=drawn / span_s if span_s > 0 else 0.0,
                latency=self._latency_bins.histogram(),
                stages={name: bins.histogram() for name, bins in self._stage_bins.items()},
                unfitted=self._counts["unfitted"],
                lost_events=self._counts["lost events"],
                unfollowed=self._unfollowed,
                most_unfollowed=self._most_unfollowed,
                frames_unfollowed=self._counts["unfollowed"],
                last_read=self._last_read,
                busy_ms=dict(self._busy_ms),
            )


def _quantiles(samples: deque[float]) -> Quantiles:
    p50, p95, p99 = np.percentile(np.fromiter(samples, float), (50, 95, 99))
    return Quantiles(len(samples), float(p50), float(p95), float(p99))


class _Bins:
    """Counts of samples between edges. The last bin has no upper edge."""

    def __init__(self, edges_ms: tuple[float, ...]) -> None:
        self._edges_ms = edges_ms
        self._counts = [0] * (len(edges_ms) + 1)
        self._sum_ms = 0.0

    def add(self, sample_ms: float) -> None:
        self._counts[bisect_left(self._edges_ms, sample_ms)] += 1
        self._sum_ms += sample_ms

    def add_all(self, before: Histogram) -> None:
        """Add the samples of a histogram that has the same edges."""
        edges = (0, *before.at_most, before.count)
        self._counts = [
            had + upto - below for had, below, upto in zip(self._counts, edges, edges[1:])
        ]
        self._sum_ms += before.sum_ms

    def histogram(self) -> Histogram:
        # The last bin has no upper edge, so its sum is that of all samples.
        *at_most, count = accumulate(self._counts)
        return Histogram(self._edges_ms, tuple(at_most), count, self._sum_ms)
