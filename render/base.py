"""What every renderer can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np


class Renderer(Protocol):
    """Draws meshes over images; used from one thread."""

    name: str
    together: bool
    """Whether it draws several pictures in less time than one after another."""

    def draw(
        self,
        image: np.ndarray,
        vertices_m: np.ndarray,
        faces: np.ndarray,
        colors: np.ndarray,
        intrinsics: np.ndarray,
        alpha: float = 0.85,
    ) -> np.ndarray:
        """As ``rasterize_cpu.draw_meshes``: a new RGB uint8 (H, W, 3) picture."""
        ...

    def draw_batch(
        self,
        images: Sequence[Any],
        vertices_m: Sequence[np.ndarray],
        faces: np.ndarray,
        colors: Sequence[np.ndarray],
        intrinsics: np.ndarray,
        alpha: float = 0.85,
    ) -> list[np.ndarray]:
        """`draw` for several images of one size. One that draws them together also takes tensors
        (H, W, 3) uint8 on its GPU."""
        ...

    def close(self) -> None: ...


class OneByOne:
    """`Renderer.draw_batch` for a renderer that draws one picture after another."""

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
    ) -> list[np.ndarray]:
        """As `Renderer.draw_batch`."""
        return [
            self.draw(image, bodies, faces, paint, intrinsics, alpha)
            for image, bodies, paint in zip(images, vertices_m, colors)
        ]
