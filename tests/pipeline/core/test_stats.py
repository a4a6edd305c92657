"""Counts that add up, times that are right, from any number of threads."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.stats import KEPT, LATENCY_EDGES_MS, Stats


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns


@given(st.lists(st.sampled_from(["read", "drawn", "ring full", "stopped"]), max_size=60))
def test_read_is_drawn_and_dropped_and_in_flight(events: list[str]) -> None:
    stats = Stats(Clock())
    waiting = 0
    causes = {"ring full": 0, "stopped": 0}
    drawn = 0
    for event in events:
        if event == "read":
            stats.read(0)
            waiting += 1
        elif waiting:
            waiting -= 1
            if event == "drawn":
                stats.drew(0)
                drawn += 1
            else:
                stats.drop(event)
                causes[event] += 1
        seen = stats.snapshot()
        assert seen.in_flight == waiting
        assert seen.drawn == drawn
        assert seen.dropped == {cause: number for cause, number in causes.items() if number}
        assert seen.read == seen.drawn + sum(seen.dropped.values()) + seen.in_flight


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50), st.integers(1, 4))
def test_stage_times_are_quantiles_of_what_was_spent(spent_ns: list[int], frames: int) -> None:
    clock = Clock()
    stats = Stats(clock)
    for each in spent_ns:
        with stats.time("fit", frames=frames):
            clock.now_ns += each
    stage = stats.snapshot().stages_ms["fit"]
    expected = np.percentile(np.array(spent_ns) / 1e6 / frames, (50, 95, 99))
    assert stage.count == len(spent_ns)
    assert (stage.p50_ms, stage.p95_ms, stage.p99_ms) == pytest.approx(tuple(expected))


@given(st.lists(st.integers(0, 20_000), max_size=50))
def test_histograms_count_what_is_at_most_each_edge(spent_ms: list[int]) -> None:
    clock = Clock()
    stats = Stats(clock)
    clock.now_ns = 30_000_000_000
    for each in spent_ms:
        stats.drew(clock.now_ns - each * 1_000_000)
        stats.timed("fit", each)
    seen = stats.snapshot()
    for histogram in (seen.latency, seen.stages.get("fit", seen.latency)):
        expected = [sum(each <= edge for each in spent_ms) for edge in histogram.edges_ms]
        assert list(histogram.at_most) == expected
        assert (histogram.count, histogram.sum_ms) == (len(spent_ms), sum(spent_ms))
    assert seen.latency.edges_ms == LATENCY_EDGES_MS


def test_a_stage_that_fails_is_still_timed() -> None:
    clock = Clock()
    stats = Stats(clock)
    with contextlib.suppress(KeyError), stats.time("perceive"):
        clock.now_ns += 2_000_000
        raise KeyError
    assert stats.snapshot().stages_ms["perceive"].p50_ms == 2.0


def test_latency_and_rate() -> None:
    clock = Clock()
    stats = Stats(clock)
    assert stats.snapshot().latency_ms is None
    assert (stats.snapshot().fps, stats.live_fps(), stats.live_latency_ms()) == (0.0, 0.0, 0.0)
    for number in range(11):
        clock.now_ns = 5_000_000_000 + number * 50_000_000
        stats.drew(clock.now_ns - (number + 1) * 1_000_000)
    seen = stats.snapshot()
    # From the capture of the first frame to the last one drawn.
    assert seen.fps == pytest.approx(11 / 0.501)
    assert stats.live_fps() == pytest.approx(20.0)
    assert seen.latency_ms is not None
    assert (seen.latency_ms.count, seen.latency_ms.p50_ms) == (11, 6.0)
    assert stats.live_latency_ms() == 11.0


def test_the_live_rate_forgets_and_memory_is_bounded() -> None:
    clock = Clock()
    stats = Stats(clock)
    for _ in range(100):
        clock.now_ns += 1_000_000_000
        stats.drew(clock.now_ns)
    for _ in range(KEPT):
        clock.now_ns += 10_000_000
        stats.drew(clock.now_ns - 7_000_000)
    assert stats.live_fps() == pytest.approx(100.0)
    seen = stats.snapshot()
    assert seen.drawn == KEPT + 100
    assert seen.latency_ms is not None
    assert (seen.latency_ms.count, seen.latency_ms.p50_ms) == (KEPT, 7.0)


def test_a_snapshot_does_not_change() -> None:
    stats = Stats(Clock())
    stats.count("read", 3)
    stats.drop("ring full", 0)
    stats.drop("ring full", 2)
    before = stats.snapshot()
    stats.drop("ring full")
    assert before.dropped == {"ring full": 2}
    with pytest.raises(AttributeError):
        before.read = 5  # type: ignore[misc]


def test_counts_from_many_threads_add_up() -> None:
    stats = Stats()

    def work() -> None:
        for number in range(500):
            stats.read(0)
            with stats.time("stage"):
                pass
            if number % 5:
                stats.drew(0)
            else:
                stats.drop("late")
            if number % 50 == 0:
                seen = stats.snapshot()
                assert 0 <= seen.in_flight <= 8

    failed: list[threading.ExceptHookArgs] = []
    hook, threading.excepthook = threading.excepthook, failed.append
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    threading.excepthook = hook
    assert not failed
    seen = stats.snapshot()
    assert (seen.read, seen.drawn, seen.dropped) == (4000, 3200, {"late": 800})
    assert seen.in_flight == 0
    assert seen.stages_ms["stage"].count == 4000


def test_people_who_are_not_followed_are_counted():
    stats = Stats()
    for frames, unfollowed in ((4, 0), (4, 3), (1, 2), (4, 0), (4, 1)):
        stats.perceived(frames, unfollowed)
    seen = stats.snapshot()
    assert (seen.unfollowed, seen.most_unfollowed, seen.frames_unfollowed) == (1, 3, 9)


def test_counts_of_a_source_go_on_in_another_process():
    """Counters and histograms never fall, or Prometheus would take that for a restart."""
    stats = Stats()
    for number in range(10):
        stats.read(number)
        stats.drew(0)
        stats.timed("perceive", 3.0 * number)
        stats.worked("perceive", 12.0)
    stats.drop("ring full", 2)
    before = stats.snapshot(quantiles=False)
    assert before.latency_ms is None
    assert before.stages_ms == {}
    again = Stats(after=before)
    assert again.snapshot(quantiles=False) == replace(before, fps=0.0)
    again.read(10)
    again.timed("perceive", 1e6)
    again.worked("perceive", 1.0)
    after = again.snapshot()
    assert (after.read, after.drawn, after.last_read) == (11, 10, 10)
    assert after.stages["perceive"].count == 11
    assert after.stages["perceive"].at_most == before.stages["perceive"].at_most
    assert after.busy_ms == {"perceive": 121.0}
