"""The kernels that build, factor and solve a window's damped system; `linearise_gpu` launches them.

A frame has 80 columns: 69 unknowns, 10 of the shape, and the residual's, which gives the gradient.
Frames are coupled only in the same unknown, by smoothness, and across at most two frames; the shape
is the border of all. So the first and the last of four frames do not touch each other: `ends`
eliminates them side by side, and `solve` the two between, one after the other, then the shape.
This is the Cholesky factorisation of the whole window's matrix in that order.

Eliminated rows are kept as 240 numbers: 80 of the frame's own factor L^T, 80 of L^-1 times what
couples it to later unknowns (the next frame's 69, the shape's 10, the gradient), 80 of L^-1. An end
is coupled by a diagonal, so L^-1 itself takes the place of the next frame's columns.

Rows are eliminated sixteen at a time. Every thread factors the 16 x 16 triangle on its own, in
registers: a column then costs one reciprocal root, where sharing it would cost a barrier.
"""

from __future__ import annotations

import triton
import triton.language as tl

from triton_launch import DirectKernel

_COLUMNS = tl.constexpr(80)
_UNKNOWNS = tl.constexpr(69)
_WIDTH = tl.constexpr(240)
_LANES = tl.constexpr(256)
_PRECISION = tl.constexpr("tf32x3")
"""Three products of TF32 numbers, which give single precision; one alone has three digits."""


