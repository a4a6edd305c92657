"""The GPU rasteriser: the same pictures as `rasterize_cpu`, for the frames of many windows at once.

Meshes are drawn where the frames are, and from where they were fitted; nothing waits until the
finished pictures are requested. A drawing is one upload of a table and five launches, however many
pictures and people there are. The least memory traffic of a picture is the samples that bodies
cover (8 bytes, written, read and cleared), the vertices, and the pixels under the bodies. The
kernels are in `kernels_gpu`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from render import arguments as check
from render.base import MeshRows, Scene
from render.memory_gpu import DrawingMemory
from render.table_gpu import Picture, Table, upload

# Sizes of the launches, which change the speed but not the picture.
_VERTEX_BLOCK = 128
_FACE_BLOCK = 32
_FACE_COLUMNS = 4
_LARGE_PROGRAMS = (128, 8)
_COPY_BLOCK = 1024
_COPY_PROGRAMS = 2048
_RESOLVE = (4, 64)
_RESOLVE_PROGRAMS = 4096
"""Programs of all pictures together: enough to fill a GPU a few times over."""


class GpuRasterizer:
    """Draws meshes of one topology into pictures on a device.

    Launches go to the current stream; the host waits for nothing. On a CPU the kernels run in
    Triton's interpreter (TRITON_INTERPRET=1), which is slow.

    Args:
        faces: Triangles (F, 3), integers, counter-clockwise seen from outside.
        vertices: Number of vertices of a mesh.
        memory: Working memory on the device.

    Attributes:
        faces: The triangles, on the host.
        vertices: Number of vertices of a mesh.
        opaque: (V,) float32 ones, on the device.
    """

    def __init__(self, faces: np.ndarray, vertices: int, memory: DrawingMemory) -> None:
        self.faces, self.vertices = faces, vertices
        self._memory, device = memory, memory.device
        self._corners = torch.from_numpy(np.ascontiguousarray(faces, np.int32)).to(device)
        self._neighbours = torch.from_numpy(faces_of_vertices(faces, vertices)).to(device)
        self._valence = self._neighbours.shape[1]
        self.opaque = torch.ones(vertices, device=device)

    def draw(self, table: Table) -> None:
        """Draw meshes into pictures, in place, in a turn on the working memory.

        Args:
            table: The pictures and meshes.
        """
        from render import kernels_gpu as kernels

        words, corners, count, faces = table.words, self._corners, self.vertices, len(self.faces)
        points, samples, items = self._memory.points, self._memory.samples, self._memory.items
        kernels.place[(_blocks(count, _VERTEX_BLOCK), table.meshes)](
            words, self._neighbours, corners, points,
            COUNT=count, VALENCE=self._valence, BLOCK=_VERTEX_BLOCK,
        )  # fmt: skip
        kernels.fill_small[(_blocks(faces, _FACE_BLOCK), table.meshes)](
            words, points, corners, samples, items, COUNT=count, FACES=faces,
            LARGE=kernels.LARGE, BLOCK=_FACE_BLOCK, COLUMNS=_FACE_COLUMNS, FADES=table.fades,
        )  # fmt: skip
        # Triton's interpreter runs one program after another, so there more of them gain nothing.
        on_gpu = words.is_cuda
        kernels.fill_large[_LARGE_PROGRAMS if on_gpu else (1, 1)](
            words, points, corners, samples, items, COUNT=count, FACES=faces,
            TILE=kernels.TILE, FADES=table.fades,
        )  # fmt: skip
        rows, columns = _RESOLVE
        each = _blocks(_RESOLVE_PROGRAMS, table.pictures) if on_gpu else 1
        kernels.resolve[(each, table.pictures)](words, samples, ROWS=rows, COLUMNS=columns)


class GpuRenderer:
    """The GPU renderer. Belongs to one thread; works on the current stream.

    Renderers of one GPU share their working memory, and take turns on it.

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
        self._memory: DrawingMemory | None = None
        self._rasterizer: GpuRasterizer | None = None

    def draw(
        self,
        image: np.ndarray | Tensor,
        vertices_m: np.ndarray | MeshRows,
        faces: np.ndarray,
        colors: np.ndarray,
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: np.ndarray | None = None,
    ) -> np.ndarray:
        """As `Renderer.draw`; image and meshes may also be on this GPU."""
        return self.draw_batch(
            [image], [vertices_m], faces, [colors], intrinsics, alpha, [opacity]
        )[0]

    def draw_batch(
        self,
        images: Sequence[np.ndarray | Tensor],
        vertices_m: Sequence[np.ndarray | MeshRows],
        faces: np.ndarray,
        colors: Sequence[np.ndarray],
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: Sequence[np.ndarray | None] = (),
    ) -> list[np.ndarray]:
        """As `Renderer.draw_batch`; images and meshes may also be on this GPU.

        The pictures are new arrays in page-locked memory.
        """
        if not images:
            return []
        scene = Scene(images, vertices_m, colors, intrinsics, opacity)
        return self.queue([scene], faces, alpha)[0].pictures()

    def queue(self, scenes: Sequence[Scene], faces: np.ndarray, alpha: float = 0.85) -> list[Drawn]:
        """Start to draw scenes, without waiting.

        Args:
            scenes: The scenes, for example a window of each of several sources, with an image or
                more each. Images may be arrays, or tensors (H, W, 3) uint8 on this GPU.
            faces: Triangles (F, 3), counter-clockwise seen from outside.
            alpha: Opacity of the meshes, from 0 to 1.

        Returns:
            The pending pictures of each scene.

        Raises:
            ValueError: As `Renderer.draw`.
        """
        # A new canvas: perception shares the frames on the device.
        canvases = self._canvases(scenes, alpha)
        pictures = [
            picture
            for scene, canvas in zip(scenes, canvases, strict=True)
            for picture in self._pictures(scene, canvas)
        ]
        sizes = {each.vertices for each in pictures if len(each.meshes)}
        if len(sizes) > 1:
            raise ValueError("meshes that are drawn together have the same triangles")
        if not sizes:
            check.check_faces(faces, None)
        memory = self._memory = self._memory or DrawingMemory.of(self._device)
        rasterizer = self._rasterizer_for(memory, faces, *sizes) if sizes else None
        for part in _parts(pictures, memory.most_samples):
            _draw(part, alpha, memory, rasterizer)
        return [Drawn(canvas, scene) for scene, canvas in zip(scenes, canvases)]

    def close(self) -> None:
        """Free the buffers."""
        self._rasterizer = self._memory = None

    def _canvases(self, scenes: Sequence[Scene], alpha: float) -> list[Tensor]:
        """The scenes' canvases (T, H, W, 3) on the device, uninitialised; those of one size are
        parts of one tensor."""
        sizes = [_size_of(scene, alpha) for scene in scenes]
        out: dict[int, Tensor] = {}
        for size in set(sizes):
            members = [k for k, other in enumerate(sizes) if other == size]
            count = sum(len(scenes[k].images) for k in members)
            whole = torch.empty(count, *size, 3, dtype=torch.uint8, device=self._device)
            begin = 0
            for k in members:
                end = begin + len(scenes[k].images)
                out[k], begin = whole[begin:end], end
        return [out[k] for k in range(len(scenes))]

    def _pictures(self, scene: Scene, canvas: Tensor) -> Iterator[Picture]:
        """Yield what is drawn into each image of a canvas."""
        (fx, skew, cx), (_, fy, cy), _ = check.check_intrinsics(scene.intrinsics).tolist()
        count, height, width, _ = canvas.shape
        begin, fades = canvas.data_ptr(), scene.opacity or [None] * count
        parts = zip(scene.images, scene.vertices_m, scene.colors, fades, strict=True)
        for k, (image, meshes, colors, fade) in enumerate(parts):
            people = len(meshes)
            vertices, drawn = self._checked(meshes)
            yield Picture(
                begin + k * height * width * 3,
                self._source(image, canvas, k),
                (height, width),
                (fx, skew, cx, fy, cy),
                vertices,
                drawn,
                check.check_colors(colors, people).tolist(),
                None if fade is None else check.check_opacity(fade, (people, vertices)),
                4 * height * width if people else 0,
            )

    def _source(self, image: np.ndarray | Tensor, canvas: Tensor, k: int) -> int:
        """The address of an image that a kernel can copy to the canvas; 0 if it is copied here."""
        if isinstance(image, Tensor):
            if image.device == canvas.device and image.is_contiguous():
                return image.data_ptr()
        else:
            image = torch.from_numpy(image)
        canvas[k].copy_(self._page_locked(image), non_blocking=True)
        return 0

    def _checked(self, meshes: np.ndarray | MeshRows) -> tuple[int, np.ndarray | list[int]]:
        """V, and the meshes as a `Picture` has them."""
        if isinstance(meshes, MeshRows):
            addresses = self._addresses(meshes)
            return meshes.tensor.shape[1], addresses
        array = check.check_vertices(meshes)
        return array.shape[1], array

    def _addresses(self, meshes: MeshRows) -> list[int]:
        """The addresses of meshes on the device."""
        tensor, rows = meshes.tensor, meshes.rows.tolist()
        check.check_people(len(rows))
        shape = tuple(tensor.shape)
        if tensor.dtype != torch.float32 or len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"meshes are (N, V, 3) float32, not {shape}")
        if tensor.device.type != self._device.type or not tensor.is_contiguous():
            raise ValueError(f"meshes to draw are contiguous and on {self._device}")
        # A kernel would read any address that it gets.
        if rows and not 0 <= min(rows) <= max(rows) < shape[0]:
            raise ValueError("rows point beyond the meshes of their tensor")
        begin, size = tensor.data_ptr(), 12 * shape[1]
        return [begin + row * size for row in rows]

    def _rasterizer_for(
        self, memory: DrawingMemory, faces: np.ndarray, vertices: int
    ) -> GpuRasterizer:
        """The rasteriser for such meshes; a new one if the last does not fit."""
        last = self._rasterizer
        # The same array nearly always.
        same = last is not None and (last.faces is faces or np.array_equal(last.faces, faces))
        if last is not None and same and last.vertices == vertices:
            return last
        check.check_faces(faces, vertices)
        self._rasterizer = GpuRasterizer(faces, vertices, memory)
        return self._rasterizer

    def _page_locked(self, image: Tensor) -> Tensor:
        if not self._pinned or image.is_cuda or image.is_pinned():
            return image
        return torch.empty(image.shape, dtype=image.dtype, pin_memory=True).copy_(image)


