"""The rows of the benchmark: each declares what it runs. A new row is a new line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app.config import ConfigError
from app.setting import did_you_mean
from pipeline.sam3d.options import Sam3dOptions

Network = Literal["", "instanthmr", "onnx", "sam3d-dinov3", "sam3d-vith"]


@dataclass(frozen=True)
class Plan:
    """The settings of a row of the plan (`app.bench.plan`).

    Attributes:
        segment: The segmentation model, of `pipeline.perception.ultralytics_models`.
        depth: The depth model, of the same.
        attention: How SAM's attention is computed.
        channels_last: Whether images lie in memory with their channels last.
        batch: How many frames go through a network together.
        reuse: Whether all frames of a window are segmented from the key frame's embedding or
            instances.
        reuse_depth: Whether the key frame's depth is used for the whole window.
        sources: How many windows go together, with their key frames in one batch.
        warm: Whether the fit starts from the last window's pose, compiled and in CUDA graphs, as in
            the app. Otherwise each window is fitted from the start, kernel by kernel.
        steps: The steps of the fit.
        side: The side of the YOLO family's pictures, pixels; None for the models' own.
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
    """The settings of a row's pipeline; `app.bench.pipelines.make_pipeline` reads them.

    Attributes:
        device: "cpu" or "cuda".
        engine: How torch modules are run; "auto" for the best one installed.
        graphs: Whether CUDA graphs are used.
        half: Whether the networks run in half precision.
        tf32: Whether FP32 products may be rounded to TF32; None for the pipeline's own choice.
        renderer: The name of the renderer.
        people: The most people to track.
        weights_folder: A folder that is searched for model files first.
        plan: The settings of a row of the plan; None for the app's own pipeline.
        network: The estimator whose network is timed with random weights (`app.bench.networks`,
            `app.bench.random_sam3d`); "" for the default one, with its own.
        sam3d: How SAM 3D Body is used.
        fp8: Whether the products of its backbone are in 8 bits.
        upstream: Whether the original's own code is timed (`app.bench.upstream_sam3d`).
        upstream_folder: The folder of that code.
    """

    device: Literal["cpu", "cuda"] = "cuda"
    engine: Literal["auto", "triton", "tensorrt", "inductor", "eager"] = "auto"
    graphs: bool = True
    half: bool = True
    tf32: bool | None = None
    renderer: str = "gpu"
    people: int = 1
    # Not compared: where the files lie changes no figure.
    weights_folder: Path | None = field(default=None, compare=False)
    plan: Plan | None = None
    network: Network = ""
    sam3d: Sam3dOptions = Sam3dOptions()
    fp8: bool = False
    upstream: bool = False
    upstream_folder: Path | None = field(default=None, compare=False)

    @property
    def planes(self) -> bool:
        """Whether frames go to the GPU, and overlays come back, as planes of YUV 4:2:0. Rows that
        read frames on the host have RGB."""
        on_host = self.upstream or self.network in ("instanthmr", "onnx")
        return self.device == "cuda" and self.renderer == "gpu" and not on_host

    def as_json(self) -> dict[str, Any]:
        """Return all settings that change what is measured."""
        apart = ("weights_folder", "plan", "network", "sam3d", "fp8", "upstream", "upstream_folder")
        out = {k: v for k, v in vars(self).items() if k not in apart}
        # Named where it is used, so that the other rows' settings stay what they were.
        if self.network:
            out["network"] = self.network
        if self.network.startswith("sam3d"):
            out |= {"sam3d": asdict(self.sam3d), "fp8": self.fp8}
        if self.upstream:
            out["upstream"] = True
        return out if self.plan is None else {**out, "plan": asdict(self.plan)}


@dataclass(frozen=True)
class Row:
    """One named measurement.

    Attributes:
        id: Its name on the command line and in files.
        name: What it measures, in a few words.
        settings: The settings of its pipeline.
        measure: "latency": from four frames in host memory to four overlays in host memory, one
            window after another; "streams": how many 30 Hz sources the machine can process.
        people: The people in each frame; None for the command line's.
        plan_ms: The plan's estimate for four frames, in milliseconds.
        against: The rows that its speed-up is computed against: the first that was measured.
        packages: Modules that must be installed, each with its extra.
        above: The row that its meshes are compared with.
        workers: How many processes share the sources of "streams".
        gpus: How many GPUs they share, each by Ray's actors; 0 for processes without Ray.
        decoded: Whether the sources of "streams" are decoded from H.264 while they play.
        slow: How many times in a row each frame of the clip is shown.
    """

    id: str
    name: str
    settings: Settings
    measure: Literal["latency", "streams"] = "latency"
    people: int | None = None
    plan_ms: float | None = None
    against: tuple[str, ...] = ("default-cpu",)
    packages: tuple[tuple[str, str], ...] = ()
    above: str | None = None
    workers: int = 1
    gpus: int = 0
    decoded: bool = False
    slow: int = 1


