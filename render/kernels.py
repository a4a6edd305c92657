"""The loops of the CPU rasteriser, compiled by numba.

They release the interpreter's lock and are single-threaded, so they run beside other threads and
may be called from any.
"""

from __future__ import annotations

import numpy as np

from numba_loops import compiled

# Without "nnan" and "ninf": comparisons with NaN and infinity keep their meaning.
_FAST = {"contract", "arcp", "nsz"}


def cache_folder() -> str | None:
    """Return the folder where the compiled loops are stored; None where no folder can be written.

    Without it they are compiled at every start, which takes some seconds.
    """
    return shade.stats.cache_path


LEVELS = 256
"""Number of codes for each person. A sample holds ``LEVELS * person + level`` with a level from 1
(dark) to 255 (light), or 0 where it shows the image. Samples that are not opaque have higher codes
(see `fill`)."""
OPACITIES = 4
"""Steps of a sample's opacity. The samples of a pixel round it differently, and so do neighbouring
pixels, so that a surface has thirty-two."""


@compiled(fastmath=_FAST)
def shade(vertices, faces, values):
    """Write the light on every vertex, from 1.5 to 254.5, into the first column of ``values``.

    It follows the vertex's area-weighted normal: a weak lamp at the camera, a strong lamp above its
    left shoulder that wraps around the shape, and dark grazing angles, which draw an outline.
    ``vertices`` (V, 3) float32, metres in the camera's axes; ``faces`` (F, 3); ``values`` (V, 2).
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
        wrapped = max((lamp + 0.6) / 1.6, 0.0)
        grazing = 1.0 - facing
        rim = grazing * grazing * grazing
        light = (0.20 + 0.27 * facing + 0.50 * wrapped) * (1.0 - 0.75 * rim)
        # Half a level away from the ends, so that interpolated levels stay within 1 to 255.
        values[v, 0] = 1.5 + 253.0 * min(max(light, 0.0), 1.0)


@compiled(fastmath=False)
def project(vertices, intrinsics, points, bounds):
    """Write image x, y and 1/z of every vertex into ``points`` (V, 3) float64.

    Their bounds x0, y0, x1, y1 go into ``bounds`` (4,). No vertex may lie behind the near plane.
    """
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


@compiled(fastmath=_FAST)
def fill(points, faces, values, base, codes, left, top, samples, stagger, depth, coded):
    """Draw one body into buffers with ``samples`` by ``samples`` samples for each pixel.

    The buffers begin at the image pixel (``left``, ``top``). Back faces are omitted, and the
    nearest surface wins.

    ``points`` (V, 3) float64 are from `project`; ``depth`` (h, w) float32 is the largest 1/z so
    far, at first 0; ``coded`` (h, w) uint16 the level there plus ``base``. ``stagger`` shifts the
    samples of even rows left and of odd rows right by this share of their distance: vertical edges
    then have four steps in a pixel instead of two (rotated-grid supersampling).

    ``values`` (V, 2) float32 are the level of each vertex and its opacity, from 0 to 1. A sample
    with the opacity n / `OPACITIES` has its code raised by ``codes * (OPACITIES - n)``, where
    ``codes`` is the number of codes of all people; with the opacity 0 it is left out.
    """
    height, width = depth.shape
    half = 0.5 * (samples - 1)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        # Pixel centres are at whole numbers: two samples of a pixel lie about 2 y + 0.5.
        ay = (points[a, 1] - top) * samples + half
        by = (points[b, 1] - top) * samples + half
        cy = (points[c, 1] - top) * samples + half
        # Rows first: of a band's triangles most lie above or below it.
        first_row = max(np.ceil(min(ay, by, cy)), 0.0)
        last_row = min(np.floor(max(ay, by, cy)), height - 1.0)
        if first_row > last_row:
            continue
        ax = (points[a, 0] - left) * samples + half
        bx = (points[b, 0] - left) * samples + half
        cx = (points[c, 0] - left) * samples + half
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # In an image whose y points down, faces seen from outside have a negative area. Slivers are
        # skipped with the back faces: their slopes would be noise.
        if area > -1e-6:
            continue
        west, east = max(min(ax, bx, cx), -0.5), min(max(ax, bx, cx), width - 0.5)
        if west > east:
            continue
        # The barycentric weights, 1/z and the level are linear over the image: each has a value at
        # x = 0 of a row, and a slope da, db, dc, dz, dl along it.
        scale = 1.0 / area
        da, db = (by - cy) * scale, (cy - ay) * scale
        dc = -da - db
        ea, eb = (cx - bx) * scale, (ax - cx) * scale
        # 0 marks a horizontal edge, which bounds no row from the side.
        ra = 1.0 / da if abs(da) > 1e-14 else 0.0
        rb = 1.0 / db if abs(db) > 1e-14 else 0.0
        rc = 1.0 / dc if abs(dc) > 1e-14 else 0.0
        az, bz, cz = points[a, 2], points[b, 2], points[c, 2]
        al, bl, cl = values[a, 0] + base, values[b, 0] + base, values[c, 0] + base
        ao, bo, co = values[a, 1], values[b, 1], values[c, 1]
        opaque = min(ao, bo, co) >= 1.0
        # In quarters, beside the level.
        do = OPACITIES * (da * ao + db * bo + dc * co)
        low, high = base + 1.0, base + 255.0
        dz = da * az + db * bz + dc * cz
        dl = da * al + db * bl + dc * cl
        for y in range(int(first_row), int(last_row) + 1):
            wa = ea * (y - by) - da * bx
            wb = eb * (y - cy) - db * cx
            wc = 1.0 - wa - wb
            # Each edge bounds the span of the row on one side. A horizontal edge has the whole row
            # inside or outside.
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
            # Slightly wider than exact, so that no sample falls between two triangles.
            first = max(int(np.ceil(start - shift - 1e-9)), 0)
            last = min(int(np.floor(end - shift + 1e-9)), width - 1)
            z = wa * az + wb * bz + wc * cz + dz * (first + shift)
            light = wa * al + wb * bl + wc * cl + dl * (first + shift)
            depth_row, coded_row = depth[y], coded[y]
            if opaque:
                for x in range(first, last + 1):
                    inverse = np.float32(z)
                    if inverse > depth_row[x]:
                        depth_row[x] = inverse
                        coded_row[x] = np.uint16(min(max(light, low), high))
                    z += dz
                    light += dl
                continue
            opacity = OPACITIES * (wa * ao + wb * bo + wc * co) + do * (first + shift)
            for x in range(first, last + 1):
                inverse = np.float32(z)
                # 1/16 to 15/16: for the four samples of a pixel, and in a checkerboard of pixels.
                turn = 2 * ((x & 1) + 2 * (y & 1)) + (((x >> 1) + (y >> 1) + left + top) & 1)
                part = int(min(opacity + 0.0625 + 0.125 * turn, OPACITIES))
                if inverse > depth_row[x] and part > 0:
                    depth_row[x] = inverse
                    code = int(min(max(light, low), high)) + codes * (OPACITIES - part)
                    coded_row[x] = np.uint16(code)
                z += dz
                light += dl
                opacity += do


@compiled(fastmath=_FAST)
def blend(image, left, top, samples, coded, palette, keeps, gain):
    """Average the samples of each pixel and blend them over ``image`` (H, W, 3) uint8, in place.

    ``palette`` (codes,) int64 holds red, green, blue and 1 in 16 bits each, times the opacity in
    steps, and 0 for code 0, so that one sum adds the colours of a pixel's samples and how much they
    cover. ``keeps`` (`OPACITIES` * samples² + 1,) is the image's share by how much is covered;
    ``gain`` converts sums of colours to the picture's scale.
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
