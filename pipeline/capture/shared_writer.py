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
from typing import Any

from av.video.frame import VideoFrame

from pipeline.capture.hdr_tags import peak_nits
from pipeline.capture.side_data import display_matrix

SLOTS = 3
"""One for the picture that waits in the ring, one for the one that is consumed, one to write."""
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
COLOUR = ("colorspace", "color_range", "color_trc", "color_primaries")
"""The colour tags of a picture, by PyAV's names; their values are those of ITU-T H.273."""

Header = dict[str, Any]
"""A slot's picture: "slot", "format", "size" (width, height in pixels), "lines" (bytes of a line,
by plane), "planes" (bytes of a plane), "pts", "colour" (as `COLOUR`), "matrix" and "peak_nits"."""


class SlotWriter:
    """Writes pictures into slots. Belongs to one thread.

    Attributes:
        memory: The file descriptor of the slots; -1 before the first picture.
        size: The bytes of a slot.
    """

    def __init__(self) -> None:
        self.memory, self.size = -1, 0
        self._map: mmap.mmap | None = None

    def fit(self, image: VideoFrame) -> bool:
        """Make new slots if the picture is larger than a slot; return whether they are new."""
        needed = sum(plane.buffer_size for plane in image.planes)
        if needed <= self.size:
            return False
        self.close()
        self.size = -(-needed // mmap.PAGESIZE) * mmap.PAGESIZE
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


def plain(image: VideoFrame) -> VideoFrame:
    """Return the picture, or a copy in RGB if its planes cannot be copied byte by byte: palettes,
    formats of single bits, and pictures that are stored from the bottom up."""
    packed = image.format.has_palette or image.format.is_bit_stream
    if packed or any(plane.line_size <= 0 for plane in image.planes):
        return image.reformat(format="rgb24")
    return image
