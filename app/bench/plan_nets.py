"""The plan's networks as the benchmark runs them: people's masks and depths out of frames.

A person is looked at through a `Look`: where they are in each network's picture. Looks are made on
the host, go over in one copy, and nothing waits for the device until the results are asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from app.bench.roofline import Precision, Work
from app.bench.rows import Plan, Settings
from app.bench.work import module_work
from pipeline import weights
from pipeline.engine import Engine, make_engine
from pipeline.people import Mask, Person
from pipeline.perceive.ultra.fastsam import COEFFICIENTS, ROW, FastSam, instances_in_boxes
from pipeline.perceive.ultra.load import build
from pipeline.perceive.ultra.picture import Letterbox, for_sam, for_yolo
from pipeline.perceive.ultra.sam import RelativeAttention, Sam

MASK_SIDE = 128
"""A person's mask is so many pixels a side, over their box and a little around it."""
_AROUND = 0.125
"""How much of the box's sides is added on each side of it."""
_HIPS = [23, 24]


def region_of(person: Person) -> np.ndarray:
    """The region (4,) x0, y0, x1, y1 in image pixels that a person's mask covers."""
    low, high = person.box_px[:2], person.box_px[2:]
    more = np.maximum(_AROUND * (high - low), 1.0)
    return np.concatenate((low - more, high + more)).astype(np.float32)


def mask_of(values: np.ndarray, person: Person) -> Mask:
    """``values`` (128, 128) over a person's region."""
    x0, y0, x1, y1 = region_of(person)
    dx, dy = (x1 - x0) / MASK_SIDE, (y1 - y0) / MASK_SIDE
    to_image = np.array([[dx, 0, x0 + 0.5 * dx], [0, dy, y0 + 0.5 * dy]], np.float32)
    return Mask(values, to_image)


def looks(people: Sequence[Person], segment: Letterbox, depth: Letterbox) -> np.ndarray:
    """Where people are (N, 10) float32: the box in pixels of the segmenter's picture, the mask's
    region there and the middle of the hips in the depth network's picture, both from -1 to 1
    across the picture."""
    boxes = torch.from_numpy(np.stack([p.box_px for p in people]).astype(np.float32))
    regions = torch.from_numpy(np.stack([region_of(p) for p in people]))
    hips = np.stack([p.landmarks_px[_HIPS].mean(0) for p in people]).astype(np.float32)
    there = 2 * (segment.to_picture(regions) + 0.5) / segment.side - 1
    middle = 2 * (depth.to_picture(torch.from_numpy(hips)) + 0.5) / depth.side - 1
    return torch.cat((segment.to_picture(boxes), there, middle), 1).numpy()


def masks_in(maps: Tensor, regions: Tensor) -> Tensor:
    """Soft masks (N, 128, 128) in [0, 1] of the regions (N, 4), from -1 to 1 across the map, of
    logits (N, h, w)."""
    steps = (torch.arange(MASK_SIDE, device=maps.device) + 0.5) / MASK_SIDE
    low, apart = regions[:, None, :2], (regions[:, 2:] - regions[:, :2])[:, None]
    at = low + apart * steps[None, :, None]
    x, y = at[:, None, :, 0], at[:, :, None, 1]
    grid = torch.stack(torch.broadcast_tensors(x, y), -1)
    found = grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)
    return found[:, 0].sigmoid()


def depth_at(maps: Tensor, points: Tensor) -> Tensor:
    """The depth (N,) of maps (N, h, w) at one point each (N, 2), from -1 to 1 across the map."""
    found = grid_sample(
        maps[:, None], points[:, None, None], padding_mode="border", align_corners=False
    )
    return found[:, 0, 0, 0]


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
                part.how = attention
    return made


_SAMS = ("sam-h", "sam-b", "mobile-sam")


def file_of(name: str, folder: Path | None) -> Path | None:
    """A model's file, None where it was not fetched. Raises WeightsError for a wrong one."""
    if any(state.path is None for state in weights.status(name, folder)):
        return None
    return next(iter(weights.find(name, folder).values()))


