"""Measure one row: the latency of a window, the times of its stages, and what was drawn."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np
import torch

from app.bench.footage import Player
from app.bench.subject import Pipeline, run
from app.bench.timers import NoTimer, Timer
from app.garbage import leave_out_loaded, take_in_loaded
from pipeline.core.yuv import Pixels, YuvImage, to_yuv

Tick = Callable[[str], None]
"""A callback that shows progress; it is called often with a few words."""
_ROUNDING = 4
"""Levels of luma."""


def quantiles(samples: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile of samples.

    Percentiles are linear between neighbours (Hyndman and Fan's type 7).

    Raises:
        ValueError: There are no samples.
    """
    if not len(samples):
        raise ValueError("no samples")
    p50, p95 = np.percentile(np.asarray(samples, float), (50, 95))
    return float(p50), float(p95)


@dataclass(frozen=True, eq=False)
class Latency:
    """The latencies of a row.

    Attributes:
        total_ms: Milliseconds of each window, measured without stage timers, which slow it down.
        stages_ms: Milliseconds of each stage for each window, from a second pass.
        people: The median number of people drawn.
        covered_px: How many pixels of a window's pictures were changed by drawing.
    """

    total_ms: tuple[float, ...]
    stages_ms: dict[str, tuple[float, ...]]
    people: float
    covered_px: float

    def stage_medians(self) -> dict[str, float]:
        """Return the median of each stage in milliseconds."""
        return {stage: quantiles(times)[0] for stage, times in self.stages_ms.items()}

    def stage_p95(self) -> dict[str, float]:
        """Return the 95th percentile of each stage in milliseconds."""
        return {stage: quantiles(times)[1] for stage, times in self.stages_ms.items()}


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
    """Measure from four frames in host memory to four overlays in host memory, one window after
    another.

    The clock is read only before the first stage and after the last one.

    Args:
        pipeline: The pipeline.
        player: The frames.
        warm: How many windows to run first, without measuring.
        windows: How many windows to measure; as many again are run for the stages.
        stage_timer: The timer of the stages.
        tick: Shows progress.
        clock_s: A monotonic clock in seconds.
    """
    pipeline.warm_up(1)
    state, no_timer = pipeline.begin(), NoTimer()
    total_ms: list[float] = []
    people: list[int] = []
    covered: list[int] = []
    for index in range(warm + windows):
        tick(_words(index, warm, windows))
        if index == warm:
            # As the commands do once they are ready.
            leave_out_loaded()
        window = player.window(0, index)
        # After the window was made: that is the source's work, not the pipeline's.
        begun = clock_s()
        done = run(pipeline, window, state, no_timer)
        elapsed_ms = 1e3 * (clock_s() - begun)
        # The first windows compile and fill caches.
        if index >= warm:
            total_ms.append(elapsed_ms)
            people.append(done.people)
            if len(covered) < 3:  # Comparing pictures is slow, and three windows are enough.
                covered.append(
                    sum(
                        drawn_px(picture, frame.pixels)
                        for picture, frame in zip(done.pictures, window.frames)
                    )
                )
    stages: dict[str, list[float]] = defaultdict(list)
    # A second pass for the stages, because their timers slow the pipeline down.
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


def drawn_px(picture: Pixels, before: Pixels) -> int:
    """Return how many pixels of a picture differ from those before drawing."""
    if isinstance(picture, np.ndarray) and isinstance(before, np.ndarray):
        return int((picture != before).any(-1).sum())
    # Planes that became RGB and planes again differ by a level or two everywhere.
    one, other = (
        each.planes[0] if isinstance(each, YuvImage) else to_yuv(each).planes[0]
        for each in (picture, before)
    )
    return int((cv2.absdiff(one, other) > _ROUNDING).sum())


def _words(index: int, warm: int, windows: int) -> str:
    return f"warm {index + 1}/{warm}" if index < warm else f"window {index + 1 - warm}/{windows}"


def reset_memory() -> None:
    """Release the GPU memory of the rows before, so that the next peak is the next row's own."""
    # First: GPU memory is freed only once its Python objects are gone.
    take_in_loaded()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_mb() -> float | None:
    """Return the peak of torch's reserved GPU memory since ``reset_memory``, in MiB.

    Memory pools of CUDA graphs are included; memory of other libraries is not.

    Returns:
        The peak; None without a GPU.
    """
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_reserved() / 2**20
