"""A z-buffer rasteriser for people's meshes, fast enough for live video on one CPU core.

People whose boxes touch are drawn together, into a buffer of their common box with four samples for
each pixel (clean edges), and blended into the picture. The box is drawn in bands, so that the
buffer stays in the processor's cache. The loops are in `render.kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from render import kernels
from render.arguments import check_colors, check_image, check_meshes, check_opacity
from render.clip import clip_near

NEAR_M = 0.05
"""Surfaces nearer to the camera than this are clipped."""
_SAMPLES = 2
"""Samples along each side of a pixel."""
_STAGGER = 0.25
_BAND_SAMPLES = 400_000
"""Most samples of a band, so that its buffers (6 bytes a sample) fit into the cache."""
_FARTHEST_PX = 1e12
_PALETTE_UNITS = 16
"""Steps of the palette's colours for one step of the picture's."""
_FLAT = 1.5 + 253.0 * 0.84
"""The level that shows a person's colour itself."""

Box = tuple[int, int, int, int]
"""Image pixels x0, y0, x1, y1, both ends included."""


@dataclass(frozen=True, slots=True, eq=False)
class _Body:
    """A projected mesh: ``points`` (V, 3) x, y, 1/z; ``values`` (V, 2) light and opacity;
    ``faces`` (F, 3)."""

    person: int
    points: np.ndarray
    values: np.ndarray
    faces: np.ndarray
    box: Box


