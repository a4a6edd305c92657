"""The lifter's network in one Triton kernel; `lifter_gpu` launches it.

A program is one person, or that person mirrored: sixteen frames pass through all layers in it. So
nothing has to wait for other programs, and a layer's weights are read from the GPU's cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from triton_launch import DirectKernel


@triton.jit
def _share(at, values, mask):
    """Store values that other threads of the program have read, and will read."""
    tl.debug_barrier()
    tl.store(at, values, mask=mask)
    tl.debug_barrier()


@triton.jit
def _product(
    inputs, weights, bias, columns,
    ROW: tl.constexpr, LENGTH: tl.constexpr, WIDTH: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    """Return ``inputs`` (FRAMES, LENGTH) times ``weights`` (LENGTH, WIDTH), plus ``bias`` (WIDTH).

    The weights are half precision in the archive already. An input is taken as the sum of two
    numbers of half precision, so the product is exact to single precision, on tensor cores.
    """
    frames = tl.arange(0, FRAMES)[:, None]
    inner = tl.arange(0, 64)
    inside = columns[None, :] < WIDTH
    out = tl.zeros((FRAMES, 256), tl.float32)
    out += tl.load(bias + columns, mask=columns < WIDTH, other=0.0)[None, :]
    for first in tl.range(0, LENGTH, 64, num_stages=3):
        at = first + inner
        value = tl.load(inputs + frames * ROW + at[None, :])
        weight = tl.load(weights + at[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0)
        high = value.to(tl.float16)
        low = (value - high.to(tl.float32)).to(tl.float16)
        out = tl.dot(high, weight, out)
        out = tl.dot(low, weight, out)
    return out


@triton.jit
def _normed(x, scale, columns, WIDTH: tl.constexpr):
    """Return the layer norm of rows ``x``, whose weights and biases are at ``scale``."""
    inside = columns < WIDTH
    mean = tl.sum(x, 1) / WIDTH
    off = tl.where(inside[None, :], x - mean[:, None], 0.0)
    deviation = tl.sqrt(tl.sum(off * off, 1) / WIDTH + 1e-5)
    weight = tl.load(scale + columns, mask=inside, other=0.0)
    bias = tl.load(scale + WIDTH + columns, mask=inside, other=0.0)
    return off / deviation[:, None] * weight[None, :] + bias[None, :]


@triton.jit
def _features(
    rays, visible, world_m, known, interval_30hz, order, inner, is_mirrored,
    FRAMES: tl.constexpr, LANDMARKS: tl.constexpr, FEATURES: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    """Write what `lifter.features` returns to ``inner`` (FRAMES, ROW), zero beyond FEATURES."""
    frames = tl.arange(0, FRAMES)[:, None]
    landmarks = tl.arange(0, 64)
    there = (landmarks < LANDMARKS)[None, :]
    # A mirrored person has the landmarks of the other side, and x negated.
    other = tl.load(order + landmarks, mask=landmarks < LANDMARKS, other=0)
    at = frames * LANDMARKS + tl.where(is_mirrored, other, landmarks)[None, :]
    sign = tl.where(is_mirrored, -1.0, 1.0)
    u = sign * tl.load(rays + 2 * at, mask=there, other=0.0)
    v = tl.load(rays + 2 * at + 1, mask=there, other=0.0)
    # Landmarks 23 and 24 are the hips.
    hips = there & ((landmarks == 23) | (landmarks == 24))[None, :]
    here = tl.load(known + tl.arange(0, FRAMES))
    u = (u - 0.5 * tl.sum(tl.where(hips, u, 0.0), 1)[:, None]) * here[:, None]
    v = (v - 0.5 * tl.sum(tl.where(hips, v, 0.0), 1)[:, None]) * here[:, None]
    count = tl.maximum(LANDMARKS * tl.sum(here, 0), LANDMARKS)
    square = tl.sum(tl.sum(tl.where(there, u * u + v * v, 0.0), 1), 0)
    size = tl.maximum(tl.sqrt(square / count), 1e-4)

    columns = tl.arange(0, ROW)[None, :]
    scale = tl.where(columns == FEATURES - 3, here[:, None], 0.0)
    scale = tl.where(columns == FEATURES - 2, tl.log(tl.load(interval_30hz)), scale)
    scale = tl.where(columns == FEATURES - 1, tl.log(size) + 2.0, scale)
    tl.store(inner + frames * ROW + columns, scale, mask=columns >= 6 * LANDMARKS)
    out = inner + frames * ROW + 6 * landmarks[None, :]
    tl.store(out, u / size * here[:, None], mask=there)
    tl.store(out + 1, v / size * here[:, None], mask=there)
    seen = tl.load(visible + at, mask=there, other=0.0)
    tl.store(out + 2, (seen - 0.5) * here[:, None], mask=there)
    for axis in tl.static_range(3):
        value = tl.load(world_m + 3 * at + axis, mask=there, other=0.0) * here[:, None]
        if axis == 0:
            value *= sign
        tl.store(out + 3 + axis, 2.0 * value, mask=there)
    tl.debug_barrier()


@triton.jit
def _attend(
    triple, inner, known, FRAMES: tl.constexpr, WIDTH: tl.constexpr, ROW: tl.constexpr,
    TRIPLE: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    """Write to ``inner`` how each frame attends to the known ones, head by head."""
    frames = tl.arange(0, FRAMES)
    narrow = tl.arange(0, HEAD)
    here = tl.load(known + frames)[None, :] > 0.5
    tl.debug_barrier()
    for head in range(WIDTH // HEAD):
        at = triple + frames[:, None] * TRIPLE + head * HEAD + narrow[None, :]
        query, key, value = tl.load(at), tl.load(at + WIDTH), tl.load(at + 2 * WIDTH)
        # Products are asked for by name: Triton turns a sum of products into one of TF32 numbers,
        # which have three digits.
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * (HEAD**-0.5)
        score = tl.where(here, score, -1e30)
        share = tl.where(here, tl.exp(score - tl.max(score, 1)[:, None]), 0.0)
        share = share / tl.maximum(tl.sum(share, 1), 1e-30)[:, None]
        out = tl.dot(share, value, input_precision="ieee")
        tl.store(inner + frames[:, None] * ROW + head * HEAD + narrow[None, :], out)
    tl.debug_barrier()


@DirectKernel
@triton.jit
def network(
    rays, visible, world_m, known, memory_row, interval_30hz, interval_row, order, position,
    weights, numbers, scratch, answers,
    LAYERS: tl.constexpr, FRAMES: tl.constexpr, WINDOW: tl.constexpr, LANDMARKS: tl.constexpr,
    FEATURES: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    """Write the network's five numbers for each landmark of a window's frames.

    Three of them change the landmark, two say how far off it may be: (P, 2, WINDOW, LANDMARKS, 5),
    of the person and of the mirrored person. ``weights`` holds the layers' matrices, ``numbers``
    their biases and norms, in the order in which they are used here.
    """
    person = tl.program_id(0).to(tl.int64)
    is_mirrored = tl.program_id(1) == 1
    number = person * 2 + tl.program_id(1)
    # A frame's numbers between two steps: one layer's inputs, then queries, keys and values, whose
    # place the twice as wide hidden layer takes.
    triple_row: tl.constexpr = 3 * WIDTH
    inner = scratch + number * FRAMES * (ROW + triple_row)
    triple = inner + FRAMES * ROW
    at_known = known + person * memory_row
    _features(
        rays + person * memory_row, visible + person * memory_row, world_m + person * memory_row,
        at_known, interval_30hz + person * interval_row, order, inner, is_mirrored,
        FRAMES, LANDMARKS, FEATURES, ROW,
    )  # fmt: skip
    frames = tl.arange(0, FRAMES)[:, None]
    columns = tl.arange(0, 256)
    inside = (columns < WIDTH)[None, :]
    out = inner + frames * ROW + columns[None, :]
    out_triple = triple + frames * triple_row + columns[None, :]
    square: tl.constexpr = WIDTH * WIDTH

    x = _product(inner, weights, numbers, columns, ROW, ROW, WIDTH, FRAMES)
    x += tl.load(position + frames * WIDTH + columns[None, :], mask=inside, other=0.0)
    weights += ROW * WIDTH
    numbers += WIDTH
    for _layer in range(LAYERS):
        _share(out, _normed(x, numbers, columns, WIDTH), inside)
        numbers += 2 * WIDTH
        for _part in range(3):
            part = _product(inner, weights, numbers, columns, ROW, WIDTH, WIDTH, FRAMES)
            tl.store(out_triple + _part * WIDTH, part, mask=inside)
            weights += square
            numbers += WIDTH
        _attend(triple, inner, at_known, FRAMES, WIDTH, ROW, triple_row, HEAD)
        x += _product(inner, weights, numbers, columns, ROW, WIDTH, WIDTH, FRAMES)
        weights += square
        numbers += WIDTH
        _share(out, _normed(x, numbers, columns, WIDTH), inside)
        numbers += 2 * WIDTH
        for _part in range(2):
            part = _product(inner, weights, numbers, columns, ROW, WIDTH, WIDTH, FRAMES)
            # The Gaussian error linear unit, exact.
            part = 0.5 * part * (1.0 + tl.erf(part * 0.7071067811865476))
            tl.store(out_triple + _part * WIDTH, part, mask=inside)
            weights += square
            numbers += WIDTH
        tl.debug_barrier()
        x += _product(triple, weights, numbers, columns, triple_row, 2 * WIDTH, WIDTH, FRAMES)
        weights += 2 * square
        numbers += WIDTH
    _share(out, _normed(x, numbers, columns, WIDTH), inside)
    numbers += 2 * WIDTH
    x = _product(inner, weights, numbers, columns, ROW, WIDTH, WIDTH, FRAMES)
    # All sixteen frames pass the layers, but only the window's own are corrected.
    frame = frames - (FRAMES - WINDOW)
    at = answers + (number * WINDOW + frame) * (5 * LANDMARKS) + columns[None, :]
    tl.store(at, x, mask=(frame >= 0) & (columns < 5 * LANDMARKS)[None, :])
