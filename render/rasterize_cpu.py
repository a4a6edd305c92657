"""A z-buffer rasteriser for people's meshes, quick enough to be live on one CPU core.

Each cluster of people whose boxes touch is drawn into a buffer of its own, no larger than needed,
at twice the picture's resolution where that is affordable (edges then have four samples a pixel),
and blended into the picture. The kernels hold no lock, so other threads go on meanwhile.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NEAR_M = 0.05
_SUPERSAMPLE_LIMIT = 600_000
"""Boxes of more pixels than this are drawn with one sample a pixel."""
_FAR = 1e7


@njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz"})
def _shade(vertices, faces, shade):
    """Light for every vertex (V,) from its area-weighted normal: a lamp at the camera, a little
    from above, and a rim. Values above 1 go towards white."""
    count = vertices.shape[0]
    normals = np.zeros((count, 3), np.float32)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux = vertices[b, 0] - vertices[a, 0]
        uy = vertices[b, 1] - vertices[a, 1]
        uz = vertices[b, 2] - vertices[a, 2]
        vx = vertices[c, 0] - vertices[a, 0]
        vy = vertices[c, 1] - vertices[a, 1]
        vz = vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for v in range(count):
        nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        scale = 1.0 / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-20)
        ray = 1.0 / max(np.sqrt(x * x + y * y + z * z), 1e-20)
        facing = max(-(nx * x + ny * y + nz * z) * scale * ray, 0.0)
        above = max(-ny * scale, 0.0)
        rim = (1.0 - facing) ** 4
        gloss = max(facing - 0.8, 0.0) * 5.0
        light = 0.28 + 0.62 * facing + 0.14 * above - 0.18 * rim + 0.12 * gloss * gloss
        shade[v] = min(light, 1.35)


@njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz"})
def _fill(points, faces, shade, person, depth, light, owner):
    """Draw one body into the cluster's buffers.

    ``points`` (V, 3) are buffer x, y and 1/z (0 marks a vertex behind the near plane), ``depth``
    (h, w) holds the largest 1/z so far, ``light`` the shade there and ``owner`` the person.
    """
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        az, bz, cz = points[a, 2], points[b, 2], points[c, 2]
        if az <= 0.0 or bz <= 0.0 or cz <= 0.0:
            continue
        ax, ay = points[a, 0], points[a, 1]
        bx, by = points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # In an image whose y points down, faces seen from outside turn the other way.
        if area >= -1e-12:
            continue
        left = max(np.ceil(min(ax, bx, cx)), 0.0)
        right = min(np.floor(max(ax, bx, cx)), width - 1.0)
        top = max(np.ceil(min(ay, by, cy)), 0.0)
        bottom = min(np.floor(max(ay, by, cy)), height - 1.0)
        if left > right or top > bottom:
            continue
        scale = 1.0 / area
        # Barycentric weights of a and b step by a constant along a row.
        step_a, step_b = -(cy - by) * scale, -(ay - cy) * scale
        for y in range(int(top), int(bottom) + 1):
            wa = ((cx - bx) * (y - by) - (cy - by) * (left - bx)) * scale
            wb = ((ax - cx) * (y - cy) - (ay - cy) * (left - cx)) * scale
            first, last = int(left), int(right)
            if last - first > 8:
                # Long thin triangles cross few pixels of their box: go straight to them.
                near, far = 0.0, right - left
                for weight, step in ((wa, step_a), (wb, step_b), (1 - wa - wb, -step_a - step_b)):
                    if step > 1e-12:
                        near = max(near, -weight / step)
                    elif step < -1e-12:
                        far = min(far, -weight / step)
                skip = np.floor(near)
                last = min(last, first + int(max(np.ceil(far), -1.0)))
                first += int(min(skip, right - left + 1))
                wa += skip * step_a
                wb += skip * step_b
            for x in range(first, last + 1):
                wc = 1.0 - wa - wb
                if wa >= -1e-6 and wb >= -1e-6 and wc >= -1e-6:
                    inverse = wa * az + wb * bz + wc * cz
                    if inverse > depth[y, x]:
                        depth[y, x] = inverse
                        light[y, x] = wa * shade[a] + wb * shade[b] + wc * shade[c]
                        owner[y, x] = person
                wa += step_a
                wb += step_b


@njit(cache=True, nogil=True)
def _blend(image, left, top, samples, depth, light, owner, colors, alpha):
    """Average each pixel's samples and lay them over the image, in place."""
    height, width = depth.shape[0] // samples, depth.shape[1] // samples
    part = np.float32(1.0 / (samples * samples))
    for y in range(height):
        for x in range(width):
            red = green = blue = covered = np.float32(0.0)
            for j in range(samples):
                for i in range(samples):
                    sy, sx = y * samples + j, x * samples + i
                    if depth[sy, sx] > 0.0:
                        shade = light[sy, sx]
                        white = max(shade - np.float32(1.0), np.float32(0.0))
                        dim = min(shade, np.float32(1.0)) * (np.float32(1.0) - white)
                        who = owner[sy, sx]
                        red += colors[who, 0] * dim + white
                        green += colors[who, 1] * dim + white
                        blue += colors[who, 2] * dim + white
                        covered += np.float32(1.0)
            if covered > 0.0:
                keep = np.float32(1.0) - alpha * covered * part
                gain = alpha * part * np.float32(255.0)
                px = image[top + y, left + x]
                px[0] = np.uint8(px[0] * keep + red * gain + np.float32(0.5))
                px[1] = np.uint8(px[1] * keep + green * gain + np.float32(0.5))
                px[2] = np.uint8(px[2] * keep + blue * gain + np.float32(0.5))