class Maker:
    """Makes engines of a row's modules, and knows the work of a row of a batch of each."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self.device = torch.device(settings.device)
        half = settings.half and self.device.type == "cuda"
        self.precision: Precision = "fp16" if half else "tf32" if settings.tf32 else "fp32"
        self.reports: list[str] = []

    def __call__(self, module: nn.Module, size: int, *example: Tensor) -> tuple[Engine, Work]:
        """An engine for batches of ``size``, and the work for a batch of one."""
        module = module.eval().to(self.device)
        there = tuple(t.to(self.device) for t in example)
        work = module_work(module, there, self.precision)
        settings = self.settings
        engine = make_engine(
            module, there, engine=settings.engine, half=settings.half, graphs=settings.graphs,
            channels_last=self.plan.channels_last, buckets=(size,), device=self.device,
        )  # fmt: skip
        self.reports.append(str(engine.report))
        return engine, work


class SamSegmenter:
    """SAM: an embedding of each frame, and from that a mask for each person's box."""

    def __init__(self, make: Maker, file: Path | None, sizes: Sizes) -> None:
        plan = make.plan
        model: Sam = network(plan.segment, file, None, plan.attention)
        self.real = model.weights == "real"
        side = self.side = model.decoder.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 4 - 2
        self._encoder, self.embed_work = make(model.encoder, sizes.segment, images)
        embedding = self._encoder(images.to(make.device))[0].clone()
        boxes = torch.tensor([[0.2, 0.1, 0.6, 0.8]]) * side
        self._decoder, self.mask_work = make(model.decoder, sizes.people, embedding, boxes)

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=False)

    def embed(self, images: Tensor) -> Tensor:
        """Frames (B, H, W, 3) -> what masks are made of, valid until the next call."""
        return self._encoder(for_sam(images, self.side)[0])[0]

    def masks(self, embedding: Tensor, seen: Tensor, picture: Tensor) -> Tensor:
        """Soft masks (N, 128, 128) of looks (N, 10), each in row ``picture`` (N,) of the
        embedding."""
        logits = self._decoder(embedding[picture], seen[:, :4])[0]
        return masks_in(logits, seen[:, 4:8])


class FastSamSegmenter:
    """FastSAM: all instances of each frame, and of those the one that fits each person's box."""

    def __init__(self, make: Maker, file: Path | None, sizes: Sizes) -> None:
        plan = make.plan
        model: FastSam = network(plan.segment, file, plan.side, plan.attention)
        self.real = model.weights == "real"
        side = self.side = model.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        self._network, self.embed_work = make(model, sizes.segment, images)
        # Choosing reads the rows and the prototypes, and does little with them.
        count = 21 * side * side // 1024
        self.mask_work = Work(memory_bytes=4 * (count * ROW + COEFFICIENTS * (side // 4) ** 2))

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=True)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As SamSegmenter's."""
        prototypes, rows = self._network(for_yolo(images, self.side)[0])
        return prototypes, rows

    def masks(self, found: tuple[Tensor, Tensor], seen: Tensor, picture: Tensor) -> Tensor:
        """As SamSegmenter's."""
        logits, _ = instances_in_boxes(*found, seen[:, :4], picture)
        return masks_in(logits, seen[:, 4:8])


class DepthMeter:
    """Depth of each frame, read off at people's hips."""

    def __init__(self, make: Maker, file: Path | None, sizes: Sizes) -> None:
        model = network(make.plan.depth, file, make.plan.side, "plain")
        self.real = model.weights == "real"
        side = self.side = model.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        self._network, self.work = make(model, sizes.depth, images)

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=True)

    def __call__(self, images: Tensor, seen: Tensor, picture: Tensor) -> Tensor:
        """Depths (N,) of looks (N, 10), each in row ``picture`` (N,) of frames (B, H, W, 3)."""
        (maps,) = self._network(for_yolo(images, self.side)[0])
        return depth_at(maps[picture], seen[:, 8:10])


Segmenter = SamSegmenter | FastSamSegmenter


def make_segmenter(make: Maker, sizes: Sizes) -> Segmenter:
    plan = make.plan
    file = file_of(plan.segment, make.settings.weights_folder)
    kind = SamSegmenter if plan.segment in _SAMS else FastSamSegmenter
    return kind(make, file, sizes)


def make_depth(make: Maker, sizes: Sizes) -> DepthMeter:
    return DepthMeter(make, file_of(make.plan.depth, make.settings.weights_folder), sizes)
