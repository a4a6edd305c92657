"""The kernels that move bodies and write their residuals; `linearise_gpu` launches them.

A program's lanes are the 24 joints, padded to 32, or the columns of a matrix. People, frames and
points are programs. Arrays are addressed by hand: ``at`` and ``out`` are pointers to the numbers of
this program.
"""

from __future__ import annotations

import triton
import triton.language as tl

from triton_launch import DirectKernel


@triton.jit
def _bounded(values):
    """Return a step downhill of at most 1.5 for each unknown; zero where there is no number."""
    # Only NaN differs from itself.
    values = tl.where(values == values, values, 0.0)
    return -tl.minimum(tl.maximum(values, -1.5), 1.5)


@triton.jit
def _turn(step, lanes):
    """Return the rotation matrices of a step's rotation vectors, an identity beyond joint 21."""
    posed = lanes < 22
    at = step + 3 * lanes
    x = _bounded(tl.load(at, mask=posed, other=0.0))
    y = _bounded(tl.load(at + 1, mask=posed, other=0.0))
    z = _bounded(tl.load(at + 2, mask=posed, other=0.0))
    squared = x * x + y * y + z * z
    small = squared < 1e-8
    angle = tl.sqrt(tl.where(small, 1.0, squared))
    # 1 - cos by the half angle, which does not cancel for small angles.
    half = tl.sin(0.5 * angle) / angle
    s = tl.where(small, 1.0 - squared / 6, tl.sin(angle) / angle)
    c = tl.where(small, 0.5 - squared / 24, 2.0 * half * half)
    e00 = 1.0 - c * (y * y + z * z)
    e11 = 1.0 - c * (x * x + z * z)
    e22 = 1.0 - c * (x * x + y * y)
    e01 = c * x * y - s * z
    e10 = c * x * y + s * z
    e02 = c * x * z + s * y
    e20 = c * x * z - s * y
    e12 = c * y * z - s * x
    e21 = c * y * z + s * x
    return e00, e01, e02, e10, e11, e12, e20, e21, e22


