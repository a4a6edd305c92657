"""Draw over frames: the choice of a renderer for meshes, and lines of text in a corner."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from render import rasterize_cpu
from render.base import OneByOne, Renderer

_FONT = cv2.FONT_HERSHEY_SIMPLEX


class NumbaRenderer(OneByOne):
    """The CPU renderer, fast enough for live video."""

    name = "numba"

    def __init__(self) -> None:
        rasterize_cpu.warm_up()
        self._scratch = rasterize_cpu.Scratch()

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
        """As ``rasterize_cpu.draw_meshes``."""
        return rasterize_cpu.draw_meshes(
            image, vertices_m, faces, colors, intrinsics, alpha, opacity, self._scratch
        )

    def close(self) -> None:
        """Do nothing: this renderer holds no resources."""


def make_renderer(name: str = "auto") -> Renderer:
    """Return a renderer by name.

    Args:
        name: "numba" (also "auto"), "gpu" or "pyrender".

    Raises:
        RuntimeError: The renderer is not available. The message says what to install.
        ValueError: There is no renderer of that name.
    """
    if name in ("auto", "numba"):
        return NumbaRenderer()
    if name == "gpu":
        # Imported here: Triton and pyrender are optional.
        from render.rasterize_gpu import GpuRenderer

        return GpuRenderer()
    if name == "pyrender":
        from render.reference import PyrenderRenderer

        return PyrenderRenderer()
    raise ValueError(f"there is no renderer '{name}'; choose auto, numba, gpu or pyrender")


def silhouette(
    vertices_m: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return the body that the centre of each pixel shows.

    Args:
        vertices_m: Meshes (P, V, 3), as for `Renderer.draw`; so are ``faces`` and ``intrinsics``.
        faces: Triangles (F, 3).
        intrinsics: K (3, 3) in pixels.
        size: (height, width) of the image.

    Returns:
        (H, W) int32: the row in ``vertices_m``, or -1 where there is no body.
    """
    return rasterize_cpu.visibility(vertices_m, faces, intrinsics, size)[0]


def track_color(track: int) -> tuple[float, float, float]:
    """Return the colour of a track, RGB from 0 to 1.

    It is the same every time, and tracks with neighbouring numbers have very different hues.
    """
    # Steps of the golden ratio take a long time to come near an earlier hue.
    hue = (0.56 + track * 0.61803398875) % 1.0
    return colorsys.hsv_to_rgb(hue, 0.45, 0.98)


def draw_hud(image: np.ndarray, lines: Sequence[str]) -> None:
    """Write lines of text into the top left corner of an image, white on a darkened panel.

    Args:
        image: RGB uint8 (H, W, 3), contiguous; it is changed in place.
        lines: The lines. ASCII only, because OpenCV's fonts have no other characters.
    """
    if not lines:
        return
    scale = max(0.45, min(image.shape[:2]) / 1100)
    width = max(1, round(1.3 * scale))
    sizes = [cv2.getTextSize(line, _FONT, scale, width)[0] for line in lines]
    margin, pad, step = round(14 * scale), round(12 * scale), round(34 * scale)
    right = margin + max(size[0] for size in sizes) + 2 * pad
    bottom = margin + step * len(lines) + pad
    panel = image[margin:bottom, margin:right]
    panel //= 4
    for index, line in enumerate(lines):
        origin = (margin + pad, margin + step * (index + 1))
        cv2.putText(image, line, origin, _FONT, scale, (255, 255, 255), width, cv2.LINE_AA)
