"""Triton kernels of the decoder: norms of tokens, and the keypoints' tokens after an estimate."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _norm(value, mask, width, eps):
    mean = tl.sum(tl.where(mask, value, 0.0), 0) / width
    centred = tl.where(mask, value - mean, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)


@triton.jit
def first_norms(
    x, augment, weight, bias, position_weight, position_bias, own, placed, position, width, eps,
    FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the normed tokens, the normed positions, and their sum (in the first layer the tokens
    alone). A program is a token."""
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, BLOCK)
    mask = at < width
    token = _norm(tl.load(x + row + at, mask=mask, other=0.0), mask, width, eps)
    token = token * tl.load(weight + at, mask=mask) + tl.load(bias + at, mask=mask)
    place = _norm(tl.load(augment + row + at, mask=mask, other=0.0), mask, width, eps)
    place = place * tl.load(position_weight + at, mask=mask)
    place += tl.load(position_bias + at, mask=mask)
    tl.store(own + row + at, token.to(own.dtype.element_ty), mask=mask)
    tl.store(position + row + at, place, mask=mask)
    both = token if FIRST else token + place
    tl.store(placed + row + at, both.to(placed.dtype.element_ty), mask=mask)


@triton.jit
def add_and_norm(
    x, added, weight, bias, position, out, width, eps, PLACED: tl.constexpr, BLOCK: tl.constexpr
):
    """Add to the tokens in place, and write their norm, with their positions if PLACED."""
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, BLOCK)
    mask = at < width
    token = tl.load(x + row + at, mask=mask, other=0.0)
    token += tl.load(added + row + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(x + row + at, token, mask=mask)
    normed = _norm(token, mask, width, eps)
    normed = normed * tl.load(weight + at, mask=mask) + tl.load(bias + at, mask=mask)
    if PLACED:
        normed += tl.load(position + row + at, mask=mask, other=0.0)
    tl.store(out + row + at, normed.to(out.dtype.element_ty), mask=mask)


@triton.jit
def sample(
    cells, places, seen, features, in_image, in_space, weight_2d, bias_2d, weight_3d, bias_3d,
    relative, channels, width, stretch, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    KEYPOINTS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write what the keypoints' tokens are made of: the image features at a keypoint, and the
    hidden layers of the codes of its places. A program is a keypoint of a person."""
    row = tl.program_id(0).to(tl.int64)
    u, v = tl.load(places + row * 2), tl.load(places + row * 2 + 1)
    # As torch's grid_sample with align_corners=False and zeros outside.
    x = (((2 * (u + 0.5) - 1) * stretch + 1) * COLUMNS - 1) / 2
    y = (((2 * (v + 0.5) - 1) + 1) * ROWS - 1) / 2
    is_seen = tl.load(seen + row) != 0
    left, top = tl.floor(x), tl.floor(y)
    part_x, part_y = x - left, y - top
    at = tl.arange(0, CHANNELS)
    mask = at < channels
    total = tl.zeros([CHANNELS], tl.float32)
    # A keypoint that is not seen may be anywhere, also where whole numbers end.
    column = tl.where(is_seen, left, 0.0).to(tl.int32)
    line = tl.where(is_seen, top, 0.0).to(tl.int32)
    first = row // KEYPOINTS * (ROWS * COLUMNS)
    for below in tl.static_range(2):
        for right in tl.static_range(2):
            i, j = line + below, column + right
            inside = is_seen & (i >= 0) & (i < ROWS) & (j >= 0) & (j < COLUMNS)
            share = (part_x if right else 1 - part_x) * (part_y if below else 1 - part_y)
            cell = (first + tl.where(inside, i * COLUMNS + j, 0)) * channels
            value = tl.load(cells + cell + at, mask=mask, other=0.0).to(tl.float32)
            total += tl.where(inside, value * share, 0.0)
    tl.store(features + row * channels + at, total.to(features.dtype.element_ty), mask=mask)
    to = tl.arange(0, WIDTH)
    inner = to < width
    hidden = tl.load(bias_2d + to, mask=inner, other=0.0)
    hidden += tl.load(weight_2d + to * 2, mask=inner, other=0.0) * u
    hidden += tl.load(weight_2d + to * 2 + 1, mask=inner, other=0.0) * v
    hidden = tl.where(is_seen, tl.maximum(hidden, 0.0), 0.0)
    tl.store(in_image + row * width + to, hidden.to(in_image.dtype.element_ty), mask=inner)
    hidden = tl.load(bias_3d + to, mask=inner, other=0.0)
    for axis in tl.static_range(3):
        place = tl.load(relative + row * 3 + axis)
        hidden += tl.load(weight_3d + to * 3 + axis, mask=inner, other=0.0) * place
    hidden = tl.maximum(hidden, 0.0)
    tl.store(in_space + row * width + to, hidden.to(in_space.dtype.element_ty), mask=inner)


@triton.jit
def move(
    x, augment, features, in_image, in_space, seen, tokens, width,
    KEYPOINTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the features to the keypoints' tokens in the image, and write the positions of both kinds
    of keypoints' tokens. A program is a keypoint of a person."""
    row = tl.program_id(0).to(tl.int64)
    person, keypoint = row // KEYPOINTS, row % KEYPOINTS
    at = tl.arange(0, BLOCK)
    mask = at < width
    image = (person * tokens + tokens - 2 * KEYPOINTS + keypoint) * width + at
    space = image + KEYPOINTS * width
    token = tl.load(x + image, mask=mask)
    token += tl.load(features + row * width + at, mask=mask).to(tl.float32)
    tl.store(x + image, token, mask=mask)
    code = tl.load(in_image + row * width + at, mask=mask).to(tl.float32)
    code = tl.where(tl.load(seen + row) != 0, code, 0.0)
    tl.store(augment + image, code, mask=mask)
    code = tl.load(in_space + row * width + at, mask=mask).to(tl.float32)
    tl.store(augment + space, code, mask=mask)
