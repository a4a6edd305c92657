"""Masks and depths of people, by SAM, FastSAM and YOLO26-depth.

This module connects frames on a device to these networks, and their outputs to a `people.Person`. A
row of ten numbers describes where a person is (`looks`). The rows are made on the host and copied
to the device at once; nothing here waits for the device.
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
"""Side of a person's mask, in pixels. It covers their box and a margin around it."""
_MARGIN = 0.125
"""The margin on each side, as a share of the box's size."""

Make = Callable[..., Callable[..., tuple[Tensor, ...]]]
"""``make(label, module, size, *example)`` returns a module ready for batches of ``size``, for
example from `engine.make_engine`. ``label`` is "embed", "mask" or "depth"."""


def region_of(person: Person) -> np.ndarray:
    """Return the region (4,), x0, y0, x1, y1 in image pixels, that a person's mask covers."""
    low, high = person.box_px[:2], person.box_px[2:]
    # A box without extent gets a region too.
    margin = np.maximum(_MARGIN * (high - low), 1.0)
    return np.concatenate((low - margin, high + margin)).astype(np.float32)


def mask_of(values: np.ndarray, person: Person) -> Mask:
    """Return the mask with ``values`` (128, 128) over a person's region."""
    x0, y0, x1, y1 = region_of(person)
    dx, dy = (x1 - x0) / MASK_SIDE, (y1 - y0) / MASK_SIDE
    to_image = np.array([[dx, 0, x0 + 0.5 * dx], [0, dy, y0 + 0.5 * dy]], np.float32)
    return Mask(values, to_image)


def image_of(frame: Frame, device: torch.device) -> Tensor:
    """Return a frame's image (H, W, 3) uint8 on a device."""
    image = frame.on_device
    return torch.from_numpy(frame.image).to(device) if image is None else image


def looks(people: Sequence[Person], segment: Letterbox, depth: Letterbox) -> np.ndarray:
    """Return where people are, as rows (N, 10) float32.

    A row holds the box in pixels of the segmenter's picture (4), the mask's region there (4) and
    the middle of the hips in the depth network's picture (2); the latter two are in units from -1
    to 1 across the picture.
    """
    boxes = torch.from_numpy(np.stack([p.box_px for p in people]).astype(np.float32))
    regions = torch.from_numpy(np.stack([region_of(p) for p in people]))
    hips = [p.landmarks_px[list(p.keypoints.hips)].mean(0) for p in people]
    places = torch.from_numpy(np.stack(hips).astype(np.float32))
    # These units run from edge to edge of the picture, hence the half pixel.
    covered = 2 * (segment.to_picture(regions) + 0.5) / segment.side - 1
    middle = 2 * (depth.to_picture(places) + 0.5) / depth.side - 1
    return torch.cat((segment.to_picture(boxes), covered, middle), 1).numpy()


def masks_in(maps: Tensor, regions: Tensor) -> Tensor:
    """Return soft masks (N, 128, 128) in [0, 1] of regions (N, 4) in maps of logits (N, h, w).

    Regions are in units from -1 to 1 across the map.
    """
    steps = (torch.arange(MASK_SIDE, device=maps.device) + 0.5) / MASK_SIDE
    low, extent = regions[:, None, :2], (regions[:, 2:] - regions[:, :2])[:, None]
    points = low + extent * steps[None, :, None]
    x, y = points[:, None, :, 0], points[:, :, None, 1]
    grid = torch.stack(torch.broadcast_tensors(x, y), -1)
    logits = grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)
    return logits[:, 0].sigmoid()


def depth_at(maps: Tensor, points: Tensor) -> Tensor:
    """Return the depth (N,) of each of the maps (N, h, w) at one point (N, 2), in units from -1 to
    1 across the map."""
    depths = grid_sample(
        maps[:, None], points[:, None, None], padding_mode="border", align_corners=False
    )
    return depths[:, 0, 0, 0]


class Segmenter(Protocol):
    """Makes people's masks: a heavy step for each frame, and a light one for each person.

    Attributes:
        real: Whether its weights are real, not random.
        once: Whether the result of `embed` already holds the masks of the key frame, so that a
            neighbouring frame can only get the same mask moved.
    """

    real: bool
    once: bool

    def letterbox(self, height: int, width: int) -> Letterbox:
        """Return the placement of images of this size in the network's picture."""
        ...

    def embed(self, images: Tensor) -> Any:
        """Return what masks of frames (B, H, W, 3) are made from, valid until the next call."""
        ...

    def masks(self, embedding: Any, rows: Tensor, picture: Tensor) -> Tensor:
        """Return soft masks (N, 128, 128), valid until the next call.

        Args:
            embedding: The result of `embed`.
            rows: Where the people are (N, 10), from `looks`.
            picture: The frame of each person (N,), as an index into the batch.
        """
        ...