@DirectKernel
@triton.jit
def pose(
    rotations, transl, betas, step, rotations_out, transl_out, betas_out,
    bones, ancestors, turns, joints,
    FRAMES: tl.constexpr, LANES: tl.constexpr, ROUNDS: tl.constexpr, DIM: tl.constexpr,
    MOVES: tl.constexpr,
):  # fmt: skip
    """Write the world rotations (9, LANES) and joints (33, LANES) of one body.

    The 33 numbers of a joint are its place (3), then the derivative of coordinate c by shape
    coefficient b at 3 + 10 c + b. With ``MOVES`` the body is moved by a step first, and written to
    the arrays that end in ``_out``: R <- R exp(delta), the rest by addition.
    """
    # 64 bits, because the offsets below multiply it by the size of whole rows.
    body = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, LANES)
    is_joint = lanes < 24
    # 216 numbers a body: 24 rotations of nine.
    at = rotations + body * 216 + lanes * 9
    # Lanes beyond the joints hold identities, so that products with them stay harmless.
    r00 = tl.load(at, mask=is_joint, other=1.0)
    r01 = tl.load(at + 1, mask=is_joint, other=0.0)
    r02 = tl.load(at + 2, mask=is_joint, other=0.0)
    r10 = tl.load(at + 3, mask=is_joint, other=0.0)
    r11 = tl.load(at + 4, mask=is_joint, other=1.0)
    r12 = tl.load(at + 5, mask=is_joint, other=0.0)
    r20 = tl.load(at + 6, mask=is_joint, other=0.0)
    r21 = tl.load(at + 7, mask=is_joint, other=0.0)
    r22 = tl.load(at + 8, mask=is_joint, other=1.0)
    person = body // FRAMES
    if MOVES:
        mine = step + person * (FRAMES * DIM + 10) + (body % FRAMES) * DIM
        e00, e01, e02, e10, e11, e12, e20, e21, e22 = _turn(mine + 3, lanes)
        r00, r01, r02 = (
            r00 * e00 + r01 * e10 + r02 * e20,
            r00 * e01 + r01 * e11 + r02 * e21,
            r00 * e02 + r01 * e12 + r02 * e22,
        )
        r10, r11, r12 = (
            r10 * e00 + r11 * e10 + r12 * e20,
            r10 * e01 + r11 * e11 + r12 * e21,
            r10 * e02 + r11 * e12 + r12 * e22,
        )
        r20, r21, r22 = (
            r20 * e00 + r21 * e10 + r22 * e20,
            r20 * e01 + r21 * e11 + r22 * e21,
            r20 * e02 + r21 * e12 + r22 * e22,
        )
        out = rotations_out + body * 216 + lanes * 9
        tl.store(out, r00, mask=is_joint)
        tl.store(out + 1, r01, mask=is_joint)
        tl.store(out + 2, r02, mask=is_joint)
        tl.store(out + 3, r10, mask=is_joint)
        tl.store(out + 4, r11, mask=is_joint)
        tl.store(out + 5, r12, mask=is_joint)
        tl.store(out + 6, r20, mask=is_joint)
        tl.store(out + 7, r21, mask=is_joint)
        tl.store(out + 8, r22, mask=is_joint)
    ups = ()  # type: tuple
    for k in tl.static_range(ROUNDS):
        ups = ups + (tl.load(ancestors + k * LANES + lanes),)
    # Pointer doubling: each round multiplies in as many ancestors as the rounds before together.
    for k in tl.static_range(ROUNDS):
        none = ups[k] < 0
        index = tl.maximum(ups[k], 0)
        a00 = tl.where(none, 1.0, tl.gather(r00, index, 0))
        a01 = tl.where(none, 0.0, tl.gather(r01, index, 0))
        a02 = tl.where(none, 0.0, tl.gather(r02, index, 0))
        a10 = tl.where(none, 0.0, tl.gather(r10, index, 0))
        a11 = tl.where(none, 1.0, tl.gather(r11, index, 0))
        a12 = tl.where(none, 0.0, tl.gather(r12, index, 0))
        a20 = tl.where(none, 0.0, tl.gather(r20, index, 0))
        a21 = tl.where(none, 0.0, tl.gather(r21, index, 0))
        a22 = tl.where(none, 1.0, tl.gather(r22, index, 0))
        b00 = a00 * r00 + a01 * r10 + a02 * r20
        b01 = a00 * r01 + a01 * r11 + a02 * r21
        b02 = a00 * r02 + a01 * r12 + a02 * r22
        b10 = a10 * r00 + a11 * r10 + a12 * r20
        b11 = a10 * r01 + a11 * r11 + a12 * r21
        b12 = a10 * r02 + a11 * r12 + a12 * r22
        b20 = a20 * r00 + a21 * r10 + a22 * r20
        b21 = a20 * r01 + a21 * r11 + a22 * r21
        b22 = a20 * r02 + a21 * r12 + a22 * r22
        r00, r01, r02 = b00, b01, b02
        r10, r11, r12 = b10, b11, b12
        r20, r21, r22 = b20, b21, b22
    out = turns + body * 9 * LANES + lanes
    tl.store(out, r00)
    tl.store(out + LANES, r01)
    tl.store(out + 2 * LANES, r02)
    tl.store(out + 3 * LANES, r10)
    tl.store(out + 4 * LANES, r11)
    tl.store(out + 5 * LANES, r12)
    tl.store(out + 6 * LANES, r20)
    tl.store(out + 7 * LANES, r21)
    tl.store(out + 8 * LANES, r22)

    # A bone is given in its parent's axes, so it is turned by the parent's rotation.
    root = ups[0] < 0
    index = tl.maximum(ups[0], 0)
    p00 = tl.where(root, 1.0, tl.gather(r00, index, 0))
    p01 = tl.where(root, 0.0, tl.gather(r01, index, 0))
    p02 = tl.where(root, 0.0, tl.gather(r02, index, 0))
    p10 = tl.where(root, 0.0, tl.gather(r10, index, 0))
    p11 = tl.where(root, 1.0, tl.gather(r11, index, 0))
    p12 = tl.where(root, 0.0, tl.gather(r12, index, 0))
    p20 = tl.where(root, 0.0, tl.gather(r20, index, 0))
    p21 = tl.where(root, 0.0, tl.gather(r21, index, 0))
    p22 = tl.where(root, 1.0, tl.gather(r22, index, 0))
    at_x = tl.load(transl + body * 3)
    at_y = tl.load(transl + body * 3 + 1)
    at_z = tl.load(transl + body * 3 + 2)
    if MOVES:
        at_x += _bounded(tl.load(mine))
        at_y += _bounded(tl.load(mine + 1))
        at_z += _bounded(tl.load(mine + 2))
        tl.store(transl_out + body * 3, at_x)
        tl.store(transl_out + body * 3 + 1, at_y)
        tl.store(transl_out + body * 3 + 2, at_z)
        # The shape belongs to the window, so the first frame's program alone writes it.
        shape = step + person * (FRAMES * DIM + 10) + FRAMES * DIM
        wide = tl.arange(0, 16)
        ten = wide < tl.where(body % FRAMES == 0, 10, 0)
        grown = tl.load(betas + person * 10 + wide, mask=ten, other=0.0)
        grown += _bounded(tl.load(shape + wide, mask=ten, other=0.0))
        tl.store(betas_out + person * 10 + wide, grown, mask=ten)
    x = tl.zeros((LANES,), tl.float32) + at_x
    y = tl.zeros((LANES,), tl.float32) + at_y
    z = tl.zeros((LANES,), tl.float32) + at_z
    place = joints + body * 33 * LANES + lanes
    # m = 0 is the bone at rest; 1 to 10 are its derivatives by the shape coefficients.
    for m in tl.static_range(11):
        u = tl.load(bones + m * LANES + lanes)
        v = tl.load(bones + (11 + m) * LANES + lanes)
        w = tl.load(bones + (22 + m) * LANES + lanes)
        bx = p00 * u + p01 * v + p02 * w
        by = p10 * u + p11 * v + p12 * w
        bz = p20 * u + p21 * v + p22 * w
        # Sums along the chain by doubling, as the products above.
        for k in tl.static_range(ROUNDS):
            none = ups[k] < 0
            index = tl.maximum(ups[k], 0)
            bx += tl.where(none, 0.0, tl.gather(bx, index, 0))
            by += tl.where(none, 0.0, tl.gather(by, index, 0))
            bz += tl.where(none, 0.0, tl.gather(bz, index, 0))
        if m == 0:
            x += bx
            y += by
            z += bz
        else:
            beta = tl.load(betas + person * 10 + m - 1)
            if MOVES:
                beta += _bounded(tl.load(shape + m - 1))
            x += bx * beta
            y += by * beta
            z += bz * beta
            tl.store(place + (3 + m - 1) * LANES, bx)
            tl.store(place + (13 + m - 1) * LANES, by)
            tl.store(place + (23 + m - 1) * LANES, bz)
    tl.store(place, x)
    tl.store(place + LANES, y)
    tl.store(place + 2 * LANES, z)


