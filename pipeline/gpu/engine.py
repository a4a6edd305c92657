"""Make a torch module fast for fixed shapes: kernels of its own in Triton, TensorRT, inductor or
eager, in CUDA graphs.

``auto`` takes the first of these that is installed and works here; a name takes that one or fails.
Every engine was compared, at each batch size it was made for, with the original module in single
precision.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.gpu import tensorrt_install
from pipeline.gpu.batch_sizes import Bucketed
from pipeline.gpu.conv_trials import trials_pay
from pipeline.gpu.cuda_graphs import (
    CAPTURING,
    CaptureError,
    Graphed,
    Pool,
    compiling,
    first_line,
    seconds_a_call,
)
from pipeline.gpu.engine_module import (
    Values,
    as_tuple,
    halved,
    in_memory_format,
    in_single,
    memory_format,
    tuned_convolutions,
    with_fixed_inputs,
    without_tf32,
)
from pipeline.gpu.tensorrt_install import TensorrtError

ENGINES = ("triton", "tensorrt", "inductor", "eager")
TOLERANCE = {False: 1e-2, True: 3e-2}
"""The largest mean difference from the original module, as a share of the output's scale. Above it
an engine is refused. By ``half``: False is single precision (with TF32 if torch uses it).
"""
_CLOSE, _FURTHER = 1e-2, 4.0
"""Batch sizes at which TensorRT is further off than the first, and than at its best size by the
second factor, are left out."""

_SMALL = 50_000_000
"""The parameters of a network that a CPU computes in a second."""

Progress = Callable[[str, int, int], None]
"""Called with the engine's name, the batch sizes done, and the batch sizes in all."""


class EngineError(RuntimeError):
    """The requested engine is not available, or its results are wrong."""


@dataclass(frozen=True)
class EngineReport:
    """How a module runs. ``str(report)`` is the line that a run shows.

    Attributes:
        name: The module's class.
        engine: One of `ENGINES`.
        half: Whether it computes in half precision.
        graphs: Whether CUDA graphs replay it.
        device: The device's name.
        buckets: The batch sizes it was made for.
        build_s: How long that took, in seconds.
        largest_difference: Largest difference from the original module, as a share of an output's
            scale (its root mean square).
        mean_difference: Mean difference, likewise.
        from_cache: Whether all of it was loaded from the cache.
        passed_over: Why engines before it were not taken.
        channels_last: Whether images lie in memory with their channels last.
        notes: Further remarks.
    """

    name: str
    engine: str
    half: bool
    graphs: bool
    device: str
    buckets: tuple[int, ...]
    build_s: float
    largest_difference: float
    mean_difference: float
    from_cache: bool = False
    passed_over: tuple[str, ...] = ()
    channels_last: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = "half" if self.half else "single"
        text = f"{self.name}: {self.engine}, {kind} precision, "
        text += "channels last, " if self.channels_last else ""
        text += "CUDA graphs" if self.graphs else "no CUDA graphs"
        text += f", on {self.device}"
        text += f", {'loaded' if self.from_cache else 'built'} in {self.build_s:.1f} s"
        text += f", {self.mean_difference:.1e} of scale from single precision eager"
        return "; ".join((text, *self.passed_over, *self.notes))


class Engine:
    """A fast module, made by `make_engine`. Belongs to one thread at a time.

    Attributes:
        report: How it runs.
    """

    def __init__(self, step: Bucketed, report: EngineReport) -> None:
        self._step = step
        self.report = report

    def __call__(self, *batch: Tensor) -> Values:
        """Run a batch of any size B.

        Args:
            *batch: One tensor (B, ...) for each argument of the module.

        Returns:
            The outputs, a tuple of float32 tensors (B, ...), valid until the next call.
        """
        return self._step(*batch)

    def inputs(self, size: int) -> Sequence[Tensor]:
        """Return memory for the next batch, which need not be copied if it is written there.

        Args:
            size: B.

        Returns:
            One tensor (B, ...) for each argument, to be written on the stream of the call and
            passed to it; empty where this engine has no such memory for B.
        """
        return self._step.inputs(size)


