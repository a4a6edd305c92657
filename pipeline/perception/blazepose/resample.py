"""Parts of a picture at the sizes that the networks take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.core.people import Mask
from pipeline.perception.blazepose.roi import Roi, Row

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels."""
_TILE_SIDES = (1 / 2, 2 / 7)
"""Sides of large and small tiles, in parts of the picture's longer side."""
_ELONGATED = 3
"""A picture is elongated when one side is longer than the other by more than this factor. In the
whole of it, shrunk to the detector's input, people as high as the picture are too small."""
_PART = 2
"""Longer side of the parts of an elongated picture, in parts of its shorter one."""
_AROUND = 0.24
"""Side of the square around a painted pixel whose mean colour it gets, in parts of the crop's."""
_COARSE = 8
"""The detector gets every n-th pixel up to this n; beyond it pixels are averaged."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """How a view of an image is sampled: bilinearly from the means of square blocks of pixels.

    Attributes:
        block: Side of a block in pixels.
        low: (x, y) the pixel at which the blocks begin.
        grid: How many blocks there are, (columns, rows).
        to_blocks: The rows of the map from the view's pixels to blocks; centres at whole numbers.
        replicate: Whether the outermost blocks are repeated beyond the blocks; else black.
    """

    block: int
    low: tuple[int, int]
    grid: tuple[int, int]
    to_blocks: tuple[Row, Row]
    replicate: bool


def sample_letterbox(size: tuple[int, int], box: Box, side: int) -> tuple[Sampling, np.ndarray]:
    """Return how to sample a part of an image into the middle of a square, and where it lies.

    Args:
        size: (H, W) of the image.
        box: The part.
        side: Side of the square.

    Returns:
        The sampling; and the map (2, 3) from the square's coordinates in [0, 1], corner to corner,
        to image pixels.
    """
    x, y, width, height = box
    longer = max(width, height)
    # From a pixel's centre to its corner, hence the half.
    left, top = x + (width - longer) / 2 - 0.5, y + (height - longer) / 2 - 0.5
    step = longer / side
    to_image = (step, 0.0, left + step / 2), (0.0, step, top + step / 2)
    # The detector was trained on coarsely sampled pictures and tolerates that, up to a point.
    sampling = _sampling(size, to_image, side, step / _COARSE, replicate=False)
    return sampling, np.array([[longer, 0, left], [0, longer, top]])


def sample_stretched(size: tuple[int, int], box: Box, side: int) -> Sampling:
    """Return how to sample a part of an image of ``size`` (H, W), stretched to a square.

    Args:
        size: (H, W) of the image.
        box: The part.
        side: Side of the square.
    """
    x, y, width, height = box
    step_x, step_y = width / side, height / side
    to_image = (step_x, 0.0, x + (step_x - 1) / 2), (0.0, step_y, y + (step_y - 1) / 2)
    return _sampling(size, to_image, side, min(step_x, step_y), replicate=True)


def sample_roi(size: tuple[int, int], roi: Roi, side: int) -> Sampling:
    """Return how to sample an ROI of an image of ``size`` (H, W) to an upright square."""
    return _sampling(size, roi.rows_to_image(side), side, roi.side / side, replicate=True)


def letterbox(image: np.ndarray, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a part of an image in the middle of a square, black beyond the image.

    Args:
        image: (H, W, 3) uint8.
        box: The part.
        size: Side of the square.

    Returns:
        The square (size, size, 3) float32 in [-1, 1]; and the map (2, 3) from its coordinates in
        [0, 1], corner to corner, to image pixels with centres at whole numbers.
    """
    sampling, to_image = sample_letterbox(image.shape[:2], box, size)
    return sampled(image, sampling, size) * np.float32(2 / 255) - 1, to_image