@triton.jit
def _placed(
    turns, joints, betas, moments, mass_of, mass_below_of, below, body, person, point,
    LANES: tl.constexpr,
):  # fmt: skip
    """Place a point of a body.

    Returns the joints' rotations (nine numbers a lane), the point's place, the part of it that each
    joint rotates, relative to the joint (the lever), and its derivative by the shape.
    """
    lanes = tl.arange(0, LANES)
    at = turns + body * 9 * LANES + lanes
    w00 = tl.load(at)
    w01 = tl.load(at + LANES)
    w02 = tl.load(at + 2 * LANES)
    w10 = tl.load(at + 3 * LANES)
    w11 = tl.load(at + 4 * LANES)
    w12 = tl.load(at + 5 * LANES)
    w20 = tl.load(at + 6 * LANES)
    w21 = tl.load(at + 7 * LANES)
    w22 = tl.load(at + 8 * LANES)
    at = joints + body * 33 * LANES + lanes
    jx = tl.load(at)
    jy = tl.load(at + LANES)
    jz = tl.load(at + 2 * LANES)
    mass = tl.load(mass_of + point * LANES + lanes)
    moment = moments + point * 33 * LANES + lanes

    # Each joint's share of the point, and its derivative by the shape on the way.
    u = tl.load(moment)
    v = tl.load(moment + 11 * LANES)
    w = tl.load(moment + 22 * LANES)
    x = w00 * u + w01 * v + w02 * w + mass * jx
    y = w10 * u + w11 * v + w12 * w + mass * jy
    z = w20 * u + w21 * v + w22 * w + mass * jz
    # Ten shape coefficients, padded to a power of 2.
    wide = tl.arange(0, 16)
    shape_x = tl.zeros((16,), tl.float32)
    shape_y = tl.zeros((16,), tl.float32)
    shape_z = tl.zeros((16,), tl.float32)
    for b in tl.static_range(10):
        beta = tl.load(betas + person * 10 + b)
        u = tl.load(moment + (1 + b) * LANES)
        v = tl.load(moment + (12 + b) * LANES)
        w = tl.load(moment + (23 + b) * LANES)
        tx = w00 * u + w01 * v + w02 * w
        ty = w10 * u + w11 * v + w12 * w
        tz = w20 * u + w21 * v + w22 * w
        x += beta * tx
        y += beta * ty
        z += beta * tz
        # Triton cannot assign one element, so it is added through a mask.
        selected = tl.where(wide == b, 1.0, 0.0)
        shape_x += selected * tl.sum(tx + mass * tl.load(at + (3 + b) * LANES), 0)
        shape_y += selected * tl.sum(ty + mass * tl.load(at + (13 + b) * LANES), 0)
        shape_z += selected * tl.sum(tz + mass * tl.load(at + (23 + b) * LANES), 0)
    px = tl.sum(x, 0)
    py = tl.sum(y, 0)
    pz = tl.sum(z, 0)

    # The part of the point that each joint rotates, relative to the joint: the lever.
    tree = tl.load(below + lanes[:, None] * LANES + lanes[None, :])
    low = tl.load(mass_below_of + point * LANES + lanes)
    lx = tl.sum(tree * x[:, None], 0) - low * jx
    ly = tl.sum(tree * y[:, None], 0) - low * jy
    lz = tl.sum(tree * z[:, None], 0) - low * jz
    axes = (w00, w01, w02, w10, w11, w12, w20, w21, w22)
    return axes, (px, py, pz), (lx, ly, lz), (shape_x, shape_y, shape_z)


@triton.jit
def _edge(edge, to, u, v, SIDE: tl.constexpr):
    """Return distance and slopes of an edge map (3, SIDE, SIDE) at normalised coordinates."""
    # Bilinear sampling of the edge map; beyond its border the outermost pixels are repeated.
    gx = tl.load(to) * u + tl.load(to + 1) * v + tl.load(to + 2)
    gy = tl.load(to + 3) * u + tl.load(to + 4) * v + tl.load(to + 5)
    gx = tl.minimum(tl.maximum((gx + 1.0) * (0.5 * (SIDE - 1)), 0.0), SIDE - 1.0)
    gy = tl.minimum(tl.maximum((gy + 1.0) * (0.5 * (SIDE - 1)), 0.0), SIDE - 1.0)
    # One short of the edge, so that the neighbour to the right or below is still inside.
    col = tl.minimum(tl.floor(gx), SIDE - 2.0)
    row = tl.minimum(tl.floor(gy), SIDE - 2.0)
    fx = gx - col
    fy = gy - row
    corner = edge + row.to(tl.int32) * SIDE + col.to(tl.int32)
    s00 = (1.0 - fx) * (1.0 - fy)
    s01 = fx * (1.0 - fy)
    s10 = (1.0 - fx) * fy
    s11 = fx * fy
    distance = s00 * tl.load(corner) + s01 * tl.load(corner + 1)
    distance += s10 * tl.load(corner + SIDE) + s11 * tl.load(corner + SIDE + 1)
    corner += SIDE * SIDE
    slope_u = s00 * tl.load(corner) + s01 * tl.load(corner + 1)
    slope_u += s10 * tl.load(corner + SIDE) + s11 * tl.load(corner + SIDE + 1)
    corner += SIDE * SIDE
    slope_v = s00 * tl.load(corner) + s01 * tl.load(corner + 1)
    slope_v += s10 * tl.load(corner + SIDE) + s11 * tl.load(corner + SIDE + 1)
    return distance, slope_u, slope_v


