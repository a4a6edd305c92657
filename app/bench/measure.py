"""Measuring one row: latency of a window, times of its stages, and what it drew."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from app.bench.footage import Player
from app.bench.subject import Pipeline, run
from app.bench.timers import NoTimer, Timer

Tick = Callable[[str], None]
"""Told in a few words what is being done; called often."""


def quantiles(samples: Sequence[float]) -> tuple[float, float]:
    """The median and the 95th percentile, linear between neighbours (Hyndman and Fan's type 7).
    Raises ValueError for none."""
    if not len(samples):
        raise ValueError("no samples")
    p50, p95 = np.percentile(np.asarray(samples, float), (50, 95))
    return float(p50), float(p95)


@dataclass(frozen=True, eq=False)
class Latency:
    """``total_ms`` a window without stage timers, ``stages_ms`` from a second pass with them;
    ``people`` drawn at the median, ``covered_px`` of a window's pictures changed by drawing."""

    total_ms: tuple[float, ...]
    stages_ms: dict[str, tuple[float, ...]]
    people: float
    covered_px: float

    def stage_medians(self) -> dict[str, float]:
        return {stage: quantiles(taken)[0] for stage, taken in self.stages_ms.items()}

    def stage_p95(self) -> dict[str, float]:
        return {stage: quantiles(taken)[1] for stage, taken in self.stages_ms.items()}


def measure_latency(
    pipeline: Pipeline,
    player: Player,
    *,
    warm: int,
    windows: int,
    stage_timer: Timer,
    tick: Tick,
    clock_s: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Four frames in host memory to four overlays in host memory, one window after another.

    ``warm`` windows first, unmeasured, then ``windows`` measured, then as many again for the
    stages. The clock is read before the first stage and after the last only.
    """
    state, nothing = pipeline.begin(), NoTimer()
    total_ms: list[float] = []
    people: list[int] = []
    covered: list[int] = []
    for index in range(warm + windows):
        tick(_words(index, warm, windows))
        window = player.window(0, index)
        begun = clock_s()
        done = run(pipeline, window, state, nothing)
        taken = 1e3 * (clock_s() - begun)
        if index >= warm:
            total_ms.append(taken)
            people.append(done.people)
            if len(covered) < 3:
                covered.append(
                    sum(
                        int((picture != frame.image).any(-1).sum())
                        for picture, frame in zip(done.pictures, window.frames)
                    )
                )
    stages: dict[str, list[float]] = defaultdict(list)
    for index in range(windows):
        tick(f"stages {index + 1}/{windows}")
        run(pipeline, player.window(0, warm + windows + index), state, stage_timer)
        for stage, value in stage_timer.finish().items():
            stages[stage].append(value)
    return Latency(
        tuple(total_ms),
        {stage: tuple(values) for stage, values in stages.items()},
        float(median(people)),
        float(median(covered)),
    )


def _words(index: int, warm: int, windows: int) -> str:
    return f"warm {index + 1}/{warm}" if index < warm else f"window {index + 1 - warm}/{windows}"


def reset_memory() -> None:
    """Forget the GPU memory of rows before, so that the next peak is the next row's own."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_mb() -> float | None:
    """The most GPU memory torch had reserved since ``reset_memory``, graphs' pools included; None
    without a GPU. What other libraries took themselves is not in it."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_reserved() / 2**20
