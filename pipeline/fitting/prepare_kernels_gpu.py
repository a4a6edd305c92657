"""What comes before the solver, in four Triton kernels; `prepare_gpu` launches them.

Arrays of one person lie in rows (`layout.Layout`): an argument points at an array in the first row,
and ``row`` or ``memory_row`` is how many numbers further the next person's is. Frames of all people
are bodies.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pipeline.body.kinematics_gpu import (
    choose,
    inverse,
    load_rotations,
    placed_joints,
    rotations_above,
    shaped_bones,
    times,
    turned,
    world_rotations,
)
from pipeline.fitting.kernels_gpu import _limits, _log
from triton_launch import DirectKernel


@DirectKernel
@triton.jit
def remember(
    image, visible, world_m, view, present, row,
    old_rays, old_visible, old_world_m, old_sighted, memory_row,
    rays, new_visible, new_world_m, sighted,
    FRAMES: tl.constexpr, CONTEXT: tl.constexpr, LANDMARKS: tl.constexpr,
):  # fmt: skip
    """Write one frame of a person's landmark history, shifted by a window: `LandmarkHistory.then`.

    Args:
        image, visible, world_m, view, present: The window's observations.
        row: Numbers from one person's observations to the next one's.
        old_rays, old_visible, old_world_m, old_sighted: The history before the window.
        memory_row: Numbers from one person's memory to the next one's.
        rays, new_visible, new_world_m, sighted: The history after the window, in such rows.
        FRAMES: Frames in a window.
        CONTEXT: Frames in a history.
        LANDMARKS: Landmarks of a frame.
    """
    person = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1)
    landmarks = tl.arange(0, 64)
    there = landmarks < LANDMARKS
    if number + FRAMES < CONTEXT:
        frame = number + FRAMES
        shift = person * memory_row
        at = frame * LANDMARKS + landmarks
        u = tl.load(old_rays + shift + 2 * at, mask=there)
        v = tl.load(old_rays + shift + 2 * at + 1, mask=there)
        seen = tl.load(old_visible + shift + at, mask=there)
        x = tl.load(old_world_m + shift + 3 * at, mask=there)
        y = tl.load(old_world_m + shift + 3 * at + 1, mask=there)
        z = tl.load(old_world_m + shift + 3 * at + 2, mask=there)
        here = tl.load(old_sighted + shift + frame)
    else:
        frame = number + FRAMES - CONTEXT
        shift = person * row
        at = frame * LANDMARKS + landmarks
        u = tl.load(image + shift + 2 * at, mask=there)
        v = tl.load(image + shift + 2 * at + 1, mask=there)
        # A row vector times the view: from the camera's axes to the ray frame's.
        turn = view + shift + frame * 9
        ahead = u * tl.load(turn + 2) + v * tl.load(turn + 5) + tl.load(turn + 8)
        ahead = tl.maximum(ahead, 1e-3)
        ray = (u * tl.load(turn) + v * tl.load(turn + 3) + tl.load(turn + 6)) / ahead
        v = (u * tl.load(turn + 1) + v * tl.load(turn + 4) + tl.load(turn + 7)) / ahead
        u = ray
        seen = tl.load(visible + shift + at, mask=there)
        x = tl.load(world_m + shift + 3 * at, mask=there)
        y = tl.load(world_m + shift + 3 * at + 1, mask=there)
        z = tl.load(world_m + shift + 3 * at + 2, mask=there)
        here = tl.load(present + shift + frame)
    shift = person * memory_row
    at = number * LANDMARKS + landmarks
    tl.store(rays + shift + 2 * at, u, mask=there)
    tl.store(rays + shift + 2 * at + 1, v, mask=there)
    tl.store(new_visible + shift + at, seen, mask=there)
    tl.store(new_world_m + shift + 3 * at, x, mask=there)
    tl.store(new_world_m + shift + 3 * at + 1, y, mask=there)
    tl.store(new_world_m + shift + 3 * at + 2, z, mask=there)
    tl.store(sighted + shift + number, here)


@triton.jit
def _place(x, y, z, u, v, known):
    """Return the translation that `initialise.place_by_landmarks` finds, for each row of points.

    Lanes without a point have the weight ``known`` 0; their ``z`` may be anything large.
    """
    known = known * known
    total = tl.sum(known, 1) + 1e-6
    off_u = u * z - x
    off_v = v * z - y
    middle_u = tl.sum(known * u, 1) / total
    middle_v = tl.sum(known * v, 1) / total
    mean_u = tl.sum(known * off_u, 1) / total
    mean_v = tl.sum(known * off_v, 1) / total
    u -= middle_u[:, None]
    v -= middle_v[:, None]
    spread = tl.sum(known * (u * u + v * v), 1) + 1e-6
    pull = known * (u * (off_u - mean_u[:, None]) + v * (off_v - mean_v[:, None]))
    depth = -tl.sum(pull, 1) / spread
    nearest = 0.3 - tl.min(z, 1)
    return mean_u + middle_u * depth, mean_v + middle_v * depth, tl.maximum(depth, nearest)


@triton.jit
def _at_hips(values, landmarks):
    """Return the mean of each row's two hips, landmarks 23 and 24."""
    hips = (landmarks == 23) | (landmarks == 24)
    return 0.5 * tl.sum(tl.where(hips[None, :], values, 0.0), 1)[:, None]


