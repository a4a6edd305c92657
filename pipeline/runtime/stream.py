"""The pipeline in one call, for programs of your own.

from pipeline.runtime.stream import stream

with stream("clip.mp4") as run:
    for frame, bodies in run:
        print(frame.id, bodies.track, bodies.joints_m.shape)
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.body.load import load_body
from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.core.stats import Stats
from pipeline.fitting.fitter import BodyFitter
from pipeline.fitting.solver import FitConfig
from pipeline.perception.base import Perceiver
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.runner import Runner
from pipeline.weights import store as weights


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is the GPU where torch sees one. Raises RuntimeError when ``cuda`` is asked for
    and is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("no CUDA device: this torch sees none; use --device cpu, or see doctor")
    return torch.device(name)


@dataclass(frozen=True)
class EngineOptions:
    """How a GPU computes: the networks' ``engine`` (`make_engine`; "eager" leaves the fit's kernels
    as they are too), ``half`` precision for them, CUDA ``graphs`` for everything; ``cache`` is
    where engines are kept that take long to build (None: in the user's cache folder)."""

    engine: str = "auto"
    half: bool = True
    graphs: bool = True
    cache: Path | None = None


def make_estimator(
    *,
    people: int = 4,
    body: Path | None = None,
    device: str = "auto",
    model_folder: Path | None = None,
    fov_deg: float | None = None,
    focal_px: float | None = None,
    fit: FitConfig | None = None,
    masks: str = "own",
    reuse: bool = False,
    depth: str = "off",
    depth_scale: float | None = None,
    engine: EngineOptions | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> KeypointEstimator:
    """Everything between frames and bodies, loaded and ready.

    ``body`` is an SMPL file of your own (None: the free body), ``model_folder`` is searched for the
    perceiver's files first. ``masks`` names another network for people's masks ("own": the
    perceiver's; else one of `perceive.ultra.load.MODELS` that segments), ``depth`` one that says
    how far people are ("off": none), in maps of ``depth_scale`` metres a unit (None: found for each
    source; where it is given, the lens must be too); ``reuse`` has the key frame serve its
    neighbours (`MaskedPerceiver`, `DepthPerceiver`). On a GPU all of it runs there, as ``engine``
    says; ``on_progress`` is told of what takes long (its name, done, of). Raises WeightsError,
    ValueError or RuntimeError in a line or two.
    """
    if depth_scale is not None and fov_deg is None and focal_px is None:
        raise ValueError(
            "a known scale of depth maps needs a known lens, or people get a wrong size: give"
            " fov_deg or focal_px too"
        )
    files = weights.find("blazepose", model_folder)
    options, chosen = engine or EngineOptions(), choose_device(device)
    own = options.engine != "eager" and importlib.util.find_spec("triton") is not None
    fitter = BodyFitter(load_body(body), fit, chosen, options.graphs, kernels=own)
    if chosen.type == "cpu":
        perceiver: BlazePose = BlazePose(files, max_people=people)
    else:
        from pipeline.perception.blazepose.perceiver_gpu import BlazePoseTorch

        kept = options.cache or weights.cache_folder() / "engines"
        # Torch's own place does not outlive a restart, and compiling takes minutes.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kept / "inductor"))
        perceiver = BlazePoseTorch(
            files, people, chosen, engine=options.engine, half=options.half,
            graphs=options.graphs, cache=kept, on_progress=on_progress,
        )  # fmt: skip
        if on_progress is not None:
            on_progress("body fit", 0, 1)
        fitter.warm_up(people)
        if on_progress is not None:
            on_progress("body fit", 1, 1)
    chooses: Perceiver = perceiver
    if masks != "own":
        chooses = make_segmenter(masks, people, chosen, options, model_folder, reuse)(chooses)
    if depth != "off":
        chooses = make_meter(depth, chosen, options, model_folder, reuse)(chooses)
    return KeypointEstimator(
        chooses, fitter, fov_deg=fov_deg, focal_px=focal_px, depth_scale=depth_scale
    )


def make_segmenter(
    name: str,
    people: int,
    device: torch.device,
    options: EngineOptions,
    folder: Path | None = None,
    reuse: bool = False,
) -> Callable[[Perceiver], Perceiver]:
    """What puts masks by another network, of the user's own weights, over a perceiver's. Raises
    WeightsError, RuntimeError without ultralytics."""
    from pipeline.perception.ultralytics_models.load import build
    from pipeline.perception.ultralytics_models.segment import segmenter_of
    from pipeline.perception.with_masks import MaskedPerceiver

    (file,) = weights.find(name, folder).values()
    reports: list[Any] = []
    model, looks = build(name, file), WINDOW_FRAMES * people
    make = _maker(device, options, reports)
    segmenter = segmenter_of(make, model, WINDOW_FRAMES, looks, options.graphs)

    def over(base: Perceiver) -> Perceiver:
        made = MaskedPerceiver(base, segmenter, device, reuse=reuse)
        made.reports += tuple(reports)
        return made

    return over


def make_meter(
    name: str,
    device: torch.device,
    options: EngineOptions,
    folder: Path | None = None,
    reuse: bool = False,
) -> Callable[[Perceiver], Perceiver]:
    """What puts depths by a network of the user's own weights over a perceiver's people. Raises
    WeightsError, RuntimeError without ultralytics."""
    from pipeline.perception.ultralytics_models.depth import MonoDepth
    from pipeline.perception.ultralytics_models.load import build
    from pipeline.perception.ultralytics_models.segment import DepthMeter
    from pipeline.perception.with_depth import DepthPerceiver

    (file,) = weights.find(name, folder).values()
    reports: list[Any] = []
    model = build(name, file)
    assert isinstance(model, MonoDepth)
    make = _maker(device, options, reports)
    meter = DepthMeter(make, model, 1 if reuse else WINDOW_FRAMES, options.graphs)

    def over(base: Perceiver) -> Perceiver:
        made = DepthPerceiver(base, meter, device, reuse=reuse)
        made.reports += tuple(reports)
        return made

    return over


def _maker(device: torch.device, options: EngineOptions, reports: list[Any]) -> Callable[..., Any]:
    """Makes engines of ultralytics' modules (`ultra.segment.Make`); what became of each is added
    to ``reports``."""
    from pipeline.gpu.engine import make_engine

    def make(label: str, module: torch.nn.Module, size: int, *example: torch.Tensor) -> Any:
        # These are large: what starting their kernels costs hardly shows, compiling them does. So
        # one is only compiled when an engine is asked for by name.
        chosen = "eager" if options.engine == "auto" else options.engine
        ready = make_engine(
            module, example, engine=chosen, half=options.half, graphs=options.graphs,
            buckets=(1, size), device=device, cache=options.cache,
        )  # fmt: skip
        reports.append(ready.report)
        return ready

    return make


def stream(
    source: str,
    options: SourceOptions | None = None,
    *,
    estimator: KeypointEstimator | None = None,
    stop: threading.Event | None = None,
    stats: Stats | None = None,
    **model: Any,
) -> Runner:
    """A Runner over ``source``, as ``open_source`` takes it; a ``with`` block starts and ends it.

    Further keywords are ``make_estimator``'s, for when no ``estimator`` is handed in.
    """
    opened = open_source(source, options, stop=stop)
    return Runner(opened, estimator or make_estimator(**model), stats=stats)
