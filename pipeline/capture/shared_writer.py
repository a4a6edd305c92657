"""The writing side of shared memory with decoded pictures. Imports no NumPy: decoders stay small.

The memory is a memfd (memfd_create(2)): it needs no file system, so it does not depend on the size
of /dev/shm, and the kernel frees it with the last process that holds it. It is divided into slots
of one picture. The writer owns the free slots; a slot passes to the reader with its picture's
header, and comes back when the reader has deleted the picture. No lock is shared.

A slot holds the planes of one picture one behind the other, as the decoder gave them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
from typing import Any

from av.video.frame import VideoFrame

from pipeline.capture.hdr_tags import peak_nits
from pipeline.capture.side_data import display_matrix

SLOTS = 3
"""One for the picture that waits in the ring, one for the one that is consumed, one to write."""
PADDING = 64
"""Bytes of a slot behind a picture: swscale reads up to a vector's length behind the last line."""
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
COLOUR = ("colorspace", "color_range", "color_trc", "color_primaries")
"""The colour tags of a picture, by PyAV's names; their values are those of ITU-T H.273."""

Header = dict[str, Any]
"""A slot's picture: "slot", "format", "size" (width, height in pixels), "lines" (bytes of a line,
by plane), "planes" (bytes of a plane), "pts", "colour" (as `COLOUR`), "matrix" and "peak_nits"."""


class SlotWriter:
    """Writes pictures into slots. Belongs to one thread.

    Args:
        most_bytes: The most that all slots may take.

    Attributes:
        memory: The file descriptor of the slots; -1 before the first picture.
        size: The bytes of a slot.
    """

    def __init__(self, most_bytes: int = 1 << 40) -> None:
        self._most_bytes = most_bytes
        self.memory, self.size = -1, 0
        self._map: mmap.mmap | None = None

    def fit(self, image: VideoFrame) -> bool:
        """Make new slots if the picture is larger than a slot; return whether they are new.

        Raises:
            MemoryError: They would take too much.
        """
        needed = sum(plane.buffer_size for plane in image.planes) + PADDING
        if needed <= self.size:
            return False
        self.close()
        size = -(-needed // mmap.PAGESIZE) * mmap.PAGESIZE
        if SLOTS * size > self._most_bytes:
            raise MemoryError(f"{SLOTS} pictures of {size} bytes")
        self.size = size
        self.memory = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, SLOTS * self.size)
        # The reader relies on the size: reading behind the end of a file is a fatal signal.
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, SEALS)
        self._map = mmap.mmap(self.memory, SLOTS * self.size)
        return True

    def write(self, image: VideoFrame, slot: int) -> Header:
        """Copy a picture, which `fit` has seen, into a slot; return its header."""
        assert self._map is not None, "write() before fit()"
        at = slot * self.size
        for plane in image.planes:
            self._map[at : at + plane.buffer_size] = memoryview(plane)
            at += plane.buffer_size
        return {
            "slot": slot,
            "format": image.format.name,
            "size": (image.width, image.height),
            "lines": [plane.line_size for plane in image.planes],
            "planes": [plane.buffer_size for plane in image.planes],
            "pts": image.pts,
            "colour": [int(getattr(image, tag)) for tag in COLOUR],
            "matrix": display_matrix(image),
            "peak_nits": peak_nits(image),
        }

    def close(self) -> None:
        """Let go of the slots. A reader that has them keeps them."""
        if self._map is not None:
            self._map.close()
            os.close(self.memory)
            self._map, self.memory, self.size = None, -1, 0


_PLAIN = re.compile(
    r"(yuvj?a?4\d\dp|nv\d\d|p[0-4]1\d|gray|rgba?\d\d|bgra?\d\d|rgba|bgra|argb|abgr|0rgb|0bgr|rgb0"
    r"|bgr0|gbra?p|yuyv422|uyvy422|yvyu422)(?!.*f(16|32))"
)
"""The usual formats. Of rare ones some have other layouts, and some end the process that converts
them by an assertion in swscale: that must not be the parent."""


def plain(image: VideoFrame) -> VideoFrame:
    """Return the picture, or a copy in RGB if it is not of a usual format, or is stored from the
    bottom up, so that its planes could not be copied byte by byte.

    Raises av.error.FFmpegError.
    """
    usual = _PLAIN.match(image.format.name) and not image.format.has_palette
    if usual and all(plane.line_size > 0 for plane in image.planes):
        return image
    return image.reformat(format="rgb24")
