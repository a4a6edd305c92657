"""The reference picture: pyrender's OpenGL renderer over the same camera. Slow and independent."""

from __future__ import annotations

import os
from typing import Any

import numpy as np


class PyrenderRenderer:
    """Draws with pyrender, offscreen. Its OpenGL context belongs to the thread that draws first;
    draw and close from that thread."""

    name = "pyrender"

    def __init__(self) -> None:
        self._pyrender = _import_pyrender()
        self._offscreen: Any = None
        self._size = (0, 0)

    def close(self) -> None:
        if self._offscreen is not None:
            self._offscreen.delete()
            self._offscreen = None

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
        if not len(vertices_m):
            return image.copy()
        color, depth = self._render(vertices_m, faces, colors, intrinsics, image.shape[:2])
        mask = (alpha * (depth > 0))[..., None]
        return np.rint(image * (1 - mask) + color * mask).astype(np.uint8)

    def depth(
        self, vertices_m: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, size: tuple
    ) -> np.ndarray:
        """Depth (H, W) float32 metres, 0 where there is nothing."""
        colors = np.ones((len(vertices_m), 3))
        return self._render(vertices_m, faces, colors, intrinsics, size)[1]

    def _render(self, vertices_m, faces, colors, intrinsics, size):
        import trimesh

        pyrender = self._pyrender
        height, width = size
        if self._offscreen is None or self._size != (height, width):
            self.close()
            try:
                self._offscreen = pyrender.OffscreenRenderer(width, height)
            except Exception as error:
                raise RuntimeError(
                    "pyrender found no offscreen OpenGL; install libegl1 and libgl1-mesa-dri "
                    f"(Debian) or use --renderer numba: {error}"
                ) from error
            self._size = (height, width)
        scene = pyrender.Scene(bg_color=(0, 0, 0, 0), ambient_light=(0.3, 0.3, 0.3))
        for vertices, color in zip(vertices_m, colors):
            material = pyrender.MetallicRoughnessMaterial(
                baseColorFactor=(*color, 1.0), metallicFactor=0.1, roughnessFactor=0.8
            )
            mesh = trimesh.Trimesh(vertices, faces, process=False)
            scene.add(pyrender.Mesh.from_trimesh(mesh, material=material, smooth=True))
        camera = pyrender.IntrinsicsCamera(
            intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2] + 0.5, intrinsics[1, 2] + 0.5,
            znear=0.05, zfar=1000.0,
        )  # fmt: skip
        # OpenGL looks along -z with y up.
        pose = np.diag([1.0, -1.0, -1.0, 1.0])
        scene.add(camera, pose=pose)
        scene.add(pyrender.DirectionalLight(intensity=3.0), pose=pose)
        color, depth = self._offscreen.render(scene)
        return color[..., :3], depth


def _import_pyrender():
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    try:
        import pyglet

        # pyrender imports pyglet's windows, which look for X unless told not to.
        pyglet.options["headless"] = True
        import pyrender
    except ImportError as error:
        raise RuntimeError(
            f"pyrender is not installed ({error}): pip install 'bodystream[pyrender]', "
            "or use --renderer numba"
        ) from error
    return pyrender