@triton.jit
def _perceived(world_m, at, there, landmarks):
    """Return landmarks about their mid-hip."""
    x = tl.load(world_m + 3 * at, mask=there, other=0.0)
    y = tl.load(world_m + 3 * at + 1, mask=there, other=0.0)
    z = tl.load(world_m + 3 * at + 2, mask=there, other=0.0)
    return x - _at_hips(x, landmarks), y - _at_hips(y, landmarks), z - _at_hips(z, landmarks)


@triton.jit
def _axis(world_m, answers, others, at, axis, sign, there, landmarks, share):
    """Return one axis of perceived landmarks about their mid-hip, and of the lifter's change.

    ``answers`` and ``others`` are the network's numbers for the person and the mirrored one.
    """
    value = tl.load(world_m + 3 * at + axis, mask=there, other=0.0)
    perceived = value - _at_hips(value, landmarks)
    # A mirrored person is as likely as the person, so both answers count alike.
    change = tl.load(answers + axis, mask=there, other=0.0)
    change += sign * tl.load(others + axis, mask=there, other=0.0)
    lifted = value + 0.1 * change
    lifted -= _at_hips(lifted, landmarks)
    # A share of the perceiver's own stays.
    return perceived, (1.0 - share) * (lifted - perceived)


@triton.jit
def _evened(change, still, here, FRAMES: tl.constexpr):
    """Return changes (T, 64), all alike as far as the person stands still."""
    mean = tl.sum(tl.where(here, change, 0.0), 0) / FRAMES
    return change + still * (mean[None, :] - change)


