"""Pictures as YUV 4:2:0, as decoders give and encoders take them: half the bytes of RGB.

The matrices are exact (ITU-T H.273, 8.3), and a pixel has the chroma of its two by two block, as in
swscale's own conversion at the same size. Imports nothing of this project.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""The shares of red and blue in luma, by matrix number (ITU-T H.273, table 4)."""


class Colour(NamedTuple):
    """How Y, U and V make a colour.

    Attributes:
        matrix: The matrix number of ITU-T H.273: 1 BT.709, 5 and 6 BT.601, 9 BT.2020 with
            non-constant luminance, 4 FCC, 7 SMPTE 240M.
        full_range: Whether Y, U and V run from 0 to 255; else Y from 16 to 235, U and V to 240.
    """

    matrix: int
    full_range: bool


BT709 = Colour(1, False)
"""What is written to videos."""


@cache
def yuv_from_rgb(colour: Colour) -> np.ndarray:
    """Return the matrix (3, 4) from R, G, B from 0 to 255, and 1, to Y, U, V."""
    red, blue = _LUMA[colour.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    first, _, last = np.eye(3)
    rows = np.stack([luma, (last - luma) / (2 - 2 * blue), (first - luma) / (2 - 2 * red)])
    low, height, width = (0, 255, 255) if colour.full_range else (16, 219, 224)
    scale = np.array([height, width, width]) / 255
    return _fixed(np.column_stack([scale[:, None] * rows, [low, 128, 128]]))


@cache
def rgb_from_yuv(colour: Colour) -> np.ndarray:
    """Return the matrix (3, 4) from Y, U, V, and 1, to R, G, B from 0 to 255."""
    forward = yuv_from_rgb(colour)
    inverse = np.linalg.inv(forward[:, :3])
    return _fixed(np.column_stack([inverse, -inverse @ forward[:, 3]]))


def _fixed(matrix: np.ndarray) -> np.ndarray:
    # The same array is returned every time.
    matrix.setflags(write=False)
    return matrix


class YuvImage:
    """A picture as planes of YUV 4:2:0, 8 bits. It is not changed while others may read it.

    Args:
        data: (N,) uint8, contiguous: the rows of Y, then those of U, then those of V, as many as
            `yuv_bytes` says.
        size: (height, width) in pixels. U and V have half of each, rounded up.
        colour: The matrix and range.

    Raises:
        ValueError: The data is not of that size.
    """

    def __init__(self, data: np.ndarray, size: tuple[int, int], colour: Colour) -> None:
        if data.dtype != np.uint8 or data.shape != (yuv_bytes(size),) or not data.size:
            raise ValueError(f"no YUV 4:2:0 picture of {size}: {data.dtype} {data.shape}")
        self.data, self.size, self.colour = data, size, colour
        self._rgb: np.ndarray | None = None
        self._lock = threading.Lock()

    @property
    def planes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Y (H, W), and U and V (H / 2, W / 2), as views."""
        height, width = self.size
        half = (height + 1) // 2, (width + 1) // 2
        luma, chroma = height * width, half[0] * half[1]
        y, u, v = self.data[:luma], self.data[luma:-chroma], self.data[-chroma:]
        return y.reshape(self.size), u.reshape(half), v.reshape(half)

    @property
    def rgb(self) -> np.ndarray:
        """The picture as RGB uint8 (H, W, 3), made when it is first read. From any thread."""
        with self._lock:
            if self._rgb is None:
                self._rgb = _to_rgb(self.planes, self.colour)
            return self._rgb

    def every(self, step: int) -> np.ndarray:
        """Return RGB uint8 (h, w, 3) of every ``step``-th row and column, from the first."""
        y, *chroma = self.planes
        rows, columns = (np.arange(0, side, step) // 2 for side in self.size)
        # One axis after another: whole rows are copied fast.
        few = [plane.take(rows, 0).take(columns, 1) for plane in chroma]
        return _coloured([np.ascontiguousarray(y[::step, ::step]), *few], self.colour)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return RGB uint8 (N, 3) of the pixels at ``rows`` and ``columns`` (N,)."""
        rows, columns = rows[:, None], columns[:, None]
        y, u, v = self.planes
        there = rows // 2, columns // 2
        return _coloured([y[rows, columns], u[there], v[there]], self.colour)[:, 0]

    def corner(self, size: tuple[int, int]) -> YuvImage:
        """Return a copy of the top left corner, ``size`` (height, width), no larger than this."""
        out = YuvImage(np.empty(yuv_bytes(size), np.uint8), size, self.colour)
        for mine, theirs in zip(self.planes, out.planes):
            np.copyto(theirs, mine[: theirs.shape[0], : theirs.shape[1]])
        return out

    def put_corner(self, image: np.ndarray) -> None:
        """Replace the top left corner by RGB uint8 (h, w, 3), in place, with sides that are even
        or this picture's own.

        For the thread that has made this picture, before others read it.
        """
        part = to_yuv(image, self.colour)
        for mine, theirs in zip(self.planes, part.planes):
            np.copyto(mine[: theirs.shape[0], : theirs.shape[1]], theirs)


Pixels = np.ndarray | YuvImage
"""A picture as it came: RGB uint8 (H, W, 3), or planes."""


def yuv_bytes(size: tuple[int, int]) -> int:
    """Return the bytes of a picture of ``size`` (height, width) as YUV 4:2:0."""
    height, width = size
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)


