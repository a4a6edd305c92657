"""The GPU rasteriser: the same pictures as `rasterize_cpu`, for the frames of a window at once.

Meshes are drawn where the frames are; nothing waits until the finished pictures are requested. The
least memory traffic of a picture is the samples that bodies cover (8 bytes, written, read and
cleared), the vertices, and the pixels under the bodies. The kernels are in `kernels_gpu`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from render.arguments import check_colors, check_image, check_meshes, check_opacity
from render.rasterize_cpu import NEAR_M

# Sizes of the launches, which change the speed but not the picture.
_VERTEX_BLOCK = 128
_FACE_BLOCK = 32
_FACE_COLUMNS = 4
_LARGE_PROGRAMS = (128, 8)
_RESOLVE = (4, 64)


class GpuRasterizer:
    """Draws meshes of one topology into pictures of one size on a device.

    Launches go to the current stream; nothing is copied from or to the host. On a CPU the kernels
    run in Triton's interpreter (TRITON_INTERPRET=1), which is slow.

    Args:
        faces: Triangles (F, 3), integers, counter-clockwise seen from outside.
        vertices: Number of vertices of a mesh.
        size: (height, width) of the pictures.
        pictures: Most pictures at a time.
        device: The device.
    """

    def __init__(
        self,
        faces: np.ndarray,
        vertices: int,
        size: tuple[int, int],
        pictures: int,
        device: torch.device | str = "cuda",
    ) -> None:
        self.device = torch.device(device)
        self.size, self.vertices = size, vertices
        self.faces = torch.from_numpy(np.ascontiguousarray(faces, np.int32)).to(self.device)
        table = faces_of_vertices(faces, vertices)
        self.neighbours = torch.from_numpy(table).to(self.device)
        height, width = size
        self.samples = torch.zeros(
            pictures, 2 * height, 2 * width, dtype=torch.int64, device=self.device
        )
        self._counter = torch.zeros(1, dtype=torch.int32, device=self.device)
        # An empty box, which any vertex makes larger.
        self._empty = torch.tensor([[width, height, -1, -1]], dtype=torch.int32, device=self.device)
        self._boxes = self._empty.repeat(pictures, 1)
        self._points = torch.empty(0, device=self.device)
        self._items = torch.empty(0, dtype=torch.int32, device=self.device)

    def draw(
        self,
        images: Tensor,
        vertices_m: Tensor,
        pictures: Tensor,
        colors: Tensor,
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: Tensor | None = None,
    ) -> None:
        """Draw B meshes into T images, in place.

        Args:
            images: (T, H, W, 3) uint8, contiguous.
            vertices_m: (B, V, 3) float32, metres in the camera's axes.
            pictures: Index of the image of each mesh (B,) int32; -1 for none.
            colors: (B, 3) float32, from 0 to 1.
            intrinsics: K (3, 3) in pixels, on the host.
            alpha: Opacity of the meshes, from 0 to 1.
            opacity: (B, V) float32, from 0 to 1, times ``alpha``; None for 1.
        """
        from render import kernels_gpu as kernels

        count, (height, width) = len(vertices_m), self.size
        if not count:
            return
        faces = len(self.faces)
        # The buffers only grow, because people come and go.
        if len(self._points) < count:
            self._points = torch.empty(count, self.vertices, 4, device=self.device)
            self._items = torch.empty(count * faces, dtype=torch.int32, device=self.device)
        boxes = self._boxes[: len(images)]
        boxes.copy_(self._empty.expand_as(boxes))
        self._counter.zero_()
        k = np.asarray(intrinsics, np.float64)
        lens = [float(v) for v in (k[0, 0], k[0, 1], k[0, 2], k[1, 1], k[1, 2])]
        kernels.place[(_blocks(self.vertices, _VERTEX_BLOCK), count)](
            vertices_m, self.neighbours, self.faces, pictures, self._points, boxes,
            *lens, NEAR_M, height, width,
            COUNT=self.vertices, VALENCE=self.neighbours.shape[1], BLOCK=_VERTEX_BLOCK,
        )  # fmt: skip
        fades = opacity is not None
        # Never read without FADES; a kernel needs a pointer all the same.
        opacity = self._points if opacity is None else opacity
        kernels.fill_small[(_blocks(faces, _FACE_BLOCK), count)](
            self._points, opacity, self.faces, pictures, self.samples, self._items, self._counter,
            2 * height, 2 * width,
            VERTICES=self.vertices, COUNT=faces, LARGE=kernels.LARGE,
            BLOCK=_FACE_BLOCK, COLUMNS=_FACE_COLUMNS, FADES=fades,
        )  # fmt: skip
        # Triton's interpreter runs one program after another, so there more of them gain nothing.
        programs = _LARGE_PROGRAMS if self.device.type == "cuda" else (1, 1)
        kernels.fill_large[programs](
            vertices_m, self._points, opacity, self.faces, pictures, self.samples, self._items,
            self._counter, *lens, NEAR_M, 2 * height, 2 * width,
            VERTICES=self.vertices, COUNT=faces, TILE=kernels.TILE, FADES=fades,
        )  # fmt: skip
        rows, columns = _RESOLVE
        kernels.resolve[(_blocks(width, columns), _blocks(height, rows), len(images))](
            images, self.samples, boxes, colors, float(alpha), height, width,
            ROWS=rows, COLUMNS=columns,
        )  # fmt: skip


class GpuRenderer:
    """The GPU renderer. Belongs to one thread; works on the current stream.

    Args:
        device: The GPU.

    Raises:
        RuntimeError: There is no CUDA GPU, or no Triton. The message is one line.
    """

    name = "gpu"
    together = True

    def __init__(self, device: torch.device | str = "cuda") -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("the gpu renderer needs a CUDA GPU; use --renderer numba")
        try:
            import triton  # noqa: F401
        except ImportError as error:
            raise RuntimeError(
                "the gpu renderer needs Triton; pip install 'bodystream[gpu]'"
            ) from error
        self._pinned = self._device.type == "cuda"
        self._rasterizer: GpuRasterizer | None = None
        self._key: tuple[Any, ...] = ()

    def draw(
        self,
        image: np.ndarray | Tensor,
        vertices_m: np.ndarray,
        faces: np.ndarray,
        colors: np.ndarray,
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: np.ndarray | None = None,
    ) -> np.ndarray:
        """As `Renderer.draw`; the image may also be a tensor on this GPU."""
        return self.draw_batch(
            [image], [vertices_m], faces, [colors], intrinsics, alpha, [opacity]
        )[0]

    def draw_batch(
        self,
        images: Sequence[np.ndarray | Tensor],
        vertices_m: Sequence[np.ndarray],
        faces: np.ndarray,
        colors: Sequence[np.ndarray],
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: Sequence[np.ndarray | None] = (),
    ) -> list[np.ndarray]:
        """As `Renderer.draw_batch`; images may be arrays, or tensors (H, W, 3) uint8 on this GPU.

        The pictures are new arrays in page-locked memory.
        """
        if not images:
            return []
        return self.queue(images, vertices_m, faces, colors, intrinsics, alpha, opacity).pictures()

    def queue(
        self,
        images: Sequence[np.ndarray | Tensor],
        vertices_m: Sequence[np.ndarray],
        faces: np.ndarray,
        colors: Sequence[np.ndarray],
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: Sequence[np.ndarray | None] = (),
    ) -> Drawn:
        """Start `draw_batch` without waiting, and return the pending pictures."""
        for image in images:
            check_image(_stand_in(image), alpha)
        checked = [check_meshes(v, faces, intrinsics) for v in vertices_m]
        paints = [check_colors(c, len(v)) for c, v in zip(colors, vertices_m, strict=True)]
        fades = [check_opacity(o, v) for o, (v, _, _) in zip(opacity, checked)]
        size = (int(images[0].shape[0]), int(images[0].shape[1]))
        if any(tuple(image.shape[:2]) != size for image in images):
            raise ValueError("pictures that are drawn together are of one size")
        # A new canvas: perception shares the frames on the device.
        canvas = torch.empty(len(images), *size, 3, dtype=torch.uint8, device=self._device)
        for target, image in zip(canvas, images):
            source = image if isinstance(image, Tensor) else torch.from_numpy(image)
            target.copy_(self._page_locked(source), non_blocking=True)
        counts = [len(vertices) for vertices, _, _ in checked]
        if sum(counts):
            meshes = self._host((sum(counts), checked[0][0].shape[1], 3), torch.float32)
            np.concatenate([vertices for vertices, _, _ in checked], out=meshes.numpy())
            pictures = self._host((len(meshes),), torch.int32)
            pictures.numpy()[:] = np.repeat(np.arange(len(images)), counts)
            paint = self._host((len(meshes), 3), torch.float32)
            paint.numpy()[:] = np.concatenate(paints)
            self._rasterizer_for(checked[0][1], meshes.shape[1], size, len(images)).draw(
                canvas,
                meshes.to(self._device, non_blocking=True),
                pictures.to(self._device, non_blocking=True),
                paint.to(self._device, non_blocking=True),
                intrinsics,
                alpha,
                self._opacity(fades, counts, meshes.shape[1]),
            )
        return Drawn(canvas)

    def close(self) -> None:
        """Free the buffers."""
        self._rasterizer, self._key = None, ()

    def _rasterizer_for(
        self, faces: np.ndarray, vertices: int, size: tuple[int, int], pictures: int
    ) -> GpuRasterizer:
        """The rasteriser for such meshes and pictures; a new one if the last does not fit."""
        key = (faces.shape, vertices, size)
        room = 0 if self._rasterizer is None else len(self._rasterizer.samples)
        if self._rasterizer is None or self._key != key or room < pictures:
            self._rasterizer = None  # frees its buffers before the new ones are allocated
            self._rasterizer = GpuRasterizer(faces, vertices, size, pictures, self._device)
            self._key = key
        return self._rasterizer

    def _opacity(
        self, fades: Sequence[np.ndarray | None], counts: Sequence[int], vertices: int
    ) -> Tensor | None:
        """The opacity of all meshes (B, V) on the device; None where all are opaque."""
        if all(each is None for each in fades):
            return None
        rows = self._host((sum(counts), vertices), torch.float32)
        parts = [np.ones((n, vertices)) if o is None else o for o, n in zip(fades, counts)]
        np.concatenate(parts, out=rows.numpy())
        return rows.to(self._device, non_blocking=True)

    def _host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=self._pinned)

    def _page_locked(self, image: Tensor) -> Tensor:
        if not self._pinned or image.is_cuda or image.is_pinned():
            return image
        return self._host(tuple(image.shape), image.dtype).copy_(image)


class Drawn:
    """Pictures (T, H, W, 3) uint8 that a device is drawing."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def pictures(self) -> list[np.ndarray]:
        """Wait for the pictures and return them as new arrays in page-locked memory."""
        out = torch.empty(
            self.images.shape, dtype=torch.uint8, pin_memory=self.images.is_cuda
        ).copy_(self.images, non_blocking=True)
        if self.images.is_cuda:
            # The event marks this copy; work that is queued behind it is not waited for.
            event = torch.cuda.Event()
            event.record()
            event.synchronize()
        return list(out.numpy())


def faces_of_vertices(faces: np.ndarray, vertices: int) -> np.ndarray:
    """Return the faces of each vertex (V, most) int32 in rising order, filled up with -1."""
    corners = np.asarray(faces, np.int64).reshape(-1)
    order = np.argsort(corners, kind="stable")
    counts = np.bincount(corners, minlength=vertices)
    most = max(int(counts.max(initial=0)), 1)
    table = np.full((vertices, most), -1, np.int32)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    table[corners[order], place] = order // 3
    return table


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def _stand_in(image: np.ndarray | Tensor) -> np.ndarray:
    """An array with an image's shape and type, for checks that need no pixels."""
    if isinstance(image, np.ndarray):
        return image
    kind = np.uint8 if image.dtype == torch.uint8 else np.float32
    return np.broadcast_to(np.zeros((), kind), tuple(image.shape))