@triton.jit
def _row(out, axes, lever, shape, dx, dy, dz, value, moved, lanes):
    """Write a residual's row: its derivative along a direction, weighted, then its value.

    ``moved`` is 1 where the translation moves the point, 0 where the point is about a middle.
    """
    w00, w01, w02, w10, w11, w12, w20, w21, w22 = axes
    lx, ly, lz = lever
    # direction . (axis x lever) = axis . (lever x direction)
    mx = ly * dz - lz * dy
    my = lz * dx - lx * dz
    mz = lx * dy - ly * dx
    posed = lanes < 22
    turn = out + 3 + 3 * lanes
    tl.store(turn, w00 * mx + w10 * my + w20 * mz, mask=posed)
    tl.store(turn + 1, w01 * mx + w11 * my + w21 * mz, mask=posed)
    tl.store(turn + 2, w02 * mx + w12 * my + w22 * mz, mask=posed)
    few = tl.arange(0, 4)
    moves = moved * tl.where(few == 0, dx, tl.where(few == 1, dy, dz))
    tl.store(out + few, moves, mask=few < 3)
    wide = tl.arange(0, 16)
    along = dx * shape[0] + dy * shape[1] + dz * shape[2]
    # The residual follows the ten coefficients.
    tl.store(out + 69 + wide, tl.where(wide == 10, value, along), mask=wide < 11)


@triton.jit
def _log(m00, m01, m02, m10, m11, m12, m20, m21, m22):
    """Return the rotation vector of a matrix as `rotations.log_so3`, by Shepperd's quaternion."""
    d0 = 1 + m00 + m11 + m22
    d1 = 1 + m00 - m11 - m22
    d2 = 1 - m00 + m11 - m22
    d3 = 1 - m00 - m11 + m22
    most = tl.maximum(tl.maximum(d0, d1), tl.maximum(d2, d3))
    a = m21 - m12
    b = m02 - m20
    c = m10 - m01
    e = m10 + m01
    f = m02 + m20
    g = m21 + m12
    w, x, y, z = c, f, g, d3
    take = d2 == most
    w, x, y, z = (
        tl.where(take, b, w),
        tl.where(take, e, x),
        tl.where(take, d2, y),
        tl.where(take, g, z),
    )
    take = d1 == most
    w, x, y, z = (
        tl.where(take, a, w),
        tl.where(take, d1, x),
        tl.where(take, e, y),
        tl.where(take, f, z),
    )
    take = d0 == most
    w, x, y, z = (
        tl.where(take, d0, w),
        tl.where(take, a, x),
        tl.where(take, b, y),
        tl.where(take, c, z),
    )
    norm = tl.sqrt(w * w + x * x + y * y + z * z)
    norm = tl.where(w < 0, -norm, norm)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    squared = x * x + y * y + z * z
    small = squared < 1e-10
    sine = tl.sqrt(tl.where(small, 1.0, squared))
    # The arc tangent of sine over w. Halving the angle twice brings it into the range of Cephes'
    # atanf polynomial
    # (Moshier, Methods and Programs for Mathematical Functions, 1989); the result is doubled back.
    t = sine / (1.0 + w)
    t = t / (1.0 + tl.sqrt(1.0 + t * t))
    q = t * t
    poly = ((8.05374449538e-2 * q - 1.38776856032e-1) * q + 1.99777106478e-1) * q - 3.33329491539e-1
    angle = 8.0 * (t + t * q * poly)
    scale = tl.where(small, 2.0 / tl.maximum(w, 0.5), angle / sine)
    return scale * x, scale * y, scale * z


@triton.jit
def _limits(
    phi, prior, axis, lanes, posed, prior_weight, limit_weight, limit_sigma, LANES: tl.constexpr
):
    """Return one axis's cost, squared derivative and pull on the angle.

    ``prior`` is the table of mean, deviation, lowest and highest, (4, 3, LANES).
    """
    at = prior + axis * LANES + lanes
    mean = tl.load(at)
    sigma = tl.load(at + 3 * LANES, mask=posed, other=1.0)
    low = tl.load(at + 6 * LANES)
    high = tl.load(at + 9 * LANES)
    gauss = prior_weight * (phi - mean) / sigma
    over = tl.maximum(phi - high, 0.0) - tl.maximum(low - phi, 0.0)
    limit = limit_weight * over / limit_sigma
    slope = prior_weight / sigma
    # Inside its range a joint feels no limit, so the derivative is zero there.
    edge = tl.where(over != 0.0, limit_weight / limit_sigma, 0.0)
    return (
        gauss * gauss + limit * limit,
        slope * slope + edge * edge,
        gauss * slope + limit * edge,
    )