@dataclass(frozen=True)
class _Job:
    """What to build: a module on its device, the examples to check it with, and the settings."""

    label: str
    module: nn.Module
    examples: Values
    expected: Values
    half: bool
    graphs: bool
    channels_last: bool | None
    buckets: tuple[int, ...]
    cache: Path | None
    on_progress: Progress
    # TensorRT's engines by batch size, or why there is none; and how long all of them took.
    tensorrt: Mapping[int, Any] = field(default_factory=dict)
    tensorrt_s: float = 0.0

    @property
    def device(self) -> torch.device:
        return self.examples[0].device

    @cached_property
    def kernels(self) -> nn.Module | None:
        """The module in kernels of its own, if it has such."""
        make = _kernels_of(self.module)
        # What it keeps of the module's weights is where they are, in their precision.
        made = None if make is None else make()
        return None if made is None else made.eval()

    def batch(self, size: int, channels_last: bool = False) -> Values:
        """A batch of ``size`` rows: the examples' rows, repeated.

        Made in inference mode like the inputs of graphs, so that a function compiled for this batch
        is not compiled again for those.
        """
        with torch.inference_mode():
            return tuple(in_memory_format(t[self.rows(size)], channels_last) for t in self.examples)

    def rows(self, size: int) -> Tensor:
        return torch.arange(size, device=self.device) % len(self.examples[0])


def make_engine(
    module: nn.Module,
    example: Tensor | Sequence[Tensor],
    *,
    engine: str = "auto",
    half: bool = True,
    graphs: bool = True,
    channels_last: bool | None = None,
    buckets: Sequence[int] = (1, 2, 4, 8),
    device: torch.device | str = "cuda",
    cache: Path | None = None,
    on_progress: Progress | None = None,
    compiles: bool = True,
) -> Engine:
    """Return a fast version of a module, warmed up for the batch sizes ``buckets``.

    The engine takes the module over: it moves the module to the device and, for ``half``, changes
    its precision in place (a copy would not do, because what a module's functions refer to is not
    copied). A module with a method ``halve`` converts itself; others are converted as a whole. One
    with a method ``with_kernels`` may have kernels of its own, which that returns as a module, or
    None where it has none for this precision.

    Args:
        module: The module.
        example: One tensor (B, ...) for each argument. The engine is made for these shapes without
            the batch and checked on these values, so real input is best.
        engine: One of `ENGINES`, or "auto" for the first that works.
        half: Compute in half precision; ignored on a CPU.
        graphs: Replay it as CUDA graphs. If that is not possible it runs without, and the report
            says so.
        channels_last: Whether images lie in memory with their channels last; None takes whichever
            is faster.
        buckets: The batch sizes to make it for, each 1 or more.
        device: The device.
        cache: Folder for engines that take long to build; None: they are not kept. Engines are run
            as code, so the folder must be the user's own.
        on_progress: Called as `Progress` while the engine is built.
        compiles: Whether "auto" takes TensorRT and inductor, which may take minutes.

    Returns:
        The engine, ready for batches of any size.

    Raises:
        EngineError: The requested engine is not available, or its results are wrong.
        ValueError: ``engine`` or ``buckets`` is wrong.
    """
    (made,) = make_engines(
        [(module, example)], engine=engine, half=half, graphs=graphs, channels_last=channels_last,
        buckets=buckets, device=device, cache=cache, on_progress=on_progress, compiles=compiles,
    )  # fmt: skip
    return made


