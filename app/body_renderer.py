"""Draws bodies over frames as ``[render]`` says: the mesh of the style, colours, fading, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.config import RenderConfig
from pipeline.body.model import BodyModel
from pipeline.core.camera import project
from pipeline.core.people import Bodies
from pipeline.core.skeleton import JOINT_NAMES, PARENTS
from pipeline.core.yuv import YuvImage
from pipeline.fitting.device_bodies import on_device
from pipeline.gpu.transfer import PlanesCopy
from render.base import MeshRows, Renderer, Scene
from render.lines import SkeletonRenderer, WireframeRenderer
from render.overlay import NumbaRenderer, draw_labels, make_renderer
from render.palette import track_colors

_BONES = np.array([(PARENTS[joint], joint) for joint in range(1, 24)])
_HIDDEN, _SEEN = 0.25, 0.6
"""A joint is not drawn up to the first visibility, and drawn fully from the second on."""
_HEAD, _NECK = JOINT_NAMES.index("head"), JOINT_NAMES.index("neck")
_CROWN = 3.2
"""From the neck joint to a little above the crown, in units of neck to head joint."""


@dataclass(frozen=True, eq=False)
class _Shapes:
    """What is drawn over pictures, as `Renderer.draw_batch` takes it."""

    points_m: list[np.ndarray | MeshRows]
    faces: np.ndarray
    colors: list[np.ndarray]
    opacity: list[np.ndarray | None]


class BodyRenderer:
    """Draws bodies over frames. Belongs to one thread, which also makes and closes it.

    Args:
        name: The renderer that draws meshes (`render.overlay.make_renderer`).
        settings: The style and its details.
        body: The body model of the bodies.

    Raises:
        RuntimeError: The renderer is not available.
    """

    def __init__(self, name: str, settings: RenderConfig, body: BodyModel) -> None:
        self._settings, self._faces = settings, body.faces
        self._renderer = _renderer(name, settings.style)
        # (24, V), so that the product for a person runs along memory.
        self._influence = np.ascontiguousarray(joint_influence(body).T)

    @property
    def together(self) -> bool:
        """As `Renderer.together`."""
        return self._renderer.together

    @property
    def draws_planes(self) -> bool:
        """Whether there is `draw_planes`: a GPU draws, and no labels, which the host writes."""
        return self.together and not self._settings.labels

    def draw_planes(
        self, images: Sequence[Any], bodies: Sequence[Bodies], intrinsics: np.ndarray
    ) -> list[YuvImage]:
        """As `draw`, but the pictures come from the GPU as planes: half the bytes."""
        shapes = self._shapes(bodies)
        scene = Scene(images, shapes.points_m, shapes.colors, intrinsics, shapes.opacity)
        (drawn,) = self._renderer.queue(  # type: ignore[attr-defined]
            [scene], shapes.faces, self._settings.alpha
        )
        return PlanesCopy(drawn.images).result()

    def draw(
        self, images: Sequence[Any], bodies: Sequence[Bodies], intrinsics: np.ndarray
    ) -> list[np.ndarray]:
        """Return new pictures with bodies over images of one size.

        Args:
            images: As for `Renderer.draw_batch`.
            bodies: The bodies of each image.
            intrinsics: K (3, 3) in pixels.
        """
        settings = self._settings
        if settings.style == "off":
            return [image.copy() for image in images]
        shapes = self._shapes(bodies)
        pictures = self._renderer.draw_batch(
            images, shapes.points_m, shapes.faces, shapes.colors, intrinsics, settings.alpha,
            shapes.opacity,
        )  # fmt: skip
        if settings.labels:
            for picture, each in zip(pictures, bodies):
                least = -1.0 if settings.draw_unseen else _HIDDEN
                drawn: np.ndarray = np.any(each.joint_visibility > least, axis=1)
                _label(picture, each, colors_of(each), intrinsics, drawn)
        return pictures

    def close(self) -> None:
        """Free the renderer's resources."""
        self._renderer.close()

    def _shapes(self, bodies: Sequence[Bodies]) -> _Shapes:
        style = self._settings.style
        has_mhr = any(each.mhr for each in bodies)
        # Without any, as where SAM 3D Body could not be run, the fitted bodies are drawn.
        if self._settings.draw == "mhr" and has_mhr and style != "skeleton":
            return _mhr_shapes(bodies)
        return _Shapes(
            [each.joints_m for each in bodies] if style == "skeleton" else self._meshes(bodies),
            _BONES if style == "skeleton" else self._faces,
            [colors_of(each) for each in bodies],
            [self._opacity(each) for each in bodies],
        )

    def _meshes(self, bodies: Sequence[Bodies]) -> list[np.ndarray | MeshRows]:
        shown = self._settings.style != "anatomical"
        # Renderers that draw together draw on the GPU.
        if self.together:
            return meshes_for_gpu(bodies, shown=shown)
        return [_mesh(each, shown) for each in bodies]

    def _opacity(self, bodies: Bodies) -> np.ndarray | None:
        """The opacity of each vertex (P, V), or joint (P, 24) of a skeleton; None for 1."""
        if self._settings.draw_unseen or (bodies.joint_visibility >= _SEEN).all():
            return None
        seen = np.clip((bodies.joint_visibility - _HIDDEN) / (_SEEN - _HIDDEN), 0, 1)
        if self._settings.style == "skeleton":
            return seen
        opacity = np.ones((len(seen), self._influence.shape[1]), np.float32)
        # Most people are seen whole; a product over all vertices is for the others only.
        for person in np.flatnonzero((seen < 1).any(axis=1)):
            faded = seen[person] < 1
            hidden = (1 - seen[person, faded]) @ self._influence[faded]
            opacity[person] = np.clip(1 - hidden, 0, 1)
        return opacity


