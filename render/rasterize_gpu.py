"""The GPU rasteriser: the same pictures as `rasterize_cpu`, for the frames of many windows at once.

Meshes are drawn where the frames are, and from where they were fitted; nothing waits until the
finished pictures are requested. A drawing is one upload of a table and four launches, however many
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
from render.table_gpu import Picture, upload

# Sizes of the launches, which change the speed but not the picture.
_VERTEX_BLOCK = 128
_FACE_BLOCK = 32
_FACE_COLUMNS = 4
_LARGE_PROGRAMS = (128, 8)
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
    """

    def __init__(self, faces: np.ndarray, vertices: int, memory: DrawingMemory) -> None:
        self.faces, self.vertices = faces, vertices
        self._memory, device = memory, memory.device
        self._corners = torch.from_numpy(np.ascontiguousarray(faces, np.int32)).to(device)
        self._neighbours = torch.from_numpy(faces_of_vertices(faces, vertices)).to(device)
        self._opaque = torch.ones(vertices, device=device)

    def draw(self, pictures: Sequence[Picture], alpha: float) -> None:
        """Draw meshes into pictures, in place.

        Args:
            pictures: The pictures.
            alpha: Opacity of the meshes, from 0 to 1.
        """
        drawn = [each for each in pictures if len(each.meshes)]
        for part in _parts(drawn, self._memory.most_samples):
            self._draw(part, alpha)

    def _draw(self, pictures: Sequence[Picture], alpha: float) -> None:
        from render import kernels_gpu as kernels

        table = upload(pictures, alpha, self._opaque)
        words, corners, count, faces = table.words, self._corners, self.vertices, len(self.faces)
        with self._memory.turn(table.samples, table.meshes, count, faces) as memory:
            points, samples, items = memory.points, memory.samples, memory.items
            kernels.place[(_blocks(count, _VERTEX_BLOCK), table.meshes)](
                words, self._neighbours, corners, points,
                COUNT=count, VALENCE=self._neighbours.shape[1], BLOCK=_VERTEX_BLOCK,
            )  # fmt: skip
            kernels.fill_small[(_blocks(faces, _FACE_BLOCK), table.meshes)](
                words, points, corners, samples, items, COUNT=count, FACES=faces,
                LARGE=kernels.LARGE, BLOCK=_FACE_BLOCK, COLUMNS=_FACE_COLUMNS, FADES=table.fades,
            )  # fmt: skip
            # Triton's interpreter runs one program after another, so there more of them gain
            # nothing.
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
        _check_numbers(pictures)
        sizes = {_vertices(each.meshes) for each in pictures if len(each.meshes)}
        if len(sizes) > 1:
            raise ValueError("meshes that are drawn together have the same triangles")
        if sizes:
            self._rasterizer_for(faces, *sizes).draw(pictures, alpha)
        else:
            check.check_faces(faces, None)
        return [Drawn(canvas, scene) for scene, canvas in zip(scenes, canvases)]

    def close(self) -> None:
        """Free the buffers."""
        self._rasterizer = self._memory = None

    def _canvases(self, scenes: Sequence[Scene], alpha: float) -> list[Tensor]:
        """The scenes' images (T, H, W, 3) on the device; those of one size are parts of one
        tensor."""
        sizes = [_size_of(scene, alpha) for scene in scenes]
        out: dict[int, Tensor] = {}
        for size in set(sizes):
            members = [k for k, other in enumerate(sizes) if other == size]
            images = [image for k in members for image in scenes[k].images]
            whole = torch.empty(len(images), *size, 3, dtype=torch.uint8, device=self._device)
            if all(isinstance(image, Tensor) for image in images):
                # One launch, wherever the images are.
                torch.stack(images, out=whole)
            else:
                for target, image in zip(whole, images):
                    source = image if isinstance(image, Tensor) else torch.from_numpy(image)
                    target.copy_(self._page_locked(source), non_blocking=True)
            parts = whole.split([len(scenes[k].images) for k in members])
            out |= dict(zip(members, parts))
        return [out[k] for k in range(len(scenes))]

    def _pictures(self, scene: Scene, canvas: Tensor) -> Iterator[Picture]:
        """Yield what is drawn into each image of a canvas."""
        camera = check.check_intrinsics(scene.intrinsics)
        lens = camera[[0, 0, 0, 1, 1], [0, 1, 2, 1, 2]]
        height, width = canvas.shape[1:3]
        fades = scene.opacity or [None] * len(canvas)
        parts = zip(scene.vertices_m, scene.colors, fades, strict=True)
        for k, (meshes, colors, fade) in enumerate(parts):
            meshes = self._checked(meshes)
            yield Picture(
                canvas.data_ptr() + k * height * width * 3,
                (height, width),
                lens,
                meshes,
                check.color_rows(colors, len(meshes)),
                check.check_opacity(fade, (len(meshes), _vertices(meshes))),
            )

    def _checked(self, meshes: np.ndarray | MeshRows) -> np.ndarray | MeshRows:
        if not isinstance(meshes, MeshRows):
            return check.check_vertices(meshes)
        check.check_people(len(meshes))
        tensor = meshes.tensor
        if tensor.dtype != torch.float32 or tensor.ndim != 3 or tensor.shape[2] != 3:
            raise ValueError(f"meshes are (N, V, 3) float32, not {tuple(tensor.shape)}")
        if tensor.device.type != self._device.type or not tensor.is_contiguous():
            raise ValueError(f"meshes to draw are contiguous and on {self._device}")
        return meshes

    def _rasterizer_for(self, faces: np.ndarray, vertices: int) -> GpuRasterizer:
        """The rasteriser for such meshes; a new one if the last does not fit."""
        last = self._rasterizer
        # The same array nearly always.
        same = last is not None and (last.faces is faces or np.array_equal(last.faces, faces))
        if last is not None and same and last.vertices == vertices:
            return last
        check.check_faces(faces, vertices)
        self._memory = self._memory or DrawingMemory.of(self._device)
        self._rasterizer = GpuRasterizer(faces, vertices, self._memory)
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


def _check_numbers(pictures: Sequence[Picture]) -> None:
    """Check colours and rows of all pictures at once; one by one takes as long for each of them."""
    if not pictures:
        return
    check.check_color_values(np.concatenate([each.colors for each in pictures]))
    there = [each.meshes for each in pictures if isinstance(each.meshes, MeshRows)]
    if there:
        rows = np.concatenate([each.rows for each in there])
        ends = np.repeat([each.tensor.shape[0] for each in there], [len(each) for each in there])
        # A kernel would read any address that it gets.
        if ((rows < 0) | (rows >= ends)).any():
            raise ValueError("rows point beyond the meshes of their tensor")


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def _vertices(meshes: np.ndarray | MeshRows) -> int:
    """V, of P meshes."""
    return int((meshes.tensor if isinstance(meshes, MeshRows) else meshes).shape[1])


def _size_of(scene: Scene, alpha: float) -> tuple[int, int]:
    """The (height, width) of a scene's images. Raises ValueError if they are no images."""
    for image in scene.images:
        is_bytes = image.dtype in (torch.uint8, np.uint8)
        check.check_pixels(tuple(image.shape), is_bytes, alpha)
    sizes = {(int(image.shape[0]), int(image.shape[1])) for image in scene.images}
    if len(sizes) != 1:
        raise ValueError("pictures that are drawn together are of one size")
    return sizes.pop()