@triton.jit
def _priors(
    rotations, prior, normal, pull, cost, body, prior_weight, limit_weight, limit_sigma, use,
    LANES: tl.constexpr,
):  # fmt: skip
    """Write pose prior and joint limits of a body, as each joint's 3 x 3 block of the Hessian."""
    lanes = tl.arange(0, LANES)
    posed = lanes < 22
    at = rotations + body * 216 + lanes * 9
    x, y, z = _log(
        tl.load(at, mask=posed, other=1.0), tl.load(at + 1, mask=posed, other=0.0),
        tl.load(at + 2, mask=posed, other=0.0), tl.load(at + 3, mask=posed, other=0.0),
        tl.load(at + 4, mask=posed, other=1.0), tl.load(at + 5, mask=posed, other=0.0),
        tl.load(at + 6, mask=posed, other=0.0), tl.load(at + 7, mask=posed, other=0.0),
        tl.load(at + 8, mask=posed, other=1.0),
    )  # fmt: skip
    c0, s0, g0 = _limits(x, prior, 0, lanes, posed, prior_weight, limit_weight, limit_sigma, LANES)
    c1, s1, g1 = _limits(y, prior, 1, lanes, posed, prior_weight, limit_weight, limit_sigma, LANES)
    c2, s2, g2 = _limits(z, prior, 2, lanes, posed, prior_weight, limit_weight, limit_sigma, LANES)
    tl.store(cost, use * tl.sum(tl.where(posed, c0 + c1 + c2, 0.0), 0))
    # J_r^-1, as `solver.inverse_right_jacobian`.
    squared = tl.maximum(x * x + y * y + z * z, 1e-8)
    angle = tl.sqrt(squared)
    # Stops just short of 180 degrees, where the tangent has its pole.
    half = tl.minimum(0.5 * angle, 1.5)
    # Cosine over sine, because Triton's language has no tangent.
    full = 1.0 / squared - tl.cos(half) / (2.0 * angle * tl.sin(half))
    k = tl.where(angle < 1e-2, 1.0 / 12 + squared / 720, full)
    t00 = 1.0 - k * (y * y + z * z)
    t11 = 1.0 - k * (x * x + z * z)
    t22 = 1.0 - k * (x * x + y * y)
    t01 = -0.5 * z + k * x * y
    t10 = 0.5 * z + k * x * y
    t02 = 0.5 * y + k * x * z
    t20 = -0.5 * y + k * x * z
    t12 = -0.5 * x + k * y * z
    t21 = 0.5 * x + k * y * z
    out = normal + body * 9 * LANES + lanes
    s0, s1, s2 = use * s0, use * s1, use * s2
    n01 = t00 * s0 * t01 + t10 * s1 * t11 + t20 * s2 * t21
    n02 = t00 * s0 * t02 + t10 * s1 * t12 + t20 * s2 * t22
    n12 = t01 * s0 * t02 + t11 * s1 * t12 + t21 * s2 * t22
    tl.store(out, t00 * s0 * t00 + t10 * s1 * t10 + t20 * s2 * t20)
    tl.store(out + LANES, n01)
    tl.store(out + 2 * LANES, n02)
    tl.store(out + 3 * LANES, n01)
    tl.store(out + 4 * LANES, t01 * s0 * t01 + t11 * s1 * t11 + t21 * s2 * t21)
    tl.store(out + 5 * LANES, n12)
    tl.store(out + 6 * LANES, n02)
    tl.store(out + 7 * LANES, n12)
    tl.store(out + 8 * LANES, t02 * s0 * t02 + t12 * s1 * t12 + t22 * s2 * t22)
    out = pull + body * 3 * LANES + lanes
    g0, g1, g2 = use * g0, use * g1, use * g2
    tl.store(out, t00 * g0 + t10 * g1 + t20 * g2)
    tl.store(out + LANES, t01 * g0 + t11 * g1 + t21 * g2)
    tl.store(out + 2 * LANES, t02 * g0 + t12 * g1 + t22 * g2)


@triton.jit
def _turned(now, then, lanes, posed):
    """Return log(R_now^T R_then) of each joint; both arguments point at a frame's rotations."""
    a = now + lanes * 9
    b = then + lanes * 9
    a00 = tl.load(a, mask=posed, other=1.0)
    a01 = tl.load(a + 1, mask=posed, other=0.0)
    a02 = tl.load(a + 2, mask=posed, other=0.0)
    a10 = tl.load(a + 3, mask=posed, other=0.0)
    a11 = tl.load(a + 4, mask=posed, other=1.0)
    a12 = tl.load(a + 5, mask=posed, other=0.0)
    a20 = tl.load(a + 6, mask=posed, other=0.0)
    a21 = tl.load(a + 7, mask=posed, other=0.0)
    a22 = tl.load(a + 8, mask=posed, other=1.0)
    b00 = tl.load(b, mask=posed, other=1.0)
    b01 = tl.load(b + 1, mask=posed, other=0.0)
    b02 = tl.load(b + 2, mask=posed, other=0.0)
    b10 = tl.load(b + 3, mask=posed, other=0.0)
    b11 = tl.load(b + 4, mask=posed, other=1.0)
    b12 = tl.load(b + 5, mask=posed, other=0.0)
    b20 = tl.load(b + 6, mask=posed, other=0.0)
    b21 = tl.load(b + 7, mask=posed, other=0.0)
    b22 = tl.load(b + 8, mask=posed, other=1.0)
    return _log(
        a00 * b00 + a10 * b10 + a20 * b20,
        a00 * b01 + a10 * b11 + a20 * b21,
        a00 * b02 + a10 * b12 + a20 * b22,
        a01 * b00 + a11 * b10 + a21 * b20,
        a01 * b01 + a11 * b11 + a21 * b21,
        a01 * b02 + a11 * b12 + a21 * b22,
        a02 * b00 + a12 * b10 + a22 * b20,
        a02 * b01 + a12 * b11 + a22 * b21,
        a02 * b02 + a12 * b12 + a22 * b22,
    )


