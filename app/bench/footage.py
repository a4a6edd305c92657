"""The frames for the benchmark: a clip's real frames at a given size, played forth and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from app.bench.rows import Settings
from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.yuv import Pixels, YuvImage, to_yuv
from pipeline.gpu.transfer import pinned_image

SAMPLE = Path(__file__).parents[2] / "samples" / "pitch.mp4"
FPS = 30.0
PERIOD_S = WINDOW_FRAMES / FPS
_PERSON = (340, 130, 990, 660)
"""A box that holds the sample's person in every frame: x0, y0, x1, y1 in pixels of 1280x720."""
_MOST_BYTES = 1_500_000_000
"""The most memory for frames: all are decoded before anything is measured."""
_SOURCE = "bench"
_PHASE = 13
"""Each source starts this many frames after the one before, so that no two show the same frame."""


def load_frames(clip: Path | None, size: tuple[int, int], people: int, most: int) -> np.ndarray:
    """Read the first frames of a clip, letterboxed to a size.

    Args:
        clip: The path of the clip; None for the sample of the repository. With several people, the
            sample is cut around its one person and repeated as a grid.
        size: The (width, height) of the frames.
        people: The number of people in each frame of the sample.
        most: The most frames to read; fewer are read if they need too much memory.

    Returns:
        Frames (N, H, W, 3), RGB uint8.

    Raises:
        FileNotFoundError: There is no such clip.
        SourceError: The clip cannot be read.
    """
    path = SAMPLE if clip is None else clip
    if not path.exists():
        raise FileNotFoundError(2, "no such clip", str(path))
    # One window at least, however large the frames are.
    most = max(WINDOW_FRAMES, min(most, _MOST_BYTES // (3 * size[0] * size[1])))
    source = open_source(str(path), SourceOptions(live=False))
    source.open()
    images: list[np.ndarray] = []
    try:
        for frame in source.frames():
            # Only the sample's person has a known box to cut out.
            if clip is None and people > 1:
                image = several(frame.image, size, people)
            else:
                image = letterbox(frame.image, size)
            # As of a video of that size, so that its planes show the same.
            images.append(to_yuv(image).rgb)
            if len(images) == most:
                break
    finally:
        source.close()
    return np.stack(images)


def in_page_locked(frames: np.ndarray) -> np.ndarray:
    """Return a copy of frames in page-locked memory, which a GPU reads directly. Capture decodes
    into such memory too."""
    copy = pinned_image(frames.shape)
    np.copyto(copy, frames)
    return copy


def ready_frames(frames: np.ndarray, settings: Settings) -> np.ndarray | list[YuvImage]:
    """Return frames (N, H, W, 3) as a row takes them: for a GPU in page-locked memory, and as
    planes where its pipeline takes those."""
    if settings.device != "cuda" or not torch.cuda.is_available():
        return frames
    if not settings.planes:
        return in_page_locked(frames)
    planes = (to_yuv(frame) for frame in frames)
    return [YuvImage(in_page_locked(yuv.data), yuv.size, yuv.colour) for yuv in planes]


def letterbox(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) scaled to fit into a size (width, height), with black bars."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    scaled = _resized(image, (round(width * scale), round(height * scale)))
    out = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - scaled.shape[1]) // 2, (size[1] - scaled.shape[0]) // 2
    out[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return out


def several(image: np.ndarray, size: tuple[int, int], people: int) -> np.ndarray:
    """Return a frame of the sample with its person repeated as a grid in a size (width, height)."""
    # About as many columns as keep a standing person's cell higher than wide.
    columns = math.ceil(math.sqrt(people * size[0] / size[1] * 0.75))
    rows = math.ceil(people / columns)
    cell = (size[0] // columns, size[1] // rows)
    part = _resized(_around_person(image, cell[0] / cell[1]), cell)
    out = np.zeros((size[1], size[0], 3), np.uint8)
    for k in range(people):
        top, left = cell[1] * (k // columns), cell[0] * (k % columns)
        out[top : top + cell[1], left : left + cell[0]] = part
    return out


def _around_person(image: np.ndarray, aspect: float) -> np.ndarray:
    """Return the part of an image around the sample's person, of the given width / height, limited
    to the image."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.array(_PERSON) * (width / 1280)
    wide = min(max(x1 - x0, (y1 - y0) * aspect), width)
    high = min(max(y1 - y0, (x1 - x0) / aspect), height)
    left = int(np.clip((x0 + x1 - wide) / 2, 0, width - wide))
    top = int(np.clip((y0 + y1 - high) / 2, 0, height - high))
    return image[top : top + int(high), left : left + int(wide)]


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < image.shape[1]
    # The mean of the area avoids aliasing; it has nothing to average where a picture grows.
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=way)


def forth_and_back(index: int, count: int) -> int:
    """Return which of ``count`` frames is at an index if they are played forth and back without
    end. Unlike a loop, this never jumps, so tracking goes on."""
    if count == 1:
        return 0
    step = index % (2 * count - 2)
    return step if step < count else 2 * count - 2 - step


class Player:
    """Makes windows of endless sources from the same frames; each source starts at another frame.

    Args:
        frames: (N, H, W, 3) RGB uint8, or N planes.
        slow: How many times in a row each frame is shown.
    """

    def __init__(self, frames: np.ndarray | Sequence[Pixels], slow: int = 1) -> None:
        self.frames, self._slow = frames, slow

    def window(self, source: int, index: int) -> Window:
        """Return a source's window of that index; its frames are a 30th of a second apart."""
        ids = range(WINDOW_FRAMES * index, WINDOW_FRAMES * (index + 1))
        return Window(
            tuple(
                Frame(
                    k,
                    f"{_SOURCE}{source}",
                    0,
                    k / FPS,
                    self.frames[self._place(k, source)],
                )
                for k in ids
            )
        )

    def close(self) -> None:
        """Do nothing: the frames belong to their owner."""

    def number(self, frame: Frame) -> int:
        """Return the index in ``frames`` of a frame that a window holds."""
        return self._place(frame.id, int(frame.source.removeprefix(_SOURCE)))

    def _place(self, frame_id: int, source: int) -> int:
        return forth_and_back(frame_id // self._slow + _PHASE * source, len(self.frames))
