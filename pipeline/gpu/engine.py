"""A torch module made fast for fixed shapes: TensorRT, inductor or eager, in CUDA graphs.

``auto`` takes the first of these that is installed and works here; a name takes that one or fails.
Whatever runs has been held, at every batch size it was made for, against the module as it came, in
single precision.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.gpu.cuda_graphs import (
    CAPTURING,
    Bucketed,
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
    at_one_place,
    exact,
    halved,
    in_single,
    laid,
    memory_format,
    tried_convolutions,
)

ENGINES = ("tensorrt", "inductor", "eager")
TOLERANCE = {False: 1e-2, True: 3e-2}
"""The mean difference from the module as it came, in parts of an output's scale, above which an
engine is refused: in single precision (TF32 included, where torch is left to use it) and in half.
"""

Progress = Callable[[str, int, int], None]


class EngineError(RuntimeError):
    """An engine that was asked for is not there, or does not do what it should."""


@dataclass(frozen=True)
class EngineReport:
    """What runs a module: the ``engine``, ``half`` precision or not, whether ``graphs`` replay it
    and ``channels_last`` is how images lie in it, on which ``device``, the batch sizes it was made
    for, how long that took (seconds), the largest and the mean ``difference`` from the module as it
    came in parts of an output's scale, why engines before it were not taken, and what else should
    be known."""

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
        words = f"{self.name}: {self.engine}, {kind} precision, "
        words += "channels last, " if self.channels_last else ""
        words += "CUDA graphs" if self.graphs else "no CUDA graphs"
        words += f", on {self.device}"
        words += f", {'loaded' if self.from_cache else 'built'} in {self.build_s:.1f} s"
        words += f", {self.mean_difference:.1e} of scale from single precision eager"
        return "; ".join((words, *self.passed_over, *self.notes))


class Engine:
    """A module made fast. Belongs to one thread at a time.

    Results are tuples of float32 tensors with the batch first, valid until the next call.
    """

    def __init__(self, step: Bucketed, report: EngineReport) -> None:
        self._step = step
        self.report = report

    def __call__(self, *batch: Tensor) -> Values:
        """Run a batch (B, ...), any B."""
        return self._step(*batch)


@dataclass(frozen=True)
class _Order:
    """What is to be made: a module on its device, what it is checked on, and how."""

    label: str
    module: nn.Module
    examples: Values
    expected: Values
    half: bool
    graphs: bool
    channels_last: bool | None
    buckets: tuple[int, ...]
    cache: Path | None
    tell: Progress

    @property
    def device(self) -> torch.device:
        return self.examples[0].device

    def batch(self, size: int, channels_last: bool = False) -> Values:
        """``size`` of the example's rows, over and over. Made as graphs' own inputs are, so that
        what is compiled for these need not be compiled again."""
        with torch.inference_mode():
            return tuple(laid(t[self.rows(size)], channels_last) for t in self.examples)

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
) -> Engine:
    """Make a module fast and warm for batches of ``buckets`` sizes.

    The module is the engine's from here on: it is moved, and where ``half`` holds changed in place
    (a copy would not do, as what a module's own functions refer to is not copied). One with a
    method ``halve`` knows best how it is computed in half precision; others go over as a whole. On
    a CPU nothing is halved.
    ``example`` (B, ...), one for each argument, is what it is checked on, real input if there is
    any; shapes without the batch are those the engine is for. ``graphs`` that do not hold are left
    out, which the report says. ``channels_last`` is how images lie in memory; None tries both.
    ``cache`` is a folder for engines that take long to build (None: they are not kept); what lies
    there is run as code, so it must be the user's own. ``on_progress`` is told (engine, done, of).

    Raises EngineError when the engine asked for is missing or wrong, ValueError for no engine's
    name.
    """
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"there is no engine '{engine}'; choose auto, {', '.join(ENGINES)}")
    if not buckets or min(buckets) < 1:
        raise ValueError(f"batch sizes are 1 or more, not {tuple(buckets)}")
    device, label = torch.device(device), type(module).__name__
    half = half and device.type == "cuda"
    given = (example,) if isinstance(example, Tensor) else tuple(example)
    # Compilers and libraries that try things out may wait for the whole GPU.
    with CAPTURING:
        module = module.eval().to(device)
        examples = tuple(t.to(device) for t in given)
        with torch.inference_mode(), exact():
            expected = tuple(out.float().clone() for out in as_tuple(module(*examples)))
        order = _Order(
            label, halved(module) if half else module, examples, expected, half, graphs,
            channels_last, tuple(sorted(set(buckets))), cache,
            on_progress or (lambda name, done, of: None),
        )  # fmt: skip
        return _first_that_works(order) if engine == "auto" else _asked_for(engine, order)


def missing(name: str, device: torch.device, asked: bool = True) -> str | None:
    """Why an engine cannot be had here, in a line; None when it can. On a CPU, inductor is for
    those who ask for it by name: it takes minutes."""
    if name == "tensorrt":
        if importlib.util.find_spec("torch_tensorrt") is None:
            return "torch-tensorrt is not installed; pip install 'bodystream[tensorrt]'"
        return None if device.type == "cuda" else "TensorRT needs an NVIDIA GPU"
    if name == "inductor":
        if device.type == "cuda":
            if importlib.util.find_spec("triton") is None:
                return "Triton is not installed; pip install 'bodystream[gpu]'"
        elif not asked:
            return "on a CPU inductor is used when asked for by name"
        elif not any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++")))):
            return "inductor needs a C++ compiler on a CPU; install g++ or clang"
    return None


def _asked_for(name: str, order: _Order) -> Engine:
    why = missing(name, order.device)
    if why is not None:
        raise EngineError(why)
    try:
        return _build(name, order)
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"{name}: {first_line(error)}") from error


def _first_that_works(order: _Order) -> Engine:
    passed_over: list[str] = []
    for name in ENGINES[:-1]:
        try:
            why = missing(name, order.device, asked=False)
            if why is None:
                return _build(name, order, tuple(passed_over))
        except Exception as error:  # of whatever kind: the report says why it was not taken
            why = first_line(error)
        passed_over.append(f"not {name}: {why}")
    return _build(ENGINES[-1], order, tuple(passed_over))


def _build(name: str, order: _Order, passed_over: tuple[str, ...] = ()) -> Engine:
    begun_s = time.monotonic()
    notes: list[str] = []
    made: list[tuple[bool, bool]] = []
    with tried_convolutions():
        channels_last = name != "tensorrt" and _lies_channels_last(order)
        order.module.to(memory_format=memory_format(channels_last))  # type: ignore[call-overload]
        pool = Pool(order.device) if order.graphs and order.device.type == "cuda" else None

        def make(size: int) -> Callable[..., Any]:
            order.tell(f"{order.label} {name}", len(made), len(order.buckets))
            batch = order.batch(size, channels_last)
            step, from_cache, note = _compiled(name, order, batch)
            ready, held = _replayed(in_single(step), batch, pool)
            notes.extend(text for text in (note, held) if text and text not in notes)
            captured = isinstance(ready, Graphed) and ready.captured
            made.append((from_cache, captured))
            # Compiled code looks at how its inputs lie, and is compiled anew for another way.
            return ready if captured or name != "inductor" else at_one_place(ready, batch)

        step = Bucketed(make, order.buckets)
    order.tell(f"{order.label} {name}", len(order.buckets), len(order.buckets))
    largest, mean = _differences(step, order)
    if not mean <= TOLERANCE[order.half]:
        limit = TOLERANCE[order.half]
        raise EngineError(f"its results are {mean:.1e} of scale off, more than {limit:g}")
    return Engine(
        step,
        EngineReport(
            name=order.label,
            engine=name,
            half=order.half,
            graphs=all(captured for _, captured in made),
            device=_device_name(order.device),
            buckets=step.sizes,
            build_s=time.monotonic() - begun_s,
            largest_difference=largest,
            mean_difference=mean,
            from_cache=all(from_cache for from_cache, _ in made),
            passed_over=passed_over,
            channels_last=channels_last,
            notes=tuple(notes),
        ),
    )


def _compiled(
    name: str, order: _Order, batch: Values
) -> tuple[Callable[..., Any], bool, str | None]:
    """A function for one shape, whether it came from the cache, and what should be known of it."""
    if name == "tensorrt":
        from pipeline.gpu.tensorrt import load_or_build

        return load_or_build(order.module, batch, order.cache)
    if name == "inductor":
        # Each shape is a compilation of its own, and several modules share code.
        with compiling():
            step = torch.compile(order.module, fullgraph=True, dynamic=False)
            with torch.inference_mode():
                step(*batch)
        return step, False, None
    return order.module, False, None


def _replayed(
    step: Callable[..., Any], batch: Values, pool: Pool | None
) -> tuple[Callable[..., Any], str | None]:
    """The step as a graph if it holds; else as it is, and why."""
    if pool is None:
        return step, None
    try:
        return Graphed(step, batch, pool=pool), None
    except CaptureError as error:
        return step, f"no CUDA graphs: {error}"


def _lies_channels_last(order: _Order) -> bool:
    """Which way images are to lie in memory: as asked, else whichever is faster here in eager
    graphs. Convolutions are the same library's in every engine that asks this."""
    images = any(t.dim() == 4 for t in order.examples)
    if order.channels_last is not None or not images or order.device.type != "cuda":
        return bool(order.channels_last) and images
    taken = {}
    for last in (False, True):
        batch = order.batch(order.buckets[len(order.buckets) // 2], last)
        order.module.to(memory_format=memory_format(last))  # type: ignore[call-overload]
        pool = Pool(order.device) if order.graphs else None
        step, _ = _replayed(in_single(order.module), batch, pool)
        taken[last] = seconds_a_call(step, batch)
    return taken[True] < taken[False]


def _differences(step: Bucketed, order: _Order) -> tuple[float, float]:
    """The largest and the mean difference of the worst output at the worst batch size, in parts of
    the output's scale, its root mean square."""
    largest = mean = 0.0
    for size in step.sizes:
        rows = order.rows(size)
        for out, expected in zip(step(*order.batch(size)), order.expected, strict=True):
            wanted = expected[rows]
            if out.shape != wanted.shape or not bool(torch.isfinite(out).all()):
                return float("inf"), float("inf")
            apart = (out - wanted).abs()
            scale = max(float(wanted.square().mean().sqrt()), 1e-9)
            largest = max(largest, float(apart.max()) / scale)
            mean = max(mean, float(apart.mean()) / scale)
    return largest, mean


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
