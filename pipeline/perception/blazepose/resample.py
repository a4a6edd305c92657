"""Parts of a picture at the sizes the networks take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.core.people import Mask
from pipeline.perception.blazepose.roi import Roi

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""
_TILE_SIDES = (1 / 2, 2 / 7)
_COARSE = 8
"""The detector is shown every so-manieth pixel before pixels are averaged."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """How a view of an image is taken: bilinearly from the means of ``block`` by ``block`` pixels.

    The blocks begin at pixel ``low`` (x, y) and there are ``grid`` (columns, rows) of them;
    ``to_blocks`` (2, 3) takes the view's pixels to theirs, centres at whole numbers. Beyond the
    blocks lie the last ones again if ``replicate``, else black.
    """

    block: int
    low: tuple[int, int]
    grid: tuple[int, int]
    to_blocks: np.ndarray
    replicate: bool


def sample_letterbox(size: tuple[int, int], box: Box, side: int) -> tuple[Sampling, np.ndarray]:
    """A part of an image of ``size`` (H, W) in the middle of a square of ``side``, and the (2, 3)
    map from the square's coordinates in [0, 1] (corner to corner) to image pixels."""
    x, y, width, height = box
    longer = max(width, height)
    left, top = x + (width - longer) / 2 - 0.5, y + (height - longer) / 2 - 0.5
    step = longer / side
    to_image = np.array([[step, 0, left + step / 2], [0, step, top + step / 2]])
    # The detector does not mind coarse sampling (it was made with it), up to a point.
    sampling = _sampling(size, to_image, side, step / _COARSE, replicate=False)
    return sampling, np.array([[longer, 0, left], [0, longer, top]])


def sample_region(size: tuple[int, int], roi: Roi, side: int) -> Sampling:
    """The region of an image of ``size`` (H, W), upright, as a square of ``side``."""
    return _sampling(size, roi.to_image(side), side, roi.side / side, replicate=True)


def letterbox(image: np.ndarray, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit a part of an image (H, W, 3) uint8 into the middle of a square, black beyond the image.

    Returns the input (size, size, 3) float32 in [-1, 1] and the (2, 3) map from its coordinates
    in [0, 1] (corner to corner) to image pixels (centres at whole numbers).
    """
    sampling, to_image = sample_letterbox(image.shape[:2], box, size)
    return sampled(image, sampling, size) * np.float32(2 / 255) - 1, to_image


def crop(image: np.ndarray, roi: Roi, size: int) -> np.ndarray:
    """The region of an image (H, W, 3) uint8, upright: (size, size, 3) float32 in [0, 1].

    Outside the image its border goes on, as in MediaPipe's graph.
    """
    sampling = sample_region(image.shape[:2], roi, size)
    return sampled(image, sampling, size) * np.float32(1 / 255)


def painted_over(view: np.ndarray, roi: Roi, mask: Mask) -> np.ndarray:
    """A crop of a region (size, size, 3) with whoever the mask shows painted in the mean colour
    of the rest, so that the person behind them is the only one to be seen."""
    size = view.shape[0]
    to_crop = cv2.invertAffineTransform(roi.to_image(size))
    mask_to_crop = to_crop[:, :2] @ mask.to_image
    mask_to_crop[:, 2] += to_crop[:, 2]
    there = cv2.warpAffine(mask.values, mask_to_crop, (size, size))
    there = cv2.dilate(there, np.ones((5, 5), np.uint8))[..., None]
    rest = view * (1 - there)
    mean = rest.sum((0, 1)) / max(float((1 - there).sum()), 1.0)
    return (rest + there * mean).astype(np.float32)


def sampled(image: np.ndarray, sampling: Sampling, side: int) -> np.ndarray:
    """The (side, side, 3) uint8 view of an image."""
    block, (left, top), (cols, rows) = sampling.block, sampling.low, sampling.grid
    if block > 1:
        part = image[top : top + rows * block, left : left + cols * block]
        image = cv2.resize(part, (cols, rows), interpolation=cv2.INTER_AREA)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE if sampling.replicate else cv2.BORDER_CONSTANT
    return cv2.warpAffine(image, sampling.to_blocks, (side, side), flags=flags, borderMode=border)


def _sampling(
    size: tuple[int, int], to_image: np.ndarray, side: int, times: float, replicate: bool
) -> Sampling:
    """Blocks of ``times`` (rounded down) pixels, no more of them than the view shows."""
    height, width = size
    block = min(int(times), height, width)
    if block < 2:
        return Sampling(1, (0, 0), (width, height), to_image, replicate)
    low, high = _around(size, to_image, side, block)
    cols, rows = (int(n) // block for n in high - low)
    to_blocks = to_image / block
    to_blocks[:, 2] -= low / block + (block - 1) / (2 * block)
    return Sampling(block, (int(low[0]), int(low[1])), (cols, rows), to_blocks, replicate)


def _around(
    size: tuple[int, int], to_image: np.ndarray, side: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of an image, at least a block wide, that a view shows: its corners (x, y), the
    second one's ends left out."""
    height, width = size
    corners = np.array([(0, 0), (side, 0), (0, side), (side, side)]) - 0.5
    points = corners @ to_image[:, :2].T + to_image[:, 2]
    room = np.array([width, height]) - block
    low = np.clip(np.floor(points.min(0)).astype(int) - block, 0, room)
    high = np.maximum(np.ceil(points.max(0)).astype(int) + 2 * block, low + block)
    return low, np.minimum(high, [width, height])


def tiles(height: int, width: int, size: int) -> list[list[Box]]:
    """Overlapping squares in which people too small for the whole picture are found, the large
    ones and the small ones: sides of a half and of two sevenths of the picture's longer side.
    Only those that the network's ``size`` does not exceed."""
    levels = []
    for part in _TILE_SIDES:
        side = round(max(height, width) * part)
        if side < size:
            break
        xs, ys = _starts(width, side), _starts(height, side)
        levels.append([(x, y, min(side, width), min(side, height)) for y in ys for x in xs])
    return levels


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of a side begin along a length: so many that each overlaps the next by almost
    half. What little a single one leaves over at both ends is for the whole picture to see."""
    spare = length - side
    if spare <= 0:
        return [0]
    if spare < 0.2 * side:
        return [spare // 2]
    steps = math.ceil(spare / (0.55 * side))
    return [round(i * spare / steps) for i in range(steps + 1)]
