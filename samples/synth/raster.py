"""The inner loops of the sample renderer, compiled by numba: coverage with depth, light, texture.

Coverage and depth follow Pineda, A parallel algorithm for polygon rasterization (SIGGRAPH 1988);
shadows follow Williams, Casting curved shadows on curved surfaces (SIGGRAPH 1978).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def rasterize(points, faces, nearest, ids):
    """Draw triangles into ``nearest`` (h, w) float32, the largest key so far, and ``ids`` (h, w)
    int32, the triangle it belongs to. The caller clears both, to 0 and -1.

    ``points`` (V, 3) float64 are column, row (whole numbers are sample centres) and a key above 0,
    which is linear in the picture and larger for nearer points (1/z of a perspective camera).
    Triangles with a key of 0 or less are left out.
    """
    height, width = nearest.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        if points[a, 2] <= 0 or points[b, 2] <= 0 or points[c, 2] <= 0:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        left, right = max(np.ceil(min(ax, bx, cx)), 0), min(np.floor(max(ax, bx, cx)), width - 1)
        top, low = max(np.ceil(min(ay, by, cy)), 0), min(np.floor(max(ay, by, cy)), height - 1)
        if area == 0 or left > right or top > low:
            continue
        for row in range(int(top), int(low) + 1):
            for column in range(int(left), int(right) + 1):
                u = ((bx - column) * (cy - row) - (by - row) * (cx - column)) / area
                v = ((cx - column) * (ay - row) - (cy - row) * (ax - column)) / area
                w = 1.0 - u - v
                if u < 0 or v < 0 or w < 0:
                    continue
                key = u * points[a, 2] + v * points[b, 2] + w * points[c, 2]
                if key > nearest[row, column]:
                    nearest[row, column] = key
                    ids[row, column] = f


@njit(cache=True, nogil=True)
def vertex_normals(vertices, faces):
    """Return the area-weighted unit normals (V, 3) of vertices (V, 3)."""
    normals = np.zeros_like(vertices)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux = vertices[b, 0] - vertices[a, 0]
        uy = vertices[b, 1] - vertices[a, 1]
        uz = vertices[b, 2] - vertices[a, 2]
        vx = vertices[c, 0] - vertices[a, 0]
        vy = vertices[c, 1] - vertices[a, 1]
        vz = vertices[c, 2] - vertices[a, 2]
        for k in (a, b, c):
            normals[k, 0] += uy * vz - uz * vy
            normals[k, 1] += uz * vx - ux * vz
            normals[k, 2] += ux * vy - uy * vx
    for v in range(len(normals)):
        normals[v] /= max(np.sqrt((normals[v] ** 2).sum()), 1e-12)
    return normals


@njit(cache=True, nogil=True)
def _lit(shadow, x, y, key):
    """Return the share of four neighbouring shadow map cells in which a point is lit."""
    column, row = int(np.floor(x)), int(np.floor(y))
    if column < 0 or row < 0 or column + 1 >= shadow.shape[1] or row + 1 >= shadow.shape[0]:
        return 1.0
    u, v = x - column, y - row
    light = 0.0
    for j in range(2):
        for i in range(2):
            if key >= shadow[row + j, column + i]:
                light += (u if i else 1 - u) * (v if j else 1 - v)
    return light


@njit(cache=True, nogil=True)
def _unshadowed(point, normal, axes, corner, cell, bias, dark):
    """Return the share of a directional light that reaches ``point`` (3 numbers), by a shadow map.
    The point is first moved off its surface by ``bias`` metres, or it would shadow itself."""
    x = point[0] + bias * normal[0]
    y = point[1] + bias * normal[1]
    z = point[2] + bias * normal[2]
    u = axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z
    v = axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z
    key = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
    return _lit(dark, (u - corner[0]) / cell, (v - corner[1]) / cell, key + bias)


@njit(cache=True, nogil=True)
def add_sky(points, normals, towards, radiance, light, cell, bias, out):
    """Add the light of a patch of sky to the irradiance ``out`` (V, 3). The patch is in direction
    ``towards`` (3,); ``radiance`` (3,) includes its solid angle; ``light`` is as `light_map`
    returns it."""
    dark, axes, corner = light
    for v in range(len(points)):
        facing = (
            normals[v, 0] * towards[0] + normals[v, 1] * towards[1] + normals[v, 2] * towards[2]
        )
        if facing > 0:
            share = facing * _unshadowed(points[v], normals[v], axes, corner, cell, bias, dark)
            for k in range(3):
                out[v, k] += share * radiance[k]


@njit(cache=True, nogil=True)
def shade(ids, points, faces, corners, texture, normals, ambient, view, lamp, shadow, out):
    """Add lit, textured triangles to ``out`` (h, w, 4): linear colour times coverage, and coverage.

    ``ids`` (s*h, s*w) are as `rasterize` fills them from ``points``; ``corners`` (F, 3, 2) are
    texture coordinates in texels; ``texture`` (T, T', 4) is linear albedo and gloss; ``normals``
    and ``ambient`` are (V, 3), the normals in the camera's axes. ``view`` is (focal length, column
    and row of the optical axis, samples per pixel, weight), the first three in samples; ``lamp`` is
    (direction to the sun (3,), its irradiance (3,)); ``shadow`` is (`light_map` of the sun, cell,
    bias).
    """
    focal, centre_x, centre_y, samples, weight = view
    sun, irradiance = lamp
    (dark, axes, corner), cell, bias = shadow
    high, wide = texture.shape[0] - 1, texture.shape[1] - 1
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            f = ids[row, column]
            if f < 0:
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
            cx, cy = points[c, 0], points[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            u = ((bx - column) * (cy - row) - (by - row) * (cx - column)) / area * points[a, 2]
            v = ((cx - column) * (ay - row) - (cy - row) * (ax - column)) / area * points[b, 2]
            w = ((ax - column) * (by - row) - (ay - row) * (bx - column)) / area * points[c, 2]
            z = 1.0 / (u + v + w)
            u, v, w = u * z, v * z, w * z
            rx, ry = (column - centre_x) / focal, (row - centre_y) / focal
            nx = u * normals[a, 0] + v * normals[b, 0] + w * normals[c, 0]
            ny = u * normals[a, 1] + v * normals[b, 1] + w * normals[c, 1]
            nz = u * normals[a, 2] + v * normals[b, 2] + w * normals[c, 2]
            size = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
            # Thin open parts, such as a brim, are visible from both sides.
            size = -size if nx * rx + ny * ry + nz > 0.3 * size else size
            nx, ny, nz = nx / size, ny / size, nz / size
            s = u * corners[f, 0, 0] + v * corners[f, 1, 0] + w * corners[f, 2, 0]
            t = u * corners[f, 0, 1] + v * corners[f, 1, 1] + w * corners[f, 2, 1]
            i, j = min(max(int(s), 0), wide - 1), min(max(int(t), 0), high - 1)
            s, t = s - i, t - j
            facing = max(nx * sun[0] + ny * sun[1] + nz * sun[2], 0.0)
            seen, shine = 0.0, 0.0
            if facing > 0:
                seen = _unshadowed(
                    (rx * z, ry * z, z), (nx, ny, nz), axes, corner, cell, bias, dark
                )
                ray = np.sqrt(rx * rx + ry * ry + 1)
                hx, hy, hz = sun[0] - rx / ray, sun[1] - ry / ray, sun[2] - 1 / ray
                half = max(np.sqrt(hx * hx + hy * hy + hz * hz), 1e-9)
                shine = seen * max((hx * nx + hy * ny + hz * nz) / half, 0.0) ** 20
            y, x = int(row // samples), int(column // samples)
            gloss = texture[j, i, 3]
            for k in range(3):
                albedo = (1 - t) * ((1 - s) * texture[j, i, k] + s * texture[j, i + 1, k]) + t * (
                    (1 - s) * texture[j + 1, i, k] + s * texture[j + 1, i + 1, k]
                )
                light = u * ambient[a, k] + v * ambient[b, k] + w * ambient[c, k]
                light += seen * facing * irradiance[k]
                out[y, x, k] += weight * (albedo * light + gloss * shine * irradiance[k])
            out[y, x, 3] += weight


def light_map(points: np.ndarray, faces: np.ndarray, towards: np.ndarray, cell: float) -> tuple:
    """Return the shadow map of a directional light over points (V, 3): the map (n, m) of the
    largest distance towards the light, its axes (3, 3) (rows: right, down, towards the light) and
    its corner (2,)."""
    side = np.cross(towards, [0.3, 0.1, 1.0] if abs(towards[2]) < 0.8 else [1.0, 0.2, 0.1])
    side /= np.linalg.norm(side)
    axes = np.stack((side, np.cross(towards, side), towards))
    seen = points @ axes.T
    low = seen.min(0) - 2 * cell
    shape = np.ceil((seen.max(0) - low) / cell).astype(int)[1::-1] + 3
    nearest, ids = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
    # Keys must be above 0, so they are counted from below the lowest point; undone below.
    rasterize((seen - low) / [cell, cell, 1.0], faces, nearest, ids)
    return np.where(ids >= 0, nearest + low[2], -1e9).astype(np.float32), axes, low[:2]
