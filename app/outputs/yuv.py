"""Pictures in the form that a video encoder takes: luma and chroma, with even sides."""

from __future__ import annotations

import cv2  # before av: the other way round its windows can hang

# isort: split
import av
import numpy as np

from pipeline.core.yuv import BT709, Pixels, YuvImage, rgb_of, size_of, to_yuv

SMALLEST_PX = 16


def encoded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of the video of pictures of ``size``: even, and 16 or more."""
    # 4:2:0 stores colour for two by two pixels, so both sides must be even.
    height, width = (max(SMALLEST_PX, side + side % 2) for side in size)
    return height, width


def encoder_frame(picture: Pixels, size: tuple[int, int]) -> av.VideoFrame:
    """Return a picture as a yuv420p frame of `encoded_size`: BT.709, limited range.

    Args:
        picture: The picture. Planes of that kind and size are only copied.
        size: The (height, width) that a picture of another size is fitted into.
    """
    height, width = encoded_size(size)
    yuv = picture if isinstance(picture, YuvImage) else None
    if yuv is None or (yuv.size, yuv.colour) != ((height, width), BT709):
        yuv = to_yuv(pad_even(fit_into(rgb_of(picture), size)))
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, source in zip(frame.planes, yuv.planes):
        # A plane's lines may be padded, so they are addressed by their own length.
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = source
    return frame


def fit_into(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image (h, w, 3) fitted into ``size`` (height, width), between black bars."""
    height, width = size
    if image.shape[:2] == size:
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = [max(1, min(side, round(scale * old))) for side, old in zip(size, image.shape)]
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    shrunk = cv2.resize(image, (inner[1], inner[0]), interpolation=cv2.INTER_AREA)
    out[top : top + inner[0], left : left + inner[1]] = shrunk
    return out


def pad_even(image: np.ndarray) -> np.ndarray:
    """Return an image with its last row and column repeated to even sides of 16 or more."""
    height, width = encoded_size(size_of(image))
    down, right = height - image.shape[0], width - image.shape[1]
    if not (down or right):
        return image
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
