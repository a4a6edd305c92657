"""The reference renderer: pyrender's OpenGL with the same camera. Slow, but independent."""

from __future__ import annotations

import os

import numpy as np

from render.arguments import check_colors, check_image, check_meshes, check_opacity
from render.base import OneByOne

NEAR_M = 0.05
_NO_OPENGL = (
    "pyrender found no offscreen OpenGL: apt install libegl1 libgl1-mesa-dri (or libosmesa6 and "
    "PYOPENGL_PLATFORM=osmesa), or choose the renderer numba"
)
# OpenGL looks along -z with y up.
_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_TO_LAMP = (-0.61, -0.71, -0.35)


class PyrenderRenderer(OneByOne):
    """Draws with pyrender, offscreen, through EGL or what PYOPENGL_PLATFORM names.

    The first drawing makes the OpenGL context, which belongs to its thread: draw and close there.
    A process may have only one open at a time, because closing one ends the display that all share.

    Raises:
        RuntimeError: pyrender or OpenGL is missing. The message says what to install. It comes from
            the constructor or from the first drawing.
    """

    name = "pyrender"

    def __init__(self) -> None:
        self._pyrender = _import_pyrender()
        self._offscreen = None
        self._size = (0, 0)

    def close(self) -> None:
        """Free the context. The next drawing makes a new one."""
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
        opacity: np.ndarray | None = None,
    ) -> np.ndarray:
        """As `Renderer.draw`, with similar but not the same light as the other renderers."""
        check_image(image, alpha)
        vertices_m, faces, intrinsics = check_meshes(vertices_m, faces, intrinsics)
        colors = check_colors(colors, len(vertices_m))
        opacity = check_opacity(opacity, vertices_m.shape[:2])
        scene = self._scene(vertices_m, faces, colors, intrinsics)
        flags = self._pyrender.RenderFlags
        rgba, _ = self._context(image.shape[:2]).render(scene, flags.RGBA)
        if opacity is not None:
            rgba = rgba * self._shares(vertices_m, faces, intrinsics, opacity, image.shape[:2])
        picture = np.array(image, order="C")
        rows, columns = rgba[..., 3].any(axis=1).nonzero()[0], rgba[..., 3].any(axis=0).nonzero()[0]
        if len(rows):
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            # The average of a pixel's samples is the colour multiplied by the covered share.
            covered = rgba[box][..., 3:] * np.float32(alpha / 255)
            blended = picture[box] * (1 - covered) + rgba[box][..., :3] * np.float32(alpha)
            picture[box] = np.rint(blended)
        return picture

    def _shares(self, vertices_m, faces, intrinsics, opacity, size):
        """The opacity (H, W, 1) of the surface that each pixel shows."""
        flags = self._pyrender.RenderFlags
        white = np.ones((len(vertices_m), 3))
        scene = self._scene(vertices_m, faces, white, intrinsics, opacity)
        rgba, _ = self._context(size).render(scene, flags.RGBA | flags.FLAT)
        # Both are averages over a pixel's samples, of which some may show the background.
        covered = np.maximum(rgba[..., 3:], 1)
        return np.minimum(rgba[..., :1] / covered, 1)

    def visibility(
        self,
        vertices_m: np.ndarray,
        faces: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `render.rasterize_cpu.visibility`: mesh (H, W) int32 and depth (H, W) float32."""
        vertices_m, faces, intrinsics = check_meshes(vertices_m, faces, intrinsics)
        scene = self._scene(vertices_m, faces, np.ones((len(vertices_m), 3)), intrinsics)
        nodes = sorted(scene.mesh_nodes, key=lambda node: int(node.name))
        # Red and green hold the mesh's number from 1. Such pictures have one sample a pixel,
        # at its centre, and blend nothing.
        numbers = {node: ((n + 1) % 256, (n + 1) // 256, 0) for n, node in enumerate(nodes)}
        codes, depth = self._context(size).render(scene, self._pyrender.RenderFlags.SEG, numbers)
        person = codes[..., 0].astype(np.int32) + 256 * codes[..., 1].astype(np.int32) - 1
        return person, depth

    def depth(
        self,
        vertices_m: np.ndarray,
        faces: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> np.ndarray:
        """Return the depth of `visibility`."""
        return self.visibility(vertices_m, faces, intrinsics, size)[1]

    def _scene(self, vertices_m, faces, colors, intrinsics, gray=None):
        """The meshes (nodes named by their row), the camera and the lights; ``gray`` (P, V) gives
        each vertex a brightness of its own."""
        if intrinsics[0, 1]:
            raise ValueError("pyrender knows no skew; choose the renderer numba")
        pyrender = self._pyrender
        scene = pyrender.Scene(bg_color=(0, 0, 0, 0), ambient_light=(0.12, 0.12, 0.12))
        for person, (vertices, color) in enumerate(zip(vertices_m, colors)):
            # pyrender's base colours are linear light, this project's are sRGB.
            material = pyrender.MetallicRoughnessMaterial(
                baseColorFactor=(*color**2.2, 1.0), metallicFactor=0.0, roughnessFactor=0.7
            )
            normals = vertex_normals(vertices, faces)
            shade = None if gray is None else np.repeat(gray[person, :, None], 3, axis=1)
            body = pyrender.Primitive(
                vertices, normals, color_0=shade, indices=faces, material=material
            )
            scene.add(pyrender.Mesh([body]), name=str(person))
        far_m = 2 * max(float(vertices_m[..., 2].max(initial=0)), 5.0)
        # OpenGL counts from a pixel's corner, hence the half.
        camera = pyrender.IntrinsicsCamera(
            intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2] + 0.5, intrinsics[1, 2] + 0.5,
            znear=NEAR_M, zfar=far_m,
        )  # fmt: skip
        scene.add(camera, pose=_FROM_OPENCV)
        scene.add(pyrender.DirectionalLight(intensity=1.2), pose=_FROM_OPENCV)
        scene.add(pyrender.DirectionalLight(intensity=2.6), pose=_looking_from(_TO_LAMP))
        return scene

    def _context(self, size: tuple[int, int]):
        """pyrender's renderer for pictures of ``size``, with this thread's OpenGL context."""
        if self._offscreen is None or self._size != tuple(size):
            self.close()
            height, width = size
            try:
                self._offscreen = self._pyrender.OffscreenRenderer(width, height)
            except Exception as error:  # any error of EGL, OSMesa, PyOpenGL or pyrender
                raise RuntimeError(f"{_NO_OPENGL} ({error or type(error).__name__})") from error
            self._size = (height, width)
        return self._offscreen


def vertex_normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3) of a mesh (V, 3), (F, 3).

    Each is the mean of the normals of the vertex's faces, weighted by their areas; zero for a
    vertex without faces.
    """
    a, b, c = np.moveaxis(vertices_m[faces].astype(np.float64), 1, 0)
    doubled = np.cross(b - a, c - a)
    corners = faces.reshape(-1)
    normals = np.stack(
        [np.bincount(corners, np.repeat(part, 3), len(vertices_m)) for part in doubled.T], axis=1
    )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(length, 1e-20)).astype(np.float32)


def _looking_from(position: tuple[float, float, float]) -> np.ndarray:
    """The pose (4, 4) of a light that shines from a position to the origin, along its own -z."""
    z = np.array(position) / np.linalg.norm(position)
    x = np.cross((0.0, 0.0, 1.0), z)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    return pose


def _import_pyrender():
    # PyOpenGL reads this when it is imported.
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    try:
        import pyglet

        # pyrender imports pyglet's windows, which otherwise look for an X server.
        pyglet.options["headless"] = True
        import pyrender
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"pyrender is not installed ({error}): pip install 'bodystream[pyrender]', "
            "or choose the renderer numba"
        ) from error
    except (ImportError, OSError, AttributeError) as error:
        # PyOpenGL raises any of these when it finds no library.
        raise RuntimeError(f"{_NO_OPENGL} ({error})") from error
    return pyrender
