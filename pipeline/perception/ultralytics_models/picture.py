"""Convert images to the networks' input pictures, and points between the two.

As everywhere in this project, pixel centres are at whole numbers, in the image and in the network's
picture. Networks that count from a pixel's corner are corrected where their output is read.
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
"""Mean and deviation of RGB levels with which SAM normalises its pictures (Kirillov et al., Segment
Anything, 2023)."""
GREY = 114
"""The level with which YOLO's training pads pictures."""


@dataclass(frozen=True)
class Letterbox:
    """The placement of an image in a square picture.

    Attributes:
        image_size: (height, width) of the image.
        side: Side of the square, in pixels.
        inner: (height, width) of the scaled image in the square.
        left: Left edge of the scaled image in the square.
        top: Its top edge.
    """

    image_size: tuple[int, int]
    side: int
    inner: tuple[int, int]
    left: int
    top: int

    @staticmethod
    def of(height: int, width: int, side: int, *, centred: bool) -> Letterbox:
        """Return the largest placement that fits, centred or at the top left.

        Raises ValueError for an empty image or square.
        """
        if min(height, width, side) < 1:
            raise ValueError(f"no picture of {width} x {height} fits a square of {side}")
        gain = side / max(height, width)
        inner = max(1, round(height * gain)), max(1, round(width * gain))
        top, left = ((side - n) // 2 if centred else 0 for n in inner)
        return Letterbox((height, width), side, inner, left, top)

    @property
    def _scale(self) -> tuple[float, float]:
        """Pixels of the picture for each pixel of the image, along x and y."""
        return self.inner[1] / self.image_size[1], self.inner[0] / self.image_size[0]

    def to_picture(self, points: Tensor) -> Tensor:
        """Convert image points (..., 2k), x and y in turn (so boxes too), to the picture."""
        scale, offset = self._scale_and_offset(points)
        return points * scale + offset

    def to_image(self, points: Tensor) -> Tensor:
        """Convert points of the picture to the image, the inverse of `to_picture`."""
        scale, offset = self._scale_and_offset(points)
        return (points - offset) / scale

    def _scale_and_offset(self, points: Tensor) -> tuple[Tensor, Tensor]:
        sx, sy = self._scale
        offsets = 0.5 * sx - 0.5 + self.left, 0.5 * sy - 0.5 + self.top
        pairs = points.shape[-1] // 2
        return _constants((sx, sy) * pairs, points.device), _constants(
            offsets * pairs, points.device
        )

    def map_to_image(self, size: int) -> np.ndarray:
        """Return the affine map (2, 3) float32 from the pixels of a map of the square to the image.

        It is `people.Mask.to_image` for a map of the whole square with ``size`` pixels a side.
        """
        stride = self.side / size
        sx, sy = self._scale
        # Pixel i of the map lies at stride * (i + 0.5) - 0.5 in the picture.
        shift = 0.5 * stride - 0.5
        u = (shift - (0.5 * sx - 0.5 + self.left)) / sx
        v = (shift - (0.5 * sy - 0.5 + self.top)) / sy
        return np.array([[stride / sx, 0, u], [0, stride / sy, v]], np.float32)


@lru_cache(maxsize=256)
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A tensor of constants, cached because copying it to the device makes the host wait."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def letterboxed(
    images: Tensor,
    box: Letterbox,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (255.0, 255.0, 255.0),
    fill: Sequence[float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Return images as a network's pictures (B, 3, side, side) float32.

    When an image is made smaller, all its pixels count (bilinear with antialiasing).

    Args:
        images: RGB (B, H, W, 3) uint8, on any device.
        box: Their placement.
        mean: Subtracted from the levels, for each channel.
        std: Divides the levels after that.
        fill: Level around the image, for each channel, before the normalisation.

    Raises:
        ValueError: The images have another type, shape or size.
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
    margins = (
        box.left, box.side - box.left - width, box.top, box.side - box.top - height
    )  # fmt: skip
    # The difference from the fill is padded with zeros, because pad() takes one number only.
    return (pad(smaller - fill_t, margins) + fill_t - mean_t) / std_t


def for_sam(images: Tensor, side: int = 1024) -> tuple[Tensor, Letterbox]:
    """Return pictures for SAM and their placement: at the top left, zero elsewhere."""
    box = Letterbox.of(images.shape[1], images.shape[2], side, centred=False)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    return letterboxed(images, box, mean=mean, std=std, fill=mean), box


def for_yolo(images: Tensor, side: int) -> tuple[Tensor, Letterbox]:
    """Return pictures for the YOLO family and their placement: centred, grey elsewhere."""
    box = Letterbox.of(images.shape[1], images.shape[2], side, centred=True)
    return letterboxed(images, box, fill=(GREY,) * 3), box