@DirectKernel
@triton.jit
def observe(
    image, visible, world_m, view, present, size, masked, root_depth_m, world_known,
    world_sigma_m, edge_from, row, answers, order, out,
    surface_m, surface_sigma_m, out_surface_m,
    rotations, transl_m, fitted, betas, information, memory_row, interval_30hz,
    out_rotations, out_transl_m, out_fitted, out_betas, out_information, out_interval,
    image_sigma, default_sigma_m, default_depth_sigma_m, model_sigma_m, surface_model_m,
    shape_weight, perceived_share, barely_visible, still_m, most_log_size,
    FRAMES: tl.constexpr, ROWS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr,
    WORLD: tl.constexpr, SPREAD: tl.constexpr, WEIGHT: tl.constexpr, VIEW: tl.constexpr,
    PRESENT: tl.constexpr, EDGE_FROM: tl.constexpr, MASKED: tl.constexpr, DEPTH: tl.constexpr,
    IMAGE_SPREAD: tl.constexpr, KNOWN: tl.constexpr, SIGMA: tl.constexpr, SKIN: tl.constexpr,
    SURFACE: tl.constexpr, POINTS: tl.constexpr, USE_LIFTER: tl.constexpr,
    USE_DEPTH: tl.constexpr,
):  # fmt: skip
    """Write a person's observations as the solver reads them.

    It does what `observations.observations`, the end of `lifter.lift` and
    `initialise.sized_by_depth` do.

    Args:
        image, visible, world_m, view, present, size, masked, root_depth_m, world_known,
            world_sigma_m, edge_from: The window's observations.
        row: Numbers from one person's observations to the next one's.
        answers: (P, 2, FRAMES, 33, 5) what the lifter says; not read without USE_LIFTER.
        order: (33,) which landmark takes each one's place when a person is mirrored.
        out: (B, WIDTH) rows of `prepare_gpu.FRAME`.
        surface_m, surface_sigma_m: The skin's points; not read where SURFACE is 0.
        out_surface_m: (B, SURFACE, 3) about their middle.
        rotations, transl_m, fitted, betas, information: What is known before the window.
        memory_row: Numbers from one person's memory to the next one's.
        interval_30hz: The time between frames.
        out_rotations to out_interval: The same side by side, as `TemporalPrior` has them; the
            information is what `WindowFit._shape_prior` returns.
        image_sigma to shape_weight: `FitConfig`'s, in order.
        perceived_share to still_m: `lifter`'s constants.
        most_log_size: `initialise`'s constant.
        FRAMES: Frames in a window.
        ROWS: FRAMES to a power of 2.
        LANDMARKS: Landmarks of a frame.
        WIDTH: Numbers of an output row; behind it, where each kind begins.
        SURFACE: Points of the skin; POINTS is that to a power of 2.
        USE_LIFTER, USE_DEPTH: Whether to take these steps.
    """
    person = tl.program_id(0).to(tl.int64)
    shift = person * row
    frames = tl.arange(0, ROWS)
    landmarks = tl.arange(0, 64)
    here = (frames < FRAMES)[:, None]
    there = here & (landmarks < LANDMARKS)[None, :]
    place = frames[:, None] * LANDMARKS + landmarks[None, :]
    one = shift + frames[:, None]
    to = out + (person * FRAMES + frames[:, None]) * WIDTH
    seen = tl.load(visible + shift + place, mask=there, other=0.0)
    is_present = tl.load(present + one, mask=here, other=0.0)
    known = tl.load(world_known + one, mask=here, other=0.0)
    sigma_m = tl.load(world_sigma_m + one, mask=here, other=0.0)
    depth_m = tl.load(root_depth_m + one, mask=here, other=0.0)
    stated = sigma_m > 0

    world = world_m + shift
    rays = image + shift + 2 * place
    u = tl.load(rays, mask=there, other=0.0)
    v = tl.load(rays + 1, mask=there, other=0.0)
    x = tl.load(world + 3 * place, mask=there, other=0.0)
    y = tl.load(world + 3 * place + 1, mask=there, other=0.0)
    z = tl.load(world + 3 * place + 2, mask=there, other=0.0)

    total_m = tl.sqrt(sigma_m * sigma_m + model_sigma_m * model_sigma_m)
    across_m = tl.max(tl.where(there, x, -1e30), 1) - tl.min(tl.where(there, x, 1e30), 1)
    along_m = tl.max(tl.where(there, y, -1e30), 1) - tl.min(tl.where(there, y, 1e30), 1)
    size_m = 1.1 * tl.maximum(across_m, along_m)[:, None]
    box = tl.load(size + one, mask=here, other=1.0)
    spread = tl.where(stated, total_m * box / tl.maximum(size_m, 0.1), image_sigma * box)
    spread_m = tl.where(stated, total_m, default_sigma_m) + tl.zeros_like(x)
    depth_spread_m = tl.where(stated, total_m, default_depth_sigma_m) + tl.zeros_like(x)
    weight = seen * known

    if USE_LIFTER:
        answer = answers + ((person * 2 * FRAMES + frames[:, None]) * LANDMARKS + landmarks) * 5
        other = tl.load(order + landmarks, mask=landmarks < LANDMARKS, other=0)[None, :]
        mirrored = answers + (((person * 2 + 1) * FRAMES + frames[:, None]) * LANDMARKS + other) * 5
        px, cx = _axis(world, answer, mirrored, place, 0, -1.0, there, landmarks, perceived_share)
        py, cy = _axis(world, answer, mirrored, place, 1, 1.0, there, landmarks, perceived_share)
        pz, cz = _axis(world, answer, mirrored, place, 2, 1.0, there, landmarks, perceived_share)
        if FRAMES > 1:
            later = there & (frames > 0)[:, None]
            bx, by, bz = _perceived(world, place - LANDMARKS, later, landmarks)
            moved = (px - bx) * (px - bx) + (py - by) * (py - by) + (pz - bz) * (pz - bz)
            mean = tl.sum(tl.sum(tl.where(later, moved, 0.0), 1), 0)
            mean /= 3 * LANDMARKS * (FRAMES - 1)
            still = tl.exp(-mean / (still_m * still_m))
            cx = _evened(cx, still, here, FRAMES)
            cy = _evened(cy, still, here, FRAMES)
            cz = _evened(cz, still, here, FRAMES)
        # Unlike any landmarks that the network was trained on are flat and metric ones.
        corrected = (known > 0) & (sigma_m <= 0)
        x = tl.where(corrected, px + cx, x)
        y = tl.where(corrected, py + cy, y)
        z = tl.where(corrected, pz + cz, z)
        # The deviation of a Laplace distribution is sqrt(2) times its scale.
        half = 0.5 * 1.4142135623730951
        lateral = tl.exp(tl.load(answer + 3, mask=there, other=0.0) - 2.5)
        lateral += tl.exp(tl.load(mirrored + 3, mask=there, other=0.0) - 2.5)
        radial = tl.exp(tl.load(answer + 4, mask=there, other=0.0) - 2.5)
        radial += tl.exp(tl.load(mirrored + 4, mask=there, other=0.0) - 2.5)
        spread_m = tl.where(stated, spread_m, half * lateral)
        depth_spread_m = tl.where(stated, depth_spread_m, half * radial)
        trust = tl.minimum(tl.maximum(seen / barely_visible, 0.0), 1.0)
        weight = tl.where(stated, weight, is_present * known * trust)

    turn = view + shift + 9 * frames[:, None]
    v00 = tl.load(turn, mask=here, other=0.0)
    v01 = tl.load(turn + 1, mask=here, other=0.0)
    v02 = tl.load(turn + 2, mask=here, other=0.0)
    v10 = tl.load(turn + 3, mask=here, other=0.0)
    v11 = tl.load(turn + 4, mask=here, other=0.0)
    v12 = tl.load(turn + 5, mask=here, other=0.0)
    v20 = tl.load(turn + 6, mask=here, other=0.0)
    v21 = tl.load(turn + 7, mask=here, other=0.0)
    v22 = tl.load(turn + 8, mask=here, other=0.0)
    if USE_DEPTH:
        ahead = tl.where(there, v20 * x + v21 * y + v22 * z, 1e30)
        _, _, implied_m = _place(
            tl.where(there, v00 * x + v01 * y + v02 * z, 0.0),
            tl.where(there, v10 * x + v11 * y + v12 * z, 0.0),
            ahead, u, v, seen * is_present,
        )  # fmt: skip
        sized = tl.where((depth_m > 0) & (sigma_m == 0), is_present, 0.0)
        ratio = tl.maximum(depth_m, 0.1) / tl.maximum(implied_m[:, None], 0.1)
        log_size = tl.minimum(tl.maximum(tl.log(ratio), -most_log_size), most_log_size)
        log_size = tl.sum(tl.sum(tl.where(here, log_size * sized, 0.0), 1), 0)
        factor = tl.exp(log_size / tl.maximum(tl.sum(tl.sum(sized, 1), 0), 1.0))
        x *= factor
        y *= factor
        z *= factor

    lane = landmarks[None, :]
    tl.store(to + 2 * lane, u, mask=there)
    tl.store(to + 2 * lane + 1, v, mask=there)
    tl.store(to + 2 * LANDMARKS + lane, seen, mask=there)
    tl.store(to + WORLD + 3 * lane, x, mask=there)
    tl.store(to + WORLD + 3 * lane + 1, y, mask=there)
    tl.store(to + WORLD + 3 * lane + 2, z, mask=there)
    tl.store(to + SPREAD + 3 * lane, spread_m, mask=there)
    tl.store(to + SPREAD + 3 * lane + 1, spread_m, mask=there)
    tl.store(to + SPREAD + 3 * lane + 2, depth_spread_m, mask=there)
    tl.store(to + WEIGHT + lane, weight, mask=there)
    tl.store(to + VIEW, v00, mask=here)
    tl.store(to + VIEW + 1, v01, mask=here)
    tl.store(to + VIEW + 2, v02, mask=here)
    tl.store(to + VIEW + 3, v10, mask=here)
    tl.store(to + VIEW + 4, v11, mask=here)
    tl.store(to + VIEW + 5, v12, mask=here)
    tl.store(to + VIEW + 6, v20, mask=here)
    tl.store(to + VIEW + 7, v21, mask=here)
    tl.store(to + VIEW + 8, v22, mask=here)
    tl.store(to + PRESENT, is_present, mask=here)
    # The size lies behind the presence.
    tl.store(to + PRESENT + 1, box, mask=here)
    for k in tl.static_range(6):
        value = tl.load(edge_from + shift + 6 * frames[:, None] + k, mask=here, other=0.0)
        tl.store(to + EDGE_FROM + k, value, mask=here)
    tl.store(to + MASKED, tl.load(masked + one, mask=here, other=0.0), mask=here)
    tl.store(to + DEPTH, depth_m, mask=here)
    tl.store(to + IMAGE_SPREAD, spread, mask=here)
    tl.store(to + KNOWN, known, mask=here)
    tl.store(to + SIGMA, sigma_m, mask=here)
    skin_weight = tl.zeros_like(sigma_m)
    if SURFACE:
        skin_m = tl.load(surface_sigma_m + one, mask=here, other=0.0)
        variance = skin_m * skin_m + surface_model_m * surface_model_m
        skin_weight = tl.where(skin_m > 0, 1.0 / variance, 0.0)
        points = tl.arange(0, POINTS)[None, :]
        real = here & (points < SURFACE)
        which = frames[:, None] * SURFACE + points
        for axis in tl.static_range(3):
            value = tl.load(surface_m + shift + 3 * which + axis, mask=real, other=0.0)
            value -= tl.sum(value, 1)[:, None] / SURFACE
            tl.store(
                out_surface_m + 3 * (person * FRAMES * SURFACE + which) + axis, value, mask=real
            )
    tl.store(to + SKIN, skin_weight, mask=here)

    past = person * memory_row
    _copy(rotations + past, out_rotations + person * 432, 432, 512)
    _copy(transl_m + past, out_transl_m + person * 6, 6, 8)
    _copy(fitted + past, out_fitted + person * 2, 2, 2)
    _copy(betas + past, out_betas + person * 10, 10, 16)
    tl.store(out_interval + person, tl.load(interval_30hz + shift))
    # Where errors are stated or the skin is known, SMPL's own variance of 1 takes the place of the
    # one that allows for biased landmarks.
    metric = tl.max(tl.max(tl.maximum(sigma_m, skin_weight), 1), 0)
    entries = tl.arange(0, 128)
    kept = tl.load(information + past + entries, mask=entries < 100)
    less = tl.where(entries % 11 == 0, tl.where(metric > 0, shape_weight - 1.0, 0.0), 0.0)
    tl.store(out_information + person * 100 + entries, kept - less, mask=entries < 100)


