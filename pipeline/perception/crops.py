"""Crops of people, and the networks that read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Person

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
"""Of RGB in [0, 1]; the numbers that networks trained on ImageNet are normalised with."""


@dataclass(frozen=True)
class Crop:
    """An upright part of a picture and the size in which a network reads it.

    Attributes:
        x: The part's middle in pixels, to the right; pixel centres are at whole numbers.
        y: The same, down.
        scale: Pixels of the picture to one of the input.
        width: The input's width in pixels.
        height: The input's height in pixels.
    """

    x: float
    y: float
    scale: float
    width: int
    height: int

    @classmethod
    def around(cls, box: np.ndarray, growth: float, width: int, height: int) -> Crop:
        """Return the crop that holds a grown box and has the input's shape.

        Args:
            box: (4,) x0, y0, x1, y1 in pixels.
            growth: The crop's side over the box's, along the one that fills it.
            width: The input's width in pixels.
            height: The input's height in pixels.
        """
        x0, y0, x1, y1 = (float(each) for each in box)
        scale = growth * max((x1 - x0) / width, (y1 - y0) / height, 1e-3)
        return cls((x0 + x1) / 2, (y0 + y1) / 2, scale, width, height)

    @property
    def to_image(self) -> np.ndarray:
        """The map (2, 3) from the input's pixels to the picture's; centres at whole numbers."""
        s = self.scale
        left, top = self.x - s * (self.width - 1) / 2, self.y - s * (self.height - 1) / 2
        return np.array([[s, 0.0, left], [0.0, s, top]])

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the part of an image (H, W, 3) uint8 as (height, width, 3); black beyond it.

        Sampled bilinearly, as the networks' authors do in training.
        """
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, self.to_image, (self.width, self.height), flags=flags)

    def in_image(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the input in the picture's pixels."""
        to_image = self.to_image
        return points @ to_image[:, :2].T + to_image[:, 2]


def normalised(crops: list[np.ndarray]) -> np.ndarray:
    """Return RGB crops (h, w, 3) uint8 as a batch (N, 3, h, w) float32, normalised as ImageNet."""
    # One product and one sum for each number: (v / 255 - mean) / std.
    scale = 1 / (255 * IMAGENET_STD)
    batch = np.stack(crops).astype(np.float32) * scale - IMAGENET_MEAN / IMAGENET_STD
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


def in_frame(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which points (K, 2) are in a picture of a height and width, (K,) bool.

    A joint counts as seen where it is in the picture, if its network does not say more.
    """
    height, width = size
    return np.all((points > -0.5) & (points < (width - 0.5, height - 0.5)), axis=1)


@dataclass(frozen=True, eq=False)
class CropQuery:
    """Where are the keypoints of the person in a box of a frame? The answer is a `Person`.

    Attributes:
        frame: The frame.
        box: (4,) float64 x0, y0, x1, y1 in pixels around what is seen of the person.
    """

    frame: Frame
    box: np.ndarray


class CropNetwork(Protocol):
    """A network that measures one person in a crop; subclass it and write `measure`.

    It belongs to one thread at a time and remembers nothing.

    Attributes:
        name: Its name in reports.
        has_confidence: Whether ``Person.score`` and ``visibility`` say how sure it is. Where not,
            BlazePose's landmark model says whether there is a person.
        has_mhr: As `Perceiver.has_mhr`.
        has_skin: As `Perceiver.has_skin`.
        reports: One line on what computes it.
    """

    name: str
    has_confidence: bool
    has_mhr: bool = False
    has_skin: bool = False
    reports: tuple[Any, ...]

    def measure(self, queries: Sequence[CropQuery]) -> list[Person]:
        """Return the person of each query, in any keypoint set, all from one batch.

        Args:
            queries: One or more.
        """
        ...