class SamSegmenter:
    """SAM: an embedding of each frame, and a mask from it for each person's box."""

    once = False

    def __init__(
        self, make: Make, model: Sam, frames: int, people: int, graphs: bool = False
    ) -> None:
        self.real = model.weights == "real"
        side = self.side = model.decoder.side
        # Pictures normalised by mean and deviation lie between about -2 and 2.
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 4 - 2
        self._encoder = make("embed", model.encoder, frames, images)
        device = next(model.encoder.parameters()).device
        # The encoder's next call overwrites its output.
        embedding = self._encoder(images.to(device))[0].clone()
        boxes = torch.tensor([[0.2, 0.1, 0.6, 0.8]]) * side
        self._decoder = make("mask", model.decoder, people, embedding, boxes)
        self._picture = Replayed(lambda images: for_sam(images, side)[0], enabled=graphs)
        self._cut = Replayed(masks_in, enabled=graphs)

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=False)

    def embed(self, images: Tensor) -> Tensor:
        return self._encoder(self._picture(images))[0]

    def masks(self, embedding: Tensor, rows: Tensor, picture: Tensor) -> Tensor:
        logits = self._decoder(embedding[picture], rows[:, :4])[0]
        return self._cut(logits, rows[:, 4:8])


class FastSamSegmenter:
    """FastSAM: all instances of each frame, and the one of them that fits each person's box."""

    once = True

    def __init__(self, make: Make, model: FastSam, frames: int, graphs: bool = False) -> None:
        self.real = model.weights == "real"
        side = self.side = model.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        self._network = make("embed", model, frames, images)
        self._picture = Replayed(lambda images: for_yolo(images, side)[0], enabled=graphs)
        self._masks = Replayed(_masks_of_instances, enabled=graphs)

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=True)

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._network(self._picture(images))

    def masks(self, embedding: tuple[Tensor, ...], rows: Tensor, picture: Tensor) -> Tensor:
        return self._masks(*embedding, rows, picture)


def _masks_of_instances(
    prototypes: Tensor, instances: Tensor, rows: Tensor, picture: Tensor
) -> Tensor:
    logits, _ = instances_in_boxes(prototypes, instances, rows[:, :4], picture)
    return masks_in(logits, rows[:, 4:8])


class DepthMeter:
    """Depth of each frame at people's hips."""

    def __init__(self, make: Make, model: MonoDepth, frames: int, graphs: bool = False) -> None:
        self.real = model.weights == "real"
        side = self.side = model.side
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        self._network: Callable[..., tuple[Tensor, ...]] = make("depth", model, frames, images)
        self._picture = Replayed(lambda images: for_yolo(images, side)[0], enabled=graphs)
        self._read = Replayed(
            lambda maps, rows, picture: depth_at(maps[picture], rows[:, 8:10]), enabled=graphs
        )

    def letterbox(self, height: int, width: int) -> Letterbox:
        return Letterbox.of(height, width, self.side, centred=True)

    def __call__(self, images: Tensor, rows: Tensor, picture: Tensor) -> Tensor:
        """Return depths (N,), valid until the next call.

        Args:
            images: Frames (B, H, W, 3).
            rows: Where the people are (N, 10), from `looks`.
            picture: The frame of each person (N,), as an index into the batch.
        """
        (maps,) = self._network(self._picture(images))
        return self._read(maps, rows, picture)


def segmenter_of(
    make: Make, model: nn.Module | Sam, frames: int, people: int, graphs: bool = False
) -> SamSegmenter | FastSamSegmenter:
    """Return the segmenter of a model from `load.build`.

    Args:
        make: As `Make`.
        model: A SAM or FastSAM.
        frames: Batch size of frames.
        people: Batch size of people.
        graphs: Whether the steps before and after the network are replayed as CUDA graphs too.
    """
    if isinstance(model, Sam):
        return SamSegmenter(make, model, frames, people, graphs)
    assert isinstance(model, FastSam)
    return FastSamSegmenter(make, model, frames, graphs)
