"""The table that the GPU rasteriser's kernels read: what is drawn, where, and how.

It is (1 + T + B, 16) int64: a row of the whole drawing, one for each of T pictures, and one for
each of B meshes. A word is an integer, an address, or a float32 in its lower half. The host writes
it and uploads it at once, with all numbers that are not on the GPU yet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from render.memory_gpu import DrawingMemory
from render.rasterize_cpu import NEAR_M

WORDS = 16
LISTED, FIRST_MESH, NEAR = 0, 1, 2
"""The drawing's words: the length of the list of large triangles, which the kernels count; the row
of the first mesh; metres."""
IMAGE, SAMPLES, HEIGHT, WIDTH, BOX, LENS, ALPHA, SOURCE = 0, 1, 2, 3, 4, 8, 13, 14
"""A picture's words: the address of its pixels (H, W, 3) uint8; its first sample; its size; the
pixels x0, y0, x1, y1 that its meshes touch, which the kernels find; fx, skew, cx, fy, cy of its
camera; the opacity of its meshes; the address of the frame to copy there first, or 0."""
VERTICES, OPACITY, PICTURE, COLOR = 0, 1, 2, 3
"""A mesh's words: the addresses of its vertices (V, 3) float32 and of their opacity (V,) float32;
the row of its picture; red, green, blue."""

# The rows' words above, in their order. Packing a row takes less time than filling columns of few
# rows with numpy.
_DRAWING_ROW = struct.Struct("<2q f4x")
_PICTURE_ROW = struct.Struct("<8q f4x f4x f4x f4x f4x f4x q")
_MESH_ROW = struct.Struct("<3q f4x f4x f4x")
_ROW_BYTES = 8 * WORDS


@dataclass(slots=True, eq=False)
class Picture:
    """One picture to draw into, and its meshes.

    Attributes:
        image: The address of its pixels (H, W, 3) uint8.
        source: The address of the frame to copy there first, contiguous on the GPU; 0 for none.
        size: (height, width).
        lens: fx, skew, cx, fy, cy in pixels.
        vertices: V.
        meshes: P meshes: an array (P, V, 3) float32, or the addresses on the GPU of such meshes
            (V, 3).
        colors: P times red, green, blue, from 0 to 1.
        opacity: (P, V) float32; None for 1.
        samples: How many samples are drawn of it: none without meshes.
    """

    image: int
    source: int
    size: tuple[int, int]
    lens: Sequence[float]
    vertices: int
    meshes: np.ndarray | list[int]
    colors: list[list[float]]
    opacity: np.ndarray | None
    samples: int


@dataclass(slots=True, eq=False)
class Table:
    """An uploaded table.

    Attributes:
        words: (N, ) int64 on the GPU: (1 + T + B, 16) words of T pictures and B meshes, then the
            numbers that some of them point to
        pictures: T.
        meshes: B.
        fades: Whether a mesh has an opacity.
    """

    words: Tensor
    pictures: int
    meshes: int
    fades: bool


def upload(
    pictures: Sequence[Picture], alpha: float, opaque: Tensor | None, memory: DrawingMemory
) -> Table:
    """Return the table of a drawing, on its way to the GPU on the current stream.

    Args:
        pictures: The pictures.
        alpha: Opacity of the meshes, from 0 to 1.
        opaque: (V,) float32 ones on the GPU, for meshes without an opacity beside others with one;
            None if there are no meshes.
        memory: Where the table is written, in a turn of this drawing.
    """
    first_mesh = 1 + len(pictures)
    rows = first_mesh + sum(len(each.meshes) for each in pictures)
    # Some numbers that the kernels read by address are on the host still.
    hosted = [p.meshes.size for p in pictures if isinstance(p.meshes, np.ndarray)]
    fading = [p.opacity.size for p in pictures if p.opacity is not None]
    head = rows * WORDS
    written, words = memory.table(head + (sum(hosted) + sum(fading) + 1) // 2)
    buffer = written.data
    shipped = _Shipped(written[head:], words.data_ptr() + 8 * head)
    _DRAWING_ROW.pack_into(buffer, 0, 0, first_mesh, NEAR_M)
    everywhere = 0 if opaque is None else opaque.data_ptr()
    sample, mesh = 0, first_mesh
    for row, picture in enumerate(pictures, 1):
        height, width = picture.size
        # An empty box, which any vertex makes larger.
        _PICTURE_ROW.pack_into(
            buffer, row * _ROW_BYTES, picture.image, sample, height, width,
            width, height, -1, -1, *picture.lens, alpha, picture.source,
        )  # fmt: skip
        sample += picture.samples
        meshes, fade = picture.meshes, picture.opacity
        addresses = shipped.add(meshes) if isinstance(meshes, np.ndarray) else meshes
        fades = [everywhere] * len(addresses) if fade is None else shipped.add(fade)
        for address, opacity, color in zip(addresses, fades, picture.colors):
            _MESH_ROW.pack_into(buffer, mesh * _ROW_BYTES, address, opacity, row, *color)
            mesh += 1
    memory.send_table()
    return Table(words, len(pictures), rows - first_mesh, bool(fading))


class _Shipped:
    """The float32 numbers behind the table's rows, and where on the GPU they will be."""

    def __init__(self, words: np.ndarray, address: int) -> None:
        self._words, self._address, self._used = words, address, 0

    def add(self, rows: np.ndarray) -> list[int]:
        """Append rows (P, ...) of float32 and return their addresses (P,)."""
        count, used = rows.size, self._used
        self._words.view(np.float32)[used : used + count] = rows.reshape(-1)
        self._used += count
        each = count // max(len(rows), 1)
        return [self._address + 4 * (used + k * each) for k in range(len(rows))]
