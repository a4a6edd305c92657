"""Parts of a picture at the sizes the networks take."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pipeline.people import Mask
from pipeline.perceive.region import Region

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""
_TILE_SIDES = (1 / 2, 2 / 7)
_COARSE = 8
"""The detector is shown every so-manieth pixel before pixels are averaged."""


def letterbox(image: np.ndarray, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit a part of an image (H, W, 3) uint8 into the middle of a square, black beyond the image.

    Returns the input (size, size, 3) float32 in [-1, 1] and the (2, 3) map from its coordinates
    in [0, 1] (corner to corner) to image pixels (centres at whole numbers).
    """
    x, y, width, height = box
    side = max(width, height)
    left, top = x + (width - side) / 2 - 0.5, y + (height - side) / 2 - 0.5
    step = side / size
    to_image = np.array([[step, 0, left + step / 2], [0, step, top + step / 2]])
    # The detector does not mind coarse sampling (it was made with it), up to a point.
    small = _sampled(image, to_image, size, step / _COARSE, cv2.BORDER_CONSTANT)
    return small * np.float32(2 / 255) - 1, np.array([[side, 0, left], [0, side, top]])


def crop(image: np.ndarray, region: Region, size: int) -> np.ndarray:
    """The region of an image (H, W, 3) uint8, upright: (size, size, 3) float32 in [0, 1].

    Outside the image its border goes on, as in MediaPipe's graph.
    """
    to_image = region.to_image(size)
    small = _sampled(image, to_image, size, region.side / size, cv2.BORDER_REPLICATE)
    return small * np.float32(1 / 255)


def painted_over(view: np.ndarray, region: Region, mask: Mask) -> np.ndarray:
    """A crop of a region (size, size, 3) with whoever the mask shows painted in the mean colour
    of the rest, so that the person behind them is the only one to be seen."""
    size = view.shape[0]
    to_crop = cv2.invertAffineTransform(region.to_image(size))
    mask_to_crop = to_crop[:, :2] @ mask.to_image
    mask_to_crop[:, 2] += to_crop[:, 2]
    there = cv2.warpAffine(mask.values, mask_to_crop, (size, size))
    there = cv2.dilate(there, np.ones((5, 5), np.uint8))[..., None]
    rest = view * (1 - there)
    mean = rest.sum((0, 1)) / max(float((1 - there).sum()), 1.0)
    return (rest + there * mean).astype(np.float32)


def _sampled(
    image: np.ndarray, to_image: np.ndarray, size: int, times: float, border: int
) -> np.ndarray:
    """A (size, size, 3) uint8 view of an image under a (2, 3) map of pixels, after averaging
    blocks of ``times`` (rounded down) pixels where the view needs them."""
    block = min(int(times), *image.shape[:2])
    if block > 1:
        image, low = _around(image, to_image, size, block)
        cols, rows = image.shape[1] // block, image.shape[0] // block
        whole = image[: rows * block, : cols * block]
        image = cv2.resize(whole, (cols, rows), interpolation=cv2.INTER_AREA)
        to_image = to_image / block
        to_image[:, 2] -= low / block + (block - 1) / (2 * block)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, to_image, (size, size), flags=flags, borderMode=border)


def _around(
    image: np.ndarray, to_image: np.ndarray, size: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of an image, at least a block wide, that a view shows, and its corner (x, y)."""
    height, width = image.shape[:2]
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)]) - 0.5
    points = corners @ to_image[:, :2].T + to_image[:, 2]
    room = np.array([width, height]) - block
    low = np.clip(np.floor(points.min(0)).astype(int) - block, 0, room)
    high = np.maximum(np.ceil(points.max(0)).astype(int) + 2 * block, low + block)
    return image[low[1] : high[1], low[0] : high[0]], low


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
