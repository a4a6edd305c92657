"""What comes after the solver and before the meshes, in a Triton kernel; `finish_gpu` launches it.

Arrays of one person lie in rows (`layout.Layout`): an argument points at an array in the first row,
and ``row`` or ``memory_row`` is how many numbers further the next person's is.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pipeline.body.kinematics_gpu import (
    chain_sums,
    load_rotations,
    placed_joints,
    shaped_bones,
    turned,
    world_rotations,
)
from pipeline.fitting.kernels_gpu import _log
from triton_launch import DirectKernel


@triton.jit
def _steady(pelvis, transl, held, known, interval, frame, fade, half_speed, most, nearest):
    """Return what `steady_depth.steady_depth` holds after a frame, and the frame's distance."""
    place = 0.0
    speed = 0.0
    depth = 0.0
    for earlier in range(frame + 1):
        depth = tl.maximum(pelvis + tl.load(transl + 3 * earlier + 2), nearest)
        log_m = tl.log(depth)
        if earlier == 0:
            place = tl.where(known > 0, tl.load(held), log_m)
            speed = tl.where(known > 0, tl.load(held + 1), 0.0)
        kept = tl.exp(interval * tl.log(fade / (1.0 + tl.abs(speed) / half_speed)))
        ahead = place + speed * interval
        off = log_m - ahead
        added = ahead + (1.0 - kept * kept) * off - log_m
        place = log_m + 0.5 * (added + tl.minimum(tl.maximum(added, -most), most))
        speed += (1.0 - kept) * (1.0 - kept) * off / interval
    return place, speed, depth