class Drawn:
    """Pictures that a device is drawing.

    Attributes:
        images: (T, H, W, 3) uint8, contiguous, on the device.
    """

    def __init__(self, images: Tensor, scene: Scene) -> None:
        self.images = images
        # What is drawn must not be freed before the pictures are finished.
        self._scene: Scene | None = scene

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
        self._scene = None
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


def _draw(
    pictures: Sequence[Picture],
    alpha: float,
    memory: DrawingMemory,
    rasterizer: GpuRasterizer | None,
) -> None:
    """Queue a drawing on the current stream; the rasteriser may be missing if there are no
    meshes."""
    from render import kernels_gpu as kernels

    samples = sum(each.samples for each in pictures)
    meshes = sum(len(each.meshes) for each in pictures)
    vertices, faces, opaque = 0, 0, None
    if rasterizer is not None:
        vertices, faces, opaque = rasterizer.vertices, len(rasterizer.faces), rasterizer.opaque
    with memory.turn(samples, meshes, vertices, faces):
        table = upload(pictures, alpha, opaque, memory)
        programs = _blocks(_COPY_PROGRAMS, table.pictures) if table.words.is_cuda else 1
        kernels.copy[(programs, table.pictures)](table.words, BLOCK=_COPY_BLOCK)
        if rasterizer is not None and meshes:
            rasterizer.draw(table)


def _parts(pictures: Sequence[Picture], most: int) -> Iterator[list[Picture]]:
    """Yield the pictures in parts of at most ``most`` samples; a larger picture is a part alone."""
    part: list[Picture] = []
    total = 0
    for picture in pictures:
        total += picture.samples
        if part and total > most:
            yield part
            part, total = [], picture.samples
        part.append(picture)
    if part:
        yield part


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def _size_of(scene: Scene, alpha: float) -> tuple[int, int]:
    """The (height, width) of a scene's images. Raises ValueError if they are no images."""
    # Most often all are alike.
    kinds = {(tuple(image.shape), image.dtype) for image in scene.images}
    for shape, dtype in kinds:
        check.check_pixels(shape, dtype in (torch.uint8, np.uint8), alpha)
    sizes = {shape[:2] for shape, _ in kinds}
    if len(sizes) != 1:
        raise ValueError("pictures that are drawn together are of one size")
    return sizes.pop()