def make_engines(
    modules: Sequence[tuple[nn.Module, Tensor | Sequence[Tensor]]],
    *,
    engine: str = "auto",
    half: bool = True,
    graphs: bool = True,
    channels_last: bool | None = None,
    buckets: Sequence[int] = (1, 2, 4, 8),
    device: torch.device | str = "cuda",
    cache: Path | None = None,
    on_progress: Progress | None = None,
    compiles: bool = True,
) -> list[Engine]:
    """Return fast versions of several modules; TensorRT builds all of their engines side by side.

    Args:
        modules: Each module with its example, as for `make_engine`.
        engine: As for `make_engine`, and so are all that follow.
        half: Compute in half precision.
        graphs: Replay the modules as CUDA graphs.
        channels_last: Whether images lie in memory with their channels last.
        buckets: The batch sizes.
        device: The device.
        cache: Folder for engines.
        on_progress: Called as `Progress`.
        compiles: Whether "auto" takes TensorRT and inductor.

    Returns:
        The engines, in the order of the modules.

    Raises:
        EngineError: The requested engine is not available, or its results are wrong.
        ValueError: ``engine`` or ``buckets`` is wrong.
    """
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"there is no engine '{engine}'; choose auto, {', '.join(ENGINES)}")
    if not buckets or min(buckets) < 1:
        raise ValueError(f"batch sizes are 1 or more, not {tuple(buckets)}")
    device = torch.device(device)
    half = half and device.type == "cuda"
    # Compilers and libraries that time kernels may wait for the whole GPU, which breaks a capture.
    with CAPTURING:
        jobs = [
            _prepared(
                module, example, half, graphs, channels_last, tuple(sorted(set(buckets))), device,
                cache, on_progress or (lambda name, done, total: None),
            )
            for module, example in modules
        ]  # fmt: skip
        may_take = engine == "tensorrt" or (engine == "auto" and compiles)
        if may_take and missing("tensorrt", device) is None:
            # "auto" takes a module's own kernels first: engines would be built for nothing.
            own = engine == "auto" and missing("triton", device) is None
            wanted = [k for k, job in enumerate(jobs) if not own or job.kernels is None]
            for k, job in zip(wanted, _with_tensorrt([jobs[k] for k in wanted])):
                jobs[k] = job
        if engine == "auto":
            # The last one, eager, is what remains.
            names = ENGINES[:-1] if compiles else ("triton",)
            return [_build_first_working(job, names) for job in jobs]
        return [_build_named(engine, job) for job in jobs]


def _prepared(
    module: nn.Module, example: Tensor | Sequence[Tensor], half: bool, graphs: bool,
    channels_last: bool | None, buckets: tuple[int, ...], device: torch.device,
    cache: Path | None, on_progress: Progress,
) -> _Job:  # fmt: skip
    """What to build of a module that is now on its device, in its precision."""
    label, module = type(module).__name__, module.eval()
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    # A CPU computes a small network sooner than a GPU loads cuDNN, which nothing else needs where
    # all networks have kernels of their own.
    small = sum(each.numel() for each in module.parameters()) < _SMALL
    beside = torch.device("cpu") if small and _kernels_of(module) else device
    # Outside of inference mode: torch exports no module whose weights were moved in it.
    module = module.to(beside)
    # Before the module is halved, which happens in place.
    with torch.inference_mode(), without_tf32():
        outputs = as_tuple(module(*(t.to(beside) for t in inputs)))
        expected = tuple(out.float().clone().to(device) for out in outputs)
    module, examples = module.to(device), tuple(t.to(device) for t in inputs)
    return _Job(
        label, halved(module) if half else module, examples, expected, half, graphs,
        channels_last, buckets, cache, on_progress,
    )  # fmt: skip


def _kernels_of(module: nn.Module) -> Callable[[], nn.Module | None] | None:
    """What makes the module in kernels of its own, if it has such."""
    return getattr(module, "with_kernels", None)


def _with_tensorrt(jobs: list[_Job]) -> list[_Job]:
    """The jobs with TensorRT's engines, of all modules and batch sizes at once."""
    from pipeline.gpu.tensorrt import load_or_build

    begun_s = time.monotonic()
    for job in jobs:
        job.module.to(memory_format=memory_format(False))  # type: ignore[call-overload]
    if not jobs:
        return []
    wanted = [(job, size) for job in jobs for size in job.buckets]
    first = jobs[0]
    try:
        built = load_or_build(
            [(job.module, job.batch(size)) for job, size in wanted],
            first.cache,
            lambda done, total: first.on_progress("TensorRT engines", done, total),
        )
    except (TensorrtError, OSError) as error:
        built = [error] * len(wanted)
    took_s = time.monotonic() - begun_s
    results = {(id(job), size): result for (job, size), result in zip(wanted, built)}
    return [
        replace(
            job,
            tensorrt={size: results[id(job), size] for size in job.buckets},
            tensorrt_s=took_s,
        )
        for job in jobs
    ]


