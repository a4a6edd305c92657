"""Small clips whose pictures are numbered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10
"""A numbered picture shows its number as this many vertical bars."""


def numbered(number: int, width: int = 160, height: int = 96) -> np.ndarray:
    """Return an RGB picture whose bars show ``number`` in binary, the highest bit on the left."""
    bars = [(number >> bit) & 1 for bit in reversed(range(BITS))]
    row = np.repeat(np.array(bars, np.uint8) * 200 + 28, -(-width // BITS))[:width]
    return np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2)


def number_of(image: np.ndarray) -> int:
    """Return the number that a decoded ``numbered`` picture shows."""
    width = image.shape[1]
    centres = [int((bar + 0.5) * -(-width // BITS)) for bar in range(BITS)]
    bits = image[image.shape[0] // 2, centres].mean(axis=1) > 128
    return int("".join(str(int(bit)) for bit in bits), 2)


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    pts_ms: Sequence[int] | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    hflip: bool = False,
    aspect: Fraction | None = None,
    matrix: int | None = None,
    full_range: bool | None = None,
    audio: bool = False,
    prepare: Callable[[av.VideoFrame], av.VideoFrame] | None = None,
) -> Path:
    """Encode RGB ``images``; ``pts_ms`` are their times, and ``prepare`` may replace a frame.

    ``matrix`` (AVColorSpace) and ``full_range`` are how the colours are stored and declared.
    """
    height, width = images[0].shape[:2]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.gop_size = gop
        if pts_ms is not None:
            context.time_base = Fraction(1, 1000)
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if matrix is not None:
            context.colorspace = matrix
        if full_range is not None:
            context.color_range = 2 if full_range else 1
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(
                format=pix_fmt,
                dst_colorspace=matrix,
                dst_color_range=None if full_range is None else 1 + full_range,
            )
            if prepare is not None:
                frame = prepare(frame)
            frame.pts = number if pts_ms is None else pts_ms[number]
            frame.time_base = context.time_base if pts_ms is not None else Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 16000 * len(images) // fps), np.float32), "fltp", "mono"
            )
            silence.rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path