@triton.jit
def _copy(source, target, count, BLOCK: tl.constexpr):
    """Copy ``count`` numbers, at most BLOCK."""
    lanes = tl.arange(0, BLOCK)
    tl.store(target + lanes, tl.load(source + lanes, mask=lanes < count), mask=lanes < count)


@triton.jit
def _unit(x, y, z):
    """Return vectors of length one."""
    length = tl.maximum(tl.sqrt(x * x + y * y + z * z), 1e-8)
    return x / length, y / length, z / length


@triton.jit
def _frame(ax, ay, az, bx, by, bz):
    """Return the frames of two vectors, as `initialise.frame_of`."""
    ax, ay, az = _unit(ax, ay, az)
    along = ax * bx + ay * by + az * bz
    bx, by, bz = _unit(bx - along * ax, by - along * ay, bz - along * az)
    return ax, bx, ay * bz - az * by, ay, by, az * bx - ax * bz, az, bz, ax * by - ay * bx


@triton.jit
def _of_joint(values, joint: tl.constexpr, lanes):
    return tl.sum(tl.where(lanes == joint, values, 0.0), 0)


@triton.jit
def _torso(x, y, z, lanes):
    """Return the torso's frame, as `initialise._torso`.

    The vectors are each joint's first landmark: of joints 16 and 17 the shoulders, of 1 and 2 the
    hips.
    """
    ax, ay, az = _of_joint(x, 16, lanes), _of_joint(y, 16, lanes), _of_joint(z, 16, lanes)
    bx, by, bz = _of_joint(x, 17, lanes), _of_joint(y, 17, lanes), _of_joint(z, 17, lanes)
    cx, cy, cz = _of_joint(x, 1, lanes), _of_joint(y, 1, lanes), _of_joint(z, 1, lanes)
    dx, dy, dz = _of_joint(x, 2, lanes), _of_joint(y, 2, lanes), _of_joint(z, 2, lanes)
    return _frame(
        ax + bx - cx - dx, ay + by - cy - dy, az + bz - cz - dz,
        ax + cx - bx - dx, ay + cy - by - dy, az + cz - bz - dz,
    )  # fmt: skip


