"""The working memory of drawing on a GPU, shared by all that draw there."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_MOST_BYTES = 1 << 30
_MOST_SHARE = 16
"""The samples of pictures that are drawn at once take at most this part of a GPU's memory."""

_MEMORIES: weakref.WeakValueDictionary[torch.device, DrawingMemory] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


class DrawingMemory:
    """Buffers that only grow, because people and sources come and go.

    A picture of 1080p has 66 MB of samples, so 64 sources cannot have their own. Those that draw
    take turns: each drawing waits, on the GPU, for the one before. It may be used from any thread
    and stream.

    Args:
        device: The device.

    Attributes:
        device: The device.
        most_samples: How many samples may be drawn at once.
        samples: int64; zero between drawings, as the kernels leave it.
        points: (B * V * 4,) float32.
        items: int32.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        most_bytes = _MOST_BYTES
        if device.type == "cuda":
            most_bytes = torch.cuda.get_device_properties(device).total_memory // _MOST_SHARE
        self.most_samples = most_bytes // 8
        self.samples = torch.zeros(0, dtype=torch.int64, device=device)
        self.points = torch.zeros(0, device=device)
        self.items = torch.zeros(0, dtype=torch.int32, device=device)
        self._words = torch.zeros(0, dtype=torch.int64, device=device)
        self._lock = threading.Lock()
        # The page of the latest drawing is the last.
        self._pages: deque[_Page] = deque([_Page(device)])
        self._sent: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, device: torch.device) -> DrawingMemory:
        """Return the memory that all share on a device; it is freed when none holds it."""
        with _LOCK:
            memory = _MEMORIES.get(device)
            if memory is None:
                memory = _MEMORIES[device] = cls(device)
            return memory

    @contextmanager
    def turn(self, samples: int, meshes: int, vertices: int, faces: int) -> Iterator[None]:
        """Use the memory for a drawing, in a ``with`` block that queues it on the current stream.

        Args:
            samples: Samples of all its pictures.
            meshes: Meshes in all its pictures.
            vertices: Vertices of a mesh.
            faces: Triangles of a mesh.
        """
        with self._lock:
            # Asked for once, because that takes several microseconds.
            stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
            self._pages[-1].wait(stream)
            if not self._pages[0].is_free():
                self._pages.appendleft(_Page(self.device))
            self._pages.rotate(-1)
            self.samples = _grown(self.samples, samples)
            self.points = _grown(self.points, meshes * vertices * 4)
            self.items = _grown(self.items, meshes * faces)
            try:
                yield
            finally:
                self._pages[-1].record(stream)

    def table(self, words: int) -> tuple[np.ndarray, Tensor]:
        """Return a table (words,) int64 to be written on the host, and its place on the device."""
        self._words = _grown(self._words, words)
        page = self._pages[-1]
        page.grow(words)
        self._sent = page.host[:words], self._words[:words]
        return page.array[:words], self._sent[1]

    def send_table(self) -> None:
        """Copy the table to the device, on the current stream."""
        assert self._sent is not None
        host, words = self._sent
        words.copy_(host, non_blocking=True)


class _Page:
    """Page-locked memory of the host for the table of one drawing at a time.

    Taking it from torch's pool for each drawing would take longer than writing the table. There are
    as many pages as drawings that were unfinished at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._done = torch.cuda.Event() if device.type == "cuda" else None
        self._make(1 << 10)

    def _make(self, words: int) -> None:
        pinned = self._done is not None
        self.host = torch.empty(words, dtype=torch.int64, pin_memory=pinned)
        self.array = self.host.numpy()

    def grow(self, words: int) -> None:
        """Make room for as many words."""
        if len(self.host) < words:
            self._make(words)

    def wait(self, stream: torch.cuda.Stream | None) -> None:
        """Let a stream wait for its drawing."""
        if self._done is not None:
            self._done.wait(stream)

    def record(self, stream: torch.cuda.Stream | None) -> None:
        """Note that its drawing is queued on a stream."""
        if self._done is not None:
            self._done.record(stream)

    def is_free(self) -> bool:
        """Whether its drawing is done."""
        return self._done is None or self._done.query()


def _grown(buffer: Tensor, count: int) -> Tensor:
    """A buffer of zeros if the present one is too short."""
    if len(buffer) >= count:
        return buffer
    if buffer.is_cuda:
        # Its memory may belong to another stream, which must not reuse it yet.
        buffer.record_stream(torch.cuda.current_stream(buffer.device))
    return torch.zeros(count, dtype=buffer.dtype, device=buffer.device)
