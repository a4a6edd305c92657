"""People's masks and depths out of frames, by SAM, FastSAM and YOLO26-depth: what lies between
frames on a device and those networks, and between their outputs and a `people.Person`.

A person is looked at through a row of ten numbers (`looks`). Rows are made on the host and go over
in one copy; nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from pipeline.core.frame import Frame
from pipeline.core.people import Mask, Person
from pipeline.gpu.cuda_graphs import Replayed
from pipeline.perception.ultralytics_models.depth import MonoDepth
from pipeline.perception.ultralytics_models.fastsam import FastSam, instances_in_boxes
from pipeline.perception.ultralytics_models.picture import Letterbox, for_sam, for_yolo
from pipeline.perception.ultralytics_models.sam import Sam

MASK_SIDE = 128
"""A person's mask is so many pixels a side, over their box and a little around it."""
_AROUND = 0.125
"""How much of the box's sides is added on each side of it."""
_HIPS = [23, 24]

Make = Callable[..., Callable[..., tuple[Tensor, ...]]]
"""``make(label, module, size, *example)``: a module ready to be called with batches of ``size``, as
`engine.make_engine` makes one; ``label`` is "embed", "mask" or "depth"."""


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


def image_of(frame: Frame, device: torch.device) -> Tensor:
    """A frame's picture (H, W, 3) uint8 on a device."""
    there = frame.on_device
    return torch.from_numpy(frame.image).to(device) if there is None else there


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


class Segmenter(Protocol):
    """``real`` says whether its weights are; ``once`` whether what `embed` gives holds the masks
    of the key frame already, so that a neighbour's can only be the same mask moved."""

    real: bool
    once: bool

    def letterbox(self, height: int, width: int) -> Letterbox: ...

    def embed(self, images: Tensor) -> Any:
        """Frames (B, H, W, 3) -> what masks are made of, valid until the next call."""
        ...

    def masks(self, found: Any, seen: Tensor, picture: Tensor) -> Tensor:
        """Soft masks (N, 128, 128) of `looks` (N, 10), each in row ``picture`` (N,) of what was
        found; valid until the next call."""
        ...


class SamSegmenter:
    """SAM: an embedding of each frame, and from that a mask for each person's box."""

    once = False

    def __init__(
        self, make: Make, model: Sam, frames: int, people: int, graphs: bool = False
    ) -> None:
        self.real = model.weights == "real"
        side = self.side = model.decoder.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 4 - 2
        self._encoder = make("embed", model.encoder, frames, images)
        device = next(model.encoder.parameters()).device
        embedding = self._encoder(images.to(device))[0].clone()
        boxes = torch.tensor([[0.2, 0.1, 0.6, 0.8]]) * side
        self._decoder = make("mask", model.decoder, people, embedding, boxes)
        self._picture = Replayed(lambda images: for_sam(images, side)[0], enabled=graphs)
        self._cut = Replayed(masks_in, enabled=graphs)

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=False)

    def embed(self, images: Tensor) -> Tensor:
        return self._encoder(self._picture(images))[0]

    def masks(self, found: Tensor, seen: Tensor, picture: Tensor) -> Tensor:
        logits = self._decoder(found[picture], seen[:, :4])[0]
        return self._cut(logits, seen[:, 4:8])


class FastSamSegmenter:
    """FastSAM: all instances of each frame, and of those the one that fits each person's box."""

    once = True

    def __init__(self, make: Make, model: FastSam, frames: int, graphs: bool = False) -> None:
        self.real = model.weights == "real"
        side = self.side = model.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        self._network = make("embed", model, frames, images)
        self._picture = Replayed(lambda images: for_yolo(images, side)[0], enabled=graphs)
        self._chosen = Replayed(_chosen, enabled=graphs)

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=True)

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._network(self._picture(images))

    def masks(self, found: tuple[Tensor, ...], seen: Tensor, picture: Tensor) -> Tensor:
        return self._chosen(*found, seen, picture)


def _chosen(prototypes: Tensor, rows: Tensor, seen: Tensor, picture: Tensor) -> Tensor:
    logits, _ = instances_in_boxes(prototypes, rows, seen[:, :4], picture)
    return masks_in(logits, seen[:, 4:8])


class DepthMeter:
    """Depth of each frame, read off at people's hips."""

    def __init__(self, make: Make, model: MonoDepth, frames: int, graphs: bool = False) -> None:
        self.real = model.weights == "real"
        side = self.side = model.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        self._network: Callable[..., tuple[Tensor, ...]] = make("depth", model, frames, images)
        self._picture = Replayed(lambda images: for_yolo(images, side)[0], enabled=graphs)
        self._read = Replayed(
            lambda maps, seen, picture: depth_at(maps[picture], seen[:, 8:10]), enabled=graphs
        )

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=True)

    def __call__(self, images: Tensor, seen: Tensor, picture: Tensor) -> Tensor:
        """Depths (N,) of `looks` (N, 10), each in row ``picture`` (N,) of frames (B, H, W, 3);
        valid until the next call."""
        (maps,) = self._network(self._picture(images))
        return self._read(maps, seen, picture)


def segmenter_of(
    make: Make, model: nn.Module | Sam, frames: int, people: int, graphs: bool = False
) -> SamSegmenter | FastSamSegmenter:
    """The segmenter of a model of `load.build`'s, for batches of so many frames and people.
    ``graphs``: what comes before and after the network is replayed as CUDA graphs too."""
    if isinstance(model, Sam):
        return SamSegmenter(make, model, frames, people, graphs)
    assert isinstance(model, FastSam)
    return FastSamSegmenter(make, model, frames, graphs)
