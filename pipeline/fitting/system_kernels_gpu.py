"""The kernels that build, factor and solve a window's damped system; `linearise_gpu` launches them.

A frame has 80 columns: 69 unknowns, 10 of the shape, and the residual's, which gives the gradient.
Frames are coupled only in the same unknown, by smoothness, and across at most two frames; the shape
is the border of all. So the first and the last of four frames do not touch each other: `eliminate`
takes them side by side, then one of the two between after the other. Before each of these, `take`
writes its rows less what the eliminated frames take off them, and the shape's, in as many programs
as there are strips of rows. `solve` eliminates the shape and substitutes back. This is the Cholesky
factorisation of the whole window's matrix in that order.

`work` has five slots of rows a person: two ends, the first and the second frame between, the shape.
Eliminated rows are kept as 240 numbers: 80 of the frame's own factor L^T, 80 of L^-1 times what
couples it to later unknowns (the next frame's 69, the shape's 10, the gradient), 80 of L^-1. An end
is coupled by a diagonal, so L^-1 itself takes the place of the next frame's columns.

Rows are eliminated in strips of sixteen. Every thread factors the 16 x 16 triangle on its own, in
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
def _eliminate_strip(at, first, lanes):
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
def _damped(values, rows, lanes, scale, floor):
    """Return sixteen rows of a frame's system with a damped diagonal: (16, lanes).

    Rows behind the unknowns are those of an identity.
    """
    more = tl.where(rows[:, None] < _UNKNOWNS, scale * values + floor, 1.0)
    return values + tl.where(rows[:, None] == lanes[None, :], more, 0.0)


@triton.jit
def _end(block, rows, lanes, scale, floor):
    """Return sixteen rows of an end: (16, lanes).

    Lanes 0 to 68 are the frame's unknowns, 80 to 148 an identity, 149 to 159 the shape and the
    gradient. No row behind the last is read.
    """
    r = rows[:, None]
    c = lanes[None, :]
    inside = (r < _UNKNOWNS) & ((c < _UNKNOWNS) | ((c >= 149) & (c < 160)))
    at = block + r * _COLUMNS + tl.where(c < _COLUMNS, c, c - _COLUMNS)
    values = _damped(tl.load(at, mask=inside, other=0.0), rows, lanes, scale, floor)
    return values + tl.where((r + _COLUMNS == c) & (r < _UNKNOWNS), 1.0, 0.0)


@triton.jit
def _damping(control, person, FINAL: tl.constexpr):
    """Return the factor on the diagonal and the constant that damping adds to it."""
    if FINAL:
        # As `solver._shape_information`.
        return 1e-4, 1e-2
    return tl.load(control + person * 4 + 1), 1e-6


@triton.jit
def _strips(frozen, frozen_step, person, FINAL: tl.constexpr):
    """Return how many strips of a frame are eliminated: none where nothing more is asked."""
    strips = 5
    if FINAL:
        strips = tl.where(tl.load(frozen + person * frozen_step) > 0.0, 0, 5)
    return strips


@DirectKernel
@triton.jit
def eliminate(
    block, control, frozen, frozen_step, work, slot,
    FRAMES: tl.constexpr, IS_END: tl.constexpr, FINAL: tl.constexpr,
):  # fmt: skip
    """Eliminate a person's ends, a program each, or the frame that `take` wrote to a ``slot``.

    With ``FINAL``, nothing is done for a person whose shape is ``frozen``.
    """
    person = tl.program_id(0).to(tl.int64)
    end = tl.program_id(1)
    lanes = tl.arange(0, _LANES)
    sixteen = tl.arange(0, 16)
    inside = lanes[None, :] < _WIDTH
    block += (person * FRAMES + end * (FRAMES - 1)) * _COLUMNS * _COLUMNS
    work += (person * 5 + slot + end) * _COLUMNS * _WIDTH
    scale, floor = _damping(control, person, FINAL)
    if IS_END:
        following = _end(block, sixteen, lanes, scale, floor)
    else:
        following = tl.load(work + sixteen[:, None] * _WIDTH + lanes[None, :], mask=inside)
    for s in range(_strips(frozen, frozen_step, person, FINAL)):
        rows = 16 * s + sixteen
        at = work + rows[:, None] * _WIDTH + lanes[None, :]
        values = following
        # Asked for here, so that it is there when this strip is done.
        if IS_END:
            following = _end(block, rows + 16, lanes, scale, floor)
        else:
            following = tl.load(at + 16 * _WIDTH, mask=lanes[None, :] < tl.where(s < 4, _WIDTH, 0))
        for n in tl.range(0, s, num_stages=2):
            above = work + (16 * n + sixteen)[:, None] * _WIDTH
            left = tl.load(above + rows[None, :])
            right = tl.load(above + lanes[None, :], mask=inside, other=0.0)
            values = tl.dot(tl.trans(-left), right, values, input_precision=_PRECISION)
        tl.store(at, values, mask=inside)
        _eliminate_strip(work + 16 * s * _WIDTH, 16 * s, lanes)


@triton.jit
def _frame_rows(block, coupling, body, next_frame, rows, wide, scale, floor, coupled):
    """Return sixteen rows of a frame between the ends: (16, 128) twice.

    The first are the frame's own unknowns; the second the next frame's, if there is one, then the
    shape's, and the gradient.
    """
    r = rows[:, None]
    c = wide[None, :]
    at = block + body * _COLUMNS * _COLUMNS + r * _COLUMNS + c
    whole = tl.load(at, mask=(r < _UNKNOWNS) & (c < _COLUMNS), other=0.0)
    own = _damped(tl.where(c < _UNKNOWNS, whole, 0.0), rows, wide, scale, floor)
    beside = tl.where(c < _UNKNOWNS, 0.0, whole)
    smooth = tl.load(coupling + next_frame * _COLUMNS + rows, mask=rows < coupled, other=0.0)
    return own, beside + tl.where(r == c, smooth[:, None], 0.0)


@triton.jit
def _shape_rows(
    block, information, betas, best_betas, past_betas, control, person, wide, scale, floor,
    FRAMES: tl.constexpr, FINAL: tl.constexpr,
):  # fmt: skip
    """Return the ten rows of the shape, padded to (16, 128), twice.

    Lanes 0 to 9 of the first are the shape, lane 79 of the second is the gradient. At the end of a
    window the prior is left out, since what the window adds is asked for.
    """
    rows = tl.arange(0, 16)
    r = rows[:, None]
    c = wide[None, :]
    column = tl.where(c < 10, _UNKNOWNS + c, 79)
    inside = (r < 10) & ((c < 10) | (c == 79))
    values = tl.zeros((16, 128), tl.float32)
    at = (_UNKNOWNS + r) * _COLUMNS + column
    for t in tl.static_range(FRAMES):
        own = block + (person * FRAMES + t) * _COLUMNS * _COLUMNS
        values += tl.load(own + at, mask=inside, other=0.0)
    if not FINAL:
        prior = information + person * 100
        values += tl.load(prior + r * 10 + c, mask=(r < 10) & (c < 10), other=0.0)
        ten = rows[None, :]
        known = tl.load(prior + r * 10 + ten, mask=(r < 10) & (ten < 10), other=0.0)
        # An accepted candidate becomes the best state in another program of this launch.
        if tl.load(control + person * 4 + 2) > 0.0:
            offset = _offset(betas, past_betas, person)
        else:
            offset = _offset(best_betas, past_betas, person)
        pull = tl.sum(known * offset[None, :], 1)
        values += tl.where(c == 79, pull[:, None], 0.0)
        values += tl.where(r == c, scale * values + floor, 0.0)
    values += tl.where((r == c) & (r >= 10), 1.0, 0.0)
    return tl.where(c == 79, 0.0, values), tl.where(c == 79, values, 0.0)


@triton.jit
def _product(rows, left, right, wide):
    """Return the product (16, 128) of columns ``left`` (16) and ``right`` (128) of 80 rows.

    Columns from 240 on are zeros.
    """
    sixteen = tl.arange(0, 16)
    total = tl.zeros((16, 128), tl.float32)
    for n in tl.range(0, 5, num_stages=3):
        at = rows + (16 * n + sixteen)[:, None] * _WIDTH
        one = tl.load(at + left[None, :], mask=left[None, :] < _WIDTH, other=0.0)
        other = tl.load(at + right[None, :], mask=right[None, :] < _WIDTH, other=0.0)
        total = tl.dot(tl.trans(one), other, total, input_precision=_PRECISION)
    return total


@triton.jit
def _copy(source, out, begin, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Copy ``SIZE`` numbers from ``begin`` on."""
    at = tl.arange(0, BLOCK)
    inside = at < SIZE
    tl.store(out + begin + at, tl.load(source + begin + at, mask=inside, other=0.0), mask=inside)