def _renderer(name: str, style: str) -> Renderer:
    """The renderer of a style; those of lines and flat shapes draw on the CPU."""
    # Without bodies nothing is drawn: any renderer on the CPU will do.
    if style in ("skeleton", "off"):
        return SkeletonRenderer()
    if style == "wireframe":
        return WireframeRenderer()
    return NumbaRenderer(flat=True) if style == "silhouette" else make_renderer(name)


def colors_of(bodies: Bodies) -> np.ndarray:
    """Return the colour of each body (P, 3), RGB from 0 to 1."""
    return track_colors(bodies.track)


def _mhr_shapes(bodies: Sequence[Bodies]) -> _Shapes:
    """The meshes of MHR bodies, of which there is one or more. They do not fade: which joint a
    vertex of theirs belongs to is not known here."""
    meshes = [[body.vertices_m for body in each.mhr.values()] for each in bodies]
    faces = next(body.faces for each in bodies for body in each.mhr.values())
    (size,) = {mesh.shape for row in meshes for mesh in row if mesh is not None}
    assert faces is not None, "meshes are asked for where the estimator is made"
    return _Shapes(
        [np.array(row, np.float32).reshape(-1, *size) for row in meshes],
        faces,
        [track_colors(list(each.mhr)) for each in bodies],
        [None] * len(bodies),
    )


def drawn_mesh(bodies: Bodies) -> np.ndarray:
    """Return the meshes (P, V, 3) that are drawn by default: mannequins, if the body has one."""
    return bodies.vertices_m if bodies.shown_m is None else bodies.shown_m


def meshes_for_gpu(bodies: Sequence[Bodies], *, shown: bool = True) -> list[np.ndarray | MeshRows]:
    """Return the meshes of frames for a renderer on the GPU: those there, where the bodies were
    fitted there.

    Args:
        bodies: The bodies of each frame.
        shown: Whether to take what is drawn by default instead of the bodies' own meshes.
    """
    return [
        MeshRows(*there) if there is not None else _mesh(each, shown)
        for each, there in zip(bodies, on_device(bodies, shown=shown), strict=True)
    ]


def _mesh(bodies: Bodies, shown: bool) -> np.ndarray:
    return drawn_mesh(bodies) if shown else bodies.vertices_m


def joint_influence(body: BodyModel) -> np.ndarray:
    """Return how much each joint's visibility counts for each vertex (V, 24); rows sum to one.

    A joint of the skinning moves the whole limb that begins there. So its weight passes to the
    next joint along the limb, in proportion to the vertex's place between the two.
    """
    weights = body.weights.cpu().numpy().copy()
    vertices, joints = body.v_template.cpu().numpy(), body.joint_template.cpu().numpy()
    influence = weights.copy()
    for joint in range(24):
        children = [child for child in range(24) if PARENTS[child] == joint]
        # Where the tree branches, in the trunk, there is no limb to follow.
        if len(children) != 1:
            continue
        bone = joints[children[0]] - joints[joint]
        along = np.clip((vertices - joints[joint]) @ bone / (bone @ bone), 0, 1)
        passed = weights[:, joint] * along
        influence[:, joint] -= passed
        influence[:, children[0]] += passed
    return influence.astype(np.float32)


def _label(
    picture: np.ndarray, bodies: Bodies, colors: np.ndarray, lens: np.ndarray, drawn: np.ndarray
) -> None:
    """Write the track's number over the head of each body that is drawn, the nearest one's first.

    ``drawn`` (P,) says which are.
    """
    nearest = np.argsort(bodies.joints_m[:, 0, 2])
    neck, head = bodies.joints_m[nearest, _NECK], bodies.joints_m[nearest, _HEAD]
    above = neck + _CROWN * (head - neck)
    ahead = (above[:, 2] > 0) & drawn[nearest]
    places = project(above[ahead], lens)
    words = [str(int(track)) for track in bodies.track[nearest][ahead]]
    draw_labels(picture, places, words, colors[nearest][ahead])
