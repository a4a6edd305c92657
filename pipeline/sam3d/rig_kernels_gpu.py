"""Triton kernels from the heads' numbers to keypoints in the image. A program is a person, or one
keypoint of a person; its lanes are joints, rotations or keypoints."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _atan2(y, x):
    """The angle of (x, y), to two units in the last place (Moshier, Cephes library)."""
    above, across = tl.abs(y), tl.abs(x)
    largest = tl.maximum(above, across)
    # At (0, 0) the angle is 0.
    ratio = tl.minimum(above, across) / tl.where(largest > 0, largest, 1.0)
    large = ratio > 0.4142135623730950
    t = tl.where(large, (ratio - 1.0) / (ratio + 1.0), ratio)
    z = t * t
    series = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z
    angle = (series - 3.33329491539e-1) * z * t + t
    angle += tl.where(large, 0.7853981633974483, 0.0)
    angle = tl.where(above > across, 1.5707963267948966 - angle, angle)
    angle = tl.where(x < 0, 3.141592653589793 - angle, angle)
    return tl.where(y < 0, -angle, angle)


@triton.jit
def _euler(r00, r10, r20, r11, r12, r21, r22):
    """The angles about x, then y, then z of a rotation, as `heads.euler_of_rotation`."""
    cos_y = tl.sqrt(r00 * r00 + r10 * r10)
    locked = cos_y < 1e-6
    x = _atan2(tl.where(locked, -r12, r21), tl.where(locked, r11, r22))
    z = tl.where(locked, 0.0, _atan2(r10, r00))
    return x, _atan2(-r20, cos_y), z


@triton.jit
def _rotation(x, y, z):
    """The rotation Rz Ry Rx, row by row."""
    sx, cx = tl.sin(x), tl.cos(x)
    sy, cy = tl.sin(y), tl.cos(y)
    sz, cz = tl.sin(z), tl.cos(z)
    return (
        cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz,
        cy * sz, cx * cz + sx * sy * sz, cx * sy * sz - sx * cz,
        -sy, sx * cy, cx * cy,
    )  # fmt: skip


@triton.jit
def parameters(
    numbers, stride, rig, keep, rotation_places, pair_places, plain_places, wrist, arm, root,
    ROTATIONS: tl.constexpr, PAIRS: tl.constexpr, PLAIN: tl.constexpr, HAND: tl.constexpr,
    PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Write the rig's parameters (204) of one person's numbers: rotations as 6D, the global one
    first; pairs of sine and cosine; numbers that are taken as they are. ``rig`` is zero before."""
    person = tl.program_id(0).to(tl.int64)
    at, out = numbers + person * stride, rig + person * PARAMETERS
    lane = tl.arange(0, 32)
    there = lane < ROTATIONS
    a0 = tl.load(at + lane * 6, mask=there, other=1.0)
    a1 = tl.load(at + lane * 6 + 1, mask=there, other=0.0)
    a2 = tl.load(at + lane * 6 + 2, mask=there, other=0.0)
    b0 = tl.load(at + lane * 6 + 3, mask=there, other=0.0)
    b1 = tl.load(at + lane * 6 + 4, mask=there, other=1.0)
    b2 = tl.load(at + lane * 6 + 5, mask=there, other=0.0)
    # Gram and Schmidt, as `heads.rotation_of_6d`.
    length = tl.maximum(tl.sqrt(a0 * a0 + a1 * a1 + a2 * a2), 1e-12)
    a0, a1, a2 = a0 / length, a1 / length, a2 / length
    along = a0 * b0 + a1 * b1 + a2 * b2
    b0, b1, b2 = b0 - along * a0, b1 - along * a1, b2 - along * a2
    length = tl.maximum(tl.sqrt(b0 * b0 + b1 * b1 + b2 * b2), 1e-12)
    b0, b1, b2 = b0 / length, b1 / length, b2 / length
    # The first number of the third column is in none of the angles.
    c1, c2 = a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    x, y, z = _euler(a0, a1, a2, b1, c1, b2, c2)
    if HAND:
        # The body stands where its wrist has the global rotation.
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(z, y, x)
        w = wrist
        w00, w01, w02 = tl.load(w), tl.load(w + 1), tl.load(w + 2)
        w10, w11, w12 = tl.load(w + 3), tl.load(w + 4), tl.load(w + 5)
        w20, w21, w22 = tl.load(w + 6), tl.load(w + 7), tl.load(w + 8)
        t00 = r00 * w00 + r01 * w10 + r02 * w20
        t01 = r00 * w01 + r01 * w11 + r02 * w21
        t02 = r00 * w02 + r01 * w12 + r02 * w22
        t10 = r10 * w00 + r11 * w10 + r12 * w20
        t11 = r10 * w01 + r11 * w11 + r12 * w21
        t12 = r10 * w02 + r11 * w12 + r12 * w22
        t20 = r20 * w00 + r21 * w10 + r22 * w20
        t21 = r20 * w01 + r21 * w11 + r22 * w21
        t22 = r20 * w02 + r21 * w12 + r22 * w22
        arm0, arm1, arm2 = tl.load(arm), tl.load(arm + 1), tl.load(arm + 2)
        moved0 = t00 * arm0 + t01 * arm1 + t02 * arm2 + tl.load(root)
        moved1 = t10 * arm0 + t11 * arm1 + t12 * arm2 + tl.load(root + 1)
        moved2 = t20 * arm0 + t21 * arm1 + t22 * arm2 + tl.load(root + 2)
        only = lane == 0
        # Decimetres.
        tl.store(out + lane, -10.0 * moved0 * tl.load(keep), mask=only)
        tl.store(out + lane + 1, -10.0 * moved1 * tl.load(keep + 1), mask=only)
        tl.store(out + lane + 2, -10.0 * moved2 * tl.load(keep + 2), mask=only)
        gx, gy, gz = _euler(t00, t10, t20, t11, t12, t21, t22)
        # The table has the global rotation's angles in the other order.
        x, y, z = tl.where(only, gz, x), tl.where(only, gy, y), tl.where(only, gx, z)
    for axis in tl.static_range(3):
        place = tl.load(rotation_places + lane * 3 + axis, mask=there, other=0)
        angle = x if axis == 0 else (y if axis == 1 else z)
        tl.store(out + place, angle * tl.load(keep + place), mask=there)
    lane = tl.arange(0, 64)
    there = lane < PAIRS
    pair = at + ROTATIONS * 6 + lane * 2
    angle = _atan2(tl.load(pair, mask=there, other=0.0), tl.load(pair + 1, mask=there, other=1.0))
    place = tl.load(pair_places + lane, mask=there, other=0)
    tl.store(out + place, angle * tl.load(keep + place), mask=there)
    lane = tl.arange(0, 128)
    there = lane < PLAIN
    number = tl.load(at + ROTATIONS * 6 + PAIRS * 2 + lane, mask=there, other=0.0)
    place = tl.load(plain_places + lane, mask=there, other=0)
    tl.store(out + place, number * tl.load(keep + place), mask=there)


