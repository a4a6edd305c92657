"""The GPU rasteriser's kernels, in Triton: those of `render.kernels`, for many meshes at once.

A sample has 64 bits: above, 1/z as a float's bits; below, ``256 * mesh + level``. An atomic maximum
keeps the largest, so the result does not depend on the order of the triangles. Samples lie as on
the CPU: two by two in a pixel, even rows a quarter left, odd rows a quarter right. A sample of less
opacity has the quarters that it lacks above bit 24.

All kernels read the table of `render.table_gpu`. It has the addresses of pictures and meshes, so
these may be in any tensors, and pictures may differ in size.
"""

from __future__ import annotations

import triton
import triton.language as tl

from render import table_gpu as words
from triton_launch import DirectKernel

LEVELS = 256
LARGE = 512
"""A triangle whose box has more samples than this is shared by several programs."""
TILE = 32

_WORDS = tl.constexpr(words.WORDS)
_SOURCE = tl.constexpr(words.SOURCE)
_FIRST_MESH, _NEAR = tl.constexpr(words.FIRST_MESH), tl.constexpr(words.NEAR)
_SAMPLES, _BOX = tl.constexpr(words.SAMPLES), tl.constexpr(words.BOX)
_HEIGHT, _WIDTH = tl.constexpr(words.HEIGHT), tl.constexpr(words.WIDTH)
_LENS, _ALPHA = tl.constexpr(words.LENS), tl.constexpr(words.ALPHA)
_OPACITY, _PICTURE = tl.constexpr(words.OPACITY), tl.constexpr(words.PICTURE)
_COLOR = tl.constexpr(words.COLOR)


@triton.jit
def _number(word):
    """Return the float32 in the lower half of a word."""
    return tl.load(word).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _floats(word):
    """Return the address in a word as that of float32."""
    return tl.load(word).to(tl.pointer_type(tl.float32))


@triton.jit
def _mesh_row(table, mesh):
    """Return the row of a mesh in the table."""
    return table + (tl.load(table + _FIRST_MESH) + mesh) * _WORDS


@triton.jit
def _picture_row(table, row):
    """Return the row of a mesh's picture in the table."""
    return table + tl.load(row + _PICTURE) * _WORDS