def missing(name: str, device: torch.device, by_name: bool = True) -> str | None:
    """Return why an engine is not available here, in one line; None if it is.

    Args:
        name: One of `ENGINES`.
        device: The device it would run on.
        by_name: Whether the user named the engine. On a CPU, inductor is only used by name, because
            it takes minutes.
    """
    if name == "tensorrt":
        try:
            tensorrt_install.installed()
        except TensorrtError as error:
            return str(error)
        return None if device.type == "cuda" else "TensorRT needs an NVIDIA GPU"
    if name == "triton" and device.type != "cuda":
        return "kernels in Triton need an NVIDIA GPU"
    if name in ("triton", "inductor"):
        if device.type == "cuda":
            if importlib.util.find_spec("triton") is None:
                return "Triton is not installed; pip install 'bodystream[gpu]'"
        elif not by_name:
            return "on a CPU inductor is used when asked for by name"
        elif not any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++")))):
            return "inductor needs a C++ compiler on a CPU; install g++ or clang"
    return None


def _build_named(name: str, job: _Job) -> Engine:
    why = missing(name, job.device)
    if why is not None:
        raise EngineError(why)
    try:
        return _build(name, job)
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"{name}: {first_line(error)}") from error


def _build_first_working(job: _Job, names: Sequence[str]) -> Engine:
    """The first of the engines that works; else eager, whose errors are not caught."""
    passed_over: list[str] = []
    for name in names:
        if name == "triton" and _kernels_of(job.module) is None:
            continue
        try:
            why = missing(name, job.device, by_name=False)
            if why is None:
                if name == "triton" and job.kernels is None:
                    continue
                if name == "tensorrt" and not job.tensorrt:
                    # Its own kernels did not work.
                    (job,) = _with_tensorrt([job])
                return _build(name, job, tuple(passed_over))
        except Exception as error:  # of any kind: the report says why the engine was not taken
            why = first_line(error)
        passed_over.append(f"not {name}: {why}")
    return _build(ENGINES[-1], job, tuple(passed_over))


def _build(name: str, job: _Job, passed_over: tuple[str, ...] = ()) -> Engine:
    begun_s = time.monotonic()
    notes: list[str] = []
    built: list[tuple[bool, bool]] = []  # for each size: from the cache, captured
    # These have convolutions of their own, about which the measurements say nothing.
    own = name in ("tensorrt", "triton")
    with tuned_convolutions():
        channels_last = not own and _prefers_channels_last(job)
    job.module.to(memory_format=memory_format(channels_last))  # type: ignore[call-overload]
    trials = not own and _trials_pay(job, channels_last)
    with tuned_convolutions() if trials else nullcontext():
        # All batch sizes share a pool, because only one of them runs at a time.
        pool = Pool(job.device) if job.graphs and job.device.type == "cuda" else None

        def make(size: int) -> Callable[..., Any]:
            job.on_progress(f"{job.label} {name}", len(built), len(job.buckets))
            batch = job.batch(size, channels_last)
            step, from_cache, note = _compiled(name, job, size, batch)
            ready, graph_note = _replayed(in_single(step), batch, pool)
            # Every batch size may bring the same note.
            notes.extend(text for text in (note, graph_note) if text and text not in notes)
            captured = isinstance(ready, Graphed) and ready.captured
            built.append((from_cache, captured))
            # Compiled code checks its inputs' memory format and is compiled again for another one.
            return ready if captured or name != "inductor" else with_fixed_inputs(ready, batch)

        step = Bucketed(make, job.buckets)
    job.on_progress(f"{job.label} {name}", len(job.buckets), len(job.buckets))
    limit, apart = TOLERANCE[job.half], {size: _differences(step, job, size) for size in step.sizes}
    right = [size for size, (_, mean) in apart.items() if mean <= limit]
    if name == "tensorrt" and right:
        # TensorRT for RTX 1.4 has engines that are wrong at one batch size, or much further off
        # than at others (docs/results/gpu_profile.md). No other engine may: its code is ours or
        # torch's.
        most = max(_CLOSE, _FURTHER * min(apart[size][1] for size in right))
        used = [size for size in right if apart[size][1] <= most]
        notes += [
            f"without batches of {size}, whose results are {apart.pop(size)[1]:.1e} of scale off"
            for size in step.sizes
            if size not in used
        ]
        step = step.only(used)
    largest, mean = (max(values) for values in zip(*apart.values()))
    if mean > limit:
        raise EngineError(
            f"{job.label} in {name}: results are {mean:.1e} of scale off, more than {limit:g}"
        )
    return Engine(
        step,
        EngineReport(
            name=job.label,
            engine=name,
            half=job.half,
            graphs=all(captured for _, captured in built),
            device=_device_name(job.device),
            buckets=step.sizes,
            build_s=time.monotonic() - begun_s + (job.tensorrt_s if name == "tensorrt" else 0.0),
            largest_difference=largest,
            mean_difference=mean,
            from_cache=all(from_cache for from_cache, _ in built),
            passed_over=passed_over,
            channels_last=channels_last,
            notes=tuple(notes),
        ),
    )


