"""The working memory of drawing on a GPU, shared by all that draw there."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._lock = threading.Lock()
        self._done = torch.cuda.Event() if device.type == "cuda" else None

    @classmethod
    def of(cls, device: torch.device) -> DrawingMemory:
        """Return the memory that all share on a device; it is freed when none holds it."""
        with _LOCK:
            memory = _MEMORIES.get(device)
            if memory is None:
                memory = _MEMORIES[device] = cls(device)
            return memory

    @contextmanager
    def turn(self, samples: int, meshes: int, vertices: int, faces: int) -> Iterator[DrawingMemory]:
        """Use the memory for a drawing, in a ``with`` block that queues it on the current stream.

        Args:
            samples: Samples of all its pictures.
            meshes: Meshes in all its pictures.
            vertices: Vertices of a mesh.
            faces: Triangles of a mesh.
        """
        with self._lock:
            if self._done is not None:
                torch.cuda.current_stream(self.device).wait_event(self._done)
            self.samples = _grown(self.samples, samples)
            self.points = _grown(self.points, meshes * vertices * 4)
            self.items = _grown(self.items, meshes * faces)
            yield self
            if self._done is not None:
                self._done.record(torch.cuda.current_stream(self.device))


def _grown(buffer: Tensor, count: int) -> Tensor:
    """A buffer of zeros if the present one is too short."""
    if len(buffer) >= count:
        return buffer
    if buffer.is_cuda:
        # Its memory may belong to another stream, which must not reuse it yet.
        buffer.record_stream(torch.cuda.current_stream(buffer.device))
    return torch.zeros(count, dtype=buffer.dtype, device=buffer.device)