class Scratch:
    """Buffers that are reused between pictures, because new memory costs more than clearing it.

    Each thread needs its own.
    """

    def __init__(self) -> None:
        self._depth = np.empty(0, np.float32)
        self._coded = np.empty(0, np.uint16)

    def buffers(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return cleared (height, width) buffers of depth and code (see `render.kernels.fill`)."""
        size = height * width
        if self._depth.size < size:
            self._depth, self._coded = np.empty(size, np.float32), np.empty(size, np.uint16)
        depth, coded = self._depth[:size], self._coded[:size]
        depth.fill(0)
        coded.fill(0)
        return depth.reshape(height, width), coded.reshape(height, width)


def draw_meshes(
    image: np.ndarray,
    vertices_m: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray,
    intrinsics: np.ndarray,
    alpha: float = 0.85,
    opacity: np.ndarray | None = None,
    scratch: Scratch | None = None,
    flat: bool = False,
) -> np.ndarray:
    """Draw P meshes over an image and return the new picture.

    Nearer surfaces hide farther ones, within a body and between bodies.

    Args:
        image: RGB uint8 (H, W, 3); it is not changed.
        vertices_m: Meshes (P, V, 3) float, metres in the camera's axes (x right, y down, z
            forward); P may be 0.
        faces: Triangles (F, 3), integers, counter-clockwise seen from outside; only their outside
            is visible.
        colors: RGB of each mesh (P, 3), from 0 to 1.
        intrinsics: K (3, 3) in pixels; pixel centres at whole numbers.
        alpha: Opacity of the meshes, from 0 to 1.
        opacity: Opacity of each vertex (P, V), from 0 to 1, times ``alpha``; None for 1. What
            shines through is the image, not another mesh.
        scratch: Buffers to reuse from picture to picture; two threads must not share them.
        flat: Whether meshes have one colour all over, without light and shade.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ValueError: An argument has another shape, type or range, or is not finite. The message is
            one line.
    """
    check_image(image, alpha)
    vertices_m, faces, intrinsics = check_meshes(vertices_m, faces, intrinsics)
    opacity = check_opacity(opacity, vertices_m.shape[:2])
    palette = _palette(check_colors(colors, len(vertices_m)), opacity is not None)
    scratch = scratch or Scratch()
    steps = kernels.OPACITIES * _SAMPLES**2
    keeps = np.linspace(1, 1 - alpha, steps + 1).astype(np.float32)
    gain = np.float32(alpha / (steps * _PALETTE_UNITS))
    picture = np.array(image, order="C")
    codes = kernels.LEVELS * len(vertices_m)
    bodies = list(_place(vertices_m, faces, intrinsics, image.shape[:2], opacity, flat))
    for (x0, y0, x1, y1), members in clusters([body.box for body in bodies]):
        width = x1 - x0 + 1
        step = max(_BAND_SAMPLES // (width * _SAMPLES**2), 1)
        for top in range(y0, y1 + 1, step):
            height = min(step, y1 + 1 - top)
            depth, coded = scratch.buffers(height * _SAMPLES, width * _SAMPLES)
            for member in members:
                _fill(bodies[member], codes, x0, top, _SAMPLES, _STAGGER, depth, coded)
            kernels.blend(picture, x0, top, _SAMPLES, coded, palette, keeps, gain)
    return picture


def visibility(
    vertices_m: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mesh and the depth that the centre of each pixel shows.

    Args:
        vertices_m: Meshes (P, V, 3), as for `draw_meshes`; so are ``faces`` and ``intrinsics``.
        faces: Triangles (F, 3).
        intrinsics: K (3, 3) in pixels.
        size: (height, width) of the image.

    Returns:
        The mesh (H, W) int32, -1 where there is none; and the distance along z (H, W) float32 in
        metres, 0 where there is none.

    Raises:
        ValueError: As `draw_meshes`, or ``size`` is empty.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"an image has at least one pixel, not {size}")
    vertices_m, faces, intrinsics = check_meshes(vertices_m, faces, intrinsics)
    depth, coded = Scratch().buffers(height, width)
    for body in _place(vertices_m, faces, intrinsics, size):
        _fill(body, 0, 0, 0, 1, 0.0, depth, coded)
    covered = depth > 0
    person = np.where(covered, coded.astype(np.int32) // kernels.LEVELS, -1)
    return person.astype(np.int32), np.divide(1, depth, out=np.zeros_like(depth), where=covered)


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache, before the first frame."""
    triangle = np.array([[[0, 0, 1], [0, 1, 1], [1, 0, 1]]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    lens = np.array([[4.0, 0, 2], [0, 4.0, 2], [0, 0, 1]])
    draw_meshes(np.zeros((8, 8, 3), np.uint8), triangle, faces, np.ones((1, 3)), lens)


def clusters(boxes: Sequence[Box]) -> list[tuple[Box, list[int]]]:
    """Group boxes that touch, until no two groups' common boxes touch; return (box, members)."""
    groups: list[tuple[Box, list[int]]] = []
    for index, box in enumerate(boxes):
        members = [index]
        # A common box may touch groups that its parts did not touch.
        while touching := [group for group in groups if _touch(group[0], box)]:
            groups = [group for group in groups if not _touch(group[0], box)]
            for other, other_members in touching:
                low, high = zip(box[:2], other[:2]), zip(box[2:], other[2:])
                x0, y0, x1, y1 = *(min(pair) for pair in low), *(max(pair) for pair in high)
                box = (x0, y0, x1, y1)
                members += other_members
        groups.append((box, members))
    return groups


def _touch(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _place(
    vertices_m: np.ndarray,
    faces: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, ...],
    opacity: np.ndarray | None = None,
    flat: bool = False,
) -> Iterator[_Body]:
    """The bodies whose boxes reach into the image, projected and lit."""
    height, width = size[:2]
    for person, vertices in enumerate(vertices_m):
        values = np.empty((len(vertices), 2), np.float32)
        values[:, 1] = 1 if opacity is None else opacity[person]
        if flat:
            values[:, 0] = _FLAT
        else:
            kernels.shade(vertices, faces, values)
        # Lit before it is clipped: a cut changes the areas, and with them the normals.
        visible = faces
        if vertices[:, 2].min(initial=np.inf) < NEAR_M:
            vertices, values, visible = clip_near(vertices, values, faces, NEAR_M)
        points, bounds = np.empty((len(vertices), 3)), np.empty(4)
        # One type for whole and clipped meshes: numba compiles again for another one.
        kernels.project(vertices.astype(np.float64), intrinsics, points, bounds)
        # Written with `not`, so that NaN is refused too.
        if len(vertices) and not np.abs(bounds).max() < _FARTHEST_PX:
            raise ValueError("a mesh lies too far outside the image to be drawn")
        x0, y0 = np.maximum(np.floor(bounds[:2]), 0)
        x1, y1 = np.minimum(np.ceil(bounds[2:]), (width - 1, height - 1))
        if x0 <= x1 and y0 <= y1:
            yield _Body(person, points, values, visible, (int(x0), int(y0), int(x1), int(y1)))


def _fill(
    body: _Body,
    codes: int,
    left: int,
    top: int,
    samples: int,
    stagger: float,
    depth: np.ndarray,
    coded: np.ndarray,
) -> None:
    base = float(kernels.LEVELS * body.person)
    kernels.fill(
        body.points,
        body.faces,
        body.values,
        base,
        codes,
        left,
        top,
        samples,
        stagger,
        depth,
        coded,
    )


def _palette(colors: np.ndarray, fades: bool) -> np.ndarray:
    """The colour of every code (see `render.kernels.blend`), opaque ones only or all.

    A person's levels run from a dark shade of the colour, through the colour, to a light tint.
    """
    light = np.linspace(0, 1, kernels.LEVELS)[:, None]
    lit = 0.14 + 0.86 * np.minimum(light / 0.84, 1)
    white = 0.6 * (np.maximum(light - 0.7, 0) / 0.3) ** 2
    ramp = colors[:, None] * lit * (1 - white) + white
    rgb = np.rint(ramp * (255 * _PALETTE_UNITS)).astype(np.int64)
    packed = rgb[..., 0] | rgb[..., 1] << 16 | rgb[..., 2] << 32 | 1 << 48
    # A sum of a pixel's samples stays within its 16 bits: 4 * 4 * 255 * 16 = 65280.
    parts = np.arange(kernels.OPACITIES, 0 if fades else kernels.OPACITIES - 1, -1)
    packed = np.multiply.outer(parts, packed).reshape(-1)
    # Code 0 shows the image. The slice also fits a palette without people.
    packed[:1] = 0
    return packed
