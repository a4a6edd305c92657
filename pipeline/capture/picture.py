"""Convert decoded pictures to the format of all frames: upright RGB with square pixels."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from fractions import Fraction
from typing import cast

import cv2
import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from pipeline.capture.hdr import to_sdr
from pipeline.capture.hdr_tags import is_hdr, peak_nits

# AVColorSpace (ITU-T H.273 matrix coefficients) to swscale's names. Constant-luminance and missing
# ones are read as the most similar matrix.
_MATRIX = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


def colour_matrix(frame: VideoFrame) -> Colorspace:
    """Return the YUV-to-RGB matrix of ``frame``.

    A frame that states none gets what video players use: BT.2020 for HDR, BT.709 for HD sizes,
    BT.601 below.
    """
    hd = frame.width >= 1280 or frame.height > 576
    usual = Colorspace.ITU709 if hd else Colorspace.ITU601
    return _MATRIX.get(frame.colorspace, Colorspace.BT2020 if is_hdr(frame) else usual)


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return the (width, height) at which pixels of ``aspect`` (width / height) become square.

    The shorter side is stretched, so no detail is lost. Unknown or implausible aspects count as 1.
    """
    if not aspect or not Fraction(1, 4) <= aspect <= 4:
        return width, height
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def upright_size(frame: VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Return the (width, height) of the image that `RgbConverter` makes of ``frame``."""
    size = square_size(frame.width, frame.height, aspect)
    matrix = display_matrix(frame)
    return size[::-1] if matrix is not None and _is_turned(matrix) else size


Allocate = Callable[[tuple[int, ...]], np.ndarray]
"""Returns an uninitialised uint8 array of the given shape."""


def empty_image(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised uint8 array in ordinary memory."""
    return np.empty(shape, np.uint8)


class RgbConverter:
    """Converts decoded frames to RGB uint8 (H, W, 3), contiguous, upright, with square pixels.

    HDR pictures are tone-mapped (`pipeline.capture.hdr`). Each image is in memory of its own, from
    ``allocate``.
    """

    def __init__(self, allocate: Allocate = empty_image) -> None:
        self._reformatter = VideoReformatter()
        self._allocate = allocate

    def __call__(self, frame: VideoFrame, aspect: Fraction | None = None) -> np.ndarray:
        """Return the image of ``frame``, whose pixels have the ``aspect`` width / height."""
        width, height = square_size(frame.width, frame.height, aspect)
        hdr = is_hdr(frame)
        # One thread: unscaled conversion takes about 1 ms at 1080p, less than waking a pool.
        rgb = self._reformatter.reformat(
            frame,
            width,
            height,
            format="rgb48le" if hdr else "rgb24",
            src_colorspace=None if frame.format.is_rgb else colour_matrix(frame),
            threads=1,
        )
        # FFmpeg pads its rows. A view skips the padding, so only the upright image is copied.
        plane = rgb.planes[0]
        shape, depth = (rgb.height, rgb.width, 3), 2 if hdr else 1
        strides = (plane.line_size, 3 * depth, depth)
        image = np.ndarray(shape, f"<u{depth}", memoryview(plane), 0, strides)
        if hdr:
            image = to_sdr(image, frame.color_trc, frame.color_primaries, peak_nits(frame))
        image = upright(image, display_matrix(frame))
        out = self._allocate(image.shape)
        np.copyto(out, image)
        return out


def _unknown_side_data(kind: type[Enum], value: int) -> Enum:
    """Return a stand-in for a kind of side data that PyAV's list lacks."""
    stand_in = object.__new__(kind)
    stand_in._name_, stand_in._value_ = f"UNKNOWN_{value}", value
    return stand_in


# FFmpeg knows more kinds of side data than PyAV (EXIF's is 31), and PyAV raises for every frame
# that carries one of them. An enumeration asks `_missing_` for values that it does not know.
SideDataType._missing_ = classmethod(_unknown_side_data)  # type: ignore[method-assign, assignment]


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """Return the rotation part (a, b, c, d) of the frame's display matrix; None without one."""
    data = cast(Buffer | None, frame.side_data.get("DISPLAYMATRIX"))
    return None if data is None else np.frombuffer(bytes(data), np.int32)[[0, 1, 3, 4]]


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Return ``image`` rotated and mirrored by ``matrix`` (a, b, c, d), to the nearest 90 degrees.

    The matrix maps stored to displayed positions: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12,
    tkhd). None leaves the image as it is.
    """
    if matrix is not None and matrix.any():
        a, b, c, d = (int(value) for value in matrix)
        turned = _is_turned(matrix)
        if turned:
            image = cv2.transpose(image)
        flip_x, flip_y = (c < 0, b < 0) if turned else (a < 0, d < 0)
        if flip_x or flip_y:
            image = cv2.flip(image, -1 if flip_x and flip_y else int(flip_x))
    return image


def _is_turned(matrix: np.ndarray) -> bool:
    """Whether the matrix exchanges width and height."""
    return abs(int(matrix[1])) > abs(int(matrix[0]))