@triton.jit
def _frame_of(past, now, person, k, SIZE: tl.constexpr, FRAMES: tl.constexpr):
    """Return where frame ``k`` lies, counting the two past frames, then the window's own."""
    before = past + (person * 2 + k) * SIZE
    return tl.where(k < 2, before, now + (person * FRAMES + k - 2) * SIZE)


@triton.jit
def _difference(number):
    """Return the factor of a frame in the second difference that ends ``number`` frames later."""
    return tl.where((number == 0) | (number == 2), 1.0, tl.where(number == 1, -2.0, 0.0))


@triton.jit
def _smoothness(
    rotations, transl, past_rotations, past_transl, known, interval_of, normal, pull, cost, body,
    turn_accel, root_accel, root_depth_accel, robust, use,
    FRAMES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write a frame's share of the second differences of rotations and, in lane 22, of the root.

    Their part of the Hessian couples only the same unknown of different frames, so it is kept as
    one number for each unknown and pair of frames. A frame is in three second differences: those
    that end with it, and one and two frames later.
    """
    person = body // FRAMES
    own = (body % FRAMES).to(tl.int32)
    lanes = tl.arange(0, LANES)
    posed = lanes < 22
    root = lanes == 22
    interval_30hz = tl.minimum(tl.maximum(tl.load(interval_of + person), 0.25), 4.0)
    # A second difference of a random acceleration grows with the 3/2 power of the interval.
    grown = interval_30hz * tl.sqrt(interval_30hz)
    across = 1.0 / (grown * tl.where(root, root_accel, turn_accel))
    along = 1.0 / (grown * tl.where(root, root_depth_accel, turn_accel))
    total = tl.zeros((LANES,), tl.float32)
    drift_x, drift_y, drift_z = total, total, total
    # The weights across and along the view, by how many frames the other frame is later.
    x_m2, x_m1, x_0, x_1, x_2 = total, total, total, total, total
    z_m2, z_m1, z_0, z_1, z_2 = total, total, total, total, total
    for a in range(own, tl.minimum(own + 3, FRAMES)):
        r0 = _frame_of(past_rotations, rotations, person, a, 216, FRAMES)
        r1 = _frame_of(past_rotations, rotations, person, a + 1, 216, FRAMES)
        r2 = _frame_of(past_rotations, rotations, person, a + 2, 216, FRAMES)
        x0, y0, z0 = _turned(r0, r1, lanes, posed)
        x1, y1, z1 = _turned(r1, r2, lanes, posed)
        t0 = _frame_of(past_transl, transl, person, a, 3, FRAMES)
        t1 = _frame_of(past_transl, transl, person, a + 1, 3, FRAMES)
        t2 = _frame_of(past_transl, transl, person, a + 2, 3, FRAMES)
        x = tl.load(t2) - 2 * tl.load(t1) + tl.load(t0)
        y = tl.load(t2 + 1) - 2 * tl.load(t1 + 1) + tl.load(t0 + 1)
        z = tl.load(t2 + 2) - 2 * tl.load(t1 + 2) + tl.load(t0 + 2)
        x = tl.where(root, x, x1 - x0)
        y = tl.where(root, y, y1 - y0)
        z = tl.where(root, z, z1 - z0)
        # All frames of the window itself count as known.
        sure = tl.load(known + person * 2 + tl.minimum(a, 1))
        sure = tl.where(a < 2, sure, 1.0)
        sure *= tl.where(a < 1, tl.load(known + person * 2 + 1), 1.0)
        weight = tl.where(posed | root, use * sure, 0.0)
        squared = (x * across) * (x * across) + (y * across) * (y * across)
        squared += (z * along) * (z * along)
        share = robust * robust / (robust * robust + squared)
        # Each second difference costs once: with the frame that it ends with.
        total += tl.where(a == own, weight * share * squared, 0.0)
        weight *= share * share
        later = a - own
        mine = _difference(later)
        wx = mine * weight * across * across
        wz = mine * weight * along * along
        drift_x += wx * x
        drift_y += wx * y
        drift_z += wz * z
        x_m2 += _difference(later + 2) * wx
        x_m1 += _difference(later + 1) * wx
        x_0 += _difference(later) * wx
        x_1 += _difference(later - 1) * wx
        x_2 += _difference(later - 2) * wx
        z_m2 += _difference(later + 2) * wz
        z_m1 += _difference(later + 1) * wz
        z_0 += _difference(later) * wz
        z_1 += _difference(later - 1) * wz
        z_2 += _difference(later - 2) * wz
    tl.store(cost, tl.sum(total, 0))
    at = pull + body * 3 * LANES + lanes
    tl.store(at, drift_x)
    tl.store(at + LANES, drift_y)
    tl.store(at + 2 * LANES, drift_z)
    for other in range(FRAMES):
        late = other - own
        near_x = tl.where(late == 0, x_0, tl.where(late == 1, x_1, x_m1))
        near_z = tl.where(late == 0, z_0, tl.where(late == 1, z_1, z_m1))
        far_x = tl.where(late == 2, x_2, tl.where(late == -2, x_m2, 0.0))
        far_z = tl.where(late == 2, z_2, tl.where(late == -2, z_m2, 0.0))
        near = (late > -2) & (late < 2)
        at = normal + (body * FRAMES + other) * 3 * LANES + lanes
        tl.store(at, tl.where(near, near_x, far_x))
        tl.store(at + LANES, tl.where(near, near_x, far_x))
        tl.store(at + 2 * LANES, tl.where(near, near_z, far_z))


@DirectKernel
@triton.jit
def motion(
    rotations, transl, prior, past_rotations, past_transl, known, interval_of,
    costs, normal, pull, smooth, drift,
    prior_weight, limit_weight, limit_sigma, use_prior,
    turn_accel, root_accel, root_depth_accel, smooth_robust, use_smoothness,
    FRAMES: tl.constexpr, LANES: tl.constexpr, PLACES: tl.constexpr, COST: tl.constexpr,
):  # fmt: skip
    """Write a body's priors and its share of the window's smoothness, and what they cost."""
    body = tl.program_id(0).to(tl.int64)
    cost = costs + body * PLACES + COST
    _priors(
        rotations, prior, normal, pull, cost, body, prior_weight, limit_weight, limit_sigma,
        use_prior, LANES,
    )  # fmt: skip
    _smoothness(
        rotations, transl, past_rotations, past_transl, known, interval_of, smooth, drift,
        cost + 1, body, turn_accel, root_accel, root_depth_accel, smooth_robust, use_smoothness,
        FRAMES, LANES,
    )  # fmt: skip


@DirectKernel
@triton.jit
def points(
    betas, turns, joints, moments, mass_of, mass_below_of, below, normals,
    observed, edge, skin, skin_weight, rows, costs, fits,
    mask_sigma, mask_weight, depth_sigma, robust, use_world, use_depth,
    FRAMES: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr, SIDE: tl.constexpr,
    ROWS: tl.constexpr, PLACES: tl.constexpr, SURFACE: tl.constexpr, SKIN: tl.constexpr,
    IMAGE: tl.constexpr, VISIBLE: tl.constexpr, WORLD: tl.constexpr, SPREAD: tl.constexpr,
    WEIGHT: tl.constexpr, VIEW: tl.constexpr, PRESENT: tl.constexpr, SIZE: tl.constexpr,
    EDGE_FROM: tl.constexpr, MASKED: tl.constexpr, DEPTH: tl.constexpr,
    IMAGE_SPREAD: tl.constexpr,
):  # fmt: skip
    """Write the rows and the cost of one point of a body.

    The points are 33 landmarks in the image, 33 about the mid-hip in space, the pelvis for the
    root's depth, the surface's points for the mask's edge, then the skin's. Each branch says along
    which directions, weighted, the point counts, and what is off there; a whole program takes one.
    """
    body = tl.program_id(0).to(tl.int64)
    point = tl.program_id(1)
    lanes = tl.arange(0, LANES)
    frame = observed + body * WIDTH
    cost = costs + body * PLACES + point
    present = tl.load(frame + PRESENT)
    axes, place, lever, shape = _placed(
        turns, joints, betas, moments, mass_of, mass_below_of, below, body, body // FRAMES, point,
        LANES,
    )  # fmt: skip
    px, py, pz = place
    # The floor of `solver._project`: a point behind the camera stays finite.
    near = 1.0 / tl.maximum(pz, 0.1)
    u = px * near
    v = py * near
    # Most points have one direction, landmarks in the image two, those in space three.
    zero = present * 0.0
    ax, ay, az, a_off = zero, zero, zero, zero
    bx, by, bz, b_off = zero, zero, zero, zero
    cx, cy, cz, c_off = zero, zero, zero, zero
    moved = zero
    first = point
    count = 1
    if point < 33:
        sigma = tl.maximum(tl.load(frame + IMAGE_SPREAD), 1e-6)
        ru = (u - tl.load(frame + IMAGE + 2 * point)) / sigma
        rv = (v - tl.load(frame + IMAGE + 2 * point + 1)) / sigma
        weight = tl.maximum(tl.load(frame + VISIBLE + point) * present, 0.0)
        squared = ru * ru + rv * rv
        # Geman-McClure: the share's square is the weight, the share times the square the cost.
        share = robust * robust / (robust * robust + squared)
        strength = tl.sqrt(weight) * share
        tl.store(cost, weight * share * squared)
        tl.store(fits + body * 128 + point, weight)
        tl.store(fits + body * 128 + 64 + point, weight * tl.minimum(squared, 100.0))
        scale = strength / sigma * near
        ax, az, a_off = scale, -scale * u, ru * strength
        by, bz, b_off = scale, -scale * v, rv * strength
        moved += 1.0
        first = 2 * point
        count = 2
    elif point < 66:
        number = point - 33
        world = frame + WORLD
        view = frame + VIEW
        spread = frame + SPREAD + 3 * number
        ax, ay, az, a_off = _seen_along(world, view, number, 0, px, py, pz)
        bx, by, bz, b_off = _seen_along(world, view, number, 1, px, py, pz)
        cx, cy, cz, c_off = _seen_along(world, view, number, 2, px, py, pz)
        sa = 1.0 / tl.load(spread)
        sb = 1.0 / tl.load(spread + 1)
        sc = 1.0 / tl.load(spread + 2)
        squared = a_off * sa * (a_off * sa) + b_off * sb * (b_off * sb) + c_off * sc * (c_off * sc)
        weight = tl.maximum(use_world * tl.load(frame + WEIGHT + number) * present, 0.0)
        share = robust * robust / (robust * robust + squared)
        strength = tl.sqrt(weight) * share
        tl.store(cost, weight * share * squared)
        sa, sb, sc = strength * sa, strength * sb, strength * sc
        ax, ay, az, a_off = sa * ax, sa * ay, sa * az, sa * a_off
        bx, by, bz, b_off = sb * bx, sb * by, sb * bz, sb * b_off
        cx, cy, cz, c_off = sc * cx, sc * cy, sc * cz, sc * c_off
        first = 66 + 3 * number
        count = 3
    elif point == 66:
        depth = tl.load(frame + DEPTH)
        sigma = depth_sigma * tl.maximum(depth, 0.1)
        value = (pz - depth) / sigma
        weight = use_depth * present * tl.where(depth > 0, 1.0, 0.0)
        share = robust * robust / (robust * robust + value * value)
        strength = tl.sqrt(weight) * share
        tl.store(cost, weight * share * value * value)
        az, a_off = strength / sigma, value * strength
        moved += 1.0
        first = 165
    elif point < 67 + SURFACE:
        number = point - 67
        w00, w01, w02, w10, w11, w12, w20, w21, w22 = axes
        mass = tl.load(mass_of + point * LANES + lanes)
        n0 = tl.load(normals + number * 3)
        n1 = tl.load(normals + number * 3 + 1)
        n2 = tl.load(normals + number * 3 + 2)
        nx = tl.sum(mass * (w00 * n0 + w01 * n1 + w02 * n2), 0)
        ny = tl.sum(mass * (w10 * n0 + w11 * n1 + w12 * n2), 0)
        nz = tl.sum(mass * (w20 * n0 + w21 * n1 + w22 * n2), 0)
        far = tl.maximum(tl.sqrt(px * px + py * py + pz * pz), 1e-6)
        facing = (nx * px + ny * py + nz * pz) / far
        distance, slope_u, slope_v = _edge(
            edge + body * 3 * SIDE * SIDE, frame + EDGE_FROM, u, v, SIDE
        )
        sigma = tl.maximum(mask_sigma * tl.load(frame + SIZE), 1e-6)
        value = distance / sigma
        rim = tl.exp(-(facing / 0.25) * (facing / 0.25))
        weight = tl.maximum(rim, tl.where(distance > 0, 1.0, 0.0))
        weight = mask_weight * weight * tl.load(frame + MASKED) * present
        squared = value * value
        share = robust * robust / (robust * robust + squared)
        strength = tl.sqrt(weight * share * share)
        tl.store(cost, weight * share * squared)
        scale = strength / sigma * near
        ax = slope_u * scale
        ay = slope_v * scale
        az = -(slope_u * u + slope_v * v) * scale
        a_off = value * strength
        moved += 1.0
        first = 166 + number
    else:
        number = point - 67 - SURFACE
        # The weight is that of the frame, and 0 where the person is absent.
        strength = tl.sqrt(tl.load(skin_weight + body) * present)
        at = skin + (body * SKIN + number) * 3
        a_off = strength * (px - tl.load(at))
        b_off = strength * (py - tl.load(at + 1))
        c_off = strength * (pz - tl.load(at + 2))
        tl.store(cost, a_off * a_off + b_off * b_off + c_off * c_off)
        ax, by, cz = strength, strength, strength
        first = 166 + SURFACE + 3 * number
        count = 3
    out = rows + (body * ROWS + first) * 80
    _row(out, axes, lever, shape, ax, ay, az, a_off, moved, lanes)
    if count > 1:
        _row(out + 80, axes, lever, shape, bx, by, bz, b_off, moved, lanes)
    if count > 2:
        _row(out + 160, axes, lever, shape, cx, cy, cz, c_off, moved, lanes)


@triton.jit
def _seen_along(world, view, number, axis: tl.constexpr, px, py, pz):
    """Return an axis of the ray frame in the camera's, and how far off a landmark is along it.

    The view turns the ray frame's axes to the camera's, so they are its columns.
    """
    vx = tl.load(view + axis)
    vy = tl.load(view + 3 + axis)
    vz = tl.load(view + 6 + axis)
    aimed = tl.load(world + 3 * number + axis)
    # Landmarks 23 and 24 are the hips; 69 and 72 are where their coordinates begin.
    aimed -= 0.5 * (tl.load(world + 69 + axis) + tl.load(world + 72 + axis))
    return vx, vy, vz, vx * px + vy * py + vz * pz - aimed
