"""Build ultralytics models by name, with weights from a file or, for timing only, random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.perception.ultralytics_models.depth import MonoDepth
from pipeline.perception.ultralytics_models.fastsam import FastSam
from pipeline.perception.ultralytics_models.package import ultralytics
from pipeline.perception.ultralytics_models.sam import Sam, split
from pipeline.perception.ultralytics_models.yolo_pose import YoloPose
from pipeline.weights.torch_file import load_exactly, read_state

Model = Sam | FastSam | YoloPose | MonoDepth


@dataclass(frozen=True)
class _Recipe:
    """How to build a model.

    ``module``, ``function`` and ``arguments`` build ultralytics' network. ``wrap`` makes the model
    of it (None: the two halves of a SAM); ``side`` is the side of its input, in pixels.
    """

    module: str
    function: str
    arguments: dict[str, Any]
    wrap: Callable[[Any, int, str], Model] | None
    side: int


def _sam(function: str) -> _Recipe:
    return _Recipe("models.sam.build", function, {}, None, 1024)


def _yolo(function: str, cfg: str, wrap: Callable[[Any, int, str], Model], side: int) -> _Recipe:
    return _Recipe("nn.tasks", function, {"cfg": cfg, "nc": 1, "verbose": False}, wrap, side)


_RECIPES = {
    "sam-h": _sam("build_sam_vit_h"),
    "sam-b": _sam("build_sam_vit_b"),
    "mobile-sam": _sam("build_mobile_sam"),
    "fastsam-s": _yolo("SegmentationModel", "yolov8s-seg.yaml", FastSam, 640),
    "fastsam-x": _yolo("SegmentationModel", "yolov8x-seg.yaml", FastSam, 1024),
    "yolo26n-pose": _yolo("PoseModel", "yolo26n-pose.yaml", YoloPose, 640),
    "yolo26s-pose": _yolo("PoseModel", "yolo26s-pose.yaml", YoloPose, 640),
    "yolo26n-depth": _yolo("DepthModel", "yolo26n-depth.yaml", MonoDepth, 640),
    "yolo26s-depth": _yolo("DepthModel", "yolo26s-depth.yaml", MonoDepth, 640),
}
MODELS = tuple(_RECIPES)


def build(
    name: str,
    weights: Path | None = None,
    seed: int = 0,
    *,
    side: int | None = None,
    attention: str = "folded",
) -> Model:
    """Return a model on the CPU, in single precision, ready for inference.

    Args:
        name: One of `MODELS`.
        weights: Its weights file, of which nothing is executed. None: random weights, for timing
            only; the model's ``weights`` is then "random" instead of "real".
        seed: Seed of the random weights.
        side: Side of the input in pixels, for the YOLO family; None: the model's own.
        attention: One of `sam.ATTENTION`, for SAM's ViTs.

    Raises:
        ValueError: The name is unknown, or the side is not possible.
        UltralyticsError: ultralytics is not installed or cannot be imported.
        CheckpointError: The file does not hold exactly this model's weights.
        OSError: The file cannot be opened.
    """
    if name not in _RECIPES:
        raise ValueError(f"there is no model '{name}'; choose {', '.join(MODELS)}")
    recipe = _RECIPES[name]
    if side is not None and side != recipe.side and recipe.module != "nn.tasks":
        raise ValueError(f"{name} takes pictures of {recipe.side} pixels a side only")
    state = None if weights is None else read_state(weights)
    make = getattr(ultralytics(recipe.module), recipe.function)
    # In a fork of the generator: building a network draws random weights even if a file follows.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make(**recipe.arguments).eval()
    if state is not None:
        load_exactly(network, state, f"{name} in {weights}")
    kind = "random" if state is None else "real"
    if recipe.wrap is None:
        return split(network, kind, attention)
    return recipe.wrap(network, side or recipe.side, kind)
