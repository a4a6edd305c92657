"""What is drawn over a frame: meshes by one renderer or another, and a few words in a corner."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from render import rasterize_cpu
from render.base import OneByOne, Renderer

_FONT = cv2.FONT_HERSHEY_SIMPLEX


class NumbaRenderer(OneByOne):
    """The live renderer on a CPU."""

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
    ) -> np.ndarray:
        """As ``rasterize_cpu.draw_meshes``."""
        return rasterize_cpu.draw_meshes(
            image, vertices_m, faces, colors, intrinsics, alpha, self._scratch
        )

    def close(self) -> None:
        """Nothing is held."""


def make_renderer(name: str = "auto") -> Renderer:
    """``numba`` (also ``auto``), ``gpu`` or ``pyrender``. Raises RuntimeError naming what to
    install when the chosen one is missing, ValueError for another name."""
    if name in ("auto", "numba"):
        return NumbaRenderer()
    if name == "gpu":
        from render.rasterize_gpu import GpuRenderer

        return GpuRenderer()
    if name == "pyrender":
        from render.reference import PyrenderRenderer

        return PyrenderRenderer()
    raise ValueError(f"there is no renderer '{name}'; choose auto, numba, gpu or pyrender")


def silhouette(
    vertices_m: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Whose body the centre of each pixel shows: (H, W) int32, the row in ``vertices_m`` (P, V, 3)
    or -1 for nobody. ``size`` (H, W); the rest as for `Renderer.draw`."""
    return rasterize_cpu.visibility(vertices_m, faces, intrinsics, size)[0]


def track_color(track: int) -> tuple[float, float, float]:
    """A colour for a track, RGB in [0, 1], the same every time; neighbours lie far apart."""
    # Steps of the golden ratio never come close to an earlier hue for long.
    hue = (0.56 + track * 0.61803398875) % 1.0
    return colorsys.hsv_to_rgb(hue, 0.45, 0.98)


def draw_hud(image: np.ndarray, lines: Sequence[str]) -> None:
    """Write lines into the top left corner of an RGB uint8 (H, W, 3) contiguous image, in place:
    white on a darkened panel. ASCII only, as OpenCV's fonts know no more."""
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
        at = (margin + pad, margin + step * (index + 1))
        cv2.putText(image, line, at, _FONT, scale, (255, 255, 255), width, cv2.LINE_AA)
