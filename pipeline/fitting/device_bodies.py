"""Bodies whose meshes stay on the GPU that fitted them until the host reads them.

Drawing on the GPU takes them from there; most outputs never read them.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.people import Bodies
from pipeline.gpu.transfer import AsyncCopy

MOST_BYTES = 1 << 30


class DeviceMeshes:
    """The meshes (P, T, M, V, 3) of one window's people: T frames, M meshes of each body.

    It owns its part of the GPU's memory, which is never written again. The host's copy is made when
    it is first read. Any thread may use it.

    Args:
        meshes: The meshes, float32, contiguous.
        ready: The event after which they are there; None if they are.
    """

    def __init__(self, meshes: Tensor, ready: torch.cuda.Event | None = None) -> None:
        self._meshes: Tensor | None = meshes
        self._ready = ready
        self._host: np.ndarray | None = None
        self._lock = threading.Lock()
        self.shape, self.bytes = tuple(meshes.shape), meshes.nbytes
        # Each person's first mesh in the order of memory.
        count, frames, kinds = self.shape[:3]
        self._first = np.arange(count, dtype=np.int64) * (frames * kinds)

    def __getitem__(self, place: tuple[Sequence[int] | slice, int, int]) -> DeviceMesh:
        """Return what an array gives for (people, frame, mesh), without reading it."""
        people, frame, mesh = place
        kinds = self.shape[2]
        return DeviceMesh(self, self._first[people] + (frame * kinds + mesh % kinds))

    def on_device(self) -> Tensor | None:
        """Return all meshes (P * T * M, V, 3), for work on the current stream.

        Keep the tensor until that work is done. None where only the host has them any more.
        """
        meshes = self._meshes
        if meshes is None:
            return None
        self._wait(meshes)
        return meshes.flatten(0, 2)

    def on_host(self) -> np.ndarray:
        """Return all meshes (P * T * M, V, 3); waits for the copy the first time."""
        with self._lock:
            if self._host is None:
                assert self._meshes is not None
                self._wait(self._meshes)
                # Copied again: page-locked memory is too scarce to be kept.
                self._host = AsyncCopy(self._meshes.flatten(0, 2)).result().copy()
            return self._host

    def move_to_host(self) -> None:
        """Give the GPU's memory back."""
        self.on_host()
        self._meshes = None

    def _wait(self, meshes: Tensor) -> None:
        if self._ready is not None:
            torch.cuda.current_stream(meshes.device).wait_event(self._ready)


class DeviceMesh:
    """One mesh (P, V, 3) of each person in a frame.

    Attributes:
        meshes: The meshes that it is part of.
        rows: Its rows (P,) among them, int64.
    """

    __slots__ = ("_array", "meshes", "rows")

    def __init__(self, meshes: DeviceMeshes, rows: np.ndarray) -> None:
        self.meshes, self.rows = meshes, rows
        self._array: np.ndarray | None = None

    def array(self) -> np.ndarray:
        """Return it on the host, the same array at each call."""
        if self._array is None:
            self._array = self.meshes.on_host()[self.rows]
        return self._array


class DeviceBodies(Bodies):
    """`Bodies` of which ``vertices_m`` and ``shown_m`` may be given as a `DeviceMesh`.

    They are arrays for all who read them. The first to read one waits for its copy. A copy by
    ``pickle``, ``copy`` or ``dataclasses.replace`` reads both; `with_values` does not.
    """

    __slots__ = ("_shown", "_vertices")
    _vertices: np.ndarray | DeviceMesh
    _shown: np.ndarray | DeviceMesh | None

    @property
    def vertices_m(self) -> np.ndarray:  # type: ignore[override]
        mesh = self._vertices
        return mesh.array() if isinstance(mesh, DeviceMesh) else mesh

    @vertices_m.setter
    def vertices_m(self, mesh: np.ndarray | DeviceMesh) -> None:
        # Only the constructor gets here: a frozen class refuses all others.
        object.__setattr__(self, "_vertices", mesh)

    @property
    def shown_m(self) -> np.ndarray | None:  # type: ignore[override]
        mesh = self._shown
        return mesh.array() if isinstance(mesh, DeviceMesh) else mesh

    @shown_m.setter
    def shown_m(self, mesh: np.ndarray | DeviceMesh | None) -> None:
        object.__setattr__(self, "_shown", mesh)

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite. The meshes follow from the others by sums and
        products, so they are not read."""
        return self._is_finite(*self._numbers())

    def with_values(self, **values: Any) -> Bodies:
        """As `Bodies.with_values`; the meshes stay where they are."""
        return super().with_values(
            **{"vertices_m": self._vertices, "shown_m": self._shown, **values}
        )

    def device_mesh(self, shown: bool) -> DeviceMesh | None:
        """Return a mesh without reading it; None where only the host has it.

        Args:
            shown: Whether the mesh to draw is wanted, instead of the body's own.
        """
        mesh = self._vertices if self._shown is None or not shown else self._shown
        return mesh if isinstance(mesh, DeviceMesh) else None

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may have no GPU: the copy is of plain arrays.
        state = [getattr(self, field.name) for field in fields(self)]
        return object.__new__, (Bodies,), state


def on_device(
    bodies: Sequence[Bodies], *, shown: bool = True
) -> list[tuple[Tensor, np.ndarray] | None]:
    """Return the meshes of several bodies on the GPU, for work on the current stream.

    Waits once for what was fitted together, as the frames of a window are.

    Args:
        bodies: The bodies of each frame.
        shown: As for `DeviceBodies.device_mesh`.

    Returns:
        For each frame meshes (N, V, 3) float32, to keep until that work is done, and the rows (P,)
        of its bodies; None where only the host has them.
    """
    meshes = [
        each.device_mesh(shown) if isinstance(each, DeviceBodies) else None for each in bodies
    ]
    tensors = {
        together: together.on_device()
        for together in {mesh.meshes for mesh in meshes if mesh is not None}
    }
    found: list[tuple[Tensor, np.ndarray] | None] = []
    for mesh in meshes:
        tensor = None if mesh is None else tensors[mesh.meshes]
        found.append(None if mesh is None or tensor is None else (tensor, mesh.rows))
    return found


class MeshKeeper:
    """Keeps the newest meshes on a GPU, and moves older ones that are still in use to the host.

    So bodies that a caller collects do not fill the GPU.

    Args:
        most_bytes: Of the meshes that stay on the GPU.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: deque[tuple[weakref.ref[DeviceMeshes], int]] = deque()

    def keep(self, meshes: Tensor, people: Sequence[int]) -> list[DeviceMeshes]:
        """Return the meshes of several windows.

        Args:
            meshes: (P, T, M, V, 3) of all their people, which nothing will write again. Work that
                fills it may still be queued on the current stream.
            people: The number of people in each window; their sum is P.
        """
        ready = None
        if meshes.is_cuda:
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(meshes.device))
        out = [DeviceMeshes(part, ready) for part in meshes.split(list(people))]
        for each in out:
            self._kept.append((weakref.ref(each), each.bytes))
            self._bytes += each.bytes
        self._drop()
        return out

    def _drop(self) -> None:
        """Forget the oldest meshes: those that are gone, and those beyond the limit."""
        while self._kept:
            reference, size = self._kept[0]
            oldest = reference()
            if oldest is not None and self._bytes <= self._most_bytes:
                return
            if oldest is not None:
                oldest.move_to_host()
            self._kept.popleft()
            self._bytes -= size