@DirectKernel
@triton.jit
def finish(
    rotations, transl, betas, cost, residual_mean, gained, shape_frozen, row,
    old_rotations, old_transl, old_known, old_information, old_held, memory_row, interval_30hz,
    bones, ancestors, turns, out_betas, out_transl, out_joints, out_residual, out_cost, result_row,
    new_rotations, new_transl, new_known, new_betas, new_information, new_held,
    transforms, moved, shape, pose, shape_limit, gain, frozen, shape_weight, hold_shape,
    fade, half_speed, most, nearest,
    FRAMES: tl.constexpr, LANES: tl.constexpr, ROUNDS: tl.constexpr, POSE: tl.constexpr,
):  # fmt: skip
    """Write one frame's results but its landmarks, its joints' transforms, and what to remember.

    Args:
        rotations, transl, betas, cost, residual_mean, gained: `Solution`'s arrays, side by side;
            the last is the information about the shape.
        shape_frozen, interval_30hz: Of the observations, ``row`` numbers from person to person.
        old_rotations to old_held: The memory before the window, ``memory_row`` numbers likewise.
        bones, ancestors: As for `kinematics_gpu`.
        turns to out_cost: The results, written, ``result_row`` numbers likewise.
        new_rotations to new_held: The memory after the window, written.
        transforms: (B, 12, LANES), written, of points at rest.
        moved: (B, 3), written: from the solver's place to the steady one.
        shape: (P, 10), written: the shapes within the limit.
        pose: (B, POSE), written: rotations less the identity; none where POSE is 0.
        shape_limit to shape_weight: `window_step`'s constants and `FitConfig.shape_weight`.
        hold_shape: 1, or 0 where the shape is forgotten.
        fade to nearest: `steady_depth`'s constants and `window_step`'s.
        FRAMES: Frames in a window.
        LANES, ROUNDS: As for `kinematics_gpu`.
        POSE: How many numbers of a pose move vertices.
    """
    body = tl.program_id(0).to(tl.int64)
    person = body // FRAMES
    frame = (body % FRAMES).to(tl.int32)
    lanes = tl.arange(0, LANES)
    joints = lanes < 24
    local = load_rotations(rotations + body * 216 + lanes * 9, joints)
    world = world_rotations(local, ancestors, lanes, LANES, ROUNDS)
    own = betas + person * 10
    bx, by, bz = shaped_bones(bones, own, shape_limit, lanes, LANES)
    jx, jy, jz = placed_joints(world, bx, by, bz, ancestors, lanes, LANES, ROUNDS)
    place = transl + body * 3
    px, py, pz = tl.load(place), tl.load(place + 1), tl.load(place + 2)
    memory = person * memory_row
    root_z = tl.sum(tl.where(lanes == 0, bz, 0.0), 0)
    log_m, speed, depth = _steady(
        root_z, transl + person * FRAMES * 3, old_held + memory, tl.load(old_known + memory + 1),
        tl.load(interval_30hz + person * row), frame, fade, half_speed, most, nearest,
    )  # fmt: skip
    # Along the ray through the pelvis, so that the body stays where it is in the picture.
    share = tl.exp(log_m) / depth - 1.0
    x = share * (tl.sum(tl.where(lanes == 0, bx, 0.0), 0) + px)
    y = share * (tl.sum(tl.where(lanes == 0, by, 0.0), 0) + py)
    z = share * (root_z + pz)
    tl.store(moved + body * 3, x)
    tl.store(moved + body * 3 + 1, y)
    tl.store(moved + body * 3 + 2, z)

    result = person * result_row
    to = out_transl + result + frame * 3
    tl.store(to, px + x)
    tl.store(to + 1, py + y)
    tl.store(to + 2, pz + z)
    tl.store(out_residual + result + frame, tl.load(residual_mean + body))
    jx += px + x
    jy += py + y
    jz += pz + z
    to = out_joints + result + frame * 72 + 3 * lanes
    tl.store(to, jx, mask=joints)
    tl.store(to + 1, jy, mask=joints)
    tl.store(to + 2, jz, mask=joints)
    x, y, z = _log(
        local[0], local[1], local[2], local[3], local[4], local[5], local[6], local[7], local[8]
    )
    to = turns + result + frame * 72 + 3 * lanes
    tl.store(to, x, mask=joints)
    tl.store(to + 1, y, mask=joints)
    tl.store(to + 2, z, mask=joints)
    # A point at rest is turned about its joint at rest, then moved with the joint.
    x, y, z = chain_sums(bx, by, bz, ancestors, lanes, LANES, ROUNDS)
    x, y, z = turned(world, x, y, z)
    to = transforms + body * 12 * LANES + lanes
    for k in tl.static_range(9):
        tl.store(to + k * LANES, world[k])
    tl.store(to + 9 * LANES, jx - x)
    tl.store(to + 10 * LANES, jy - y)
    tl.store(to + 11 * LANES, jz - z)
    if POSE:
        # The pelvis moves no vertex against the others.
        to = pose + body * POSE + 9 * (lanes - 1)
        for k in tl.static_range(9):
            unit = 1.0 if k % 4 == 0 else 0.0
            tl.store(to + k, local[k] - unit, mask=joints & (lanes > 0))

    wide = tl.arange(0, 16)
    beta = tl.load(own + wide, mask=wide < 10, other=0.0)
    beta = tl.minimum(tl.maximum(beta, -shape_limit), shape_limit)
    if frame == 0:
        tl.store(out_betas + result + wide, beta, mask=wide < 10)
        tl.store(shape + person * 10 + wide, beta, mask=wide < 10)
        tl.store(out_cost + result, tl.load(cost + person))
    # The last two frames are remembered, as the solver left them.
    slot = frame - (FRAMES - 2)
    if slot >= 0:
        for k in tl.static_range(9):
            entry = new_rotations + memory + slot * 216 + lanes * 9 + k
            tl.store(entry, local[k], mask=joints)
        tl.store(new_transl + memory + slot * 3, px)
        tl.store(new_transl + memory + slot * 3 + 1, py)
        tl.store(new_transl + memory + slot * 3 + 2, pz)
        tl.store(new_known + memory + slot, 1.0)
    if FRAMES == 1:
        last = load_rotations(old_rotations + memory + 216 + lanes * 9, joints)
        for k in tl.static_range(9):
            tl.store(new_rotations + memory + lanes * 9 + k, last[k], mask=joints)
        for k in tl.static_range(3):
            tl.store(new_transl + memory + k, tl.load(old_transl + memory + 3 + k))
        tl.store(new_known + memory, tl.load(old_known + memory + 1))
    if frame == FRAMES - 1:
        tl.store(new_held + memory, log_m)
        tl.store(new_held + memory + 1, speed)
        tl.store(new_betas + memory + wide, beta * hold_shape, mask=wide < 10)
        entries = tl.arange(0, 128)
        real = entries < 100
        is_diagonal = tl.where(entries % 11 == 0, 1.0, 0.0)
        at = gained + person * 100
        across = (entries % 10) * 10 + entries // 10
        both = tl.load(at + entries, mask=real) + tl.load(at + across, mask=real)
        # Symmetrised, because rounding errors would add up over the windows.
        more = tl.load(old_information + memory + entries, mask=real) + 0.5 * gain * both
        is_frozen = tl.load(shape_frozen + person * row) > 0
        more = tl.where(is_frozen, frozen * is_diagonal, more)
        more = tl.where(hold_shape > 0, more, shape_weight * is_diagonal)
        tl.store(new_information + memory + entries, more, mask=real)
