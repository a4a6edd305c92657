"""Pictures as these networks want them, and places in them taken back to the image.

As everywhere here, pixel centres are at whole numbers, in the image and in the network's picture;
networks that count from a pixel's corner are corrected where their output is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Of RGB levels, as SAM normalises its pictures (Kirillov et al., Segment Anything, 2023)."""
GREY = 114
"""The level that YOLO's training pads pictures with."""


@dataclass(frozen=True)
class Letterbox:
    """An image of ``image_size`` (height, width) scaled to ``inner`` (height, width) and put at
    (``left``, ``top``) of a square of ``side`` pixels."""

    image_size: tuple[int, int]
    side: int
    inner: tuple[int, int]
    left: int
    top: int

    @staticmethod
    def of(height: int, width: int, side: int, *, centred: bool) -> Letterbox:
        """The largest that fits. ValueError for an empty image or square."""
        if min(height, width, side) < 1:
            raise ValueError(f"no picture of {width} x {height} fits a square of {side}")
        gain = side / max(height, width)
        inner = max(1, round(height * gain)), max(1, round(width * gain))
        top, left = ((side - n) // 2 if centred else 0 for n in inner)
        return Letterbox((height, width), side, inner, left, top)

    @property
    def _scale(self) -> tuple[float, float]:
        """Picture pixels an image pixel, along x and y."""
        return self.inner[1] / self.image_size[1], self.inner[0] / self.image_size[0]

    def to_picture(self, points: Tensor) -> Tensor:
        """Image points (..., 2k), x and y in turn (so boxes too), to the network's picture."""
        scale, offset = self._line(points)
        return points * scale + offset

    def to_image(self, points: Tensor) -> Tensor:
        """The way back."""
        scale, offset = self._line(points)
        return (points - offset) / scale

    def _line(self, points: Tensor) -> tuple[Tensor, Tensor]:
        sx, sy = self._scale
        offsets = 0.5 * sx - 0.5 + self.left, 0.5 * sy - 0.5 + self.top
        pairs = points.shape[-1] // 2
        return _constants((sx, sy) * pairs, points.device), _constants(
            offsets * pairs, points.device
        )

    def map_to_image(self, size: int) -> np.ndarray:
        """(2, 3) float32 from the pixels of a map of the whole square, ``size`` a side, to the
        image: `people.Mask.to_image` of such a map."""
        stride = self.side / size
        sx, sy = self._scale
        # Picture place of map pixel i: stride * (i + 0.5) - 0.5.
        shift = 0.5 * stride - 0.5
        u = (shift - (0.5 * sx - 0.5 + self.left)) / sx
        v = (shift - (0.5 * sy - 0.5 + self.top)) / sy
        return np.array([[stride / sx, 0, u], [0, stride / sy, v]], np.float32)


@lru_cache(maxsize=256)
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept on the device, since bringing numbers there would make the host wait each time."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def letterboxed(
    images: Tensor,
    box: Letterbox,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (255.0, 255.0, 255.0),
    fill: Sequence[float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """RGB images (B, H, W, 3) uint8, on any device, as a network's pictures (B, 3, side, side)
    float32: levels less ``mean`` over ``std``; around them is ``fill``, in levels.

    Made smaller, every pixel of the image counts (bilinear with a widened filter).
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"images are (B, H, W, 3) uint8, not {tuple(images.shape)} {images.dtype}")
    if tuple(images.shape[1:3]) != box.image_size:
        raise ValueError(f"images of {tuple(images.shape[1:3])}, not of {box.image_size}")
    mean_t, std_t, fill_t = (
        _constants(tuple(v), images.device)[:, None, None] for v in (mean, std, fill)
    )
    levels = images.permute(0, 3, 1, 2).float()
    smaller = interpolate(levels, box.inner, mode="bilinear", align_corners=False, antialias=True)
    height, width = box.inner
    around = (
        box.left, box.side - box.left - width, box.top, box.side - box.top - height
    )  # fmt: skip
    # What is padded is the difference from the fill, since padding takes one number only.
    return (pad(smaller - fill_t, around) + fill_t - mean_t) / std_t


def for_sam(images: Tensor, side: int = 1024) -> tuple[Tensor, Letterbox]:
    """Pictures for SAM: in the upper left corner, nought beyond (after normalising)."""
    box = Letterbox.of(images.shape[1], images.shape[2], side, centred=False)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    return letterboxed(images, box, mean=mean, std=std, fill=mean), box


def for_yolo(images: Tensor, side: int) -> tuple[Tensor, Letterbox]:
    """Pictures for the YOLO family: in the middle, grey around."""
    box = Letterbox.of(images.shape[1], images.shape[2], side, centred=True)
    return letterboxed(images, box, fill=(GREY,) * 3), box