@njit(cache=True, nogil=True)
def _project(vertices, intrinsics, points, box):
    """Pixels and 1/z of every vertex (0 behind the near plane); ``box`` gets their bounds."""
    for v in range(vertices.shape[0]):
        z = vertices[v, 2]
        if z < NEAR_M:
            points[v, 0] = points[v, 1] = points[v, 2] = 0.0
            continue
        x, y = vertices[v, 0] / z, vertices[v, 1] / z
        px = intrinsics[0, 0] * x + intrinsics[0, 1] * y + intrinsics[0, 2]
        py = intrinsics[1, 1] * y + intrinsics[1, 2]
        px, py = min(max(px, -_FAR), _FAR), min(max(py, -_FAR), _FAR)
        points[v, 0], points[v, 1], points[v, 2] = px, py, 1.0 / z
        box[0], box[1] = min(box[0], px), min(box[1], py)
        box[2], box[3] = max(box[2], px), max(box[3], py)


@njit(cache=True, nogil=True)
def _into_buffer(points, left, top, samples):
    """Image pixels to buffer pixels: centres at whole numbers in both."""
    half = 0.5 * (samples - 1)
    for v in range(points.shape[0]):
        points[v, 0] = (points[v, 0] - left) * samples + half
        points[v, 1] = (points[v, 1] - top) * samples + half


def clusters(
    boxes: list[tuple[int, int, int, int]],
) -> list[tuple[tuple[int, int, int, int], list[int]]]:
    """Group boxes (x0, y0, x1, y1), ends included, that touch: (common box, members)."""
    groups = [(box, [index]) for index, box in enumerate(boxes)]
    merged = True
    while merged:
        merged = False
        for i in range(len(groups)):
            for j in range(i + 1, len(groups)):
                (a, first), (b, second) = groups[i], groups[j]
                if a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]:
                    box = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
                    groups[i] = (box, first + second)
                    del groups[j]
                    merged = True
                    break
            if merged:
                break
    return groups


class Scratch:
    """Buffers kept between frames: fresh memory costs more than filling it. One a thread."""

    def __init__(self) -> None:
        self._flat = [np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.int32)]

    def buffers(self, height: int, width: int) -> list[np.ndarray]:
        """Depth (h, w), cleared, and light and owner, as they were left."""
        size = height * width
        if self._flat[0].size < size:
            self._flat = [np.empty(size, flat.dtype) for flat in self._flat]
        depth, light, owner = (flat[:size].reshape(height, width) for flat in self._flat)
        depth.fill(0.0)
        return [depth, light, owner]


def draw_meshes(
    image: np.ndarray,
    vertices_m: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray,
    intrinsics: np.ndarray,
    alpha: float = 0.85,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Draw P meshes over an image and return the picture; the image is left as it was.

    ``image`` RGB uint8 (H, W, 3); ``vertices_m`` (P, V, 3) in the camera's axes, metres;
    ``faces`` (F, 3), outside seen counter-clockwise; ``colors`` (P, 3) in [0, 1]; ``intrinsics``
    (3, 3) pixels. Triangles that reach behind the near plane (0.05 m) are left out. Raises
    ValueError when a vertex is not finite.
    """
    out = np.array(image, np.uint8, order="C")
    height, width = out.shape[:2]
    vertices_m = np.ascontiguousarray(vertices_m, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    lens = np.ascontiguousarray(intrinsics, np.float64)
    if not np.isfinite(vertices_m).all():
        raise ValueError("a mesh has vertices that are not finite")
    bodies, boxes = [], []
    for person in range(len(vertices_m)):
        points = np.empty((vertices_m.shape[1], 3))
        bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        _project(vertices_m[person], lens, points, bounds)
        low = np.maximum(np.floor(bounds[:2]), 0)
        high = np.minimum(np.ceil(bounds[2:]), (width - 1, height - 1))
        if (low <= high).all():
            bodies.append((person, points))
            boxes.append((*low.astype(int).tolist(), *high.astype(int).tolist()))
    scratch = scratch or Scratch()
    tint = np.ascontiguousarray(colors, np.float32).reshape(-1, 3)
    for (x0, y0, x1, y1), members in clusters(boxes):
        across, down = x1 - x0 + 1, y1 - y0 + 1
        samples = 2 if across * down <= _SUPERSAMPLE_LIMIT else 1
        depth, light, owner = scratch.buffers(down * samples, across * samples)
        for member in members:
            person, points = bodies[member]
            shade = np.empty(len(points), np.float32)
            _shade(vertices_m[person], faces, shade)
            _into_buffer(points, x0, y0, samples)
            _fill(points, faces, shade, person, depth, light, owner)
        _blend(out, x0, y0, samples, depth, light, owner, tint, np.float32(alpha))
    return out


def silhouettes(
    vertices_m: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Which person is nearest at each pixel: (H, W) int32, -1 where there is none."""
    height, width = size
    depth = np.zeros((height, width), np.float32)
    light = np.empty_like(depth)
    owner = np.full((height, width), -1, np.int32)
    faces = np.ascontiguousarray(faces, np.int32)
    for person, vertices in enumerate(np.ascontiguousarray(vertices_m, np.float32)):
        points = np.empty((len(vertices), 3))
        _project(vertices, np.ascontiguousarray(intrinsics, np.float64), points, np.zeros(4))
        _fill(points, faces, np.zeros(len(vertices), np.float32), person, depth, light, owner)
    return owner


def warm_up() -> None:
    """Compile (or load from numba's cache) every kernel, so that no frame waits for it."""
    triangle = np.array([[[0, 0, 1], [0, 1, 1], [1, 0, 1]]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    lens = np.array([[4.0, 0, 2], [0, 4.0, 2], [0, 0, 1]])
    draw_meshes(np.zeros((8, 8, 3), np.uint8), triangle, faces, np.ones((1, 3)), lens)
