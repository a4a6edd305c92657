"""Stage timers: none, the host's clock, CUDA events, and ranges for the profiler.

A pipeline marks its stages by ``with timer("fit"):``; it may enter a stage several times in a
window. The total time is measured without a stage timer, because stage timers slow a pipeline down.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch


class Timer(Protocol):
    """Measures the stages of a window."""

    def __call__(self, stage: str) -> AbstractContextManager[Any]:
        """Return a context manager that marks a stage by its name."""
        ...

    def finish(self) -> dict[str, float]:
        """End a window; return its milliseconds by stage."""
        ...


class NoTimer:
    """Measures nothing and takes hardly any time."""

    # One for all stages: making one each time would cost time that is measured.
    _nothing = nullcontext()

    def __call__(self, stage: str) -> AbstractContextManager[Any]:
        return self._nothing

    def finish(self) -> dict[str, float]:
        return {}


class HostTimer:
    """Measures the host's wall-clock time in each stage; right if nothing runs in parallel."""

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self._clock_s = clock_s
        self._stages_ms: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begun = self._clock_s()
        yield
        # Added up, because a stage may be entered several times in a window.
        self._stages_ms[stage] += 1e3 * (self._clock_s() - begun)

    def finish(self) -> dict[str, float]:
        stages_ms, self._stages_ms = dict(self._stages_ms), defaultdict(float)
        return stages_ms


class CudaTimer:
    """Records CUDA events on the current stream around each stage. A stage's time includes the time
    in which the stream waits for the host to prepare its work. ``finish`` waits for the GPU."""

    def __init__(self) -> None:
        self._pairs: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # On the stream and not by the host's clock: the host goes on before the GPU has worked.
        begin.record()
        yield
        end.record()
        self._pairs.append((stage, begin, end))

    def finish(self) -> dict[str, float]:
        # Events have no time before the GPU has passed them.
        torch.cuda.synchronize()
        stages_ms: dict[str, float] = defaultdict(float)
        for stage, begin, end in self._pairs:
            stages_ms[stage] += begin.elapsed_time(end)
        self._pairs.clear()
        return dict(stages_ms)


RANGE = "stage:"
"""The start of the ranges' names in a profile."""


class RangeTimer:
    """Makes a named range in the profiler's trace for each stage. It waits for the device at both
    ends, so every kernel belongs to the stage in whose range it began."""

    def __init__(self, device: str) -> None:
        self._wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else _nothing

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._wait()
        with torch.profiler.record_function(RANGE + stage):
            yield
            self._wait()

    def finish(self) -> dict[str, float]:
        return {}


def _nothing() -> None:
    """Do nothing: a CPU has no work under way."""


def timer_for(device: str) -> Timer:
    """Return the stage timer for a device, "cpu" or "cuda"."""
    return CudaTimer() if device == "cuda" else HostTimer()
