"""The search for the number of streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bench import footage
from app.bench.streams import Sources, search
from tests.support.bench import FakePipeline, quiet, tiny_player

PERIOD_S = footage.PERIOD_S


def streams_of(pipeline, periods=12):
    sources = Sources(pipeline, tiny_player(), 2, pipeline.clock)
    return search(sources, periods, quiet)


def probed(sources, streams, periods):
    sources.prepare(streams)
    return sources.play(streams, periods)


def expected_streams(cost_s: float, periods: int, most: int = 600) -> int:
    """Windows served one after another (Lindley's recursion), for every number of streams."""
    held = 0
    for streams in range(1, most):
        end, taken = 0.0, []
        for k in range(periods):
            for _ in range(streams):
                end = max(end, k * PERIOD_S) + cost_s
                taken.append(end - k * PERIOD_S)
        if np.quantile(taken, 0.95) >= PERIOD_S:
            return held
        held = streams
    return held


@settings(max_examples=25, deadline=None)
@given(st.floats(0.003, 0.2))
def test_the_search_finds_how_many_streams_hold(cost_s):
    margins = {expected_streams(cost_s * f, 12) for f in (1 - 1e-9, 1 + 1e-9)}
    assert streams_of(FakePipeline(cost_s)).streams in margins


def test_the_curve_rises_and_has_the_answer():
    curve = streams_of(FakePipeline(0.004))
    assert curve.streams == expected_streams(0.004, 12) == 33
    numbers = [probe.streams for probe in curve.probes]
    assert numbers == sorted(set(numbers))
    assert {33, 34} <= set(numbers), "the last that holds and the first that does not"
    times = [probe.p95_ms for probe in curve.probes]
    assert times == sorted(times)
    assert curve.best.streams == 33
    assert curve.best.holds


def test_windows_of_several_sources_go_together():
    single = streams_of(FakePipeline(0.001, call_s=0.01)).streams
    together = streams_of(FakePipeline(0.001, call_s=0.01, at_once=8)).streams
    assert (single, together) == (12, 56), "seven full groups of 18 ms in 133 ms"


def test_work_in_flight_hides_the_hosts_share():
    waits = streams_of(FakePipeline(0.004, host_s=0.004)).streams
    overlaps = streams_of(FakePipeline(0.004, host_s=0.004, depth=2)).streams
    assert waits == 16
    assert 30 <= overlaps <= 33


def test_a_slow_beginning_is_no_part_of_a_probe():
    """Preparation for a new number of streams, such as an engine's shapes, is not measured."""

    class SlowFirst(FakePipeline):
        groups: set[int] = set()

        def submit(self, windows, states, timer):
            if len(windows) not in self.groups:
                self.groups = self.groups | {len(windows)}
                self.clock.now_s += 30.0
            return super().submit(windows, states, timer)

    curve = streams_of(SlowFirst(0.001, call_s=0.01, at_once=8))
    assert curve.streams == 56


def test_a_hiccup_does_not_decide_but_overload_does_early():
    class Hiccup(FakePipeline):
        after = 0

        def collect(self, ticket):
            self.after += 1
            if self.after == 200:
                self.clock.now_s += 0.2
            return super().collect(ticket)

    fake = Hiccup(0.004)
    probe = probed(Sources(fake, tiny_player(), 2, fake.clock), 10, 60)
    assert probe.holds
    fake = FakePipeline(0.02)
    probe = probed(Sources(fake, tiny_player(), 0, fake.clock), 40, 100)
    assert probe.cut_short
    assert not probe.holds
    assert len(fake.timers) < 40 * 20, "given up long before the end"


def test_none_held_is_nought_and_the_limit_is_kept():
    curve = streams_of(FakePipeline(0.5))
    assert curve.streams == 0
    assert not curve.best.holds
    sources = Sources(fake := FakePipeline(1e-6), tiny_player(), 1, fake.clock)
    assert search(sources, 3, quiet, most=5).streams == 5
    with pytest.raises(ValueError, match="at least one"):
        search(sources, 3, quiet, most=0)
