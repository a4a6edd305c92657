"""Profile a pipeline: kernels of each stage, a trace, and the ten most expensive kernels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from app.bench.footage import Player
from app.bench.subject import Pipeline, run
from app.bench.timers import RANGE, RangeTimer

_WINDOWS = 3
_TOP = 10


@dataclass(frozen=True)
class Cost:
    """A kernel (an operator on a CPU): its calls and milliseconds per window, and its share of the
    total time."""

    name: str
    calls: float
    ms: float
    share: float


def _record(pipeline: Pipeline, player: Player, device: str, warm: int, timer: RangeTimer) -> Any:
    """Return the profile of a few windows after ``warm`` others."""
    pipeline.warm_up(1)
    state = pipeline.begin()
    # Unprofiled: the first windows compile, and the detector still searches everywhere.
    for index in range(warm):
        run(pipeline, player.window(0, index), state, timer)
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        for index in range(warm, warm + _WINDOWS):
            run(pipeline, player.window(0, index), state, timer)
    return recorded


def _on_device(events: Iterable[Any]) -> list[Any]:
    """Return kernels, copies and fills. The profiler also lists ranges (ours, and those of compiled
    code) and waits as device events; those are left out."""
    return [
        event
        for event in events
        if event.device_type == DeviceType.CUDA
        and not event.is_user_annotation
        and not event.name.startswith((RANGE, "ProfilerStep"))
        and not event.name.endswith((" Sync", "Stream Wait Event"))
    ]


def count_kernels(pipeline: Pipeline, player: Player, warm: int = 6) -> dict[str, int]:
    """Count the kernels, copies and fills on the GPU for one window, by stage; those in a CUDA
    graph are counted one by one.

    Args:
        pipeline: The pipeline.
        player: The frames.
        warm: How many windows to run first.

    Raises:
        RuntimeError: The profiler is not available.
    """
    events = _record(pipeline, player, "cuda", warm, RangeTimer("cuda")).events()
    return count_by_stage(events)


def count_by_stage(events: Iterable[Any]) -> dict[str, int]:
    """Count the device events of `_WINDOWS` windows, per window, by the stage in whose range they
    began."""
    events = list(events)
    ranges = [
        (event.time_range.start, event.time_range.end, event.name.removeprefix(RANGE))
        for event in events
        if event.device_type == DeviceType.CPU and event.name.startswith(RANGE)
    ]
    counts: Counter[str] = Counter()
    for event in _on_device(events):
        start = event.time_range.start
        # By its start: the range waits for the device, so a kernel cannot begin in another's.
        stage = next((name for low, high, name in ranges if low <= start <= high), None)
        # Work outside of all stages belongs to none of them.
        if stage is not None:
            counts[stage] += 1
    return {stage: round(count / _WINDOWS) for stage, count in counts.items()}


def write_profile(
    pipeline: Pipeline, player: Player, device: str, folder: Path, stem: str, warm: int = 6
) -> tuple[list[Cost], list[Path]]:
    """Write a trace (for chrome://tracing or Perfetto) and a table of the ten most expensive
    kernels.

    Args:
        pipeline: The pipeline.
        player: The frames.
        device: "cuda" or "cpu".
        folder: The folder of the files; it is made if missing.
        stem: The start of the files' names.
        warm: How many windows to run first.

    Returns:
        The costs of the ten kernels, and the paths of the two files.
    """
    # No waiting between stages ("cpu"), so that the trace shows the overlap as it is.
    recorded = _record(pipeline, player, device, warm, RangeTimer("cpu"))
    folder.mkdir(parents=True, exist_ok=True)
    trace, table = folder / f"{stem}.trace.json.gz", folder / f"{stem}.kernels.md"
    recorded.export_chrome_trace(str(trace))
    events = list(recorded.events())
    top = _costs(events, device)[:_TOP]
    what = "kernel" if device == "cuda" else "operator"
    lines = [f"| {what} | calls a window | ms a window | share |", "|---|--:|--:|--:|"]
    lines += [
        f"| `{cost.name.replace('|', '/')[:100]}` | {cost.calls:.1f} | {cost.ms:.3f} "
        f"| {100 * cost.share:.1f} % |"
        for cost in top
    ]
    table.write_text("\n".join(lines) + "\n")
    return top, [trace, table]


def _costs(events: list[Any], device: str) -> list[Cost]:
    """Return the costs by name, the most expensive first. An operator's time excludes operators
    that it calls; a stage's range is listed with the time that is spent outside of torch."""
    if device == "cuda":
        times = [(event.name, event.time_range.elapsed_us()) for event in _on_device(events)]
    else:
        times = [(event.name, event.self_cpu_time_total) for event in events]
    by_name: dict[str, list[float]] = defaultdict(list)
    for name, us in times:
        by_name[name].append(us)
    # Never zero: a CPU without a recorded operator gives shares of 0.
    whole = max(sum(us for _, us in times), 1e-9)
    costs = [
        Cost(name, len(us) / _WINDOWS, sum(us) / 1e3 / _WINDOWS, sum(us) / whole)
        for name, us in by_name.items()
    ]
    return sorted(costs, key=lambda cost: -cost.ms)