@triton.jit
def joints(
    values, offsets, prerotations, ancestors, bind, maps, turned, columns, skin,
    JOINTS: tl.constexpr, ROUNDS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """Write one person's joints: their maps (4, 4) and rotations from rest (3, 3), the numbers (6)
    that move the correctives, and the maps (3, 4) of the skin."""
    person = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, 128)
    there = lane < JOINTS
    at = values + person * JOINTS * 7 + lane * 7
    tx = tl.load(at, mask=there, other=0.0) + tl.load(offsets + lane * 3, mask=there, other=0.0)
    ty = tl.load(at + 1, mask=there, other=0.0)
    ty += tl.load(offsets + lane * 3 + 1, mask=there, other=0.0)
    tz = tl.load(at + 2, mask=there, other=0.0)
    tz += tl.load(offsets + lane * 3 + 2, mask=there, other=0.0)
    b00, b01, b02, b10, b11, b12, b20, b21, b22 = _rotation(
        tl.load(at + 3, mask=there, other=0.0),
        tl.load(at + 4, mask=there, other=0.0),
        tl.load(at + 5, mask=there, other=0.0),
    )
    own = turned + (person * JOINTS + lane) * 9
    tl.store(own, b00, mask=there)
    tl.store(own + 1, b01, mask=there)
    tl.store(own + 2, b02, mask=there)
    tl.store(own + 3, b10, mask=there)
    tl.store(own + 4, b11, mask=there)
    tl.store(own + 5, b12, mask=there)
    tl.store(own + 6, b20, mask=there)
    tl.store(own + 7, b21, mask=there)
    tl.store(own + 8, b22, mask=there)
    corrects = there & (lane >= FIRST)
    own = columns + person * (JOINTS - FIRST) * 6 + (lane - FIRST) * 6
    tl.store(own, b00 - 1, mask=corrects)
    tl.store(own + 1, b10, mask=corrects)
    tl.store(own + 2, b20, mask=corrects)
    tl.store(own + 3, b01, mask=corrects)
    tl.store(own + 4, b11 - 1, mask=corrects)
    tl.store(own + 5, b21, mask=corrects)
    # The lane behind the joints holds the identity, the ancestor of joints that have none.
    p = prerotations + lane * 9
    scale = tl.exp2(tl.load(at + 6, mask=there, other=0.0))
    a00 = tl.load(p, mask=there, other=1.0)
    a01 = tl.load(p + 1, mask=there, other=0.0)
    a02 = tl.load(p + 2, mask=there, other=0.0)
    a10 = tl.load(p + 3, mask=there, other=0.0)
    a11 = tl.load(p + 4, mask=there, other=1.0)
    a12 = tl.load(p + 5, mask=there, other=0.0)
    a20 = tl.load(p + 6, mask=there, other=0.0)
    a21 = tl.load(p + 7, mask=there, other=0.0)
    a22 = tl.load(p + 8, mask=there, other=1.0)
    r00 = scale * (a00 * b00 + a01 * b10 + a02 * b20)
    r01 = scale * (a00 * b01 + a01 * b11 + a02 * b21)
    r02 = scale * (a00 * b02 + a01 * b12 + a02 * b22)
    r10 = scale * (a10 * b00 + a11 * b10 + a12 * b20)
    r11 = scale * (a10 * b01 + a11 * b11 + a12 * b21)
    r12 = scale * (a10 * b02 + a11 * b12 + a12 * b22)
    r20 = scale * (a20 * b00 + a21 * b10 + a22 * b20)
    r21 = scale * (a20 * b01 + a21 * b11 + a22 * b21)
    r22 = scale * (a20 * b02 + a21 * b12 + a22 * b22)
    # Steps of double length, as `rig.Skeleton`.
    for k in tl.static_range(ROUNDS):
        up = tl.load(ancestors + k * 128 + lane)
        u00, u01, u02 = tl.gather(r00, up, 0), tl.gather(r01, up, 0), tl.gather(r02, up, 0)
        u10, u11, u12 = tl.gather(r10, up, 0), tl.gather(r11, up, 0), tl.gather(r12, up, 0)
        u20, u21, u22 = tl.gather(r20, up, 0), tl.gather(r21, up, 0), tl.gather(r22, up, 0)
        ux, uy, uz = tl.gather(tx, up, 0), tl.gather(ty, up, 0), tl.gather(tz, up, 0)
        s00 = u00 * r00 + u01 * r10 + u02 * r20
        s01 = u00 * r01 + u01 * r11 + u02 * r21
        s02 = u00 * r02 + u01 * r12 + u02 * r22
        s10 = u10 * r00 + u11 * r10 + u12 * r20
        s11 = u10 * r01 + u11 * r11 + u12 * r21
        s12 = u10 * r02 + u11 * r12 + u12 * r22
        s20 = u20 * r00 + u21 * r10 + u22 * r20
        s21 = u20 * r01 + u21 * r11 + u22 * r21
        s22 = u20 * r02 + u21 * r12 + u22 * r22
        sx = u00 * tx + u01 * ty + u02 * tz + ux
        sy = u10 * tx + u11 * ty + u12 * tz + uy
        sz = u20 * tx + u21 * ty + u22 * tz + uz
        r00, r01, r02, r10, r11, r12 = s00, s01, s02, s10, s11, s12
        r20, r21, r22, tx, ty, tz = s20, s21, s22, sx, sy, sz
    own = maps + (person * JOINTS + lane) * 16
    zero = tl.zeros([128], tl.float32)
    _store_row(own, r00, r01, r02, tx, there)
    _store_row(own + 4, r10, r11, r12, ty, there)
    _store_row(own + 8, r20, r21, r22, tz, there)
    _store_row(own + 12, zero, zero, zero, zero + 1, there)
    own, q = skin + (person * JOINTS + lane) * 12, bind + lane * 16
    for c in tl.static_range(4):
        q0 = tl.load(q + c, mask=there, other=0.0)
        q1 = tl.load(q + 4 + c, mask=there, other=0.0)
        q2 = tl.load(q + 8 + c, mask=there, other=0.0)
        last = 1.0 if c == 3 else 0.0
        tl.store(own + c, r00 * q0 + r01 * q1 + r02 * q2 + tx * last, mask=there)
        tl.store(own + 4 + c, r10 * q0 + r11 * q1 + r12 * q2 + ty * last, mask=there)
        tl.store(own + 8 + c, r20 * q0 + r21 * q1 + r22 * q2 + tz * last, mask=there)


