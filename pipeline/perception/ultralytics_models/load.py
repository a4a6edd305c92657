"""The ultralytics models by name, with weights from a file or, for timing only, random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.perception.ultralytics_models.checkpoint import load_exactly, read_state
from pipeline.perception.ultralytics_models.depth import MonoDepth
from pipeline.perception.ultralytics_models.fastsam import FastSam
from pipeline.perception.ultralytics_models.package import ultralytics
from pipeline.perception.ultralytics_models.sam import Sam, split
from pipeline.perception.ultralytics_models.yolo_pose import YoloPose

Model = Sam | FastSam | YoloPose | MonoDepth


@dataclass(frozen=True)
class _Recipe:
    """How ultralytics builds a network (module, function, what it is given), what becomes of it
    (None: the halves of a SAM), and the side of its pictures (px)."""

    module: str
    function: str
    given: dict[str, Any]
    finish: Callable[[Any, int, str], Model] | None
    side: int


def _sam(function: str) -> _Recipe:
    return _Recipe("models.sam.build", function, {}, None, 1024)


def _yolo(function: str, cfg: str, finish: Callable[[Any, int, str], Model], side: int) -> _Recipe:
    return _Recipe("nn.tasks", function, {"cfg": cfg, "nc": 1, "verbose": False}, finish, side)


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
    """The model ``name`` of MODELS on the CPU, in single precision, ready for inference.

    ``weights`` is its file, of which nothing is executed; None gives random weights drawn with
    ``seed``, for timing only, and the model then says ``weights == "random"`` instead of "real".
    ``side`` is the pictures' (px), for the YOLO family; ``attention`` one of sam.ATTENTION, for
    SAM's ViTs.

    Raises ValueError for an unknown name or side, UltralyticsError without ultralytics,
    CheckpointError for a file that is not exactly this model's, OSError when it cannot be opened.
    """
    if name not in _RECIPES:
        raise ValueError(f"there is no model '{name}'; choose {', '.join(MODELS)}")
    recipe = _RECIPES[name]
    if side is not None and side != recipe.side and recipe.module != "nn.tasks":
        raise ValueError(f"{name} takes pictures of {recipe.side} pixels a side only")
    state = None if weights is None else read_state(weights)
    make = getattr(ultralytics(recipe.module), recipe.function)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make(**recipe.given).eval()
    if state is not None:
        load_exactly(network, state, f"{name} in {weights}")
    what = "random" if state is None else "real"
    if recipe.finish is None:
        return split(network, what, attention)
    return recipe.finish(network, side or recipe.side, what)
