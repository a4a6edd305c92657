"""Bodies as lines, drawn by OpenCV on the CPU: a skeleton, or the edges of the mesh."""

from __future__ import annotations

import cv2
import numpy as np

from render import rasterize_cpu
from render.arguments import check_colors, check_image, check_meshes, check_opacity
from render.base import OneByOne

_SHOWN = 0.5
"""A line is drawn where both its ends are at least so opaque."""
_SHIFT = 3
_WIDTH = 0.02
"""Width of a bone, as a share of the skeleton's larger side in the image."""
_FARTHEST_PX = 1e5
_SLACK_M = 0.02
"""A vertex this much behind the surface that a pixel shows still counts as seen."""


class SkeletonRenderer(OneByOne):
    """Draws bones over a dark outline. Its meshes are joints (P, J, 3), its faces bones (B, 2)."""

    name = "skeleton"

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
        """As `Renderer.draw`."""
        check_image(image, alpha)
        joints, _, lens = check_meshes(vertices_m, np.zeros((0, 3), int), intrinsics)
        colors = check_colors(colors, len(joints))
        shown = _opaque(joints, opacity)
        drawn = np.array(image, order="C")
        # The farthest first, so that nearer people are drawn over it.
        for person in np.argsort(-joints[:, :, 2].mean(axis=1)):
            points, inside = _project(joints[person], lens)
            inside &= shown[person]
            bones = points[faces[inside[faces].all(axis=1)]]
            if not len(bones):
                continue
            width = max(round(_WIDTH * float(np.ptp(bones, axis=(0, 1)).max())), 2)
            ends = bones.reshape(-1, 2)
            for thick, paint in ((width + 4, (0, 0, 0)), (width, _rgb(colors[person]))):
                _draw_lines(drawn, bones, paint, thick)
                for x, y in np.unique(ends, axis=0):
                    cv2.circle(drawn, (round(x), round(y)), thick, paint, -1, cv2.LINE_AA)
        return cv2.addWeighted(drawn, alpha, image, 1 - alpha, 0)

    def close(self) -> None:
        """Do nothing: this renderer holds no resources."""


class WireframeRenderer(OneByOne):
    """Draws the edges of meshes that can be seen."""

    name = "wireframe"

    def __init__(self) -> None:
        self._faces = np.zeros((0, 3), np.int32)
        self._edges = np.zeros((0, 2), np.int32)

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
        """As `Renderer.draw`."""
        check_image(image, alpha)
        vertices_m, checked, lens = check_meshes(vertices_m, faces, intrinsics)
        colors = check_colors(colors, len(vertices_m))
        shown = _opaque(vertices_m, opacity)
        if not np.array_equal(checked, self._faces):
            pairs = np.sort(checked[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
            self._faces, self._edges = checked, np.unique(pairs, axis=0)
        height, width = image.shape[:2]
        _, depth = rasterize_cpu.visibility(vertices_m, checked, lens, (height, width))
        drawn = np.array(image, order="C")
        for person, vertices in enumerate(vertices_m):
            points, seen = _project(vertices, lens)
            x, y = np.rint(points).astype(int).T
            seen &= shown[person] & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            at = depth[np.where(seen, y, 0), np.where(seen, x, 0)]
            # Beside the surface's own edge a pixel shows nothing, which is 0.
            seen &= (at == 0) | (vertices[:, 2] < at + _SLACK_M)
            edges = self._edges[seen[self._edges].all(axis=1)]
            _draw_lines(drawn, points[edges], _rgb(colors[person]), 1)
        return cv2.addWeighted(drawn, alpha, image, 1 - alpha, 0)

    def close(self) -> None:
        """Do nothing: this renderer holds no resources."""


def _opaque(points_m: np.ndarray, opacity: np.ndarray | None) -> np.ndarray:
    """Which points (P, N) are opaque enough to be drawn."""
    checked = check_opacity(opacity, points_m.shape[:2])
    return np.ones(points_m.shape[:2], bool) if checked is None else checked >= _SHOWN


def _project(points_m: np.ndarray, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image points (N, 2), and which of them lie before the camera and not far outside (N,)."""
    ahead = points_m[:, 2] > rasterize_cpu.NEAR_M
    flat = points_m[:, :2] / np.where(ahead, points_m[:, 2], 1)[:, None]
    points = flat @ lens[:2, :2].T + lens[:2, 2]
    return points, ahead & (np.abs(points) < _FARTHEST_PX).all(axis=1)


def _draw_lines(image: np.ndarray, ends: np.ndarray, paint: tuple[int, ...], width: int) -> None:
    """Draw lines (N, 2, 2) with smooth edges."""
    places = np.rint(ends * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(image, list(places), False, paint, width, cv2.LINE_AA, _SHIFT)


def _rgb(color: np.ndarray) -> tuple[int, ...]:
    return tuple(round(255 * float(part)) for part in color)
