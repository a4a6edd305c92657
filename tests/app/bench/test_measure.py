"""Percentiles, latency and memory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.bench import measure
from app.bench.timers import HostTimer, NoTimer
from tests.support.bench import FakeClock, FakePipeline, quiet, tiny_player


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_quantiles_are_order_statistics(samples):
    p50, p95 = measure.quantiles(samples)
    ordered = sorted(samples)
    place = 0.95 * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    assert p95 == pytest.approx(low + (high - low) * (place - math.floor(place)), abs=1e-6)
    assert ordered[0] <= p50 <= p95 + 1e-9 <= ordered[-1] + 2e-9
    assert measure.quantiles(samples[::-1]) == pytest.approx((p50, p95))


def test_quantiles_of_known_numbers_and_of_none():
    assert measure.quantiles(range(1, 102)) == (51, 96)
    with pytest.raises(ValueError, match="no samples"):
        measure.quantiles([])


def test_latency_leaves_out_warm_windows_and_stage_timers():
    clock = FakeClock()
    pipeline = FakePipeline(0.02, host_s=0.005, clock=clock)
    stage_timer = HostTimer(clock)
    taken = measure.measure_latency(
        pipeline, tiny_player(), warm=2, windows=3, stage_timer=stage_timer, tick=quiet,
        clock_s=clock,
    )  # fmt: skip
    assert taken.total_ms == pytest.approx([25.0] * 3)
    assert len(pipeline.timers) == 2 + 3 + 3
    assert all(isinstance(timer, NoTimer) for timer in pipeline.timers[:5])
    assert all(timer is stage_timer for timer in pipeline.timers[5:])
    assert len(taken.stages_ms["fit"]) == 3
    assert taken.covered_px == 4 * 64, "every pixel of the fake's pictures changes"


@pytest.mark.gpu
def test_memory_is_the_rows_own(cuda):
    kept = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    del kept
    measure.reset_memory()
    before = measure.memory_mb()
    kept = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    assert 256 <= measure.memory_mb() - before < 300
    del kept
