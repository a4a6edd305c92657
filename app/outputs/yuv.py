"""Pictures in the form that a video encoder takes: luma and chroma, with even sides."""

from __future__ import annotations

import cv2  # before av: the other way round its windows can hang

# isort: split
import av
import numpy as np

SMALLEST_PX = 16


def _bt709() -> np.ndarray:
    """The matrix (3, 4) from RGB 0..255 and 1 to luma 16..235 and chroma 16..240."""
    luma = np.array([0.2126, 0.7152, 0.0722])
    red, _, blue = np.eye(3)
    rows = [219 * luma, 224 * (blue - luma) / 1.8556, 224 * (red - luma) / 1.5748]
    return np.column_stack([np.stack(rows) / 255, [16, 128, 128]])


_RGB_TO_YUV = _bt709()


def to_yuv420(image: np.ndarray) -> av.VideoFrame:
    """Return a yuv420p frame of RGB uint8 (H, W, 3) with even sides: BT.709, limited range.

    The matrix is ITU-R BT.709-6, items 3.2 to 3.4. OpenCV's 3 by 3 product and mean of four pixels
    take a fifth of swscale's time.
    """
    yuv = cv2.transform(image, _RGB_TO_YUV)
    height, width = image.shape[:2]
    half = cv2.resize(yuv, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    frame = av.VideoFrame(width, height, "yuv420p")
    for channel, (plane, source) in enumerate(zip(frame.planes, (yuv, half, half))):
        # A plane's lines may be padded, so they are addressed by their own length.
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = cv2.extractChannel(source, channel)
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
    height, width = image.shape[:2]
    down = max(SMALLEST_PX, height + height % 2) - height
    right = max(SMALLEST_PX, width + width % 2) - width
    if not (down or right):
        return image
    # 4:2:0 stores colour for two by two pixels, so both sides must be even.
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
