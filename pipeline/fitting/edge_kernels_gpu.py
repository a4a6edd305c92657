"""Edge maps of outlines in one Triton kernel, as `edges.edge_maps`."""

from __future__ import annotations

import triton
import triton.language as tl

from triton_launch import DirectKernel


@triton.jit
def _mirrored(index, SIDE: tl.constexpr):
    """Return indices beyond the outermost pixels mirrored about these."""
    index = tl.abs(index)
    return (SIDE - 1) - tl.abs(SIDE - 1 - index)


@triton.jit
def _distances(inside, scratch, columns, SIDE: tl.constexpr, WIDE: tl.constexpr):
    """Return the signed distances (SIDE, WIDE) of a strip's columns to the outline."""
    rows = tl.arange(0, SIDE)
    local = tl.arange(0, WIDE)
    # More than any squared distance in an edge map.
    far = 1e6
    outward = tl.full((SIDE, WIDE), far, tl.float32)
    inward = tl.full((SIDE, WIDE), far, tl.float32)
    # Exact and separable: along rows first, then down columns, each pair of pixels compared.
    for k in range(SIDE):
        pixel = tl.load(inside + rows * SIDE + k)
        squared = ((columns - k) * (columns - k)).to(tl.float32)[None, :]
        outward = tl.minimum(outward, tl.where(pixel > 0.5, 0.0, far)[:, None] + squared)
        inward = tl.minimum(inward, tl.where(tl.abs(pixel) < 0.5, 0.0, far)[:, None] + squared)
    # A column's numbers lie in several threads, which exchange them through memory.
    at = scratch + rows[:, None] * WIDE + local[None, :]
    tl.store(at, outward)
    tl.store(at + SIDE * WIDE, inward)
    tl.debug_barrier()
    outward = tl.full((SIDE, WIDE), far, tl.float32)
    inward = tl.full((SIDE, WIDE), far, tl.float32)
    for k in range(SIDE):
        squared = ((rows - k) * (rows - k)).to(tl.float32)[:, None]
        line = scratch + k * WIDE + local
        outward = tl.minimum(outward, tl.load(line)[None, :] + squared)
        inward = tl.minimum(inward, tl.load(line + SIDE * WIDE)[None, :] + squared)
    pixel = rows[:, None] * SIDE + tl.minimum(tl.maximum(columns, 0), SIDE - 1)[None, :]
    on_person = tl.load(inside + pixel) > 0.5
    return tl.where(on_person, 0.5 - tl.sqrt(inward), tl.sqrt(outward) - 0.5)


@DirectKernel
@triton.jit
def edges(
    inside, inverse, scale, row, scratch, out, blur, total,
    FRAMES: tl.constexpr, SIDE: tl.constexpr, STRIP: tl.constexpr, REACH: tl.constexpr,
):  # fmt: skip
    """Write a strip of STRIP columns of one frame's edge map.

    Args:
        inside: Outlines, ``row`` numbers from person to person; likewise the next two.
        inverse: The linear map from normalised coordinates to pixels.
        scale: A pixel's size in normalised coordinates.
        row: Numbers from one person's to the next one's.
        scratch: (B, SIDE / STRIP, 2, SIDE, 2 STRIP), uninitialised.
        out: (B, 3, SIDE, SIDE).
        blur: Standard deviation of the blur in pixels; it reaches REACH pixels.
        total: The sum of the blur's taps.
        FRAMES: Frames in a window.
        SIDE: Side of an edge map.
        STRIP: Columns of a program.
        REACH: How many pixels the blur reads on each side.
    """
    body = tl.program_id(0).to(tl.int64)
    strip = tl.program_id(1)
    # The blur and the slopes read beyond the strip, so its neighbours' columns come along.
    wide: tl.constexpr = 2 * STRIP
    first = strip * STRIP - STRIP // 2
    shift = (body // FRAMES) * row
    frame = body % FRAMES
    own = scratch + (body * (SIDE // STRIP) + strip) * 2 * SIDE * wide
    rows = tl.arange(0, SIDE)[:, None]
    around = tl.arange(0, wide)
    outline = inside + shift + frame * SIDE * SIDE
    signed = _distances(outline, own, first + around, SIDE, wide)
    tl.debug_barrier()
    tl.store(own + rows * wide + around[None, :], signed)
    tl.debug_barrier()
    down = tl.zeros((SIDE, wide), tl.float32)
    for k in range(2 * REACH + 1):
        off = k - REACH
        tap = tl.exp(-0.5 * (off / blur) * (off / blur)) / total
        down += tap * tl.load(own + _mirrored(rows + off, SIDE) * wide + around[None, :])
    own += SIDE * wide
    tl.store(own + rows * wide + around[None, :], down)
    tl.debug_barrier()

    columns = strip * STRIP + tl.arange(0, STRIP)[None, :]
    above, below = tl.maximum(rows - 1, 0), tl.minimum(rows + 1, SIDE - 1)
    left, right = tl.maximum(columns - 1, 0), tl.minimum(columns + 1, SIDE - 1)
    value = tl.zeros((SIDE, STRIP), tl.float32)
    down = tl.zeros((SIDE, STRIP), tl.float32)
    across = tl.zeros((SIDE, STRIP), tl.float32)
    for k in range(2 * REACH + 1):
        off = k - REACH
        tap = tl.exp(-0.5 * (off / blur) * (off / blur)) / total
        at = _mirrored(columns + off, SIDE) - first
        value += tap * tl.load(own + rows * wide + at)
        down += tap * (tl.load(own + below * wide + at) - tl.load(own + above * wide + at))
        at = _mirrored(right + off, SIDE) - first
        across += tap * tl.load(own + rows * wide + at)
        at = _mirrored(left + off, SIDE) - first
        across -= tap * tl.load(own + rows * wide + at)
    down /= (below - above).to(tl.float32)
    across /= (right - left).to(tl.float32)
    turn = inverse + shift + frame * 4
    pixel = tl.load(outline + rows * SIDE + columns)
    # Where the mask says nothing, nothing pulls on a surface point.
    size = tl.where(pixel > -0.5, tl.load(scale + shift + frame), 0.0)
    to = out + body * 3 * SIDE * SIDE + rows * SIDE + columns
    tl.store(to, value * size)
    tl.store(to + SIDE * SIDE, (tl.load(turn) * across + tl.load(turn + 2) * down) * size)
    tl.store(to + 2 * SIDE * SIDE, (tl.load(turn + 1) * across + tl.load(turn + 3) * down) * size)