@triton.jit
def _seen_at(world_m, view, landmark):
    """Return landmarks in the camera's axes."""
    at = world_m + 3 * landmark
    x, y, z = tl.load(at), tl.load(at + 1), tl.load(at + 2)
    return (
        tl.load(view) * x + tl.load(view + 1) * y + tl.load(view + 2) * z,
        tl.load(view + 3) * x + tl.load(view + 4) * y + tl.load(view + 5) * z,
        tl.load(view + 6) * x + tl.load(view + 7) * y + tl.load(view + 8) * z,
    )


@triton.jit
def _at_rest(rest, betas, landmark):
    """Return landmarks of the body at rest; ``rest`` is `Skeleton.rest`."""
    at = rest + 33 * landmark
    x, y, z = tl.load(at), tl.load(at + 11), tl.load(at + 22)
    for b in range(10):
        beta = tl.load(betas + b)
        x += beta * tl.load(at + 1 + b)
        y += beta * tl.load(at + 12 + b)
        z += beta * tl.load(at + 23 + b)
    return x, y, z


@triton.jit
def _shown(world_m, view, rest, betas, limbs, axes, lanes, LANES: tl.constexpr):
    """Return the local rotations that landmarks show, as `initialise.pose_from_landmarks`.

    Args:
        world_m, view: A frame's landmarks and its view.
        rest: `Skeleton.rest`.
        betas: The person's shape.
        limbs: (4, LANES) for each joint its limb's three landmarks, and what it is: 1 the root, 2
            a limb's upper part, 3 its lower part, 0 none of these.
        axes: (3, LANES) the hinge at rest of each joint's limb.
        lanes: The joints.
        LANES: How many.
    """
    first = tl.load(limbs + lanes)
    middle = tl.load(limbs + LANES + lanes)
    last = tl.load(limbs + 2 * LANES + lanes)
    part = tl.load(limbs + 3 * LANES + lanes)
    hinge_x = tl.load(axes + lanes)
    hinge_y = tl.load(axes + LANES + lanes)
    hinge_z = tl.load(axes + 2 * LANES + lanes)
    ax, ay, az = _seen_at(world_m, view, first)
    bx, by, bz = _seen_at(world_m, view, middle)
    cx, cy, cz = _seen_at(world_m, view, last)
    torso = _torso(ax, ay, az, lanes)
    tx, ty, tz = _unit(bx - ax, by - ay, bz - az)
    ex, ey, ez = _unit(cx - bx, cy - by, cz - bz)
    ax, ay, az = _at_rest(rest, betas, first)
    bx, by, bz = _at_rest(rest, betas, middle)
    cx, cy, cz = _at_rest(rest, betas, last)
    root = times(torso, inverse(_torso(ax, ay, az, lanes)))
    # A straight limb has no plane, so its hinge comes from the torso, by how little it is bent.
    nx, ny, nz = ty * ez - tz * ey, tz * ex - tx * ez, tx * ey - ty * ex
    bend = tl.sqrt(nx * nx + ny * ny + nz * nz)
    trust = tl.minimum(tl.maximum((bend - 0.1) / 0.3, 0.0), 1.0)
    nx, ny, nz = _unit(nx, ny, nz)
    kx, ky, kz = turned(root, hinge_x, hinge_y, hinge_z)
    nx, ny, nz = _unit(
        trust * nx + (1 - trust) * kx, trust * ny + (1 - trust) * ky, trust * nz + (1 - trust) * kz
    )
    rest_top = _frame(bx - ax, by - ay, bz - az, hinge_x, hinge_y, hinge_z)
    rest_end = _frame(cx - bx, cy - by, cz - bz, hinge_x, hinge_y, hinge_z)
    above = times(_frame(tx, ty, tz, nx, ny, nz), inverse(rest_top))
    below = times(_frame(ex, ey, ez, nx, ny, nz), inverse(rest_end))
    out = choose(part == 2, times(inverse(root), above), _identity(lanes))
    out = choose(part == 3, times(inverse(above), below), out)
    return choose(part == 1, root, out)