def rgb_of(pixels: Pixels) -> np.ndarray:
    """Return a picture as RGB uint8 (H, W, 3)."""
    return pixels.rgb if isinstance(pixels, YuvImage) else pixels


def size_of(pixels: Pixels) -> tuple[int, int]:
    """Return the (height, width) of a picture in pixels."""
    if isinstance(pixels, YuvImage):
        return pixels.size
    return pixels.shape[0], pixels.shape[1]


def every(pixels: Pixels, step: int) -> np.ndarray:
    """Return RGB uint8 (h, w, 3) of every ``step``-th row and column of a picture."""
    return pixels.every(step) if isinstance(pixels, YuvImage) else pixels[::step, ::step]


def pixels_at(pixels: Pixels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return RGB uint8 (N, 3) of the pixels of a picture at ``rows`` and ``columns`` (N,)."""
    return pixels.at(rows, columns) if isinstance(pixels, YuvImage) else pixels[rows, columns]


def to_yuv(image: np.ndarray, colour: Colour = BT709) -> YuvImage:
    """Return RGB uint8 (H, W, 3) as planes; chroma is the mean of its block.

    OpenCV's product and mean of four pixels take a fifth of swscale's time.
    """
    height, width = image.shape[:2]
    matrix = yuv_from_rgb(colour)
    out = YuvImage(np.empty(yuv_bytes((height, width)), np.uint8), (height, width), colour)
    y, u, v = out.planes
    # All three rows of the product, though luma is one: OpenCV takes longer for one alone.
    cv2.extractChannel(cv2.transform(image, matrix), 0, y)
    if height % 2 or width % 2:
        # A block at an odd edge has the edge's pixels twice.
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    # The mean comes first: chroma that was rounded before would be rounded twice.
    mean = cv2.resize(image, u.shape[::-1], interpolation=cv2.INTER_AREA)
    chroma = cv2.transform(mean, matrix)
    cv2.extractChannel(chroma, 1, u)
    cv2.extractChannel(chroma, 2, v)
    return out


def _to_rgb(planes: tuple[np.ndarray, ...], colour: Colour) -> np.ndarray:
    y, *chroma = planes
    # Each chroma sample for its two by two pixels; an odd edge cuts the last ones.
    twice = [cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST) for p in chroma]
    return _coloured([y, *(p[: y.shape[0], : y.shape[1]] for p in twice)], colour)


def _coloured(yuv: list[np.ndarray], colour: Colour) -> np.ndarray:
    """RGB uint8 (..., 3) of Y, U and V of one shape."""
    return np.asarray(cv2.transform(cv2.merge(yuv), rgb_from_yuv(colour)))
