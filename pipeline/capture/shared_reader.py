"""The reading side of shared memory with decoded pictures; `shared_writer` is the other one."""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Callable
from itertools import accumulate

import numpy as np
from av.video.frame import VideoFrame

from pipeline.capture.shared_writer import COLOUR, PADDING, SEALS, SLOTS, Header

_CHROMA_SHARE = {"yuv420p": 2, "yuvj420p": 2, "nv12": 1}
"""The formats of which PyAV makes a picture from memory of ours: by how much the lines of their
colour planes must be shorter."""


class SlotReader:
    """Makes pictures of the slots of one memfd. From any thread.

    Args:
        memory: The file descriptor, which is closed here.
        size: The bytes of a slot.
        max_pixels: The largest picture that is made, in pixels.
        free: Called with the number of a slot that may be written again, from any thread.

    Raises:
        ValueError: The memory is not what a `SlotWriter` makes.
    """

    def __init__(
        self, memory: int, size: int, max_pixels: int, free: Callable[[int], None]
    ) -> None:
        try:
            sealed = fcntl.fcntl(memory, fcntl.F_GET_SEALS) & SEALS == SEALS
            if not sealed or size <= 0 or os.fstat(memory).st_size != SLOTS * size:
                raise ValueError(f"no slots of {size} bytes")
            self._map = mmap.mmap(memory, SLOTS * size)
        finally:
            os.close(memory)
        self._size = size
        self._max_pixels = max_pixels
        self._free = free

    def image(self, header: Header) -> VideoFrame:
        """Return the picture of a header. Its slot is freed when the picture is deleted.

        The usual formats are not copied.

        Raises:
            ValueError: The header does not fit the slots.
        """
        slot, planes, lines = int(header["slot"]), header["planes"], header["lines"]
        width, height = header["size"]
        # The process that wrote it has read what a server sent, so nothing is taken on trust.
        if (
            not 0 <= slot < SLOTS
            or sum(planes) + PADDING > self._size
            or min(width, height, *planes, *lines) <= 0
            or len(planes) != len(lines)
            or width * height > self._max_pixels
        ):
            raise ValueError(f"no such slot: {header}")
        data = np.frombuffer(self._map, np.uint8, sum(planes), slot * self._size)
        # The mapping stays as long as an array of it, so a picture outlives this reader.
        weakref.finalize(data, self._free, slot).atexit = False
        image = _wrapped(header, data) if _is_wrapped(header) else _copied(header, data)
        image.pts = header["pts"]
        for tag, value in zip(COLOUR, header["colour"]):
            setattr(image, tag, value)
        return image


def _is_wrapped(header: Header) -> bool:
    """Whether the planes lie in memory as ``VideoFrame.from_numpy_buffer`` requires it."""
    share, lines, height = _CHROMA_SHARE.get(header["format"]), header["lines"], header["size"][1]
    planes = 2 if share == 1 else 3
    if share is None or height % 4 or lines[0] % 2 or len(lines) != planes:
        return False
    if header["size"][0] > lines[0]:
        return False
    rows = [height] + [height // 2] * (len(lines) - 1)
    return all(
        line * (1 if plane == 0 else share) == lines[0] and line * count == bytes_
        for plane, (line, count, bytes_) in enumerate(zip(lines, rows, header["planes"]))
    )


def _wrapped(header: Header, data: np.ndarray) -> VideoFrame:
    width, height = header["size"]
    rows = data.reshape(height * 3 // 2, header["lines"][0])
    return VideoFrame.from_numpy_buffer(rows, header["format"], width=width)


def _copied(header: Header, data: np.ndarray) -> VideoFrame:
    width, height = header["size"]
    image = VideoFrame(width, height, header["format"])
    if len(image.planes) != len(header["planes"]):
        raise ValueError(f"not the planes of {image.format.name}: {header}")
    starts = accumulate(header["planes"], initial=0)
    for plane, line, bytes_, start in zip(image.planes, header["lines"], header["planes"], starts):
        # Both sides pad their lines, each in its own way.
        shape = plane.buffer_size // plane.line_size, plane.line_size
        if bytes_ // line < shape[0] or bytes_ % line:
            raise ValueError(f"too few lines: {header}")
        target = np.ndarray(shape, np.uint8, memoryview(plane), 0, (plane.line_size, 1))
        source = data[start : start + bytes_].reshape(-1, line)
        used = min(line, plane.line_size)
        np.copyto(target[:, :used], source[: shape[0], :used])
    return image
