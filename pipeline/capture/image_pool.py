"""Memory of images that is used again, so that the kernel does not have to clear new pages."""

from __future__ import annotations

import math
import weakref

import numpy as np

_MOST_FREE = 4


class ImagePool:
    """Allocates images of one source. From any thread.

    New memory of the size of a picture comes from the kernel page by page, which costs more than
    the picture's conversion. Memory comes back when an image and all views of it are deleted.
    """

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an uninitialised uint8 array of the given shape."""
        size = math.prod(shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = bytearray()
        if len(memory) != size:
            # Another size than before: the pictures have changed.
            self._free.clear()
            memory = bytearray(size)
        # The memory is no array, so views refer to this one, which ends with the last of them.
        image = np.frombuffer(memory, np.uint8).reshape(shape)
        assert image.base is not None, "it is a view of the memory"
        weakref.finalize(image.base, self._back, memory).atexit = False
        return image

    def _back(self, memory: bytearray) -> None:
        if len(self._free) < _MOST_FREE:
            self._free.append(memory)