@triton.jit
def _mid_hip(values, points):
    return 0.5 * tl.sum(tl.where((points == 23) | (points == 24), values, 0.0), 0)


@triton.jit
def _robust(squared, robust):
    """Return the Geman-McClure cost of squared residuals."""
    return robust * robust * squared / (robust * robust + squared)


@triton.jit
def _landmark_cost(
    px, py, pz, frame, points, robust, use_world,
    LANDMARKS: tl.constexpr, WORLD: tl.constexpr, SPREAD: tl.constexpr, WEIGHT: tl.constexpr,
    VIEW: tl.constexpr, PRESENT: tl.constexpr, IMAGE_SPREAD: tl.constexpr,
):  # fmt: skip
    """Return the cost of landmarks at points, as `solver.pose_cost` without the prior."""
    there = points < LANDMARKS
    present = tl.load(frame + PRESENT)
    sigma = tl.maximum(tl.load(frame + IMAGE_SPREAD), 1e-6)
    near = tl.maximum(pz, 0.1)
    ru = (px / near - tl.load(frame + 2 * points, mask=there, other=0.0)) / sigma
    rv = (py / near - tl.load(frame + 2 * points + 1, mask=there, other=0.0)) / sigma
    weight = tl.load(frame + 2 * LANDMARKS + points, mask=there, other=0.0) * present
    cost = tl.maximum(weight, 0.0) * _robust(ru * ru + rv * rv, robust)
    qx, qy, qz = px - _mid_hip(px, points), py - _mid_hip(py, points), pz - _mid_hip(pz, points)
    squared = tl.zeros_like(cost)
    for axis in tl.static_range(3):
        # The view turns the ray frame's axes to the camera's; its transpose turns back.
        turn = frame + VIEW + axis
        aimed = tl.load(frame + WORLD + 3 * points + axis, mask=there, other=0.0)
        aimed -= _mid_hip(aimed, points)
        off = tl.load(turn) * qx + tl.load(turn + 3) * qy + tl.load(turn + 6) * qz - aimed
        off /= tl.load(frame + SPREAD + 3 * points + axis, mask=there, other=1.0)
        squared += off * off
    weight = tl.load(frame + WEIGHT + points, mask=there, other=0.0) * present * use_world
    return tl.sum(tl.where(there, cost + weight * _robust(squared, robust), 0.0), 0)