_ULTRALYTICS = (("ultralytics", "ultralytics"),)
_TENSORRT = (("torch_tensorrt", "tensorrt"),)
# Each of these changes one step of the one before, so that rows show what a step gains.
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
    packages: tuple[tuple[str, str], ...] = _ULTRALYTICS,
) -> Row:
    return Row(
        row_id, name, settings, plan_ms=plan_ms, against=("baseline",), packages=packages,
        above=above,
    )  # fmt: skip


def _with(plan: Plan) -> Settings:
    return replace(_COMPILED, plan=plan)


def _on_gpu(plan: Plan) -> Settings:
    """Each network in the first engine that works, drawn on the GPU. (The app itself compiles these
    networks only where an engine is named: it takes minutes.)"""
    return replace(_COMPILED, plan=plan, engine="auto", renderer="gpu")


def _in_tensorrt(of: str, settings: Settings) -> Row:
    """The row ``of`` with its networks in TensorRT, for which plain attention is the faster one."""
    assert settings.plan is not None
    return _planned(
        f"{of}-trt", f"{of} in TensorRT, attention plain",
        replace(settings, engine="tensorrt", plan=replace(settings.plan, attention="plain")),
        of, packages=_ULTRALYTICS + _TENSORRT,
    )  # fmt: skip


_PLAN = (
    _planned("baseline", "SAM ViT-H and depth, FP32, frame by frame", _BASELINE, None, 800),
    _planned("tf32", "TF32, fused attention, channels last", _TF32, "baseline"),
    _planned("compiled", "FP16 networks in CUDA graphs", _COMPILED, "tf32", 300),
    _in_tensorrt("compiled", _COMPILED),
    _planned("sam-cache", "SAM's encoder on the key frame only", _with(_SAM_CACHE), "compiled"),
    _planned(
        "sam-full", "that, compiled networks, fit and drawing on the GPU",
        _on_gpu(replace(_SAM_CACHE, warm=True)), "sam-cache",
    ),
    _in_tensorrt("sam-full", _on_gpu(replace(_SAM_CACHE, warm=True))),
    _planned("fastsam", "compiled, FastSAM-x for SAM", _with(_FASTSAM), "compiled", 150),
    _planned("batch", "four frames in a batch", _with(_BATCH), "fastsam", 100),
    _planned("cache", "the key frame for the window (the plan: 60-80)", _with(_CACHE), "batch", 70),
    _planned(
        "full", "that, compiled networks, fit and drawing on the GPU", _on_gpu(_FULL), "cache"
    ),
    _in_tensorrt("full", _on_gpu(_FULL)),
    _planned(
        "full-s", "that with FastSAM-s", _on_gpu(replace(_FULL, segment="fastsam-s")), "full"
    ),
)  # fmt: skip

_ONNX = (("onnxruntime", "onnx"), ("onnx", "dev"))


def _sam3d(
    row_id: str,
    name: str,
    network: Network = "sam3d-dinov3",
    original: str = "sam3d-upstream",
    slow: int = 1,
    **settings: Any,
) -> Row:
    """A row of SAM 3D Body with random weights, and the row of the original to compare it with."""
    options = Settings(network=network, **settings)
    against = (original, "sam3d-eager")
    return Row(row_id, f"SAM 3D Body, {name}", options, against=against, slow=slow)


def _original(row_id: str, name: str, network: Network = "sam3d-dinov3", **settings: Any) -> Row:
    """A row of the original's own code, which neither fits nor draws."""
    options = Settings(network=network, engine="eager", graphs=False, upstream=True, **settings)
    return Row(
        row_id, f"the original SAM 3D Body, {name}, no fit", options, against=("sam3d-eager",)
    )


