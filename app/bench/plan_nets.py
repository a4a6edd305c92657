"""Make the plan's networks for the benchmark: their engines, their weights, and their work for one
row of a batch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.bench.roofline import Precision, Work
from app.bench.rows import Plan, Settings
from app.bench.work import module_work
from pipeline.gpu.device import EngineOptions
from pipeline.gpu.engine import Engine, make_engine
from pipeline.perception.ultralytics_models.fastsam import COEFFICIENTS, ROW
from pipeline.perception.ultralytics_models.load import build
from pipeline.perception.ultralytics_models.sam import RelativeAttention, Sam
from pipeline.perception.ultralytics_models.segment import (
    DepthMeter,
    FastSamSegmenter,
    SamSegmenter,
    segmenter_of,
)
from pipeline.weights import store as weights


@dataclass(frozen=True)
class Sizes:
    """The batch sizes of a row: frames that are segmented together, people whose masks are made
    together, and frames whose depth is measured together."""

    segment: int
    people: int
    depth: int


@lru_cache(maxsize=1)
def _built(name: str, file: Path | None, side: int | None) -> Any:
    # Cached: random weights of a ViT-H take seconds, and several rows use it.
    return build(name, file, side=side)


def network(name: str, file: Path | None, side: int | None, attention: str) -> Any:
    """Return a new copy of a model.

    Args:
        name: The name of the model, as in `build`.
        file: Its weights; None for random ones.
        side: The side of its pictures in pixels; None for the one that it was trained with.
        attention: How SAM's attention is computed, as in `RelativeAttention.how`.
    """
    # A copy: attention and engine change the module, and the cache keeps the original.
    made = copy.deepcopy(_built(name, file, None if name in _SAMS else side))
    if isinstance(made, Sam):
        for part in made.encoder.modules():
            if isinstance(part, RelativeAttention):
                part.kind = attention
    return made


_SAMS = ("sam-h", "sam-b", "mobile-sam")


def file_of(name: str, folder: Path | None) -> Path | None:
    """Return a model's file; None if it is not installed.

    Raises:
        WeightsError: The file is damaged or another one.
    """
    if any(state.path is None for state in weights.status(name, folder)):
        return None
    return next(iter(weights.find(name, folder).values()))


class Maker:
    """Makes the engines of a row's modules.

    Attributes:
        reports: What each engine reports about itself.
        work: By label, the work of each module for its example batch.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self.device = torch.device(settings.device)
        half = settings.half and self.device.type == "cuda"
        self.precision: Precision = "fp16" if half else "tf32" if settings.tf32 else "fp32"
        self.reports: list[str] = []
        self.work: dict[str, Work] = {}

    def __call__(self, label: str, module: nn.Module, size: int, *example: Tensor) -> Engine:
        """Return an engine for batches of a size, as `segment.Make` describes it."""
        module = module.eval().to(self.device)
        inputs = tuple(t.to(self.device) for t in example)
        self.work[label] = module_work(module, inputs, self.precision)
        settings = self.settings
        engine = make_engine(
            module, inputs, engine=settings.engine, half=settings.half, graphs=settings.graphs,
            channels_last=self.plan.channels_last, buckets=(size,), device=self.device,
            cache=EngineOptions().engines_folder,
        )  # fmt: skip
        self.reports.append(str(engine.report))
        return engine


def make_segmenter(make: Maker, sizes: Sizes) -> SamSegmenter | FastSamSegmenter:
    """Return the segmenter of a row of the plan."""
    plan = make.plan
    file = file_of(plan.segment, make.settings.weights_folder)
    model = network(plan.segment, file, plan.side, plan.attention)
    made = segmenter_of(make, model, sizes.segment, sizes.people, make.settings.graphs)
    if made.once:
        # Selecting an instance reads the rows and the prototypes and computes little.
        count = 21 * made.side * made.side // 1024
        read = 4 * (count * ROW + COEFFICIENTS * (made.side // 4) ** 2)
        make.work["mask"] = Work(memory_bytes=read)
    return made


def make_depth(make: Maker, sizes: Sizes) -> DepthMeter:
    """Return the depth network of a row of the plan."""
    file = file_of(make.plan.depth, make.settings.weights_folder)
    model = network(make.plan.depth, file, make.plan.side, "plain")
    return DepthMeter(make, model, sizes.depth, make.settings.graphs)
