"""Pictures as planes of YUV, and FFmpeg's own conversions of them."""

from __future__ import annotations

from collections.abc import Sequence

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from hypothesis import strategies as st

from pipeline.core.yuv import Colour, YuvImage, to_yuv

SWSCALE = {
    1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M, 9: Colorspace.BT2020,
}  # fmt: skip
EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""FFmpeg's conversion without its shortcuts, which are up to three levels off."""

colours = st.builds(Colour, st.sampled_from(sorted(SWSCALE)), st.booleans())


def painting(seed: int, height: int, width: int) -> np.ndarray:
    """Return an RGB picture (H, W, 3) uint8 of soft spots in all colours, with some noise."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3)).astype(np.float32)
    soft = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
    noisy = soft.reshape(height, width, 3) + rng.normal(0, 4, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def planes_of(seed: int, size: tuple[int, int], colour: Colour) -> YuvImage:
    """Return a `painting` as planes."""
    return to_yuv(painting(seed, *size), colour)


def as_frame(image: YuvImage, form: str = "yuv420p") -> av.VideoFrame:
    """Return planes as a tagged frame of FFmpeg: yuv420p, yuvj420p or nv12."""
    height, width = image.size
    frame = av.VideoFrame(width, height, form)
    y, u, v = image.planes
    pairs = np.stack([u, v], -1).reshape(len(u), -1)
    for plane, source in zip(frame.planes, (y, pairs) if form == "nv12" else (y, u, v)):
        rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
        rows = rows.reshape(plane.height, plane.line_size)
        rows[:, : source.shape[1]] = source
    frame.colorspace = image.colour.matrix
    frame.color_range = 2 if image.colour.full_range else 1
    return frame


def with_even_sides(image: YuvImage) -> YuvImage:
    """Return the even picture of which a decoder shows ``image``, with its last lines repeated."""
    y, u, v = image.planes
    y = np.pad(y, [(0, side % 2) for side in y.shape], mode="edge")
    return YuvImage(np.concatenate([y.ravel(), u.ravel(), v.ravel()]), y.shape, image.colour)


def rgb_by_ffmpeg(image: YuvImage) -> np.ndarray:
    """Return FFmpeg's RGB (H, W, 3) of planes; each chroma sample is that of four pixels.

    FFmpeg gets the even picture: of an odd one it scales the chroma to fill it.
    """
    height, width = image.size
    frame = as_frame(with_even_sides(image))
    whole = VideoReformatter().reformat(
        frame, format="rgb24", src_colorspace=SWSCALE[image.colour.matrix],
        interpolation=Interpolation.POINT | EXACT, threads=1,
    ).to_ndarray()  # fmt: skip
    return whole[:height, :width]


def planes_by_ffmpeg(image: np.ndarray, colour: Colour) -> Sequence[np.ndarray]:
    """Return FFmpeg's Y, U and V of an RGB picture (H, W, 3) with even sides."""
    frame = VideoReformatter().reformat(
        av.VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p",
        dst_colorspace=SWSCALE[colour.matrix], dst_color_range=2 if colour.full_range else 1,
        interpolation=Interpolation.AREA | EXACT, threads=1,
    )  # fmt: skip
    return [
        np.frombuffer(memoryview(p), np.uint8).reshape(-1, p.line_size)[: p.height, : p.width]
        for p in frame.planes
    ]


def most_apart(one: np.ndarray, other: np.ndarray) -> int:
    """Return the largest difference of two arrays of levels."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())