@DirectKernel
@triton.jit
def system(
    rows, normal, pull, smooth, drift, costs, betas, past_betas, information, before, control,
    block, coupling,
    FRAMES: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Decide on a person's candidate; where it is accepted, write sixteen rows of a frame's block.

    The block (80, 80) is the product of the frame's rows, with the priors' and smoothness's parts;
    its last column is the gradient. A block of a candidate that is not accepted is not written, so
    the block is always that of the best state. Of the control before (4) the cost is NaN where
    nothing has been accepted yet; the first candidate is accepted and leaves the damping.
    """
    body = tl.program_id(0).to(tl.int64)
    strip = tl.program_id(1)
    person = body // FRAMES
    places = tl.arange(0, BLOCK)
    paid = costs + person * FRAMES * PLACES + places
    cost = tl.sum(tl.load(paid, mask=places < FRAMES * PLACES, other=0.0), 0)
    ten = tl.arange(0, 16)
    offset = _offset(betas, past_betas, person)
    prior = information + person * 100 + ten[:, None] * 10 + ten[None, :]
    known = tl.load(prior, mask=(ten[:, None] < 10) & (ten[None, :] < 10), other=0.0)
    cost += tl.sum(offset * tl.sum(known * offset[None, :], 1), 0)
    best = tl.load(before + person * 4)
    damping = tl.load(before + person * 4 + 1)
    failed = tl.load(before + person * 4 + 3)
    begins = best != best
    accepted = ((cost <= best) | begins) & (failed == 0.0)
    if (strip == 0) & (body % FRAMES == 0):
        # As `solver.gauss_newton`.
        changed = tl.where(accepted, damping * 0.3, damping * 10.0)
        changed = tl.minimum(tl.maximum(changed, 1e-6), 1e6)
        tl.store(control + person * 4, tl.where(accepted, cost, best))
        tl.store(control + person * 4 + 1, tl.where(begins, damping, changed))
        tl.store(control + person * 4 + 2, tl.where(accepted, 1.0, 0.0))
    if accepted:
        own = 16 * strip + tl.arange(0, 16)
        other = tl.arange(0, 128)
        some = tl.arange(0, 32)
        inside = other[None, :] < _COLUMNS
        values = tl.zeros((16, 128), tl.float32)
        for first in range(0, ROWS, 32):
            line = rows + (body * ROWS + first + some)[:, None] * _COLUMNS
            is_row = (first + some)[:, None] < ROWS
            left = tl.load(line + own[None, :], mask=is_row, other=0.0)
            right = tl.load(line + other[None, :], mask=is_row & inside, other=0.0)
            values = tl.dot(tl.trans(left), right, values, input_precision=_PRECISION)
        # In the arrays of smoothness, the root's path is in lane 22 and each joint in its own lane.
        turns = (own >= 3) & (own < _UNKNOWNS)
        lane = tl.where(turns, (own - 3) // 3, 22)
        axis = tl.where(turns, (own - 3) % 3, own)
        is_own = own < _UNKNOWNS
        joint = tl.where((other >= 3) & (other < _UNKNOWNS), (other - 3) // 3, 23)
        place = (body * 9 + axis[:, None] * 3 + other[None, :] % 3) * LANES + lane[:, None]
        values += tl.load(
            normal + place, mask=turns[:, None] & (joint[None, :] == lane[:, None]), other=0.0
        )
        pair = smooth + (body * FRAMES * 3 + axis) * LANES + lane
        frame = (body % FRAMES).to(tl.int32)
        stiff = tl.load(pair + frame * 3 * LANES, mask=is_own, other=0.0)
        values += tl.where(own[:, None] == other[None, :], stiff[:, None], 0.0)
        place_1d = (body * 3 + axis) * LANES + lane
        slope = tl.load(drift + place_1d, mask=is_own, other=0.0)
        slope += tl.load(pull + place_1d, mask=turns, other=0.0)
        values += tl.where(other[None, :] == 79, slope[:, None], 0.0)
        out = block + (body * _COLUMNS + own[:, None]) * _COLUMNS + other[None, :]
        tl.store(out, values, mask=inside)
        for t in tl.static_range(FRAMES):
            shared = tl.load(pair + t * 3 * LANES, mask=is_own, other=0.0)
            tl.store(coupling + (body * FRAMES + t) * _COLUMNS + own, shared)


@triton.jit
def _offset(betas, past_betas, person):
    """Return a shape less the mean of what was known of it before, padded to (16,)."""
    ten = tl.arange(0, 16)
    offset = tl.load(betas + person * 10 + ten, mask=ten < 10, other=0.0)
    return offset - tl.load(past_betas + person * 10 + ten, mask=ten < 10, other=0.0)


@triton.jit
def _triangle(at, width):
    """Return the Cholesky factor of the 16 x 16 matrix at ``at``: its lower triangle, row by row.

    The diagonal holds reciprocals. NaN where a pivot is not positive and finite, and behind it
    everywhere.
    """
    factor = ()  # type: tuple
    for i in tl.static_range(16):
        for j in tl.static_range(i + 1):
            # The matrix is symmetric; its upper triangle is the one that is kept up to date.
            value = tl.load(at + j * width + i)
            for k in tl.static_range(j):
                value -= factor[i * (i + 1) // 2 + k] * factor[j * (j + 1) // 2 + k]
            if i == j:
                whole = (value > 0.0) & (value < float("inf"))
                value = tl.where(whole, tl.rsqrt(value), float("nan"))
            else:
                value *= factor[j * (j + 1) // 2 + j]
            factor = factor + (value,)
    return factor


@triton.jit
def _eliminate(at, first, lanes):
    """Multiply the sixteen rows at ``at`` by the inverse factor of their columns from ``first``."""
    tl.debug_barrier()
    factor = _triangle(at + first, _WIDTH)
    # All threads have read the triangle before one overwrites it.
    tl.debug_barrier()
    rows = ()  # type: tuple
    for i in tl.static_range(16):
        row = tl.load(at + i * _WIDTH + lanes, mask=lanes < _WIDTH, other=0.0)
        for k in tl.static_range(i):
            row -= factor[i * (i + 1) // 2 + k] * rows[k]
        row *= factor[i * (i + 1) // 2 + i]
        tl.store(at + i * _WIDTH + lanes, row, mask=lanes < _WIDTH)
        rows = rows + (row,)
    tl.debug_barrier()


@triton.jit
def _damped(block, scale, floor, rows, lanes):
    """Return sixteen rows of a frame's system with a damped diagonal: (16, lanes).

    Lanes 0 to 68 are the frame's unknowns, 149 to 159 the shape and the gradient. Rows behind the
    unknowns are those of an identity.
    """
    r = rows[:, None]
    c = lanes[None, :]
    inside = (r < _UNKNOWNS) & ((c < _UNKNOWNS) | ((c >= 149) & (c < 160)))
    at = block + r * _COLUMNS + tl.where(c < _COLUMNS, c, c - _COLUMNS)
    values = tl.load(at, mask=inside, other=0.0)
    more = tl.where(r < _UNKNOWNS, scale * values + floor, 1.0)
    return values + tl.where(r == c, more, 0.0)


@triton.jit
def _damping(control, person, FINAL: tl.constexpr):
    """Return the factor on the diagonal and the constant that damping adds to it."""
    if FINAL:
        # As `solver._shape_information`.
        return 1e-4, 1e-2
    return tl.load(control + person * 4 + 1), 1e-6


@DirectKernel
@triton.jit
def ends(
    block, control, frozen, frozen_step, work, gram,
    FRAMES: tl.constexpr, FINAL: tl.constexpr,
):  # fmt: skip
    """Eliminate a person's first frame, or the last of four; write the rows and their product.

    The product (80, 80) is what the rows take off the frames between (scaled by the coupling on
    both sides), their borders, the shape and the gradient. With ``FINAL``, nothing is done for a
    person whose shape is ``frozen``.
    """
    person = tl.program_id(0).to(tl.int64)
    end = tl.program_id(1)
    lanes = tl.arange(0, _LANES)
    sixteen = tl.arange(0, 16)
    block += (person * FRAMES + end * (FRAMES - 1)) * _COLUMNS * _COLUMNS
    work += (person * 5 + end) * _COLUMNS * _WIDTH
    gram += (person * 2 + end) * _COLUMNS * _COLUMNS
    scale, floor = _damping(control, person, FINAL)
    strips = 5
    if FINAL:
        strips = tl.where(tl.load(frozen + person * frozen_step) > 0.0, 0, 5)
    for s in range(strips):
        rows = 16 * s + sixteen
        values = _damped(block, scale, floor, rows, lanes)
        is_own = (rows[:, None] + _COLUMNS == lanes[None, :]) & (rows[:, None] < _UNKNOWNS)
        values += tl.where(is_own, 1.0, 0.0)
        for n in tl.range(0, s, num_stages=2):
            at = work + (16 * n + sixteen)[:, None] * _WIDTH
            left = tl.load(at + rows[None, :])
            above = tl.load(at + lanes[None, :], mask=lanes[None, :] < _WIDTH, other=0.0)
            values = tl.dot(tl.trans(-left), above, values, input_precision=_PRECISION)
        at = work + rows[:, None] * _WIDTH + lanes[None, :]
        tl.store(at, values, mask=lanes[None, :] < _WIDTH)
        _eliminate(work + 16 * s * _WIDTH, 16 * s, lanes)
    # 80 columns, padded to a power of 2.
    wide = tl.arange(0, 128)
    inside = wide[None, :] < _COLUMNS
    for s in range(strips):
        rows = 16 * s + sixteen
        total = tl.zeros((16, 128), tl.float32)
        for n in range(5):
            at = work + (16 * n + sixteen)[:, None] * _WIDTH + _COLUMNS
            left = tl.load(at + rows[None, :])
            right = tl.load(at + wide[None, :], mask=inside, other=0.0)
            total = tl.dot(tl.trans(left), right, total, input_precision=_PRECISION)
        tl.store(gram + rows[:, None] * _COLUMNS + wide[None, :], total, mask=inside)


@triton.jit
def _between(
    block, coupling, gram, person, frame, next_frame, scale, floor, rows, lanes,
    FRAMES: tl.constexpr, ENDS: tl.constexpr,
):  # fmt: skip
    """Return sixteen rows of a frame between the ends, less what the ends take off: (16, lanes).

    Lanes 80 to 148 couple it to the next frame, if there is one (else ``next_frame`` is
    ``frame``); lanes 160 on are an identity.
    """
    r = rows[:, None]
    c = lanes[None, :]
    body = person * FRAMES + frame
    values = _damped(block + body * _COLUMNS * _COLUMNS, scale, floor, rows, lanes)
    coupled = tl.where(next_frame != frame, _UNKNOWNS, 0)
    pair = coupling + (body * FRAMES + next_frame) * _COLUMNS + rows
    smooth = tl.load(pair, mask=rows < coupled, other=0.0)
    values += tl.where(r + _COLUMNS == c, smooth[:, None], 0.0)
    values += tl.where(r + 2 * _COLUMNS == c, 1.0, 0.0)
    own = lanes < _UNKNOWNS
    further = (lanes >= _COLUMNS) & (lanes < _COLUMNS + coupled)
    border = (lanes >= 149) & (lanes < 160)
    column = tl.where(lanes < _COLUMNS, lanes, lanes - _COLUMNS)
    for e in tl.static_range(ENDS):
        # The coupling of an end with this frame and with the next.
        pairs = coupling + (person * FRAMES + e * (FRAMES - 1)) * FRAMES * _COLUMNS
        pairs_own = pairs + frame * _COLUMNS
        down = tl.load(pairs_own + rows, mask=rows < _UNKNOWNS, other=0.0)
        across = tl.load(pairs_own + lanes, mask=own, other=0.0)
        across += tl.load(pairs + next_frame * _COLUMNS + column, mask=further, other=0.0)
        across += tl.where(border, 1.0, 0.0)
        at = gram + (person * 2 + e) * _COLUMNS * _COLUMNS + r * _COLUMNS + column[None, :]
        inside = (r < _UNKNOWNS) & (own | further | border)[None, :]
        values -= down[:, None] * across[None, :] * tl.load(at, mask=inside, other=0.0)
    return values


@triton.jit
def _shape(
    block, gram, information, betas, past_betas, person, scale, floor, lanes,
    FRAMES: tl.constexpr, ENDS: tl.constexpr, FINAL: tl.constexpr,
):  # fmt: skip
    """Return the ten rows of the shape, less what the ends take off, padded to (16, lanes).

    Lanes 0 to 9 are the shape, 159 is the gradient, 160 on are an identity. At the end of a
    window the prior is left out, since what the window adds is asked for.
    """
    rows = tl.arange(0, 16)
    r = rows[:, None]
    c = lanes[None, :]
    column = tl.where(c < 10, _UNKNOWNS + c, 79)
    inside = (r < 10) & ((c < 10) | (c == 159))
    values = tl.zeros((16, _LANES), tl.float32)
    at = (_UNKNOWNS + r) * _COLUMNS + column
    for t in tl.static_range(FRAMES):
        own = block + (person * FRAMES + t) * _COLUMNS * _COLUMNS
        values += tl.load(own + at, mask=inside, other=0.0)
    if not FINAL:
        prior = information + person * 100
        values += tl.load(prior + r * 10 + c, mask=(r < 10) & (c < 10), other=0.0)
        ten = rows[None, :]
        known = tl.load(prior + r * 10 + ten, mask=(r < 10) & (ten < 10), other=0.0)
        pull = tl.sum(known * _offset(betas, past_betas, person)[None, :], 1)
        values += tl.where(c == 159, pull[:, None], 0.0)
        values += tl.where(r == c, scale * values + floor, 0.0)
    values += tl.where((r == c) & (r >= 10), 1.0, 0.0)
    values += tl.where(r + 2 * _COLUMNS == c, 1.0, 0.0)
    for e in tl.static_range(ENDS):
        own = gram + (person * 2 + e) * _COLUMNS * _COLUMNS
        values -= tl.load(own + at, mask=inside, other=0.0)
    return values


@triton.jit
def _copy(source, out, begin, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Copy ``SIZE`` numbers from ``begin`` on."""
    at = tl.arange(0, BLOCK)
    inside = at < SIZE
    tl.store(out + begin + at, tl.load(source + begin + at, mask=inside, other=0.0), mask=inside)


@DirectKernel
@triton.jit
def solve(
    block, coupling, gram, information, past_betas, control, frozen, frozen_step, work, fits,
    rotations, transl, betas, best_rotations, best_transl, best_betas, step, residual_mean, gained,
    FRAMES: tl.constexpr, ENDS: tl.constexpr, FINAL: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """Keep a person's candidate where it was accepted; solve for the next step from the best state.

    ``control`` (4) is a person's cost, damping, whether the candidate was accepted, and whether
    this step failed, which is written here. With ``FINAL``, the information about the shape that
    the window adds is written in place of the step: zeros for a person whose shape is ``frozen``,
    of which nothing more is asked.
    """
    person = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, _LANES)
    sixteen = tl.arange(0, 16)
    few = tl.arange(0, 64)
    if tl.load(control + person * 4 + 2) > 0.0:
        _copy(rotations, best_rotations, person * FRAMES * 216, FRAMES * 216, STATE)
        _copy(transl, best_transl, person * FRAMES * 3, FRAMES * 3, 16)
        _copy(betas, best_betas, person * 10, 10, 16)
        for t in tl.static_range(FRAMES):
            at = fits + (person * FRAMES + t) * 128 + few
            weight = tl.sum(tl.load(at, mask=few < 33, other=0.0), 0)
            total = tl.sum(tl.load(at + 64, mask=few < 33, other=0.0), 0)
            tl.store(residual_mean + person * FRAMES + t, total / tl.maximum(weight, 1e-6))
        tl.debug_barrier()
    # The two frames between the ends; a window of one frame has the second alone.
    second: tl.constexpr = FRAMES - 2 if FRAMES == 4 else FRAMES - 1
    first: tl.constexpr = second - 1 if FRAMES > 1 else second
    begin: tl.constexpr = 0 if FRAMES > 1 else 1
    work += person * 5 * _COLUMNS * _WIDTH
    scale, floor = _damping(control, person, FINAL)
    levels = 3
    if FINAL:
        levels = tl.where(tl.load(frozen + person * frozen_step) > 0.0, begin, 3)
    # Level 0 is the first frame, 1 the second, 2 the shape. Levels before this one take off it.
    for level in range(begin, levels):
        own = work + (2 + level) * _COLUMNS * _WIDTH
        for s in range(tl.where(level < 2, 5, 1)):
            rows = 16 * s + sixteen
            if level < 2:
                frame = tl.where(level == 0, first, second)
                values = _between(
                    block, coupling, gram, person, frame, second, scale, floor, rows, lanes,
                    FRAMES, ENDS,
                )  # fmt: skip
                taken = tl.where(rows < _UNKNOWNS, _COLUMNS + rows, _WIDTH)
                across = tl.where(lanes < _UNKNOWNS, _COLUMNS + lanes, _WIDTH)
                across = tl.where((lanes >= 149) & (lanes < 160), lanes, across)
            else:
                values = _shape(
                    block, gram, information, best_betas, past_betas, person, scale, floor, lanes,
                    FRAMES, ENDS, FINAL,
                )  # fmt: skip
                taken = tl.where(sixteen < 10, 149 + sixteen, _WIDTH)
                across = tl.where(lanes < 10, 149 + lanes, tl.where(lanes == 159, 159, _WIDTH))
            before = 5 * (level - begin)
            for n in tl.range(0, before + s, num_stages=2):
                mine = n >= before
                at = work + (tl.where(mine, level, begin + n // 5) + 2) * _COLUMNS * _WIDTH
                at += (16 * tl.where(mine, n - before, n % 5) + sixteen)[:, None] * _WIDTH
                column = tl.where(mine, rows, taken)[None, :]
                left = tl.load(at + column, mask=column < _WIDTH, other=0.0)
                column = tl.where(mine, lanes, across)[None, :]
                above = tl.load(at + column, mask=column < _WIDTH, other=0.0)
                values = tl.dot(tl.trans(-left), above, values, input_precision=_PRECISION)
            at = own + rows[:, None] * _WIDTH + lanes[None, :]
            tl.store(at, values, mask=lanes[None, :] < _WIDTH)
            if level < 2 or not FINAL:
                _eliminate(own + 16 * s * _WIDTH, 16 * s, lanes)
    wide = tl.arange(0, 128)
    if FINAL:
        tl.debug_barrier()
        ten = (sixteen[:, None] < 10) & (sixteen[None, :] < 10)
        at = work + 4 * _COLUMNS * _WIDTH + sixteen[:, None] * _WIDTH + sixteen[None, :]
        more = tl.load(at, mask=ten, other=0.0)
        # A factorisation that failed says nothing about the shape, so it adds no information.
        more = tl.where((more == more) & (levels > begin), more, 0.0)
        at = gained + person * 100 + sixteen[:, None] * 10 + sixteen[None, :]
        tl.store(at, more, mask=ten)
    else:
        step += person * (FRAMES * _UNKNOWNS + 10)
        shape = step + FRAMES * _UNKNOWNS
        # Back from the shape to the second frame, the first, and the ends.
        for back in range(3 - begin + ENDS):
            is_end = back >= 3
            slot = tl.where(is_end, back - 3, 4 - back)
            own = work + slot * _COLUMNS * _WIDTH
            frame = tl.where(is_end, (back - 3) * (FRAMES - 1), tl.where(back == 1, second, first))
            later = (wide >= _UNKNOWNS) & (wide < 79) & (back > 0)
            known = tl.load(shape + wide - _UNKNOWNS, mask=later, other=0.0)
            coupled = (wide < _UNKNOWNS) & (back > 1)
            x = tl.load(step + second * _UNKNOWNS + wide, mask=coupled, other=0.0)
            if is_end:
                pairs = coupling + (person * FRAMES + frame) * FRAMES * _COLUMNS + wide
                x *= tl.load(pairs + second * _COLUMNS, mask=coupled, other=0.0)
                y = tl.load(step + first * _UNKNOWNS + wide, mask=coupled, other=0.0)
                x += y * tl.load(pairs + first * _COLUMNS, mask=coupled, other=0.0)
            # The gradient's column is the right side: it counts with the other sign.
            known += x - tl.where(wide == 79, 1.0, 0.0)
            inverse = tl.where(is_end, _COLUMNS, 2 * _COLUMNS)
            x = tl.zeros((128,), tl.float32)
            for s in range(tl.where(back > 0, 5, 1)):
                at = own + (16 * s + sixteen)[:, None] * _WIDTH + wide[None, :]
                inside = wide[None, :] < _COLUMNS
                right = tl.load(at + _COLUMNS, mask=inside, other=0.0)
                right = -tl.sum(right * known[None, :], 1)
                inside = wide[None, :] < _UNKNOWNS
                solved = tl.load(at + inverse, mask=inside, other=0.0)
                x += tl.sum(solved * right[:, None], 0)
            if back == 0:
                tl.store(shape + wide, x, mask=wide < 10)
                # No number is left unharmed by a pivot that is not positive.
                failed = tl.sum(tl.where((wide < 10) & (x != x), 1.0, 0.0), 0)
                tl.store(control + person * 4 + 3, failed)
            else:
                tl.store(step + frame * _UNKNOWNS + wide, x, mask=wide < _UNKNOWNS)
            tl.debug_barrier()
