"""Streams over several processes: shares, one beginning for all, and what a probe says of them."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bench.footage import PERIOD_S
from app.bench.gpu_busy import percentages
from app.bench.rows import ROWS, Settings, choose, with_workers
from app.bench.stream_workers import WorkerSources, make_decoded_sources, make_sources, shares_of
from app.bench.streams import LiveClock, Sources, search
from app.config import ConfigError
from tests.support.bench import FakePipeline, quiet, tiny_player


class Slow(FakePipeline):
    """Takes real time, and says which process it is by the people that it draws."""

    def collect(self, ticket):
        done = super().collect(ticket)
        time.sleep(self.window_s * len(done))
        return done


class WallClock:
    """The fake pipeline sets a clock; here it is one that goes by itself."""

    now_s = property(lambda self: time.monotonic(), lambda self, value: None)


def make(window_s):
    pipeline = Slow(window_s, at_once=64, clock=WallClock())
    return Sources(pipeline, tiny_player(), 1), {"engine": "fake", "weights": "real"}


def test_several_hold_more_than_one_and_share_evenly():
    # Twelve windows of 10 ms fit into a period of 133 ms, with a margin.
    with WorkerSources(2, partial(make, 0.01)) as sources:
        assert sources.facts["engine"] == "fake"
        sources.prepare(20)
        begun_s = time.monotonic()
        probe = sources.play(20, 4)
        assert time.monotonic() - begun_s >= 3 * PERIOD_S, "in real time"
        assert probe.holds
        assert probe.p95_ms >= 100, "ten windows in each of two processes"
        assert len(sources.people) == 80, "each window of each process"
        sources.prepare(40)
        assert not sources.play(40, 4).holds


@given(st.integers(1, 600), st.integers(1, 12))
def test_streams_are_shared_evenly(streams, workers):
    parts = shares_of(streams, workers)
    assert sum(parts) == streams
    assert len(parts) == min(streams, workers)
    assert max(parts) - min(parts) <= 1


def die():
    os._exit(3)


def refuse():
    raise ValueError("no such network")


@pytest.mark.parametrize(("make", "why"), [(die, "unexpectedly"), (refuse, "no such network")])
def test_a_worker_that_fails_ends_the_row_in_a_line(make, why):
    with pytest.raises(RuntimeError, match=why), WorkerSources(2, make):
        pass


def test_the_live_clock_begins_when_told_and_waits():
    clock = LiveClock(time.monotonic() + 0.02)
    assert clock.now_s() < 0
    clock.wait_until(0.03)
    assert 0.03 <= clock.now_s() < 0.5


def test_only_rows_of_streams_have_workers():
    rows = choose("default,streams-p1", ROWS)
    assert with_workers(rows, 1) == rows
    assert [row.id for row in with_workers(rows, 4)] == ["default", "streams-p1-w4"]
    with pytest.raises(ConfigError, match="streams"):
        with_workers(choose("default", ROWS), 2)


def test_what_the_driver_prints_is_numbers_or_nothing():
    assert percentages("12\n100\n\n") == [12.0, 100.0]
    assert percentages("[N/A]\nNo devices were found\n") == []


def test_search_takes_either_kind():
    sources, _ = make(0.0)
    assert search(sources, 1, quiet, most=3).streams == 3


@pytest.mark.slow
@pytest.mark.weights
def test_real_pipelines_share_the_sources():
    settings = Settings("cpu", renderer="numba", half=False)
    with WorkerSources(2, partial(make_sources, settings, None, (320, 180), 40, 2)) as sources:
        sources.prepare(2)
        probe = sources.play(2, 2)
        assert probe.p50_ms > 1
        assert set(sources.people) == {1}
        assert sources.memory_mb is None
        assert "LiteRT" in sources.facts["engine"]


@pytest.mark.slow
@pytest.mark.weights
def test_real_pipelines_decode_while_they_play():
    settings = Settings("cpu", renderer="numba", half=False)
    with WorkerSources(1, partial(make_decoded_sources, settings, None, 2)) as sources:
        sources.prepare(2)
        assert sources.play(2, 2).p50_ms > 1
        assert set(sources.people) == {1}
