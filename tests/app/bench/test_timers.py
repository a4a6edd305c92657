"""Stage timers."""

from __future__ import annotations

import pytest
import torch

from app.bench.timers import CudaTimer, HostTimer, RangeTimer
from tests.support.bench import FakeClock


def test_a_stage_entered_twice_counts_whole():
    clock = FakeClock()
    timer = HostTimer(clock)
    for spent in (0.25, 0.5):
        with timer("draw"):
            clock.now_s += spent
    with timer("fit"):
        clock.now_s += 1.0
    assert timer.finish() == {"draw": 750.0, "fit": 1000.0}
    assert timer.finish() == {}


@pytest.mark.gpu
def test_cuda_events_time_a_stage(cuda):
    timer = CudaTimer()
    a = torch.ones(4096, 4096, device="cuda")
    for repeats in (1, 1, 8):
        with timer("little" if repeats == 1 else "much"):
            for _ in range(repeats):
                a @ a
        taken = timer.finish()
    with timer("little"):
        a @ a
    little = timer.finish()["little"]
    assert taken["much"] > 3 * little > 0
    assert timer.finish() == {}


def test_range_timer_waits_only_for_a_gpu():
    with RangeTimer("cpu")("fit"):
        pass
    assert RangeTimer("cpu").finish() == {}
