"""The plan's networks as the benchmark makes them: by which engine, with which weights, and how
much work a row of a batch is."""

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
    """Batches that a row meets: frames segmented or measured together, and people's masks."""

    segment: int
    people: int
    depth: int


@lru_cache(maxsize=1)
def _kept(name: str, file: Path | None, side: int | None) -> Any:
    # Drawing the weights of a ViT-H takes seconds, and several rows run one.
    return build(name, file, side=side)


def network(name: str, file: Path | None, side: int | None, attention: str) -> Any:
    """A model of one's own (`build`), of the side it was made for unless ``side`` is given."""
    made = copy.deepcopy(_kept(name, file, None if name in _SAMS else side))
    if isinstance(made, Sam):
        for part in made.encoder.modules():
            if isinstance(part, RelativeAttention):
                part.kind = attention
    return made


_SAMS = ("sam-h", "sam-b", "mobile-sam")


def file_of(name: str, folder: Path | None) -> Path | None:
    """A model's file, None where it was not fetched. Raises WeightsError for a wrong one."""
    if any(state.path is None for state in weights.status(name, folder)):
        return None
    return next(iter(weights.find(name, folder).values()))


class Maker:
    """Makes engines of a row's modules, and knows the ``work`` of a row of a batch of each, by
    label."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self.device = torch.device(settings.device)
        half = settings.half and self.device.type == "cuda"
        self.precision: Precision = "fp16" if half else "tf32" if settings.tf32 else "fp32"
        self.reports: list[str] = []
        self.work: dict[str, Work] = {}

    def __call__(self, label: str, module: nn.Module, size: int, *example: Tensor) -> Engine:
        """An engine for batches of ``size``, as `segment.Make` says."""
        module = module.eval().to(self.device)
        there = tuple(t.to(self.device) for t in example)
        self.work[label] = module_work(module, there, self.precision)
        settings = self.settings
        engine = make_engine(
            module, there, engine=settings.engine, half=settings.half, graphs=settings.graphs,
            channels_last=self.plan.channels_last, buckets=(size,), device=self.device,
        )  # fmt: skip
        self.reports.append(str(engine.report))
        return engine


def make_segmenter(make: Maker, sizes: Sizes) -> SamSegmenter | FastSamSegmenter:
    plan = make.plan
    file = file_of(plan.segment, make.settings.weights_folder)
    model = network(plan.segment, file, plan.side, plan.attention)
    made = segmenter_of(make, model, sizes.segment, sizes.people, make.settings.graphs)
    if made.once:
        # Choosing an instance reads the rows and the prototypes, and does little with them.
        count = 21 * made.side * made.side // 1024
        read = 4 * (count * ROW + COEFFICIENTS * (made.side // 4) ** 2)
        make.work["mask"] = Work(memory_bytes=read)
    return made


def make_depth(make: Maker, sizes: Sizes) -> DepthMeter:
    file = file_of(make.plan.depth, make.settings.weights_folder)
    model = network(make.plan.depth, file, make.plan.side, "plain")
    return DepthMeter(make, model, sizes.depth, make.settings.graphs)