def stretch(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Return a part of an image (H, W, 3) uint8, stretched, as (size, size, 3) float32 in [-1, 1].

    Args:
        image: (H, W, 3) uint8.
        box: The part.
        size: Side of the square.
    """
    sampling = sample_stretched(image.shape[:2], box, size)
    return sampled(image, sampling, size) * np.float32(2 / 255) - 1


def crop(image: np.ndarray, roi: Roi, size: int) -> np.ndarray:
    """Return the ROI of an image (H, W, 3) uint8, upright, as (size, size, 3) float32 in [0, 1].

    Beyond the image its border is repeated, as in MediaPipe's graph.
    """
    sampling = sample_roi(image.shape[:2], roi, size)
    return sampled(image, sampling, size) * np.float32(1 / 255)


def painted_over(view: np.ndarray, roi: Roi, mask: Mask) -> np.ndarray:
    """Return a crop (size, size, 3) with the person of a mask painted over.

    The paint is the mean colour of what is around, so that it makes few edges of its own. It covers
    the mask and no more: what is visible of a person behind often begins at its rim.
    """
    size = view.shape[0]
    to_crop = cv2.invertAffineTransform(roi.to_image(size))
    mask_to_crop = to_crop[:, :2] @ mask.to_image
    mask_to_crop[:, 2] += to_crop[:, 2]
    covered = cv2.warpAffine(mask.values, mask_to_crop, (size, size))[..., None]
    rest = view * (1 - covered)
    side = round(_AROUND * size)
    # A little of the mean of the whole crop, for where all around is covered.
    colour = cv2.blur(rest, (side, side)) + 1e-3 * rest.mean((0, 1))
    share = cv2.blur(1 - covered, (side, side))[..., None] + 1e-3 * (1 - covered).mean()
    return (rest + covered * colour / np.maximum(share, 1e-6)).astype(np.float32)


def sampled(image: np.ndarray, sampling: Sampling, side: int) -> np.ndarray:
    """Return the (side, side, 3) uint8 view of an image."""
    block, (left, top), (cols, rows) = sampling.block, sampling.low, sampling.grid
    if block > 1:
        # Whole blocks, so that INTER_AREA is a plain mean, as on the GPU.
        part = image[top : top + rows * block, left : left + cols * block]
        image = cv2.resize(part, (cols, rows), interpolation=cv2.INTER_AREA)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE if sampling.replicate else cv2.BORDER_CONSTANT
    place = np.array(sampling.to_blocks)
    return cv2.warpAffine(image, place, (side, side), flags=flags, borderMode=border)


def _sampling(
    size: tuple[int, int], to_image: tuple[Row, Row], side: int, times: float, replicate: bool
) -> Sampling:
    """A sampling with blocks of ``times`` pixels, rounded down, only where the view shows them."""
    height, width = size
    block = min(int(times), height, width)
    # Nothing is averaged, so no part has to be cut out.
    if block < 2:
        return Sampling(1, (0, 0), (width, height), to_image, replicate)
    (left, right), (top, bottom) = (
        _bounds(row, side, block, length) for row, length in zip(to_image, (width, height))
    )
    # A block's centre lies (block - 1) / 2 pixels behind its first pixel.
    centre = (block - 1) / (2 * block)
    (a, b, x), (c, d, y) = to_image
    to_blocks = (
        (a / block, b / block, x / block - (left / block + centre)),
        (c / block, d / block, y / block - (top / block + centre)),
    )
    grid = (right - left) // block, (bottom - top) // block
    return Sampling(block, (left, top), grid, to_blocks, replicate)


def _bounds(row: Row, side: int, block: int, length: int) -> tuple[int, int]:
    """Where the part that a view shows begins and ends along a side of the image of this length.

    It is a block wide at least. ``row`` is that of the map from the view's pixels.
    """
    across, down, offset = row
    # The corners; a sum is least where both its parts are.
    corner = offset - 0.5 * (across + down)
    low = corner + side * (min(across, 0.0) + min(down, 0.0))
    high = corner + side * (max(across, 0.0) + max(down, 0.0))
    # A block more on every side, for the neighbours that bilinear sampling reads.
    first = min(max(math.floor(low) - block, 0), length - block)
    return first, min(max(math.ceil(high) + 2 * block, first + block), length)


def tiles(height: int, width: int, size: int) -> list[list[Box]]:
    """Return overlapping squares that show people who are too small in the whole picture.

    First the large ones, then the small ones: sides of a half and of two sevenths of the longer
    side of the picture, or of its parts if it is elongated. Only levels whose tiles are at least as
    large as the network's input ``size``: smaller ones would be enlarged, which shows no more.
    """
    levels = []
    for part in _TILE_SIDES:
        side = round(_part_side(height, width) * part)
        if side < size:
            break
        levels.append(_squares(height, width, side))
    return levels


def parts(height: int, width: int) -> list[Box]:
    """Return overlapping parts that show people as high as the picture, or as wide.

    An ordinary picture is one part. An elongated one is cut into pieces whose sides are 2 to 1.
    """
    return _squares(height, width, _part_side(height, width))


def _part_side(height: int, width: int) -> int:
    """The longer side of the picture's parts."""
    shorter, longer = sorted((height, width))
    return longer if longer <= _ELONGATED * shorter else _PART * shorter


def _squares(height: int, width: int, side: int) -> list[Box]:
    """Overlapping squares that cover the picture, cut off at its borders."""
    xs, ys = _starts(width, side), _starts(height, side)
    return [(x, y, min(side, width), min(side, height)) for y in ys for x in xs]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of a side begin along a length, so that each overlaps the next by almost half.

    A single tile may leave a little at both ends, which the whole picture covers.
    """
    spare = length - side
    if spare <= 0:
        return [0]
    if spare < 0.2 * side:
        return [spare // 2]
    steps = math.ceil(spare / (0.55 * side))
    return [round(i * spare / steps) for i in range(steps + 1)]