@DirectKernel
@triton.jit
def copy(table, BLOCK: tl.constexpr):
    """Copy to each picture the frame that it is drawn over, if that is given.

    Programs along the second axis have a picture each; those along the first share its bytes.
    """
    picture = table + (1 + tl.program_id(1)) * _WORDS
    source = tl.load(picture + _SOURCE)
    if source != 0:
        target = tl.load(picture)
        size = 3 * tl.load(picture + _HEIGHT) * tl.load(picture + _WIDTH)
        # Words of 8 bytes where both addresses allow it, then bytes.
        count = tl.where((source | target) % 8 == 0, size // 8, 0)
        step = tl.arange(0, BLOCK)
        first = tl.program_id(0).to(tl.int64) * BLOCK
        stride = tl.num_programs(0) * BLOCK
        for begin in range(first, count, stride):
            at = begin + step
            value = tl.load(source.to(tl.pointer_type(tl.int64)) + at, mask=at < count)
            tl.store(target.to(tl.pointer_type(tl.int64)) + at, value, mask=at < count)
        for begin in range(8 * count + first, size, stride):
            at = begin + step
            value = tl.load(source.to(tl.pointer_type(tl.uint8)) + at, mask=at < size)
            tl.store(target.to(tl.pointer_type(tl.uint8)) + at, value, mask=at < size)


@DirectKernel
@triton.jit
def place(
    table, neighbours, faces, points, COUNT: tl.constexpr, VALENCE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Light and project every vertex.

    Writes sample x, y, 1/z (0 behind the near plane) and the level into ``points`` (B, V, 4), and
    the box of each picture into the table.

    ``neighbours`` (V, VALENCE) the faces of each vertex in rising order, or -1; ``faces`` (F, 3).
    """
    mesh = tl.program_id(1)
    row = _mesh_row(table, mesh)
    picture = _picture_row(table, row)
    base = _floats(row)
    fx = _number(picture + _LENS)
    skew = _number(picture + _LENS + 1)
    cx = _number(picture + _LENS + 2)
    fy = _number(picture + _LENS + 3)
    cy = _number(picture + _LENS + 4)
    near = _number(table + _NEAR)
    height = tl.load(picture + _HEIGHT).to(tl.int32)
    width = tl.load(picture + _WIDTH).to(tl.int32)
    vertex = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = vertex < COUNT
    nx = tl.zeros((BLOCK,), tl.float32)
    ny = tl.zeros((BLOCK,), tl.float32)
    nz = tl.zeros((BLOCK,), tl.float32)
    # Each vertex gathers its faces in a fixed order, so its light is the same every time.
    for k in range(0, VALENCE):
        face = tl.load(neighbours + vertex * VALENCE + k, mask=there, other=-1)
        known = face >= 0
        a = tl.load(faces + face * 3, mask=known, other=0) * 3
        b = tl.load(faces + face * 3 + 1, mask=known, other=0) * 3
        c = tl.load(faces + face * 3 + 2, mask=known, other=0) * 3
        ax = tl.load(base + a, mask=known, other=0.0)
        ay = tl.load(base + a + 1, mask=known, other=0.0)
        az = tl.load(base + a + 2, mask=known, other=0.0)
        ux = tl.load(base + b, mask=known, other=0.0) - ax
        uy = tl.load(base + b + 1, mask=known, other=0.0) - ay
        uz = tl.load(base + b + 2, mask=known, other=0.0) - az
        vx = tl.load(base + c, mask=known, other=0.0) - ax
        vy = tl.load(base + c + 1, mask=known, other=0.0) - ay
        vz = tl.load(base + c + 2, mask=known, other=0.0) - az
        nx += uy * vz - uz * vy
        ny += uz * vx - ux * vz
        nz += ux * vy - uy * vx
    x = tl.load(base + vertex * 3, mask=there, other=0.0)
    y = tl.load(base + vertex * 3 + 1, mask=there, other=0.0)
    z = tl.load(base + vertex * 3 + 2, mask=there, other=1.0)
    scale = 1.0 / tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-20)
    ray = 1.0 / tl.maximum(tl.sqrt(x * x + y * y + z * z), 1e-20)
    facing = tl.minimum(tl.maximum(-(nx * x + ny * y + nz * z) * scale * ray, 0.0), 1.0)
    lamp = -(0.61 * nx + 0.71 * ny + 0.35 * nz) * scale
    wrapped = tl.maximum((lamp + 0.6) / 1.6, 0.0)
    grazing = 1.0 - facing
    rim = grazing * grazing * grazing
    light = (0.20 + 0.27 * facing + 0.50 * wrapped) * (1.0 - 0.75 * rim)
    level = 1.5 + 253.0 * tl.minimum(tl.maximum(light, 0.0), 1.0)

    front = z >= near
    inverse = 1.0 / tl.where(front, z, 1.0)
    px = (fx * x + skew * y) * inverse + cx
    py = fy * y * inverse + cy
    out = points + (mesh.to(tl.int64) * COUNT + vertex) * 4
    # In samples: the two samples of a pixel lie about 2 x + 0.5.
    tl.store(out, px * 2.0 + 0.5, mask=there)
    tl.store(out + 1, py * 2.0 + 0.5, mask=there)
    tl.store(out + 2, tl.where(front, inverse, 0.0), mask=there)
    tl.store(out + 3, level, mask=there)

    # A mesh that reaches behind the near plane may fill the picture.
    behind = tl.max(tl.where(there & (z < near), 1, 0)) > 0
    # Bounded, so that the conversion to integers cannot overflow.
    px = tl.minimum(tl.maximum(px, -2.0), width + 1.0)
    py = tl.minimum(tl.maximum(py, -2.0), height + 1.0)
    x0 = tl.min(tl.where(there, tl.floor(px).to(tl.int32), width)) - 1
    y0 = tl.min(tl.where(there, tl.floor(py).to(tl.int32), height)) - 1
    x1 = tl.max(tl.where(there, tl.floor(px).to(tl.int32), -1)) + 2
    y1 = tl.max(tl.where(there, tl.floor(py).to(tl.int32), -1)) + 2
    box = picture + _BOX
    tl.atomic_min(box, tl.where(behind, 0, x0).to(tl.int64))
    tl.atomic_min(box + 1, tl.where(behind, 0, y0).to(tl.int64))
    tl.atomic_max(box + 2, tl.where(behind, width, x1).to(tl.int64))
    tl.atomic_max(box + 3, tl.where(behind, height, y1).to(tl.int64))


@triton.jit
def _quarters(x, y, opacity):
    """Return the opacity of samples in whole quarters; see `render.kernels.fill`."""
    turn = 2 * ((x & 1) + 2 * (y & 1)) + (((x >> 1) ^ (y >> 1)) & 1)
    part = 4.0 * opacity + 0.0625 + 0.125 * turn.to(tl.float32)
    return tl.minimum(part, 4.0).to(tl.int32)


@DirectKernel
@triton.jit
def fill_small(
    table, points, faces, samples, items, COUNT: tl.constexpr, FACES: tl.constexpr,
    LARGE: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, FADES: tl.constexpr,
):  # fmt: skip
    """Draw the triangles with small boxes, several per program, into ``samples``.

    A picture has 2 H rows of 2 W samples. Opacity is read with FADES only.

    The others, and those that reach behind the near plane, are appended to the list ``items``, for
    `fill_large`.
    """
    mesh = tl.program_id(1)
    at_mesh = _mesh_row(table, mesh)
    picture = _picture_row(table, at_mesh)
    height = 2 * tl.load(picture + _HEIGHT).to(tl.int32)
    width = 2 * tl.load(picture + _WIDTH).to(tl.int32)
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = face < FACES
    base = points + mesh.to(tl.int64) * COUNT * 4
    i = tl.load(faces + face * 3, mask=there, other=0)
    j = tl.load(faces + face * 3 + 1, mask=there, other=0)
    h = tl.load(faces + face * 3 + 2, mask=there, other=0)
    a = base + i * 4
    b = base + j * 4
    c = base + h * 4
    ax = tl.load(a)
    ay = tl.load(a + 1)
    az = tl.load(a + 2)
    al = tl.load(a + 3)
    bx = tl.load(b)
    by = tl.load(b + 1)
    bz = tl.load(b + 2)
    bl = tl.load(b + 3)
    cx = tl.load(c)
    cy = tl.load(c + 1)
    cz = tl.load(c + 2)
    cl = tl.load(c + 3)
    if FADES:
        shown_at = _floats(at_mesh + _OPACITY)
        ao = tl.load(shown_at + i)
        bo = tl.load(shown_at + j)
        co = tl.load(shown_at + h)
    nearest = tl.maximum(az, tl.maximum(bz, cz))
    whole = tl.minimum(az, tl.minimum(bz, cz)) > 0.0
    # 1/z is 0 behind the near plane, so these triangles reach across it.
    cut = there & (nearest > 0.0) & (whole == 0)

    # Coordinates relative to a corner lose no digits to differences of large numbers.
    ux = bx - ax
    uy = by - ay
    vx = cx - ax
    vy = cy - ay
    area = ux * vy - uy * vx
    first_x = tl.minimum(tl.maximum(tl.minimum(ax, tl.minimum(bx, cx)), -1.0), width + 1.0)
    last_x = tl.minimum(tl.maximum(tl.maximum(ax, tl.maximum(bx, cx)), -1.0), width + 1.0)
    first_y = tl.minimum(tl.maximum(tl.minimum(ay, tl.minimum(by, cy)), -1.0), height + 1.0)
    last_y = tl.minimum(tl.maximum(tl.maximum(ay, tl.maximum(by, cy)), -1.0), height + 1.0)
    # The samples of a row lie up to a quarter beside whole numbers.
    col = tl.maximum(tl.ceil(first_x - 0.25).to(tl.int32), 0)
    cols = tl.minimum(tl.floor(last_x + 0.25).to(tl.int32), width - 1) - col + 1
    row = tl.maximum(tl.ceil(first_y).to(tl.int32), 0)
    rows = tl.minimum(tl.floor(last_y).to(tl.int32), height - 1) - row + 1
    # In an image whose y points down, faces seen from outside have a negative area; slivers
    # are skipped with those seen from inside.
    shown = there & whole & (area < -1e-6) & (cols > 0) & (rows > 0)
    large = shown & (rows * cols > LARGE)
    listed = large | cut
    # The list's length is the table's first word.
    ones = tl.full((BLOCK,), 1, tl.int64)
    at = tl.atomic_add(table + tl.zeros((BLOCK,), tl.int32), ones, mask=listed)
    tl.store(items + at, mesh * FACES + face, mask=listed)

    small = shown & (large == 0)
    scale = 1.0 / tl.where(small, area, -1.0)
    # All triangles of a program run as many rounds as the largest of them.
    most_rows = tl.max(tl.where(small, rows, 0))
    most_cols = tl.max(tl.where(small, cols, 0))
    step = tl.arange(0, COLUMNS)
    width_ = width.to(tl.int64)
    start = samples + tl.load(picture + _SAMPLES)
    for dy in range(0, most_rows):
        y = row + dy
        shift = tl.where(y % 2 == 1, 0.25, -0.25)
        ry = y.to(tl.float32) - ay
        for dx in range(0, most_cols, COLUMNS):
            x = col[:, None] + dx + step[None, :]
            rx = x.to(tl.float32) + shift[:, None] - ax[:, None]
            # Barycentric weights of b and c; slightly wider than exact, so that no sample falls
            # between two triangles.
            wb = (rx * vy[:, None] - ry[:, None] * vx[:, None]) * scale[:, None]
            wc = (ry[:, None] * ux[:, None] - rx * uy[:, None]) * scale[:, None]
            wa = 1.0 - wb - wc
            inside = (wa >= -1e-6) & (wb >= -1e-6) & (wc >= -1e-6)
            inside = inside & (small & (dy < rows))[:, None]
            inside = inside & (x < (col + cols)[:, None])
            depth = wa * az[:, None] + wb * bz[:, None] + wc * cz[:, None]
            level = wa * al[:, None] + wb * bl[:, None] + wc * cl[:, None]
            level = tl.minimum(tl.maximum(level, 1.0), 255.0).to(tl.int32)
            code = (mesh * 256 + level).to(tl.int64)
            if FADES:
                shares = wa * ao[:, None] + wb * bo[:, None] + wc * co[:, None]
                quarters = _quarters(x, y[:, None], shares)
                inside = inside & (quarters > 0)
                code = code | ((4 - quarters).to(tl.int64) << 24)
            # The bits of a positive float, read as an integer, have the order of the floats.
            packed = (depth.to(tl.int32, bitcast=True).to(tl.int64) << 32) | code
            target = start + y.to(tl.int64)[:, None] * width_ + x
            tl.atomic_max(target, packed, mask=inside)


@triton.jit
def _fill_triangle(
    ax, ay, az, al, ao, bx, by, bz, bl, bo, cx, cy, cz, cl, co, mesh, start, height, width,
    part, parts, TILE: tl.constexpr, FADES: tl.constexpr,
):  # fmt: skip
    """Draw one triangle (in sample coordinates) tile by tile: every ``parts``-th tile from ``part``
    on."""
    ux = bx - ax
    uy = by - ay
    vx = cx - ax
    vy = cy - ay
    area = ux * vy - uy * vx
    first_x = tl.minimum(tl.maximum(tl.minimum(ax, tl.minimum(bx, cx)), -1.0), width + 1.0)
    last_x = tl.minimum(tl.maximum(tl.maximum(ax, tl.maximum(bx, cx)), -1.0), width + 1.0)
    first_y = tl.minimum(tl.maximum(tl.minimum(ay, tl.minimum(by, cy)), -1.0), height + 1.0)
    last_y = tl.minimum(tl.maximum(tl.maximum(ay, tl.maximum(by, cy)), -1.0), height + 1.0)
    col = tl.maximum(tl.ceil(first_x - 0.25).to(tl.int32), 0)
    cols = tl.minimum(tl.floor(last_x + 0.25).to(tl.int32), width - 1) - col + 1
    row = tl.maximum(tl.ceil(first_y).to(tl.int32), 0)
    rows = tl.minimum(tl.floor(last_y).to(tl.int32), height - 1) - row + 1
    shown = (area < -1e-6) & (cols > 0) & (rows > 0)
    across = (cols + TILE - 1) // TILE
    tiles = tl.where(shown, across * ((rows + TILE - 1) // TILE), 0)
    scale = 1.0 / tl.where(shown, area, -1.0)
    step = tl.arange(0, TILE)
    width_ = width.to(tl.int64)
    for tile in range(part, tiles, parts):
        y = row + (tile // across) * TILE + step
        x = (col + (tile % across) * TILE + step)[None, :]
        shift = tl.where(y % 2 == 1, 0.25, -0.25)
        ry = (y.to(tl.float32) - ay)[:, None]
        rx = x.to(tl.float32) + shift[:, None] - ax
        wb = (rx * vy - ry * vx) * scale
        wc = (ry * ux - rx * uy) * scale
        wa = 1.0 - wb - wc
        inside = (wa >= -1e-6) & (wb >= -1e-6) & (wc >= -1e-6)
        inside = inside & (y < row + rows)[:, None] & (x < col + cols)
        depth = wa * az + wb * bz + wc * cz
        level = tl.minimum(tl.maximum(wa * al + wb * bl + wc * cl, 1.0), 255.0).to(tl.int32)
        code = (mesh * 256 + level).to(tl.int64)
        if FADES:
            quarters = _quarters(x, y[:, None], wa * ao + wb * bo + wc * co)
            inside = inside & (quarters > 0)
            code = code | ((4 - quarters).to(tl.int64) << 24)
        packed = (depth.to(tl.int32, bitcast=True).to(tl.int64) << 32) | code
        target = start + y.to(tl.int64)[:, None] * width_ + x
        tl.atomic_max(target, packed, mask=inside)


@DirectKernel
@triton.jit
def fill_large(
    table, points, faces, samples, items, COUNT: tl.constexpr, FACES: tl.constexpr,
    TILE: tl.constexpr, FADES: tl.constexpr,
):  # fmt: skip
    """Draw the triangles on the list, clipped at the near plane.

    Programs along the first axis share the list, those along the second the tiles of a triangle.
    """
    count = tl.load(table).to(tl.int32)
    near = _number(table + _NEAR)
    for k in range(tl.program_id(0), count, tl.num_programs(0)):
        item = tl.load(items + k)
        mesh = item // FACES
        face = faces + (item % FACES) * 3
        row = _mesh_row(table, mesh)
        picture = _picture_row(table, row)
        height = 2 * tl.load(picture + _HEIGHT).to(tl.int32)
        width = 2 * tl.load(picture + _WIDTH).to(tl.int32)
        i = tl.load(face)
        j = tl.load(face + 1)
        h = tl.load(face + 2)
        base = _floats(row)
        lit = points + mesh.to(tl.int64) * COUNT * 4 + 3
        zi = tl.load(base + i * 3 + 2)
        zj = tl.load(base + j * 3 + 2)
        zh = tl.load(base + h * 3 + 2)
        # Rotate the corners so that those before the plane come first, as p, or as p and q.
        alone_j = (zi < near) & (zj >= near) & (zh < near)
        alone_h = (zi < near) & (zj < near) & (zh >= near)
        without_i = (zi < near) & (zj >= near) & (zh >= near)
        without_j = (zi >= near) & (zj < near) & (zh >= near)
        second = alone_j | without_i
        third = alone_h | without_j
        p = tl.where(second, j, tl.where(third, h, i))
        q = tl.where(second, h, tl.where(third, i, j))
        r = tl.where(second, i, tl.where(third, j, h))
        xp = tl.load(base + p * 3)
        yp = tl.load(base + p * 3 + 1)
        zp = tl.load(base + p * 3 + 2)
        lp = tl.load(lit + p * 4)
        xq = tl.load(base + q * 3)
        yq = tl.load(base + q * 3 + 1)
        zq = tl.load(base + q * 3 + 2)
        lq = tl.load(lit + q * 4)
        xr = tl.load(base + r * 3)
        yr = tl.load(base + r * 3 + 1)
        zr = tl.load(base + r * 3 + 2)
        lr = tl.load(lit + r * 4)
        op = 1.0
        oq = 1.0
        orr = 1.0
        if FADES:
            shown_at = _floats(row + _OPACITY)
            op = tl.load(shown_at + p)
            oq = tl.load(shown_at + q)
            orr = tl.load(shown_at + r)
        # Where the sides p-r, q-r and p-q cross the plane.
        # A side that does not cross has a share that nothing reads; the 1 avoids a division by
        # zero.
        s = (zp - near) / tl.where(zr < near, zp - zr, 1.0)
        xpr = xp + s * (xr - xp)
        ypr = yp + s * (yr - yp)
        lpr = lp + s * (lr - lp)
        opr = op + s * (orr - op)
        t = tl.where(zq >= near, (zq - near) / tl.where(zr < near, zq - zr, 1.0), 0.0)
        xqr = xq + t * (xr - xq)
        yqr = yq + t * (yr - yq)
        lqr = lq + t * (lr - lq)
        oqr = oq + t * (orr - oq)
        u = (zp - near) / tl.where(zq < near, zp - zq, 1.0)
        alone = zq < near
        # First triangle: p, q (or where p-q crosses), r (or where p-r crosses).
        x1 = tl.where(alone, xp + u * (xq - xp), xq)
        y1 = tl.where(alone, yp + u * (yq - yp), yq)
        z1 = tl.where(alone, near, zq)
        l1 = tl.where(alone, lp + u * (lq - lp), lq)
        o1 = tl.where(alone, op + u * (oq - op), oq)
        cut = zr < near
        x2 = tl.where(cut, xpr, xr)
        y2 = tl.where(cut, ypr, yr)
        z2 = tl.where(cut, near, zr)
        l2 = tl.where(cut, lpr, lr)
        o2 = tl.where(cut, opr, orr)
        fx = _number(picture + _LENS)
        skew = _number(picture + _LENS + 1)
        cx = _number(picture + _LENS + 2)
        fy = _number(picture + _LENS + 3)
        cy = _number(picture + _LENS + 4)
        ip = 1.0 / zp
        i1 = 1.0 / z1
        i2 = 1.0 / z2
        inear = 1.0 / near
        ax = ((fx * xp + skew * yp) * ip + cx) * 2.0 + 0.5
        ay = (fy * yp * ip + cy) * 2.0 + 0.5
        bx = ((fx * x1 + skew * y1) * i1 + cx) * 2.0 + 0.5
        by = (fy * y1 * i1 + cy) * 2.0 + 0.5
        dx = ((fx * x2 + skew * y2) * i2 + cx) * 2.0 + 0.5
        dy = (fy * y2 * i2 + cy) * 2.0 + 0.5
        ex = ((fx * xqr + skew * yqr) * inear + cx) * 2.0 + 0.5
        ey = (fy * yqr * inear + cy) * 2.0 + 0.5
        start = samples + tl.load(picture + _SAMPLES)
        part = tl.program_id(1)
        parts = tl.num_programs(1)
        _fill_triangle(
            ax, ay, ip, lp, op, bx, by, i1, l1, o1, dx, dy, i2, l2, o2, mesh, start, height, width,
            part, parts, TILE, FADES,
        )  # fmt: skip
        if cut & (alone == 0):
            # Two corners are before the plane: draw the other half of the quadrilateral.
            _fill_triangle(
                dx, dy, inear, l2, o2, bx, by, i1, l1, o1, ex, ey, inear, lqr, oqr, mesh, start,
                height, width, part, parts, TILE, FADES,
            )  # fmt: skip


@triton.jit
def _color(word, mask):
    return tl.load(word, mask=mask, other=0).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _sample(samples, at, mask, first_mesh):
    """Return a sample's colour in sixteenths of a level times its opacity, and the opacity, 0 where
    no mesh covers it; clear it."""
    packed = tl.load(samples + at, mask=mask, other=0)
    covered = mask & (packed != 0)
    tl.store(samples + at, tl.zeros_like(packed), mask=covered)
    code = (packed & 0xFFFFFFFF).to(tl.int32)
    light = (code % 256).to(tl.float32) / 255.0
    paint = first_mesh + ((code & 0xFFFFFF) // 256).to(tl.int64) * _WORDS + _COLOR
    lit = 0.14 + 0.86 * tl.minimum(light / 0.84, 1.0)
    white = tl.maximum(light - 0.7, 0.0) / 0.3
    white = 0.6 * white * white
    # 4080 is 255 in sixteenths, the steps of the CPU's palette.
    shade = lit * (1.0 - white) * 4080.0
    one = tl.where(covered, 1.0 - 0.25 * (code >> 24).to(tl.float32), 0.0)
    red = tl.floor(_color(paint, covered) * shade + white * 4080.0 + 0.5) * one
    green = tl.floor(_color(paint + 1, covered) * shade + white * 4080.0 + 0.5)
    blue = tl.floor(_color(paint + 2, covered) * shade + white * 4080.0 + 0.5)
    return red, green * one, blue * one, one


@DirectKernel
@triton.jit
def resolve(table, samples, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Average the samples of each pixel, blend them over the pictures, and reset ``samples`` to
    zero.

    Programs along the second axis have a picture each; those along the first share the tiles of its
    box, outside of which nothing was drawn.
    """
    picture = table + (1 + tl.program_id(1)) * _WORDS
    first_mesh = _mesh_row(table, 0)
    image = tl.load(picture).to(tl.pointer_type(tl.uint8))
    start = samples + tl.load(picture + _SAMPLES)
    height = tl.load(picture + _HEIGHT).to(tl.int32)
    width = tl.load(picture + _WIDTH).to(tl.int32)
    alpha = _number(picture + _ALPHA)
    x0 = tl.maximum(tl.load(picture + _BOX).to(tl.int32), 0) // COLUMNS
    y0 = tl.maximum(tl.load(picture + _BOX + 1).to(tl.int32), 0) // ROWS
    x1 = tl.minimum(tl.load(picture + _BOX + 2).to(tl.int32), width - 1)
    y1 = tl.minimum(tl.load(picture + _BOX + 3).to(tl.int32), height - 1)
    across = tl.where(x1 >= 0, x1 // COLUMNS + 1 - x0, 0)
    down = tl.where(y1 >= 0, y1 // ROWS + 1 - y0, 0)
    tiles = tl.maximum(across, 0) * tl.maximum(down, 0)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        y = ((y0 + tile // across) * ROWS + tl.arange(0, ROWS))[:, None]
        x = ((x0 + tile % across) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
        inside = (y < height) & (x < width)
        at = (2 * y).to(tl.int64) * (2 * width) + 2 * x
        red, green, blue, count = _sample(start, at, inside, first_mesh)
        r, g, b, n = _sample(start, at + 1, inside, first_mesh)
        red += r
        green += g
        blue += b
        count += n
        r, g, b, n = _sample(start, at + 2 * width, inside, first_mesh)
        red += r
        green += g
        blue += b
        count += n
        r, g, b, n = _sample(start, at + 2 * width + 1, inside, first_mesh)
        red += r
        green += g
        blue += b
        count += n
        drawn = inside & (count > 0)
        keep = 1.0 - alpha * count * 0.25
        # Four samples of sixteen steps each.
        gain = alpha / 64.0
        pixel = image + (y.to(tl.int64) * width + x) * 3
        old = tl.load(pixel, mask=drawn, other=0).to(tl.float32)
        tl.store(pixel, (old * keep + red * gain + 0.5).to(tl.uint8), mask=drawn)
        old = tl.load(pixel + 1, mask=drawn, other=0).to(tl.float32)
        tl.store(pixel + 1, (old * keep + green * gain + 0.5).to(tl.uint8), mask=drawn)
        old = tl.load(pixel + 2, mask=drawn, other=0).to(tl.float32)
        tl.store(pixel + 2, (old * keep + blue * gain + 0.5).to(tl.uint8), mask=drawn)
