"""Frames and windows: what capture hands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.yuv import Pixels, YuvImage, rgb_of, size_of

WINDOW_FRAMES = 4
_SHOWN_PX = 1280
"""The longest side of a frame's picture in a notebook, which keeps every picture it shows."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image and its place in time.

    Attributes:
        id: The 0-based index of the frame in its source.
        source: The source's name.
        captured_ns: The monotonic clock when the frame was decoded, nanoseconds.
        pts_s: The source's own time, seconds.
        pixels: The picture as it came: RGB uint8 (H, W, 3), or planes.
        discontinuity: This frame does not continue the one before it: the source's time jumped, it
            reconnected, or the picture was cut. What is remembered of people ends here.
        on_device: The same picture as a tensor on a GPU, where it was copied there
            (`pipeline.gpu.transfer`), else None.

    Raises:
        ValueError: The picture is not RGB uint8 or planes, or the id is negative.
    """

    id: int
    source: str
    captured_ns: int
    pts_s: float
    pixels: Pixels
    discontinuity: bool = False
    on_device: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, YuvImage):
            shape, dtype = self.pixels.shape, self.pixels.dtype
            if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
                raise ValueError(f"a frame's image is RGB uint8 (H, W, 3), not {dtype} {shape}")
        if self.id < 0:
            raise ValueError(f"a frame's id is 0 or more, not {self.id}")

    @property
    def image(self) -> np.ndarray:
        """The picture as RGB uint8 (H, W, 3). Of planes it is made when it is first read."""
        return rgb_of(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return size_of(self.pixels)

    def __repr__(self) -> str:
        height, width = self.size
        return f"Frame {self.id} of {self.source}: {width}x{height} at {self.pts_s:.3f} s"

    def _repr_jpeg_(self) -> bytes:
        """Return the picture for a notebook, whose display looks for this name."""
        import cv2

        height, width = self.size
        scale = min(_SHOWN_PX / max(height, width), 1.0)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        picture = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
        return encoded.tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One to four consecutive frames of one source, which are perceived and fitted together.

    Attributes:
        frames: The frames, ids rising, all of one source and one size.
        key: The place of the key frame, whose embedding serves all frames.
        reset: What is remembered of people must be forgotten before this window.

    Raises:
        ValueError: There are no frames or too many, the key is outside, the ids do not rise, or
            the frames differ in source or size.
    """

    frames: tuple[Frame, ...]
    key: int = 0
    reset: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.frames) <= WINDOW_FRAMES:
            raise ValueError(f"a window has 1 to {WINDOW_FRAMES} frames, not {len(self.frames)}")
        if not 0 <= self.key < len(self.frames):
            raise ValueError(f"key frame {self.key} is outside a window of {len(self.frames)}")
        ids = [frame.id for frame in self.frames]
        if any(b <= a for a, b in zip(ids, ids[1:], strict=False)):
            raise ValueError(f"a window's frame ids rise, not {ids}")
        if len({(frame.source, frame.size) for frame in self.frames}) != 1:
            raise ValueError("a window's frames are of one source and one size")

    @property
    def key_frame(self) -> Frame:
        """The frame that ``key`` names."""
        return self.frames[self.key]