_WITH_HANDS = Sam3dOptions(hands=True)
_SAM3D = (
    _original("sam3d-upstream", "DINOv3"),
    _original("sam3d-upstream-vith", "ViT-H", "sam3d-vith"),
    _original("sam3d-upstream-full", "DINOv3 with hands", sam3d=_WITH_HANDS),
    _sam3d("sam3d-eager", "DINOv3, eager, frame by frame", engine="eager", graphs=False),
    _sam3d("sam3d", "DINOv3"),
    _sam3d("sam3d-fp8", "DINOv3, products in 8 bits", fp8=True),
    _sam3d("sam3d-vith", "ViT-H", "sam3d-vith", "sam3d-upstream-vith"),
    _sam3d(
        "sam3d-vith-fp8", "ViT-H, products in 8 bits", "sam3d-vith", "sam3d-upstream-vith",
        fp8=True,
    ),
    _sam3d(
        # Fast people are measured in each frame; the sample's throw would time that.
        "sam3d-keyframe",
        "DINOv3 on the key frame, neighbours decoded with prompts; an eighth of the sample's speed",
        sam3d=Sam3dOptions(reuse="prompts"), slow=8,
    ),
    _sam3d(
        "sam3d-landmarks", "DINOv3 on the key frame, landmarks between",
        sam3d=Sam3dOptions(reuse="landmarks"),
    ),
    _sam3d(
        "sam3d-full", "DINOv3 with hands", original="sam3d-upstream-full", sam3d=_WITH_HANDS
    ),
)  # fmt: skip


def _network(name: Literal["instanthmr", "onnx"], of: str) -> tuple[Row, Row]:
    """The rows of a network in ONNX Runtime, on the GPU and on the CPU."""
    cpu = Settings("cpu", renderer="numba", half=False, network=name)
    return (
        Row(name, f"{of} in ONNX Runtime", Settings(network=name), packages=_ONNX),
        Row(f"{name}-cpu", f"{of} in ONNX Runtime, on the CPU", cpu, packages=_ONNX),
    )


_CLUSTERS = ((1, 1), (1, 2), (1, 4), (2, 8), (4, 16))
"""The GPUs of one machine and the workers on them, in the rows of the cluster."""

ROWS: tuple[Row, ...] = (
    *_PLAN,
    Row("default", "everything on the GPU, pictures as YUV 4:2:0", Settings()),
    Row("default-nograph", "without CUDA graphs", Settings(graphs=False)),
    Row("default-fp32", "networks in FP32, TF32 off", Settings(half=False, tf32=False)),
    Row("default-tensorrt", "TensorRT engines", Settings(engine="tensorrt"), packages=_TENSORRT),
    Row("default-cpu", "everything on the CPU", Settings("cpu", renderer="numba", half=False)),
    *_network("instanthmr", "a network of InstantHMR's size"),
    *_network("onnx", "a network of RTMPose-m's size"),
    *_SAM3D,
    Row("streams-p1", "30 Hz streams, one person each", Settings(), "streams", people=1),
    Row("streams-p4", "30 Hz streams, four people each", Settings(), "streams", people=4),
    Row("streams-p8", "30 Hz streams, eight people each", Settings(), "streams", people=8),
    Row(
        "streams-h264",
        "30 Hz streams, one person each, decoded from H.264",
        Settings(),
        "streams",
        people=1,
        decoded=True,
    ),
    *(
        Row(
            f"cluster-g{gpus}w{workers}",
            f"30 Hz streams, one person each, in a cluster: {gpus} x GPU, {workers} workers",
            Settings(),
            "streams",
            people=1,
            workers=workers,
            gpus=gpus,
            packages=(("ray", "cluster"),),
        )
        for gpus, workers in _CLUSTERS
    ),
)


def with_workers(rows: Sequence[Row], workers: int) -> list[Row]:
    """Return the rows with those of streams run by several processes, under ids of their own.

    Raises:
        ConfigError: No row of streams is among them.
    """
    if workers == 1:
        return list(rows)
    if not any(row.measure == "streams" for row in rows):
        raise ConfigError("--workers: is for rows of streams; name one, such as streams-p1")
    return [
        replace(
            row, id=f"{row.id}-w{workers}", name=f"{row.name}, {workers} processes", workers=workers
        )
        if row.measure == "streams" and not row.gpus
        else row
        for row in rows
    ]  # fmt: skip


def choose(names: str | None, rows: Sequence[Row] = ROWS) -> list[Row]:
    """Return the rows that a text names, in the table's order.

    Args:
        names: Ids separated by commas; "cluster" stands for all rows of the cluster; None for all.
        rows: The rows to choose from.

    Raises:
        ConfigError: An id is unknown, or there is none.
    """
    if names is None:
        return list(rows)
    known = [row.id for row in rows]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if "cluster" in wanted:
        wanted += [row.id for row in rows if row.gpus]
        wanted.remove("cluster")
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"--rows: there is no row '{name}'{hint}; bench --list has them all")
    if not wanted:
        raise ConfigError("--rows: name one or more; bench --list has them all")
    # In the table's order: later rows of the plan are compared with earlier ones.
    return [row for row in rows if row.id in wanted]
