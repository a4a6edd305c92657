"""Draw over frames: the choice of a renderer, the numbers of people, lines of text in a corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from render import rasterize_cpu
from render.base import OneByOne, Renderer

_FONT = cv2.FONT_HERSHEY_SIMPLEX


class NumbaRenderer(OneByOne):
    """The CPU renderer, fast enough for live video.

    Args:
        flat: Whether meshes have one colour all over, without light and shade.
    """

    name = "numba"

    def __init__(self, flat: bool = False) -> None:
        rasterize_cpu.warm_up()
        self._scratch, self._flat = rasterize_cpu.Scratch(), flat

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
            image, vertices_m, faces, colors, intrinsics, alpha, opacity, self._scratch, self._flat
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


def draw_labels(
    image: np.ndarray, places_px: np.ndarray, words: Sequence[str], colors: np.ndarray
) -> None:
    """Write a word at each place, white on a plate with an edge of the colour.

    A word that would cover an earlier one moves up, at most by three times its height; where there
    is no room it is left out. So the most important come first.

    Args:
        image: RGB uint8 (H, W, 3), contiguous; it is changed in place.
        places_px: The middle of the lower edge of each word (N, 2).
        words: The N words, ASCII.
        colors: RGB of each (N, 3), from 0 to 1.
    """
    scale = max(0.4, min(image.shape[:2]) / 1300)
    width, pad = max(1, round(1.5 * scale)), round(8 * scale)
    taken: list[tuple[int, int, int, int]] = []
    for (x, y), word, color in zip(places_px, words, colors):
        wide, high = cv2.getTextSize(word, _FONT, scale, width)[0]
        wide, high = wide + 2 * pad, high + 2 * pad
        left = int(np.clip(x - wide / 2, 0, max(image.shape[1] - wide, 0)))
        for step in range(4):
            top = int(np.clip(y - high * (1 + step), 0, max(image.shape[0] - high, 0)))
            box = (left, top, left + wide, top + high)
            if not any(_overlap(box, other) for other in taken):
                break
        else:
            continue
        taken.append(box)
        paint = tuple(round(255 * float(part)) for part in color)
        cv2.rectangle(image, box[:2], box[2:], (16, 16, 16), -1)
        cv2.rectangle(image, box[:2], box[2:], paint, max(1, round(2 * scale)), cv2.LINE_AA)
        origin = (left + pad, top + high - pad)
        cv2.putText(image, word, origin, _FONT, scale, (255, 255, 255), width, cv2.LINE_AA)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


class _Hud(NamedTuple):
    """Sizes of the text in a corner, in pixels but for ``scale``, the font's."""

    scale: float
    width: int
    margin: int
    pad: int
    step: int
    right: int
    bottom: int

    @classmethod
    def of(cls, size: tuple[int, int], lines: Sequence[str]) -> _Hud:
        scale = max(0.45, min(size) / 1100)
        width = max(1, round(1.3 * scale))
        margin, pad, step = round(14 * scale), round(12 * scale), round(34 * scale)
        longest = max(cv2.getTextSize(line, _FONT, scale, width)[0][0] for line in lines)
        bottom = margin + step * len(lines) + pad
        return cls(scale, width, margin, pad, step, margin + longest + 2 * pad, bottom)


def hud_size(size: tuple[int, int], lines: Sequence[str]) -> tuple[int, int]:
    """Return the (height, width) of the corner of a picture that `draw_hud` changes.

    Args:
        size: The (height, width) of the picture.
        lines: The lines, one or more.

    Returns:
        Even numbers, or the picture's own.
    """
    hud = _Hud.of(size, lines)
    height, width = (end + end % 2 for end in (hud.bottom, hud.right))
    return min(height, size[0]), min(width, size[1])


def draw_hud(image: np.ndarray, lines: Sequence[str], size: tuple[int, int] | None = None) -> None:
    """Write lines of text into the top left corner of an image, white on a darkened panel.

    Args:
        image: RGB uint8 (H, W, 3), contiguous; it is changed in place.
        lines: The lines. ASCII only, because OpenCV's fonts have no other characters.
        size: The (height, width) of the picture of which ``image`` is the corner; None for itself.
    """
    if not lines:
        return
    hud = _Hud.of(size or image.shape[:2], lines)
    panel = image[hud.margin : hud.bottom, hud.margin : hud.right]
    panel //= 4
    for index, line in enumerate(lines):
        origin = (hud.margin + hud.pad, hud.margin + hud.step * (index + 1))
        cv2.putText(image, line, origin, _FONT, hud.scale, (255, 255, 255), hud.width, cv2.LINE_AA)