@DirectKernel
@triton.jit
def poses(
    observed, past_rotations, past_betas, start_rotations, start_known, row,
    rest, limbs, axes, bones, ancestors, prior, sources, out,
    prior_weight, limit_weight, limit_sigma,
    FRAMES: tl.constexpr, SURFACE: tl.constexpr, LANES: tl.constexpr, ROUNDS: tl.constexpr,
    WIDTH: tl.constexpr, WORLD: tl.constexpr, VIEW: tl.constexpr, PRESENT: tl.constexpr,
):  # fmt: skip
    """Write one pose that competes for the first guess of a frame.

    The first one is what the frame shows, the second one is the last pose. A frame without the
    person takes the nearest one with it, which is computed here again: so no program waits.

    Args:
        observed: (B, WIDTH) rows of `prepare_gpu.FRAME`.
        past_rotations, past_betas: `TemporalPrior`'s arrays.
        start_rotations, start_known: What the perceiver knows of the pose; not read without
            SURFACE. They lie in ``row`` numbers a person.
        rest, limbs, axes: As for `_shown`.
        bones, ancestors: As for `kinematics_gpu`.
        prior: (4, 3, LANES) the pose prior's table.
        sources: (B,) int32, written: the frame that is taken for each.
        out: (B, 2, 22, LANES), written: world rotations (9), joints (3), local rotations (9), and
            the cost of pose prior and limits.
        prior_weight to limit_sigma: `FitConfig`'s, and the prior's constant.
        FRAMES: Frames in a window.
        WIDTH: Numbers of a row; behind it, where each kind begins.
    """
    body = tl.program_id(0).to(tl.int64)
    candidate = tl.program_id(1)
    person = body // FRAMES
    lanes = tl.arange(0, LANES)
    joints = lanes < 24
    first = person * FRAMES
    source = 0
    least = 1e9
    for other in range(FRAMES):
        distance = tl.abs((body - first) - other).to(tl.float32)
        distance += 1e3 * (1.0 - tl.load(observed + (first + other) * WIDTH + PRESENT))
        # The earlier one of two.
        source = tl.where(distance < least, other, source)
        least = tl.minimum(distance, least)
    tl.store(sources + body, source)
    betas = past_betas + person * 10
    if candidate == 0:
        frame = observed + (first + source) * WIDTH
        pose = _shown(frame + WORLD, frame + VIEW, rest, betas, limbs, axes, lanes, LANES)
        if SURFACE:
            start = load_rotations(
                start_rotations + person * row + source * 216 + lanes * 9, joints
            )
            up = tl.load(ancestors + lanes)
            local = times(inverse(rotations_above(start, up)), start)
            # The fit does not turn hands, so theirs would stay as they once were.
            local = choose(lanes < 22, local, _identity(lanes))
            pose = choose(tl.load(start_known + person * row + source) > 0, local, pose)
    else:
        pose = load_rotations(past_rotations + person * 432 + 216 + lanes * 9, joints)
    world = world_rotations(pose, ancestors, lanes, LANES, ROUNDS)
    x, y, z = shaped_bones(bones, betas, 1e30, lanes, LANES)
    x, y, z = placed_joints(world, x, y, z, ancestors, lanes, LANES, ROUNDS)
    to = out + (body * 2 + candidate) * 22 * LANES + lanes
    for k in tl.static_range(9):
        tl.store(to + k * LANES, world[k])
        tl.store(to + (12 + k) * LANES, pose[k])
    tl.store(to + 9 * LANES, x)
    tl.store(to + 10 * LANES, y)
    tl.store(to + 11 * LANES, z)
    x, y, z = _log(pose[0], pose[1], pose[2], pose[3], pose[4], pose[5], pose[6], pose[7], pose[8])
    posed = lanes < 22
    cost, _, _ = _limits(x, prior, 0, lanes, posed, prior_weight, limit_weight, limit_sigma, LANES)
    part, _, _ = _limits(y, prior, 1, lanes, posed, prior_weight, limit_weight, limit_sigma, LANES)
    cost += part
    part, _, _ = _limits(z, prior, 2, lanes, posed, prior_weight, limit_weight, limit_sigma, LANES)
    tl.store(to + 21 * LANES, tl.where(posed, cost + part, 0.0))


