"""The loops of the CPU rasteriser, compiled by numba. None holds the interpreter's lock and all
are single-threaded, so they run beside any other thread and may be called from any."""

from __future__ import annotations

import numpy as np
from numba import njit

# Reordering of NaNs and infinities stays as written; the callers check for them.
_FAST = {"contract", "arcp", "nsz"}

LEVELS = 256
"""Codes a person takes in the buffer: ``LEVELS * person + level``, level 1 (dark) to 255 (light);
0 is a sample that shows the image."""


@njit(cache=True, nogil=True, fastmath=_FAST)
def shade(vertices, faces, level):
    """Light on every vertex (V,), as a level from 1.5 to 254.5, by its area-weighted normal.

    A weak lamp at the camera, a strong one above its left shoulder that wraps around the shape,
    and grazing angles darkened, which draws the outlines. ``vertices`` (V, 3) float32 metres.
    """
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
        facing = min(max(-(nx * x + ny * y + nz * z) * scale * ray, 0.0), 1.0)
        lamp = -(0.61 * nx + 0.71 * ny + 0.35 * nz) * scale
        wrapped = max((lamp + 0.4) / 1.4, 0.0)
        grazing = 1.0 - facing
        rim = grazing * grazing * grazing
        light = 0.10 + 0.25 * facing + 0.60 * wrapped - 0.13 * rim
        level[v] = 1.5 + 253.0 * min(max(light, 0.0), 1.0)


@njit(cache=True, nogil=True)
def project(vertices, intrinsics, points, bounds):
    """Image x, y and 1/z of every vertex into ``points`` (V, 3) float64; their x0, y0, x1, y1 into
    ``bounds`` (4,). No vertex lies behind the near plane."""
    bounds[0] = bounds[1] = np.inf
    bounds[2] = bounds[3] = -np.inf
    for v in range(vertices.shape[0]):
        inverse = 1.0 / np.float64(vertices[v, 2])
        x, y = vertices[v, 0] * inverse, vertices[v, 1] * inverse
        px = intrinsics[0, 0] * x + intrinsics[0, 1] * y + intrinsics[0, 2]
        py = intrinsics[1, 1] * y + intrinsics[1, 2]
        points[v, 0], points[v, 1], points[v, 2] = px, py, inverse
        bounds[0], bounds[1] = min(bounds[0], px), min(bounds[1], py)
        bounds[2], bounds[3] = max(bounds[2], px), max(bounds[3], py)


@njit(cache=True, nogil=True, fastmath=_FAST)
def fill(points, faces, level, base, left, top, samples, stagger, depth, coded):
    """Draw one body into buffers of ``samples`` by ``samples`` a pixel, from image pixel ``left``,
    ``top`` on: back faces left out, the nearest surface kept.

    ``points`` (V, 3) float64 as `project` gives them; ``depth`` (h, w) float32 the largest 1/z so
    far, 0 at first; ``coded`` (h, w) uint16 the level there plus ``base``. ``stagger`` shifts the
    samples of even rows left and of odd rows right by as much of their distance: upright edges
    then have four steps a pixel, not two (rotated-grid supersampling).
    """
    height, width = depth.shape
    half = 0.5 * (samples - 1)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ay = (points[a, 1] - top) * samples + half
        by = (points[b, 1] - top) * samples + half
        cy = (points[c, 1] - top) * samples + half
        first_row = max(np.ceil(min(ay, by, cy)), 0.0)
        last_row = min(np.floor(max(ay, by, cy)), height - 1.0)
        if first_row > last_row:
            continue
        ax = (points[a, 0] - left) * samples + half
        bx = (points[b, 0] - left) * samples + half
        cx = (points[c, 0] - left) * samples + half
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # In an image whose y points down, faces seen from outside turn the other way.
        # Slivers are left out with them: their slopes would be noise.
        if area > -1e-6:
            continue
        west, east = max(min(ax, bx, cx), -0.5), min(max(ax, bx, cx), width - 0.5)
        if west > east:
            continue
        # The barycentric weights, 1/z and the level are planes over the image: values at x = 0 of
        # a row, and slopes da, db, dc, dz, dl along it.
        scale = 1.0 / area
        da, db = (by - cy) * scale, (cy - ay) * scale
        dc = -da - db
        ea, eb = (cx - bx) * scale, (ax - cx) * scale
        ra = 1.0 / da if abs(da) > 1e-14 else 0.0
        rb = 1.0 / db if abs(db) > 1e-14 else 0.0
        rc = 1.0 / dc if abs(dc) > 1e-14 else 0.0
        az, bz, cz = points[a, 2], points[b, 2], points[c, 2]
        al, bl, cl = level[a] + base, level[b] + base, level[c] + base
        low, high = base + 1.0, base + 255.0
        dz = da * az + db * bz + dc * cz
        dl = da * al + db * bl + dc * cl
        for y in range(int(first_row), int(last_row) + 1):
            wa = ea * (y - by) - da * bx
            wb = eb * (y - cy) - db * cx
            wc = 1.0 - wa - wb
            # Each edge bounds the row's span from one side; a level edge takes all of it or none.
            start, end = west, east
            if ra > 0.0:
                start = max(start, -wa * ra)
            elif ra < 0.0:
                end = min(end, -wa * ra)
            elif wa < 0.0:
                continue
            if rb > 0.0:
                start = max(start, -wb * rb)
            elif rb < 0.0:
                end = min(end, -wb * rb)
            elif wb < 0.0:
                continue
            if rc > 0.0:
                start = max(start, -wc * rc)
            elif rc < 0.0:
                end = min(end, -wc * rc)
            elif wc < 0.0:
                continue
            if start > end + 1e-6:
                continue
            shift = stagger if y & 1 else -stagger
            # A hair wider than exact, so that no sample falls between two triangles.
            first = max(int(np.ceil(start - shift - 1e-9)), 0)
            last = min(int(np.floor(end - shift + 1e-9)), width - 1)
            z = wa * az + wb * bz + wc * cz + dz * (first + shift)
            light = wa * al + wb * bl + wc * cl + dl * (first + shift)
            depth_row, coded_row = depth[y], coded[y]
            for x in range(first, last + 1):
                inverse = np.float32(z)
                if inverse > depth_row[x]:
                    depth_row[x] = inverse
                    coded_row[x] = np.uint16(min(max(light, low), high))
                z += dz
                light += dl


@njit(cache=True, nogil=True, fastmath=_FAST)
def blend(image, left, top, samples, coded, palette, keeps, gain):
    """Average each pixel's samples and lay them over ``image`` (H, W, 3) uint8, in place.

    ``palette`` (codes,) int64 holds red, green, blue and 1 in 16 bits each, and 0 for code 0, so
    that one sum adds up a pixel's samples and counts those covered. ``keeps`` (samples² + 1,) is
    the image's share for so many covered; ``gain`` takes sums of colour to the picture's scale.
    """
    half = np.float32(0.5)
    height, width = coded.shape[0] // samples, coded.shape[1] // samples
    for y in range(height):
        row = image[top + y, left : left + width]
        upper, lower = coded[samples * y], coded[samples * y + samples - 1]
        for x in range(width):
            if samples == 2:
                total = palette[upper[2 * x]] + palette[upper[2 * x + 1]]
                total += palette[lower[2 * x]] + palette[lower[2 * x + 1]]
            else:
                total = palette[upper[x]]
            if total == 0:
                continue
            keep = keeps[total >> 48]
            for channel in range(3):
                color = np.float32((total >> (16 * channel)) & 0xFFFF)
                row[x, channel] = np.uint8(np.float32(row[x, channel]) * keep + color * gain + half)
