"""The protocol of renderers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MeshRows:
    """P meshes that are on a GPU: rows of a tensor, which is not copied to be drawn.

    The tensor must not change until the pictures are finished.

    Attributes:
        tensor: (N, V, 3) float32, contiguous; metres in the camera's axes.
        rows: Which of the N are drawn (P,) int64.
    """

    tensor: Tensor
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What `Renderer.draw_batch` draws: images of one size, and the meshes over each.

    Attributes:
        images: As for `Renderer.draw_batch`; so are all others.
        vertices_m: The meshes of each image.
        colors: The colours of each image.
        intrinsics: K (3, 3) in pixels.
        opacity: The opacity of each image; empty for None.
    """

    images: Sequence[Any]
    vertices_m: Sequence[np.ndarray | MeshRows]
    colors: Sequence[np.ndarray]
    intrinsics: np.ndarray
    opacity: Sequence[np.ndarray | None] = ()


class Renderer(Protocol):
    """Draws meshes over images. Used from one thread.

    Attributes:
        name: The name for `overlay.make_renderer`.
        together: Whether it draws several pictures in less time than one after another.
    """

    name: str
    together: bool

    def draw(
        self,
        image: np.ndarray,
        vertices_m: np.ndarray,
        faces: np.ndarray,
        colors: np.ndarray,
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw P meshes over an image and return the new picture.

        Args:
            image: RGB uint8 (H, W, 3); it is not changed.
            vertices_m: Meshes (P, V, 3), metres in the camera's axes (x right, y down, z forward);
                P may be 0.
            faces: Triangles (F, 3), counter-clockwise seen from outside.
            colors: RGB of each mesh (P, 3), from 0 to 1.
            intrinsics: K (3, 3) in pixels; pixel centres at whole numbers.
            alpha: Opacity of the meshes, from 0 to 1.
            opacity: Opacity of each vertex (P, V), from 0 to 1, times ``alpha``; None for 1. What
                shines through is the image, not another mesh.

        Returns:
            RGB uint8 (H, W, 3).

        Raises:
            ValueError: An argument has another shape, type or range, or is not finite.
        """
        ...

    def draw_batch(
        self,
        images: Sequence[Any],
        vertices_m: Sequence[Any],
        faces: np.ndarray,
        colors: Sequence[np.ndarray],
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: Sequence[np.ndarray | None] = (),
    ) -> list[np.ndarray]:
        """Draw over several images of one size and return the new pictures.

        Args:
            images: T images as for `draw`. A renderer with ``together`` also takes tensors
                (H, W, 3) uint8 on its GPU.
            vertices_m: The meshes of each image, as for `draw`. A renderer with ``together`` also
                takes `MeshRows` on its GPU.
            faces: As for `draw`.
            colors: The colours of each image, as for `draw`.
            intrinsics: As for `draw`.
            alpha: As for `draw`.
            opacity: As for `draw`, for each image; empty for None.
        """
        ...

    def close(self) -> None:
        """Free the renderer's resources."""


class OneByOne:
    """Base class of renderers that draw one picture after another: it has `Renderer.draw_batch`."""

    together = False
    draw: Callable[..., np.ndarray]

    def draw_batch(
        self,
        images: Sequence[Any],
        vertices_m: Sequence[np.ndarray],
        faces: np.ndarray,
        colors: Sequence[np.ndarray],
        intrinsics: np.ndarray,
        alpha: float = 0.85,
        opacity: Sequence[np.ndarray | None] = (),
    ) -> list[np.ndarray]:
        """As `Renderer.draw_batch`."""
        fades = opacity or [None] * len(images)
        return [
            self.draw(image, meshes, faces, mesh_colors, intrinsics, alpha, fade)
            for image, meshes, mesh_colors, fade in zip(images, vertices_m, colors, fades)
        ]
