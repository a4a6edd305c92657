"""Stage timers: none, the host's clock, CUDA events, and ranges for the profiler.

A pipeline marks its stages with ``with timer("fit"):``; a stage may be entered several times a
window. Only ``total`` is measured without them: a timer of stages disturbs what it times.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch


class Timer(Protocol):
    """Marks stages; ``finish`` ends a window and returns its milliseconds by stage."""

    def __call__(self, stage: str) -> AbstractContextManager[Any]: ...

    def finish(self) -> dict[str, float]: ...


class NoTimer:
    """Measures nothing and costs next to nothing."""

    _nothing = nullcontext()

    def __call__(self, stage: str) -> AbstractContextManager[Any]:
        return self._nothing

    def finish(self) -> dict[str, float]:
        return {}


class HostTimer:
    """Wall-clock time of what the host does in a stage; right where nothing runs beside it."""

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self._clock_s = clock_s
        self._taken: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begun = self._clock_s()
        yield
        self._taken[stage] += 1e3 * (self._clock_s() - begun)

    def finish(self) -> dict[str, float]:
        taken, self._taken = dict(self._taken), defaultdict(float)
        return taken


class CudaTimer:
    """CUDA events on the current stream around each stage. The stream waits while the host
    prepares a stage's work, so that time is in the stage too. ``finish`` waits for the GPU."""

    def __init__(self) -> None:
        self._pairs: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._pairs.append((stage, begin, end))

    def finish(self) -> dict[str, float]:
        torch.cuda.synchronize()
        taken: dict[str, float] = defaultdict(float)
        for stage, begin, end in self._pairs:
            taken[stage] += begin.elapsed_time(end)
        self._pairs.clear()
        return dict(taken)


RANGE = "stage:"


class RangeTimer:
    """A named range in the profiler's trace for each stage. The device is idle at both ends, so a
    kernel belongs to the stage in whose range it began."""

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
    """A CPU has always finished."""


def timer_for(device: str) -> Timer:
    """The timer of stages for "cpu" or "cuda"."""
    return CudaTimer() if device == "cuda" else HostTimer()