@triton.jit
def _store_row(at, a, b, c, d, there):
    tl.store(at, a, mask=there)
    tl.store(at + 1, b, mask=there)
    tl.store(at + 2, c, mask=there)
    tl.store(at + 3, d, mask=there)


@triton.jit
def keypoints(
    rest, skin, maps, vertices, vertex_shares, skin_joints, skin_shares, own_joints, joint_shares,
    out, rows, first, end,
    JOINTS: tl.constexpr, KEYPOINTS: tl.constexpr, VERTICES: tl.constexpr,
    INFLUENCES: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """Write one keypoint in metres, in the camera's axes: shares of a few vertices at rest, each
    skinned by a few joints, and shares of a few joints. Keypoints outside of [first, end) are zero.
    """
    person, keypoint = tl.program_id(0).to(tl.int64), tl.program_id(1)
    v, i = tl.arange(0, VERTICES)[:, None], tl.arange(0, INFLUENCES)[None]
    vertex = tl.load(vertices + keypoint * VERTICES + v)
    share = tl.load(vertex_shares + keypoint * VERTICES + v)
    # Most keypoints are joints and have no vertices.
    taken = share != 0
    joint = tl.load(skin_joints + vertex * INFLUENCES + i, mask=taken, other=0)
    share = share * tl.load(skin_shares + vertex * INFLUENCES + i, mask=taken, other=0.0)
    point = rest + (person * rows + vertex) * 3
    x = tl.load(point, mask=taken, other=0.0)
    y = tl.load(point + 1, mask=taken, other=0.0)
    z = tl.load(point + 2, mask=taken, other=0.0)
    o = tl.arange(0, OWN)
    other = tl.load(own_joints + keypoint * OWN + o)
    part = tl.load(joint_shares + keypoint * OWN + o)
    wanted = tl.where((keypoint >= first) & (keypoint < end), 0.01, 0.0)
    for axis in tl.static_range(3):
        m = skin + (person * JOINTS + joint) * 12 + axis * 4
        placed = tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2) * z + tl.load(m + 3)
        total = tl.sum(tl.sum(placed * share, 1), 0)
        at_joint = tl.load(maps + (person * JOINTS + other) * 16 + axis * 4 + 3)
        total += tl.sum(at_joint * part, 0)
        # The rig's y and z point the other way.
        sign = 1.0 if axis == 0 else -1.0
        tl.store(out + (person * KEYPOINTS + keypoint) * 3 + axis, sign * wanted * total)


