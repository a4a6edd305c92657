"""Convert decoded pictures to the formats of frames: upright RGB with square pixels, or planes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import cv2
import numpy as np
from av.error import ArgumentError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from pipeline.capture.aspect import square_size
from pipeline.capture.hdr import to_sdr
from pipeline.capture.hdr_tags import PEAK_NITS, is_hdr
from pipeline.capture.image_pool import ImagePool
from pipeline.capture.side_data import Matrix
from pipeline.core.yuv import Colour, Pixels, YuvImage, yuv_bytes

_SWSCALE = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
"""Matrix numbers of ITU-T H.273, which are FFmpeg's, to swscale's names."""
_CONSTANT_LUMINANCE = 10
_FULL_RANGE = 2
_PLANAR = {"yuv420p", "yuvj420p", "nv12"}
"""YUV 4:2:0 of 8 bits."""


def colour_of(frame: VideoFrame) -> Colour:
    """Return the matrix and the range of a YUV picture.

    What it does not state is what video players assume: BT.2020 for HDR, BT.709 for HD sizes,
    BT.601 below (libplacebo's `pl_color_system_guess_ycbcr`), and limited range. FFmpeg's JPEG
    formats have full range. Constant luminance is read as the most similar matrix.
    """
    hd = frame.width >= 1280 or frame.height > 576
    usual = 9 if is_hdr(frame) else 1 if hd else 5
    stated = 9 if frame.colorspace == _CONSTANT_LUMINANCE else int(frame.colorspace)
    full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
    return Colour(stated if stated in _SWSCALE else usual, full)


def upright_size(
    frame: VideoFrame, aspect: Fraction | None, matrix: Matrix | None
) -> tuple[int, int]:
    """Return the (width, height) of the image that `RgbConverter` makes of ``frame``."""
    size = square_size(frame.width, frame.height, aspect)
    return size[::-1] if matrix is not None and _is_turned(matrix) else size


Allocate = Callable[[tuple[int, ...]], np.ndarray]
"""Returns an uninitialised uint8 array of the given shape."""


def empty_image(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised uint8 array in ordinary memory."""
    return np.empty(shape, np.uint8)


class RgbConverter:
    """Converts decoded frames to RGB uint8 (H, W, 3), contiguous, upright, with square pixels.

    HDR pictures are tone-mapped (`pipeline.capture.hdr`). Each image is in memory of its own, from
    ``allocate``; ordinary memory is used again once an image and all views of it are deleted.
    """

    def __init__(self, allocate: Allocate = empty_image) -> None:
        self._reformatter = VideoReformatter()
        self._allocate = ImagePool() if allocate is empty_image else allocate

    def __call__(
        self,
        frame: VideoFrame,
        aspect: Fraction | None = None,
        matrix: Matrix | None = None,
        peak: float = PEAK_NITS,
    ) -> np.ndarray:
        """Return the image of ``frame``.

        Args:
            frame: The decoded picture.
            aspect: The width / height of its pixels; None if unknown.
            matrix: Its display matrix, as `upright` takes it.
            peak: Its peak in cd/m2, as `hdr_tags.peak_nits` returns it. Counts for PQ only.
        """
        if frame.format.name.startswith("yaf"):
            # swscale ends the whole process over these.
            raise ArgumentError(22, f"no conversion of {frame.format.name} pictures")
        width, height = square_size(frame.width, frame.height, aspect)
        hdr = is_hdr(frame)
        # One thread: unscaled conversion takes about 1 ms at 1080p, less than waking a pool.
        rgb = self._reformatter.reformat(
            frame,
            width,
            height,
            format="rgb48le" if hdr else "rgb24",
            src_colorspace=None if frame.format.is_rgb else _SWSCALE[colour_of(frame).matrix],
            threads=1,
        )
        # FFmpeg pads its rows. A view skips the padding, so only the upright image is copied.
        plane = rgb.planes[0]
        shape, depth = (rgb.height, rgb.width, 3), 2 if hdr else 1
        strides = (plane.line_size, 3 * depth, depth)
        image = np.ndarray(shape, f"<u{depth}", memoryview(plane), 0, strides)
        if hdr:
            image = to_sdr(image, frame.color_trc, frame.color_primaries, peak)
        image = upright(image, matrix)
        out = self._allocate(image.shape)
        np.copyto(out, image)
        return out


class Converter:
    """Converts decoded frames to the pixels of frames.

    Args:
        allocate: As for `RgbConverter`.
        planes: Whether YUV 4:2:0 of 8 bits stays what it is, where it needs no scaling and no tone
            mapping. All else becomes RGB.
    """

    def __init__(self, allocate: Allocate = empty_image, planes: bool = False) -> None:
        self._to_rgb = RgbConverter(allocate)
        self._allocate, self._planes = allocate, planes

    def __call__(
        self,
        frame: VideoFrame,
        aspect: Fraction | None = None,
        matrix: Matrix | None = None,
        peak: float = PEAK_NITS,
    ) -> Pixels:
        """Return the pixels of ``frame``, in memory of their own; as `RgbConverter`."""
        if self._planes and _stays_planes(frame, aspect, matrix):
            return self._copied(frame, matrix)
        return self._to_rgb(frame, aspect, matrix, peak)

    def _copied(self, frame: VideoFrame, matrix: Matrix | None) -> YuvImage:
        width, height = upright_size(frame, None, matrix)
        data = self._allocate((yuv_bytes((height, width)),))
        out = YuvImage(data, (height, width), colour_of(frame))
        for target, source in zip(out.planes, _planes_of(frame)):
            np.copyto(target, upright(source, matrix))
        return out


def _stays_planes(frame: VideoFrame, aspect: Fraction | None, matrix: Matrix | None) -> bool:
    width, height = frame.width, frame.height
    # Turned, the halved columns of an odd picture would be the wrong ones.
    turns = matrix is None or width % 2 == height % 2 == 0
    scales = square_size(width, height, aspect) != (width, height)
    return frame.format.name in _PLANAR and turns and not scales and not is_hdr(frame)


def _planes_of(frame: VideoFrame) -> Iterator[np.ndarray]:
    """Y, U and V of a 4:2:0 picture, as views of its memory without the padding of its rows."""
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(memoryview(plane), np.uint8)
        rows = rows[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
        if frame.format.name == "nv12" and number:
            # Pairs of U and V.
            yield from (rows[:, k : 2 * plane.width : 2] for k in range(2))
        else:
            yield rows[:, : plane.width]


def upright(image: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """Return ``image`` rotated and mirrored by ``matrix`` (a, b, c, d), to the nearest 90 degrees.

    The matrix maps stored to displayed positions: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12,
    tkhd). None leaves the image as it is.
    """
    if matrix is not None and any(matrix):
        a, b, c, d = matrix
        turned = _is_turned(matrix)
        if turned:
            image = cv2.transpose(image)
        flip_x, flip_y = (c < 0, b < 0) if turned else (a < 0, d < 0)
        if flip_x or flip_y:
            image = cv2.flip(image, -1 if flip_x and flip_y else int(flip_x))
    return image


def _is_turned(matrix: Matrix) -> bool:
    """Whether the matrix exchanges width and height."""
    return abs(matrix[1]) > abs(matrix[0])
