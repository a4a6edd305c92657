"""A torch module made fast for fixed shapes: TensorRT, inductor or eager, in CUDA graphs.

``auto`` takes the first of these that is installed and works here; a name takes that one or fails.
Whatever runs has been held against the module as it came, in single precision.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.graphs import Bucketed, Graphed

ENGINES = ("tensorrt", "inductor", "eager")
TOLERANCE = {False: 1e-3, True: 3e-2}
"""The mean difference from the module as it came, in parts of an output's scale, above which an
engine is refused: in single and in half precision."""

Progress = Callable[[str, int, int], None]


class EngineError(RuntimeError):
    """An engine that was asked for is not there, or does not do what it should."""


@dataclass(frozen=True)
class EngineReport:
    """What runs a module: the ``engine``, ``half`` precision or not, whether ``graphs`` replay it,
    on which ``device``, the batch sizes it was made for, how long that took (seconds), the largest
    and the mean ``difference`` from the module as it came in parts of an output's scale, and why
    engines before it were not taken."""

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

    def __str__(self) -> str:
        kind = "half" if self.half else "single"
        words = f"{self.name}: {self.engine}, {kind} precision, "
        words += "CUDA graphs" if self.graphs else "no CUDA graphs"
        words += f", on {self.device}"
        words += f", {'loaded' if self.from_cache else 'built'} in {self.build_s:.1f} s"
        words += f", {self.mean_difference:.1e} of scale from single precision eager"
        return words + "".join(f"; {why}" for why in self.passed_over)


class Engine:
    """A module made fast. Belongs to one thread at a time.

    Results are tuples of float32 tensors with the batch first, valid until the next call.
    """

    def __init__(self, step: Bucketed, report: EngineReport) -> None:
        self._step = step
        self.report = report

    def __call__(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Run a batch (B, ...), any B."""
        return self._step(*batch)


def make_engine(
    module: nn.Module,
    example: Tensor,
    *,
    engine: str = "auto",
    half: bool = True,
    graphs: bool = True,
    buckets: Sequence[int] = (1, 2, 4, 8),
    device: torch.device | str = "cuda",
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Engine:
    """Make a module fast and warm for batches of ``buckets`` sizes.

    ``example`` (B, ...) is what it is checked on, real input if there is any; its shape without the
    batch is the one the engine is for. ``half``: a module with a method ``halve`` knows best how it
    is computed in half precision; others go over as a whole. On a CPU nothing is halved.
    ``cache`` is a folder for engines that take long to build (None: they are not kept); what lies
    there is run as code, so it must be the user's own. ``on_progress`` is told (engine, done, of).

    Raises EngineError when the engine asked for is missing or wrong, ValueError for no engine's
    name.
    """
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"there is no engine '{engine}'; choose auto, {', '.join(ENGINES)}")
    device = torch.device(device)
    half = half and device.type == "cuda"
    tell = on_progress or (lambda name, done, of: None)
    module, example = module.eval().to(device), example.to(device)
    with torch.inference_mode():
        expected = _tuple(module(example))
    passed_over: list[str] = []
    for name in ENGINES if engine == "auto" else (engine,):
        try:
            why = missing(name, device)
            if why is not None:
                raise EngineError(why)
            return _build(
                name, module, example, expected, half, graphs, tuple(buckets), cache, tell,
                tuple(passed_over),
            )  # fmt: skip
        except Exception as error:
            if engine != "auto" or name == ENGINES[-1]:
                if isinstance(error, EngineError):
                    raise
                raise EngineError(f"{name}: {_line(error)}") from error
            passed_over.append(f"not {name}: {_line(error)}")
    raise AssertionError("eager is always tried")


def missing(name: str, device: torch.device) -> str | None:
    """Why an engine cannot be had here, in a line; None when it can."""
    if name == "tensorrt":
        if importlib.util.find_spec("torch_tensorrt") is None:
            return "torch-tensorrt is not installed; pip install 'bodystream[tensorrt]'"
        return None if device.type == "cuda" else "TensorRT needs an NVIDIA GPU"
    if name == "inductor":
        if device.type != "cuda":
            return "inductor is used on GPUs only"
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed; pip install 'bodystream[gpu]'"
    return None


def _build(
    name: str,
    module: nn.Module,
    example: Tensor,
    expected: tuple[Tensor, ...],
    half: bool,
    graphs: bool,
    buckets: tuple[int, ...],
    cache: Path | None,
    tell: Progress,
    passed_over: tuple[str, ...],
) -> Engine:
    begun_s = time.monotonic()
    label = type(module).__name__
    ready = halved(module) if half else module
    cached: list[bool] = []

    def make(size: int) -> Callable[..., Any]:
        tell(f"{label} {name}", len(cached), len(buckets))
        batch = example[:1].expand(size, *example.shape[1:]).contiguous()
        step, from_cache = _compiled(name, ready, batch, half, cache)
        cached.append(from_cache)
        return Graphed(_in_single(step), [batch], enabled=graphs)

    step = Bucketed(make, buckets)
    tell(f"{label} {name}", len(buckets), len(buckets))
    largest, mean = _difference(step(example), expected)
    if not mean <= TOLERANCE[half]:
        raise EngineError(f"its results are {mean:.1e} of scale off, more than {TOLERANCE[half]:g}")
    return Engine(
        step,
        EngineReport(
            name=label,
            engine=name,
            half=half,
            graphs=graphs and example.is_cuda,
            device=_device_name(example.device),
            buckets=step.sizes,
            build_s=time.monotonic() - begun_s,
            largest_difference=largest,
            mean_difference=mean,
            from_cache=all(cached),
            passed_over=passed_over,
        ),
    )


def _compiled(
    name: str, module: nn.Module, batch: Tensor, half: bool, cache: Path | None
) -> tuple[Callable[..., Any], bool]:
    """A function for one shape, and whether it came from the cache."""
    if name == "tensorrt":
        from pipeline.engine_tensorrt import load_or_build

        return load_or_build(module, batch, cache)
    if name == "inductor":
        # Each shape is a compilation of its own, and several modules share code.
        with torch._dynamo.config.patch(recompile_limit=256, accumulated_recompile_limit=4096):
            step = torch.compile(module, fullgraph=True, dynamic=False)
            with torch.inference_mode():
                step(batch)
        return step, False
    return module, False


def halved(module: nn.Module) -> nn.Module:
    """A copy of a module in half precision, that takes and gives any."""
    other = copy.deepcopy(module)
    halve = getattr(other, "halve", None)
    return halve() if halve is not None else _Halved(other)


class _Halved(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, *batch: Tensor) -> Any:
        return self.module(*(t.half() for t in batch))


def _in_single(step: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    @torch.inference_mode()
    def run(*batch: Tensor) -> tuple[Tensor, ...]:
        return tuple(out.float() for out in _tuple(step(*batch)))

    return run


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _difference(outputs: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> tuple[float, float]:
    """The largest and the mean difference of the worst output, in parts of its standard deviation
    (or of its mean size, where it hardly varies)."""
    largest = mean = 0.0
    for out, wanted in zip(outputs, expected, strict=True):
        if not bool(torch.isfinite(out).all()):
            return float("inf"), float("inf")
        apart = (out - wanted.float()).abs()
        scale = max(float(wanted.float().square().mean().sqrt()), 1e-9)
        largest = max(largest, float(apart.max()) / scale)
        mean = max(mean, float(apart.mean()) / scale)
    return largest, mean


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