@DirectKernel
@triton.jit
def guess(
    observed, fitted, past_betas, sources, posed, moments, mass_of, rotations, transl,
    robust, use_world, use_prior, tries,
    FRAMES: tl.constexpr, LANES: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr,
    WORLD: tl.constexpr, SPREAD: tl.constexpr, WEIGHT: tl.constexpr, VIEW: tl.constexpr,
    PRESENT: tl.constexpr, IMAGE_SPREAD: tl.constexpr,
):  # fmt: skip
    """Write the first guess of one frame, the cheaper pose, as `WindowFit._first_guess`.

    Args:
        observed: (B, WIDTH) rows of `prepare_gpu.FRAME`.
        fitted, past_betas: `TemporalPrior`'s arrays.
        sources, posed: What `poses` wrote.
        moments, mass_of: The landmarks' `kinematics_gpu.point_tables`.
        rotations: (B, 24, 9), written.
        transl: (B, 3), written.
        robust, use_world, use_prior: `FitConfig`'s.
        tries: 2, or 1 where the last pose does not compete.
        FRAMES to LANDMARKS: As above.
        WIDTH: Numbers of a row; behind it, where each kind begins.
    """
    body = tl.program_id(0).to(tl.int64)
    person = body // FRAMES
    frame = observed + (person * FRAMES + tl.load(sources + body)) * WIDTH
    betas = past_betas + person * 10
    lanes = tl.arange(0, LANES)[None, :]
    points = tl.arange(0, 64)
    there = points < LANDMARKS
    table = moments + points[:, None] * (33 * LANES) + lanes
    both = there[:, None] & (lanes >= 0)
    mx = tl.load(table, mask=both, other=0.0)
    my = tl.load(table + 11 * LANES, mask=both, other=0.0)
    mz = tl.load(table + 22 * LANES, mask=both, other=0.0)
    for b in range(10):
        beta = tl.load(betas + b)
        at = table + (1 + b) * LANES
        mx += beta * tl.load(at, mask=both, other=0.0)
        my += beta * tl.load(at + 11 * LANES, mask=both, other=0.0)
        mz += beta * tl.load(at + 22 * LANES, mask=both, other=0.0)
    mass = tl.load(mass_of + points[:, None] * LANES + lanes, mask=both, other=0.0)
    u = tl.load(frame + 2 * points, mask=there, other=0.0)
    v = tl.load(frame + 2 * points + 1, mask=there, other=0.0)
    is_present = tl.load(frame + PRESENT)
    seen = tl.load(frame + 2 * LANDMARKS + points, mask=there, other=0.0) * is_present

    # Numbers, 0 or 1: whether to keep the last pose, and whether there is one.
    is_fitted = tl.where(tl.load(fitted + person * 2 + 1) > 0, tl.where(tries > 1, 1.0, 0.0), 0.0)
    keep = 1.0 - is_present
    cost0 = 0.0
    for candidate in range(tries):
        at = posed + (body * 2 + candidate) * 22 * LANES + lanes
        x = mass * tl.load(at + 9 * LANES)
        y = mass * tl.load(at + 10 * LANES)
        z = mass * tl.load(at + 11 * LANES)
        x += tl.load(at) * mx + tl.load(at + LANES) * my + tl.load(at + 2 * LANES) * mz
        y += tl.load(at + 3 * LANES) * mx + tl.load(at + 4 * LANES) * my
        y += tl.load(at + 5 * LANES) * mz
        z += tl.load(at + 6 * LANES) * mx + tl.load(at + 7 * LANES) * my
        z += tl.load(at + 8 * LANES) * mz
        px, py, pz = tl.sum(x, 1), tl.sum(y, 1), tl.sum(z, 1)
        x, y, z = _place(
            px[None, :], py[None, :], tl.where(there, pz, 1e30)[None, :],
            u[None, :], v[None, :], seen[None, :],
        )  # fmt: skip
        x, y, z = tl.sum(x, 0), tl.sum(y, 0), tl.sum(z, 0)
        cost = _landmark_cost(
            px + x, py + y, pz + z, frame, points, robust, use_world,
            LANDMARKS, WORLD, SPREAD, WEIGHT, VIEW, PRESENT, IMAGE_SPREAD,
        )  # fmt: skip
        cost += use_prior * tl.sum(tl.sum(tl.load(at + 21 * LANES), 1), 0)
        if candidate == 0:
            cost0 = cost
        else:
            # Comparison with NaN is false, so such a pose is not kept.
            keep = tl.where(cost <= cost0, 1.0, keep)
        if (candidate == 0) | (keep * is_fitted > 0):
            tl.store(transl + body * 3, x)
            tl.store(transl + body * 3 + 1, y)
            tl.store(transl + body * 3 + 2, z)
    # An absent frame has no landmarks to choose by; it keeps the last pose, if any.
    absent = 1.0 - tl.load(observed + body * WIDTH + PRESENT)
    which = tl.where(tl.maximum(keep, absent) * is_fitted > 0, 1, 0)
    joint = tl.arange(0, LANES)
    at = posed + ((body * 2 + which) * 22 + 12) * LANES + joint
    for k in tl.static_range(9):
        tl.store(rotations + body * 216 + joint * 9 + k, tl.load(at + k * LANES), mask=joint < 24)


@triton.jit
def _identity(lanes):
    one = lanes * 0.0 + 1.0
    none = lanes * 0.0
    return one, none, none, none, one, none, none, none, one
