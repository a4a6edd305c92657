"""The rows of the benchmark: what each one runs, declared. A new row is a new line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app.config import ConfigError


@dataclass(frozen=True)
class Plan:
    """What a row of the plan is made of (`app.bench.plan`).

    ``segment`` and ``depth`` are models of `pipeline.perception.ultralytics_models`, ``attention``
    SAM's, ``channels_last`` how images lie in memory, ``batch`` how many frames go through a
    network together. ``reuse`` segments from the key frame's embedding or instances alone,
    ``reuse_depth`` takes the key frame's depth for the window. ``sources`` windows go together,
    their key frames in one batch. ``warm`` is the fit as the app does it: from the last window's
    pose, compiled and in CUDA graphs; else each window is met anew, kernel by kernel. ``steps``
    are the fit's. ``side`` is the pictures' of the YOLO family (px; None: those the models are
    made for).
    """

    segment: str = "sam-h"
    depth: str = "yolo26s-depth"
    attention: str = "folded"
    channels_last: bool = True
    batch: int = 1
    reuse: bool = False
    reuse_depth: bool = False
    sources: int = 1
    warm: bool = False
    steps: int = 12
    side: int | None = None


@dataclass(frozen=True)
class Settings:
    """What a row's pipeline is made of; ``app.bench.pipelines.make_pipeline`` reads it.

    ``engine`` is how torch modules are run ("auto": the best that is installed), ``graphs``
    whether CUDA graphs are used, ``half`` whether the networks run in half precision, ``tf32``
    whether FP32 products may be rounded to TF32 (None: as the pipeline decides). ``people`` is
    the most to follow, ``weights_folder`` is searched for model files first. ``plan`` makes it a
    row of the plan.
    """

    device: Literal["cpu", "cuda"] = "cuda"
    engine: Literal["auto", "tensorrt", "inductor", "eager"] = "auto"
    graphs: bool = True
    half: bool = True
    tf32: bool | None = None
    renderer: str = "gpu"
    people: int = 1
    weights_folder: Path | None = field(default=None, compare=False)
    plan: Plan | None = None

    def as_json(self) -> dict[str, Any]:
        """All that changes what is measured."""
        out = {k: v for k, v in vars(self).items() if k not in ("weights_folder", "plan")}
        return out if self.plan is None else {**out, "plan": asdict(self.plan)}


@dataclass(frozen=True)
class Row:
    """One named measurement.

    ``measure`` "latency": four frames in host memory to four overlays in host memory, one window
    after another; "streams": how many 30 Hz sources one machine holds. ``people`` None takes the
    command's. ``plan_ms`` is what the plan had estimated for four frames. The speed-up is over
    the row ``against``, the meshes' difference from the row ``above``. ``packages`` are modules
    that must be installed, each with its extra.
    """

    id: str
    name: str
    settings: Settings
    measure: Literal["latency", "streams"] = "latency"
    people: int | None = None
    plan_ms: float | None = None
    against: str = "default-cpu"
    packages: tuple[tuple[str, str], ...] = ()
    above: str | None = None


_ULTRALYTICS = (("ultralytics", "ultralytics"),)
_BASELINE = Settings(
    engine="eager", graphs=False, half=False, tf32=False, renderer="numba",
    plan=Plan(attention="plain", channels_last=False),
)  # fmt: skip
_TF32 = replace(_BASELINE, tf32=True, plan=Plan())
_COMPILED = replace(_TF32, graphs=True, half=True)
_SAM_CACHE = Plan(batch=4, reuse=True)
_FASTSAM = Plan("fastsam-x")
_BATCH = replace(_FASTSAM, batch=4)
_CACHE = replace(_BATCH, reuse=True, reuse_depth=True)
_FULL = replace(_CACHE, warm=True)


def _planned(
    row_id: str,
    name: str,
    settings: Settings,
    above: str | None,
    plan_ms: float | None = None,
) -> Row:
    return Row(
        row_id, name, settings, plan_ms=plan_ms, against="baseline", packages=_ULTRALYTICS,
        above=above,
    )  # fmt: skip


def _with(plan: Plan, renderer: str = "numba") -> Settings:
    return replace(_COMPILED, plan=plan, renderer=renderer)


_PLAN = (
    _planned("baseline", "SAM ViT-H and depth, FP32, frame by frame", _BASELINE, None, 800),
    _planned("tf32", "TF32, fused attention, channels last", _TF32, "baseline"),
    _planned("compiled", "FP16 networks in CUDA graphs", _COMPILED, "tf32", 300),
    _planned("sam-cache", "SAM's encoder on the key frame only", _with(_SAM_CACHE), "compiled"),
    _planned(
        "sam-full", "that, fit and drawing on the GPU",
        _with(replace(_SAM_CACHE, warm=True), "gpu"), "sam-cache",
    ),
    _planned("fastsam", "compiled, FastSAM-x for SAM", _with(_FASTSAM), "compiled", 150),
    _planned("batch", "four frames in a batch", _with(_BATCH), "fastsam", 100),
    _planned("cache", "the key frame for the window (the plan: 60-80)", _with(_CACHE), "batch", 70),
    _planned("full", "that, fit and drawing on the GPU", _with(_FULL, "gpu"), "cache"),
    _planned(
        "full-s", "that with FastSAM-s", _with(replace(_FULL, segment="fastsam-s"), "gpu"), "full"
    ),
)  # fmt: skip

_TENSORRT = (("torch_tensorrt", "tensorrt"),)

ROWS: tuple[Row, ...] = (
    *_PLAN,
    Row("default", "everything on the GPU", Settings()),
    Row("default-nograph", "without CUDA graphs", Settings(graphs=False)),
    Row("default-fp32", "networks in FP32, TF32 off", Settings(half=False, tf32=False)),
    Row("default-tensorrt", "TensorRT engines", Settings(engine="tensorrt"), packages=_TENSORRT),
    Row("default-cpu", "everything on the CPU", Settings("cpu", renderer="numba", half=False)),
    Row("streams-p1", "30 Hz streams, one person each", Settings(), "streams", people=1),
    Row("streams-p4", "30 Hz streams, four people each", Settings(), "streams", people=4),
    Row("streams-p8", "30 Hz streams, eight people each", Settings(), "streams", people=8),
)


def choose(names: str | None, rows: Sequence[Row] = ROWS) -> list[Row]:
    """Rows by their ids, separated by commas, in the table's order; None is all of them. Raises
    ConfigError for an unknown one."""
    if names is None:
        return list(rows)
    known = [row.id for row in rows]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--rows: there is no row '{name}'; there are: {', '.join(known)}")
    if not wanted:
        raise ConfigError(f"--rows: name one or more of {', '.join(known)}")
    return [row for row in rows if row.id in wanted]