@triton.jit
def _keep(
    control, fits, rotations, transl, betas, best_rotations, best_transl, best_betas,
    residual_mean, person, FRAMES: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """Make a person's candidate the best state where it was accepted."""
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


@DirectKernel
@triton.jit
def take(
    block, coupling, information, past_betas, control, frozen, frozen_step, work, fits,
    rotations, transl, betas, best_rotations, best_transl, best_betas, residual_mean,
    FRAMES: tl.constexpr, ENDS: tl.constexpr, FIRST: tl.constexpr, FINAL: tl.constexpr,
    STATE: tl.constexpr,
):  # fmt: skip
    """Write sixteen rows of what is not eliminated yet, less what was eliminated last takes off.

    Before the ``FIRST`` frame between the ends is eliminated, these are the rows of all frames
    between, five programs each, and of the shape in one program, less what the ends take off; the
    last program keeps the candidate where it was accepted. After that they are those of the second
    frame and of the shape, less what the first takes off. With ``FINAL``, rows are written for no
    person whose shape is ``frozen``.
    """
    person = tl.program_id(0).to(tl.int64)
    strip = tl.program_id(1)
    # A window of one frame has the second frame alone.
    second: tl.constexpr = FRAMES - 2 if FRAMES == 4 else FRAMES - 1
    between: tl.constexpr = 2 if FIRST and FRAMES > 1 else 1
    if strip > 5 * between:
        _keep(
            control, fits, rotations, transl, betas, best_rotations, best_transl, best_betas,
            residual_mean, person, FRAMES, STATE,
        )  # fmt: skip
    elif _strips(frozen, frozen_step, person, FINAL) > 0:
        wide = tl.arange(0, 128)
        sixteen = tl.arange(0, 16)
        c = wide[None, :]
        rows = 16 * (strip % 5) + sixteen
        is_shape = strip == 5 * between
        slot = 4 - between + strip // 5
        frame = second - (3 - tl.minimum(slot, 3))
        work += person * 5 * _COLUMNS * _WIDTH
        out = work + (slot * _COLUMNS + rows)[:, None] * _WIDTH + c
        scale, floor = _damping(control, person, FINAL)
        left = tl.where(rows < _UNKNOWNS, _COLUMNS + rows, _WIDTH)
        right = tl.where(wide < _COLUMNS, _COLUMNS + wide, _WIDTH)
        if is_shape:
            left = tl.where(sixteen < 10, 149 + sixteen, _WIDTH)
            right = tl.where(wide < 10, 149 + wide, tl.where(wide == 79, 159, _WIDTH))
        if FIRST:
            unknowns = tl.where(is_shape, 0, _UNKNOWNS)
            coupled = tl.where(frame < second, unknowns, 0)
            pair = coupling + (person * FRAMES + frame) * FRAMES * _COLUMNS
            if is_shape:
                own, beside = _shape_rows(
                    block, information, betas, best_betas, past_betas, control, person, wide,
                    scale, floor, FRAMES, FINAL,
                )  # fmt: skip
            else:
                own, beside = _frame_rows(
                    block, pair, person * FRAMES + frame, second, rows, wide, scale, floor, coupled
                )
            for e in tl.static_range(ENDS):
                taken = _product(work + e * _COLUMNS * _WIDTH, left, right, wide)
                # The coupling of an end with this frame and with the next.
                pairs = coupling + (person * FRAMES + e * (FRAMES - 1)) * FRAMES * _COLUMNS
                pairs_own = pairs + frame * _COLUMNS
                down = tl.load(pairs_own + rows, mask=rows < unknowns, other=0.0)
                across = tl.load(pairs_own + wide, mask=wide < unknowns, other=0.0)
                further = tl.load(pairs + second * _COLUMNS + wide, mask=wide < coupled, other=0.0)
                if is_shape:
                    down = tl.full((16,), 1.0, tl.float32)
                    across = tl.where(wide < 10, 1.0, 0.0)
                    further = tl.where(wide == 79, 1.0, 0.0)
                else:
                    further = tl.where((wide >= _UNKNOWNS) & (wide < _COLUMNS), 1.0, further)
                taken *= down[:, None]
                own -= across[None, :] * taken
                beside -= further[None, :] * taken
            identity = tl.where(rows[:, None] == c, 1.0, 0.0)
            tl.store(out + 2 * _COLUMNS, identity, mask=c < _COLUMNS)
        else:
            own = tl.load(out, mask=c < _COLUMNS, other=0.0)
            beside = tl.load(out + _COLUMNS, mask=c < _COLUMNS, other=0.0)
            taken = _product(work + 2 * _COLUMNS * _WIDTH, left, right, wide)
            is_own = c < tl.where(is_shape, 10, _UNKNOWNS)
            own -= tl.where(is_own, taken, 0.0)
            beside -= tl.where(is_own, 0.0, taken)
        tl.store(out, own, mask=c < _COLUMNS)
        tl.store(out + _COLUMNS, beside, mask=c < _COLUMNS)


@triton.jit
def _substituted(rows, known, INVERSE: tl.constexpr):
    """Return the unknowns (128,) of an eliminated frame.

    ``known`` (128,) are the later ones that it is coupled with, and -1 in lane 79, since the
    gradient is the right side. The inverse factor begins at column ``INVERSE``.
    """
    lanes = tl.arange(0, 128)
    at = rows + lanes[:, None] * _WIDTH + lanes[None, :]
    inside = (lanes[:, None] < _COLUMNS) & (lanes[None, :] < _COLUMNS)
    right = -tl.sum(tl.load(at + _COLUMNS, mask=inside, other=0.0) * known[None, :], 1)
    inside = inside & (lanes[None, :] < _UNKNOWNS)
    inverse = tl.load(at + INVERSE, mask=inside, other=0.0)
    return tl.sum(inverse * right[:, None], 0)


@DirectKernel
@triton.jit
def solve(
    coupling, control, frozen, frozen_step, work, step, gained,
    FRAMES: tl.constexpr, ENDS: tl.constexpr, FINAL: tl.constexpr,
):  # fmt: skip
    """Eliminate a person's shape and substitute back, for the next step from the best state.

    Of ``control`` (4) the last number, whether this step failed, is written. With ``FINAL``, the
    information about the shape that the window adds is written in place of the step: zeros for a
    person whose shape is ``frozen``, of which nothing more is asked.
    """
    person = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, _LANES)
    sixteen = tl.arange(0, 16)
    second: tl.constexpr = FRAMES - 2 if FRAMES == 4 else FRAMES - 1
    frame = _COLUMNS * _WIDTH
    work += person * 5 * frame
    is_known = _strips(frozen, frozen_step, person, FINAL) > 0
    is_shape = (sixteen[:, None] < 10) & ((lanes[None, :] < 10) | (lanes[None, :] == 159))
    own = work + 4 * frame + sixteen[:, None] * _WIDTH + lanes[None, :]
    values = tl.load(own, mask=lanes[None, :] < tl.where(is_known, _WIDTH, 0), other=0.0)
    if is_known:
        for n in tl.range(0, 5, num_stages=3):
            at = work + 3 * frame + (16 * n + sixteen)[:, None] * _WIDTH
            left = tl.load(at + 149 + sixteen[None, :], mask=sixteen[None, :] < 10, other=0.0)
            column = tl.where(lanes < 10, 149 + lanes, lanes)[None, :]
            inside = (column >= 149) & (column < 160)
            right = tl.load(at + column, mask=inside, other=0.0)
            taken = tl.dot(tl.trans(left), right, input_precision=_PRECISION)
            values -= tl.where(is_shape, taken, 0.0)
    if FINAL:
        # A factorisation that failed says nothing about the shape, so it adds no information.
        more = tl.where(values == values, values, 0.0)
        at = gained + person * 100 + sixteen[:, None] * 10 + lanes[None, :]
        tl.store(at, more, mask=(sixteen[:, None] < 10) & (lanes[None, :] < 10))
    else:
        tl.store(own, values, mask=lanes[None, :] < _WIDTH)
        _eliminate_strip(work + 4 * frame, 0, lanes)
        wide = tl.arange(0, 128)
        step += person * (FRAMES * _UNKNOWNS + 10)
        shape = step + FRAMES * _UNKNOWNS
        at = work + 4 * frame + sixteen * _WIDTH
        right = tl.load(at + 159)
        inverse = tl.load(at[:, None] + 2 * _COLUMNS + wide[None, :], mask=wide[None, :] < 16)
        x = tl.sum(inverse * right[:, None], 0)
        tl.store(shape + wide, x, mask=wide < 10)
        # No number is left unharmed by a pivot that is not positive.
        failed = tl.sum(tl.where((wide < 10) & (x != x), 1.0, 0.0), 0)
        tl.store(control + person * 4 + 3, failed)
        tl.debug_barrier()
        is_later = (wide >= _UNKNOWNS) & (wide < 79)
        later = tl.load(shape + wide - _UNKNOWNS, mask=is_later, other=0.0)
        later = tl.where(wide == 79, -1.0, later)
        is_own = wide < _UNKNOWNS
        x = _substituted(work + 3 * frame, later, 2 * _COLUMNS)
        tl.store(step + second * _UNKNOWNS + wide, x, mask=is_own)
        if FRAMES > 1:
            y = _substituted(work + 2 * frame, tl.where(is_own, x, later), 2 * _COLUMNS)
            tl.store(step + (second - 1) * _UNKNOWNS + wide, y, mask=is_own)
            for e in tl.static_range(ENDS):
                begin = (person * FRAMES + e * (FRAMES - 1)) * FRAMES * _COLUMNS
                pairs = coupling + begin + wide
                known = x * tl.load(pairs + second * _COLUMNS, mask=is_own, other=0.0)
                known += y * tl.load(pairs + (second - 1) * _COLUMNS, mask=is_own, other=0.0)
                z = _substituted(work + e * frame, tl.where(is_own, known, later), _COLUMNS)
                tl.store(step + e * (FRAMES - 1) * _UNKNOWNS + wide, z, mask=is_own)
