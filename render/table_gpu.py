"""The table that the GPU rasteriser's kernels read: what is drawn, where, and how.

It is (1 + T + B, 16) int64: a row of the whole drawing, one for each of T pictures, and one for
each of B meshes. A word is an integer, an address, or a float32 in its lower half. The host writes
it with numpy and uploads it at once, with all numbers that are not on the GPU yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from render.base import MeshRows
from render.rasterize_cpu import NEAR_M

WORDS = 16
LISTED, FIRST_MESH, NEAR = 0, 1, 2
"""The drawing's words: the length of the list of large triangles, which the kernels count; the row
of the first mesh; metres."""
IMAGE, SAMPLES, HEIGHT, WIDTH, BOX, LENS, ALPHA = 0, 1, 2, 3, 4, 8, 13
"""A picture's words: the address of its pixels (H, W, 3) uint8; its first sample; its size; the
pixels x0, y0, x1, y1 that its meshes touch, which the kernels find; fx, skew, cx, fy, cy of its
camera; the opacity of its meshes."""
VERTICES, OPACITY, PICTURE, COLOR = 0, 1, 2, 3
"""A mesh's words: the addresses of its vertices (V, 3) float32 and of their opacity (V,) float32;
the row of its picture; red, green, blue."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture to draw into, and its meshes.

    Attributes:
        image: The address of its pixels (H, W, 3) uint8.
        size: (height, width).
        lens: fx, skew, cx, fy, cy in pixels.
        meshes: P meshes of V vertices: an array (P, V, 3) float32, or rows of a tensor on the GPU.
        colors: (P, 3) from 0 to 1.
        opacity: (P, V) float32; None for 1.
    """

    image: int
    size: tuple[int, int]
    lens: np.ndarray
    meshes: np.ndarray | MeshRows
    colors: np.ndarray
    opacity: np.ndarray | None

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return 4 * self.size[0] * self.size[1]


@dataclass(frozen=True, eq=False)
class Table:
    """An uploaded table.

    Attributes:
        words: (N, ) int64 on the GPU: (1 + T + B, 16) words of T pictures and B meshes, then the
            numbers that some of them point to
        pictures: T.
        meshes: B.
        samples: How many samples the pictures have in all.
        fades: Whether a mesh has an opacity.
    """

    words: Tensor
    pictures: int
    meshes: int
    samples: int
    fades: bool


def upload(pictures: Sequence[Picture], alpha: float, opaque: Tensor) -> Table:
    """Return the table of a drawing, on its way to the GPU on the current stream.

    Args:
        pictures: The pictures, and at least one mesh in one of them.
        alpha: Opacity of the meshes, from 0 to 1.
        opaque: (V,) float32 ones on the GPU, for meshes without an opacity beside others with one.
    """
    counts = np.array([len(each.meshes) for each in pictures])
    first_mesh, rows = 1 + len(pictures), 1 + len(pictures) + int(counts.sum())
    # Some numbers that the kernels read by address are on the host still.
    hosted = [p.meshes for p in pictures if isinstance(p.meshes, np.ndarray)]
    fades = [p.opacity for p in pictures if p.opacity is not None]
    floats = sum(array.size for array in (*hosted, *fades))
    head = rows * WORDS
    # From torch's pool, which does not give this memory away again before the copy is done.
    on_gpu = opaque.is_cuda
    host = torch.empty(head + (floats + 1) // 2, dtype=torch.int64, pin_memory=on_gpu)
    words = torch.empty_like(host, device=opaque.device)
    written = host.numpy()
    table = written[:head].reshape(rows, WORDS)
    # The lower half of each word.
    numbers = table.view(np.float32)[:, ::2]
    table[0, [LISTED, FIRST_MESH]] = 0, first_mesh
    numbers[0, NEAR] = NEAR_M
    samples = _write_pictures(table[1:first_mesh], numbers[1:first_mesh], pictures, alpha)
    meshes = table[first_mesh:]
    meshes[:, PICTURE] = np.repeat(np.arange(1, first_mesh), counts)
    color = slice(COLOR, COLOR + 3)
    np.concatenate([p.colors for p in pictures], out=numbers[first_mesh:, color], casting="unsafe")
    shipped = _Shipped(written[head:].view(np.float32), words.data_ptr() + 8 * head)
    np.concatenate([_mesh_addresses(p.meshes, shipped) for p in pictures], out=meshes[:, VERTICES])
    if fades:
        np.concatenate(
            [_opacity_addresses(p, shipped, opaque) for p in pictures],
            out=meshes[:, OPACITY],
        )
    words.copy_(host, non_blocking=True)
    return Table(words, len(pictures), rows - first_mesh, samples, bool(fades))


def _write_pictures(
    table: np.ndarray, numbers: np.ndarray, pictures: Sequence[Picture], alpha: float
) -> int:
    """Write the pictures' rows; return how many samples they have in all."""
    sizes = np.array([each.size for each in pictures])
    counts = 4 * sizes.prod(1)
    ends = np.cumsum(counts)
    table[:, IMAGE] = [each.image for each in pictures]
    table[:, SAMPLES] = ends - counts
    table[:, HEIGHT : WIDTH + 1] = sizes
    # An empty box, which any vertex makes larger.
    table[:, BOX : BOX + 2] = sizes[:, ::-1]
    table[:, BOX + 2 : BOX + 4] = -1
    numbers[:, LENS : LENS + 5] = [each.lens for each in pictures]
    numbers[:, ALPHA] = alpha
    return int(ends[-1])


class _Shipped:
    """The numbers behind the table's rows, and where on the GPU they will be."""

    def __init__(self, numbers: np.ndarray, address: int) -> None:
        self._numbers, self._address, self._used = numbers, address, 0

    def add(self, rows: np.ndarray) -> np.ndarray:
        """Append rows (P, ...) of float32 and return their addresses (P,)."""
        count = rows.size
        self._numbers[self._used : self._used + count] = rows.reshape(-1)
        begin, self._used = self._address + 4 * self._used, self._used + count
        return begin + np.arange(len(rows)) * (4 * count // max(len(rows), 1))


def _mesh_addresses(meshes: np.ndarray | MeshRows, shipped: _Shipped) -> np.ndarray:
    if isinstance(meshes, np.ndarray):
        return shipped.add(meshes)
    return meshes.tensor.data_ptr() + meshes.rows * (12 * meshes.tensor.shape[1])


def _opacity_addresses(picture: Picture, shipped: _Shipped, opaque: Tensor) -> np.ndarray:
    if picture.opacity is None:
        return np.full(len(picture.meshes), opaque.data_ptr())
    return shipped.add(picture.opacity)
