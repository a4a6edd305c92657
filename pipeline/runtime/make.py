"""Makes estimators: the only file of the pipeline that knows every part of one."""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from numba_loops import compile_ahead
from pipeline.body.load import load_body
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.core.problem import Notice
from pipeline.fitting.fitter import BodyFitter
from pipeline.gpu.device import EngineOptions, choose_device
from pipeline.perception.base import Perceiver, PerceiverOptions
from pipeline.perception.catalog import PERCEIVERS
from pipeline.runtime.catalog import ESTIMATORS
from pipeline.runtime.estimator import BodyEstimator, EstimatorOptions
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.sam3d.release import find_release
from pipeline.weights import store as weights
from pipeline.weights.download import WeightsError

Wrap = Callable[[Perceiver], Perceiver]
"""Puts another network over a perceiver."""


def make_estimator(estimator: str = "keypoints", **settings: Any) -> BodyEstimator:
    """Return what turns frames into bodies, loaded and ready.

    Args:
        estimator: A name of `pipeline.runtime.catalog`.
        **settings: `EstimatorOptions`' fields.

    Raises:
        TypeError: There is no such setting.
        ValueError: A setting is wrong, or no estimator has this name.
        WeightsError: A model file is missing or is not the right one.
        RuntimeError: A package or a device is missing. Each in a line or two.
    """
    known = [each.name for each in fields(EstimatorOptions)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"
            raise TypeError(f"there is no setting {name!r}{hint}")
    made: BodyEstimator = ESTIMATORS.load(estimator)(EstimatorOptions(**settings))
    return made


def make_keypoint_estimator(
    options: EstimatorOptions, make: Callable[[PerceiverOptions], Any] | None = None
) -> KeypointEstimator:
    """Return the estimator that fits bodies to a perceiver's keypoints. Raises as above.

    Args:
        options: What it is made with.
        make: Makes the perceiver; None takes the one that the options name.
    """
    lens = (options.fov_deg, options.focal_px, options.intrinsics)
    if options.depth_scale is not None and all(part is None for part in lens):
        raise ValueError(
            "a known scale of depth maps needs a known lens, or people get a wrong size: give"
            " fov_deg or focal_px too"
        )
    device, engine, progress = choose_device(options.device), options.engine, options.on_progress
    make = make or PERCEIVERS.load(options.perceiver)
    has_triton = importlib.util.find_spec("triton") is not None
    own_kernels = device.type == "cpu" or (engine.engine != "eager" and has_triton)
    fitter = BodyFitter(
        load_body(options.body), options.fit, device, engine.graphs, kernels=own_kernels
    )  # fmt: skip
    fov_deg, focal_px = options.fov_deg, options.focal_px
    if options.intrinsics is not None:
        fov_deg, focal_px = None, float(options.intrinsics[0, 0])
    perceiver: Perceiver = make(
        PerceiverOptions(
            options.people, device, options.model_folder, engine, progress, options.areas,
            options.model, options.keypoints, fov_deg, focal_px, options.intrinsics, fitter.body,
            options.sam3d, options.mhr_mesh,
        )
    )  # fmt: skip
    if not isinstance(perceiver, Perceiver):
        raise RuntimeError(
            f"perceiver {options.perceiver}: its entry point made a {type(perceiver).__name__}, "
            "not a subclass of Perceiver"
        )
    if options.mhr_mesh and not perceiver.has_mhr:
        raise ValueError(
            f"{perceiver.name} does not report an MHR mesh in every frame, which --draw mhr and "
            "--mhr-vertices need; use --estimator sam3d without --sam3d-reuse landmarks, or "
            "instanthmr with the MHR rig"
        )
    if device.type == "cuda":
        if progress is not None:
            progress("body fit", 0, 1)
        fitter.warm_up(options.people, surface=perceiver.has_skin)
        if progress is not None:
            progress("body fit", 1, 1)
    compile_ahead()
    folder, reuse = options.model_folder, options.reuse
    if options.masks != "own":
        wrap = make_segmenter(options.masks, options.people, device, engine, folder, reuse)
        perceiver = wrap(perceiver)
    if options.depth != "off":
        perceiver = make_depth_reader(options.depth, device, engine, folder, reuse)(perceiver)
    return KeypointEstimator(
        perceiver, fitter, fov_deg=options.fov_deg, focal_px=options.focal_px,
        intrinsics=options.intrinsics, depth_scale=options.depth_scale, areas=options.areas,
    )  # fmt: skip


def make_instanthmr_estimator(options: EstimatorOptions) -> KeypointEstimator:
    """Return the estimator that fits bodies to InstantHMR's joints. Raises as above."""
    return make_keypoint_estimator(replace(options, perceiver="instanthmr"))


def make_onnx_estimator(options: EstimatorOptions) -> KeypointEstimator:
    """Return the estimator that fits bodies to the keypoints of a network of the user's. Raises as
    above."""
    return make_keypoint_estimator(replace(options, perceiver="onnx"))


def make_sam3d_estimator(options: EstimatorOptions) -> KeypointEstimator:
    """Return the estimator that fits bodies to SAM 3D Body's. Raises as above.

    Where there is no GPU or no release, it fits them to BlazePose's keypoints, with a warning. A
    release that was named is not replaced, and on a device that was named it runs.
    """
    lacking = _lacking_for_sam3d(options)
    if lacking is None:
        return make_keypoint_estimator(replace(options, perceiver="sam3d"))
    line = f"{lacking}; bodies come from BlazePose's keypoints instead"
    if options.mhr_mesh:
        line += ", without MHR meshes"
    warnings.warn(line, Notice, stacklevel=3)
    return make_keypoint_estimator(replace(options, perceiver="blazepose", mhr_mesh=False))


def _lacking_for_sam3d(options: EstimatorOptions) -> str | None:
    """Why SAM 3D Body is not run here by default; None where it is."""
    reasons = []
    try:
        find_release(options.model, options.model_folder)
    except WeightsError as error:
        if options.model is not None:
            raise
        reasons.append(str(error))
    if options.device == "auto" and choose_device().type == "cpu":
        reasons.append(
            "there is no GPU, and SAM 3D Body takes seconds for each person and frame on a CPU "
            "(--device cpu runs it there)"
        )
    return "; ".join(reasons) or None


def make_segmenter(
    name: str,
    people: int,
    device: torch.device,
    engine: EngineOptions,
    folder: Path | None = None,
    reuse: bool = False,
) -> Wrap:
    """Return what puts masks by another network, of the user's own weights, over a perceiver's.

    Raises:
        WeightsError: Its file is missing or wrong.
        RuntimeError: ultralytics is not installed.
    """
    from pipeline.perception.ultralytics_models.load import build
    from pipeline.perception.ultralytics_models.segment import segmenter_of
    from pipeline.perception.with_masks import MaskedPerceiver

    (file,) = weights.find(name, folder).values()
    reports: list[Any] = []
    # Every person in every frame of a window is a query of the decoder.
    model, queries = build(name, file), WINDOW_FRAMES * people
    make = _engine_maker(device, engine, reports)
    segmenter = segmenter_of(make, model, WINDOW_FRAMES, queries, engine.graphs)

    def wrap(base: Perceiver) -> Perceiver:
        made = MaskedPerceiver(base, segmenter, device, reuse=reuse)
        made.reports += tuple(reports)
        return made

    return wrap


def make_depth_reader(
    name: str,
    device: torch.device,
    engine: EngineOptions,
    folder: Path | None = None,
    reuse: bool = False,
) -> Wrap:
    """Return what puts depths by a network of the user's own weights over a perceiver's people.

    Raises:
        WeightsError: Its file is missing or wrong.
        RuntimeError: ultralytics is not installed.
    """
    from pipeline.perception.ultralytics_models.depth import MonoDepth
    from pipeline.perception.ultralytics_models.load import build
    from pipeline.perception.ultralytics_models.segment import DepthMeter
    from pipeline.perception.with_depth import DepthPerceiver

    (file,) = weights.find(name, folder).values()
    reports: list[Any] = []
    model = build(name, file)
    assert isinstance(model, MonoDepth)
    make = _engine_maker(device, engine, reports)
    reader = DepthMeter(make, model, 1 if reuse else WINDOW_FRAMES, engine.graphs)

    def wrap(base: Perceiver) -> Perceiver:
        made = DepthPerceiver(base, reader, device, reuse=reuse)
        made.reports += tuple(reports)
        return made

    return wrap


def _engine_maker(
    device: torch.device, options: EngineOptions, reports: list[Any]
) -> Callable[..., Any]:
    """Make engines of ultralytics' modules; what became of each is added to ``reports``."""
    from pipeline.gpu.engine import make_engine

    def make(label: str, module: torch.nn.Module, size: int, *example: torch.Tensor) -> Any:
        # These networks are large: starting their kernels costs little beside running them, while
        # compiling them takes minutes. So they are compiled only when an engine is named.
        ready = make_engine(
            module, example, engine=options.engine, half=options.half, graphs=options.graphs,
            buckets=(1, size), device=device, cache=options.engines_folder, compiles=False,
        )  # fmt: skip
        reports.append(ready.report)
        return ready

    return make