def _compiled(
    name: str, job: _Job, size: int, batch: Values
) -> tuple[Callable[..., Any], bool, str | None]:
    """A function for one shape, whether it came from the cache, and a note for the report."""
    if name == "tensorrt":
        built = job.tensorrt[size]
        if isinstance(built, Exception):
            raise built
        return built
    if name == "triton":
        if job.kernels is None:
            raise EngineError(
                f"{job.label} has no kernels in Triton in this precision; use --engine auto"
            )
        if batch[0].is_cuda:
            from triton_launch import compiled_together

            # Side by side; each by itself would be compiled at its first launch.
            with compiled_together(), torch.inference_mode():
                job.kernels(*batch)
        return job.kernels, False, None
    if name == "inductor":
        # Each shape needs its own compilation, and several modules share code.
        with compiling():
            step = torch.compile(job.module, fullgraph=True, dynamic=False)
            with torch.inference_mode():
                step(*batch)
        return step, False, None
    return job.module, False, None


def _replayed(
    step: Callable[..., Any], batch: Values, pool: Pool | None
) -> tuple[Callable[..., Any], str | None]:
    """The step as a graph, or as it is with the reason why it cannot be captured."""
    if pool is None:
        return step, None
    try:
        return Graphed(step, batch, pool=pool), None
    except CaptureError as error:
        return step, f"no CUDA graphs: {error}"


def _prefers_channels_last(job: _Job) -> bool:
    """Whether images should lie channels last: as set, else whichever is faster in eager graphs.

    All engines for which this is measured use the same library for convolutions.
    """
    images = any(t.dim() == 4 for t in job.examples)
    if job.channels_last is not None or not images or job.device.type != "cuda":
        return bool(job.channels_last) and images
    times_s = {}
    for last in (False, True):
        # The middle batch size stands for all of them.
        batch = job.batch(job.buckets[len(job.buckets) // 2], last)
        job.module.to(memory_format=memory_format(last))  # type: ignore[call-overload]
        pool = Pool(job.device) if job.graphs else None
        step, _ = _replayed(in_single(job.module), batch, pool)
        times_s[last] = seconds_a_call(step, batch)
    return times_s[True] < times_s[False]


def _trials_pay(job: _Job, channels_last: bool) -> bool:
    """Whether cuDNN should time its algorithms for this module's convolutions."""
    if job.device.type != "cuda":
        return False
    # The middle batch size stands for all of them.
    batch = job.batch(job.buckets[len(job.buckets) // 2], channels_last)
    return trials_pay(job.module, batch, job.cache)


def _differences(step: Bucketed, job: _Job, size: int) -> tuple[float, float]:
    """The largest and the mean difference of the worst output at a batch size.

    Both as shares of the output's scale, its root mean square; infinite for a wrong shape or values
    that are not finite.
    """
    largest, mean, rows = 0.0, 0.0, job.rows(size)
    for out, expected in zip(step(*job.batch(size)), job.expected, strict=True):
        target = expected[rows]
        if out.shape != target.shape or not bool(torch.isfinite(out).all()):
            return float("inf"), float("inf")
        difference = (out - target).abs()
        # In parts of the output's scale, so that one limit fits outputs of any unit.
        scale = max(float(target.square().mean().sqrt()), 1e-9)
        largest = max(largest, float(difference.max()) / scale)
        mean = max(mean, float(difference.mean()) / scale)
    return largest, mean


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