@triton.jit
def place(
    points, camera, centres, sides, lenses, translation, pixels, places, seen, relative,
    side, factor, nearest, KEYPOINTS: tl.constexpr, HIP: tl.constexpr,
):  # fmt: skip
    """Write where one person stands, as `crops.Crops.camera_translation`, and the keypoints'
    places: in the image, in the crop from its middle, and from the hips."""
    person = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, 128)
    there = k < KEYPOINTS
    own = points + person * KEYPOINTS * 3
    x = tl.load(own + k * 3, mask=there, other=0.0)
    y = tl.load(own + k * 3 + 1, mask=there, other=0.0)
    z = tl.load(own + k * 3 + 2, mask=there, other=0.0)
    centre_x, centre_y = tl.load(centres + person * 2), tl.load(centres + person * 2 + 1)
    width = tl.load(sides + person)
    lens = lenses + person * 9
    c = camera + person * 3
    pixels_per_m = -tl.load(c) * width * factor / 2 + 5e-9
    tx = tl.load(c + 1) + (centre_x - tl.load(lens + 2)) / pixels_per_m
    ty = (centre_y - tl.load(lens + 5)) / pixels_per_m - tl.load(c + 2)
    tz = tl.load(lens) / pixels_per_m
    tl.store(translation + person * 3, tx)
    tl.store(translation + person * 3 + 1, ty)
    tl.store(translation + person * 3 + 2, tz)
    fx, fy, fz = x + tx, y + ty, z + tz
    depth = fx * tl.load(lens + 6) + fy * tl.load(lens + 7) + fz * tl.load(lens + 8)
    u = (fx * tl.load(lens) + fy * tl.load(lens + 1) + fz * tl.load(lens + 2)) / depth
    v = (fx * tl.load(lens + 3) + fy * tl.load(lens + 4) + fz * tl.load(lens + 5)) / depth
    at = person * KEYPOINTS + k
    tl.store(pixels + at * 2, u, mask=there)
    tl.store(pixels + at * 2 + 1, v, mask=there)
    scale = side / width
    across = ((u - centre_x) * scale + side / 2) / side
    down = ((v - centre_y) * scale + side / 2) / side
    inside = (across >= 0) & (across <= 1) & (down >= 0) & (down <= 1) & (fz >= nearest)
    tl.store(seen + at, inside.to(tl.int8), mask=there)
    tl.store(places + at * 2, across - 0.5, mask=there)
    tl.store(places + at * 2 + 1, down - 0.5, mask=there)
    hip = own + HIP * 3
    tl.store(relative + at * 3, x - (tl.load(hip) + tl.load(hip + 3)) / 2, mask=there)
    tl.store(relative + at * 3 + 1, y - (tl.load(hip + 1) + tl.load(hip + 4)) / 2, mask=there)
    tl.store(relative + at * 3 + 2, z - (tl.load(hip + 2) + tl.load(hip + 5)) / 2, mask=there)
