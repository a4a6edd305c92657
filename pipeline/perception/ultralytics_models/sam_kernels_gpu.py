"""Triton kernels of the attention in SAM's image encoder (Kirillov et al., Segment Anything, 2023).

The encoder attends in square windows of the picture; its global layers have one window, which is
the picture. Scores have two terms for where the key lies from the query (Li et al., MViTv2, 2022,
eq. 4): one for the key's row, one for its column. `position_terms` computes a query's terms for
all rows and columns. `attention` is flash attention (Dao et al., FlashAttention, 2022) that adds
them to each block of scores, which never leave the chip.

Both read queries, keys and values from the product's rows as they are, one row a token of the
picture. The network pads the picture to whole windows with zeros before that product. So a token of
the padding has the product's bias as key and value, and is not computed here.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pipeline.perception.ultralytics_models.sam_supported import parts
from triton_launch import DirectKernel

_LOG2_E = tl.constexpr(1.4426950408889634)


@DirectKernel
@triton.jit
def _position_terms(
    qkv, tables, terms, height, width,
    HEADS: tl.constexpr, SIDE: tl.constexpr, CHANNELS: tl.constexpr,
    LINE: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    # Program (line, head, picture): a row of the picture's tokens, or, after the rows, a column of
    # them. Tokens of a line have the same place in their windows and so the same table.
    line = tl.program_id(0)
    head = tl.program_id(1)
    picture = tl.program_id(2).to(tl.int64)
    is_row = line < height
    place = tl.where(is_row, line, line - height)
    along = tl.arange(0, LINE)
    inside = along < tl.where(is_row, width, height)
    y = tl.where(is_row, place, along)
    x = tl.where(is_row, along, place)
    token = picture * height * width + y * width + x
    depth = tl.arange(0, DEPTH)
    key = tl.arange(0, KEYS)
    queries = tl.load(
        qkv + token[:, None] * (3 * HEADS * CHANNELS) + head * CHANNELS + depth[None, :],
        mask=inside[:, None] & (depth < CHANNELS)[None, :], other=0.0,
    )  # fmt: skip
    first = tl.where(is_row, 0, SIDE * SIDE) + place % SIDE * SIDE
    table = tl.load(
        tables + (first + key)[:, None] * CHANNELS + depth[None, :],
        mask=(key < SIDE)[:, None] & (depth < CHANNELS)[None, :], other=0.0,
    )  # fmt: skip
    found = tl.dot(queries, tl.trans(table))
    at = ((picture * HEADS + head) * height * width + y * width + x) * (2 * SIDE)
    at += tl.where(is_row, 0, SIDE)
    tl.store(
        terms + at[:, None] + key[None, :], found.to(terms.dtype.element_ty),
        mask=inside[:, None] & (key < SIDE)[None, :],
    )  # fmt: skip


@DirectKernel
@triton.jit
def _attention(
    qkv, bias, terms, out, height, width, scale,
    HEADS: tl.constexpr, SIDE: tl.constexpr, CHANNELS: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, TERMS: tl.constexpr,
    IS_ROW: tl.constexpr,
):  # fmt: skip
    # Program (block of queries, head, window). Channels are LOW + HIGH, because blocks have powers
    # of two. With IS_ROW a block of keys is one row of a window that has no padding.
    head = tl.program_id(1)
    windows_across = tl.cdiv(width, SIDE)
    windows = windows_across * tl.cdiv(height, SIDE)
    picture = (tl.program_id(2) // windows).to(tl.int64)
    window = tl.program_id(2) % windows
    top = window // windows_across * SIDE
    left = window % windows_across * SIDE
    row_size: tl.constexpr = 3 * HEADS * CHANNELS
    low = head * CHANNELS + tl.arange(0, LOW)
    high = low
    if HIGH > 0:
        high = head * CHANNELS + LOW + tl.arange(0, HIGH)

    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    y = top + query // SIDE
    x = left + query % SIDE
    is_query = (query < SIDE * SIDE) & (y < height) & (x < width)
    token = (picture * height + y) * width + x
    at = qkv + token[:, None] * row_size
    q_low = tl.load(at + low[None, :], mask=is_query[:, None], other=0.0)
    q_high = q_low
    if HIGH > 0:
        q_high = tl.load(at + high[None, :], mask=is_query[:, None], other=0.0)
    own_terms = terms + ((picture * HEADS + head) * height * width + y * width + x) * (2 * SIDE)
    term = tl.arange(0, TERMS)
    if IS_ROW:
        # The terms of a row's columns are the same for each row of keys.
        kept = tl.load(own_terms[:, None] + SIDE + term[None, :], mask=is_query[:, None], other=0.0)
    else:
        kept = tl.load(
            own_terms[:, None] + term[None, :],
            mask=is_query[:, None] & (term < 2 * SIDE)[None, :], other=0.0,
        )  # fmt: skip

    most = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sum_low = tl.zeros([QUERIES, LOW], tl.float32)
    sum_high = tl.zeros([QUERIES, HIGH if HIGH > 0 else LOW], tl.float32)
    for start in range(0, SIDE * SIDE, KEYS):
        key = start + tl.arange(0, KEYS)
        v, u = key // SIDE, key % SIDE
        row = qkv + ((picture * height + top + v) * width + left + u)[:, None] * row_size
        k_at, v_at = HEADS * CHANNELS, 2 * HEADS * CHANNELS
        if IS_ROW:
            k_low = tl.load(row + k_at + low[None, :])
            v_low = tl.load(row + v_at + low[None, :])
        else:
            inside = ((key < SIDE * SIDE) & (top + v < height) & (left + u < width))[:, None]
            padding = tl.load(bias + k_at + low)[None, :]
            k_low = tl.load(row + k_at + low[None, :], mask=inside, other=padding)
            padding = tl.load(bias + v_at + low)[None, :]
            v_low = tl.load(row + v_at + low[None, :], mask=inside, other=padding)
        scores = tl.dot(q_low, tl.trans(k_low))
        v_high = v_low
        if HIGH > 0:
            if IS_ROW:
                k_high = tl.load(row + k_at + high[None, :])
                v_high = tl.load(row + v_at + high[None, :])
            else:
                padding = tl.load(bias + k_at + high)[None, :]
                k_high = tl.load(row + k_at + high[None, :], mask=inside, other=padding)
                padding = tl.load(bias + v_at + high)[None, :]
                v_high = tl.load(row + v_at + high[None, :], mask=inside, other=padding)
            scores = tl.dot(q_high, tl.trans(k_high), scores)
        if IS_ROW:
            of_row = tl.load(own_terms + start // SIDE, mask=is_query, other=0.0).to(tl.float32)
            scores = scores * scale + (of_row[:, None] + kept.to(tl.float32)) * _LOG2_E
        else:
            # A key's row and column pick their two terms.
            places = (term[:, None] == v[None, :]) | (term[:, None] == SIDE + u[None, :])
            picked = tl.dot(kept, places.to(kept.dtype))
            scores = scores * scale + picked * _LOG2_E
            scores = tl.where((key < SIDE * SIDE)[None, :], scores, float("-inf"))
        most_now = tl.maximum(most, tl.max(scores, 1))
        shrink = tl.exp2(most - most_now)
        shares = tl.exp2(scores - most_now[:, None])
        total = total * shrink + tl.sum(shares, 1)
        shares = shares.to(v_low.dtype)
        sum_low = tl.dot(shares, v_low, sum_low * shrink[:, None])
        if HIGH > 0:
            sum_high = tl.dot(shares, v_high, sum_high * shrink[:, None])
        most = most_now
    at = out + token[:, None] * (HEADS * CHANNELS)
    kind = out.dtype.element_ty
    tl.store(at + low[None, :], (sum_low / total[:, None]).to(kind), mask=is_query[:, None])
    if HIGH > 0:
        tl.store(at + high[None, :], (sum_high / total[:, None]).to(kind), mask=is_query[:, None])


def position_terms(qkv: Tensor, tables: Tensor, heads: int, size: tuple[int, int]) -> Tensor:
    """Return what queries add to their scores for a key's row and column.

    Args:
        qkv: (B * H * W, 3 * heads * D) in half precision, each token's queries, keys and values.
        tables: (2, S, S, D), for rows and for columns, by the query's place in its window and by
            the key's.
        heads: Attention heads.
        size: H and W, in tokens.

    Returns:
        (B, heads, H * W, 2 * S), the terms of S rows, then of S columns of the window.
    """
    height, width = size
    side, channels = tables.shape[2:]
    count = len(qkv) // (height * width)
    terms = qkv.new_empty(count, heads, height * width, 2 * side)
    _position_terms[(height + width, heads, count)](
        qkv, tables, terms, height, width, HEADS=heads, SIDE=side, CHANNELS=channels,
        LINE=_block(max(height, width)), KEYS=_block(side), DEPTH=_block(channels),
    )  # fmt: skip
    return terms


def attention(
    qkv: Tensor, bias: Tensor, terms: Tensor, heads: int, size: tuple[int, int], side: int
) -> Tensor:
    """Return each token's attention to the tokens of its window, which padding is part of.

    Args:
        qkv: As for `position_terms`.
        bias: (3 * heads * D,), the product's bias: queries, keys and values of the padding.
        terms: What `position_terms` returns.
        heads: Attention heads.
        size: H and W, in tokens.
        side: S, the side of a window in tokens; H and W for one window that is the picture.

    Returns:
        (B * H * W, heads * D), in the precision of ``qkv``.

    Raises:
        ValueError: D is no sum of two powers of two from 16 on.
    """
    height, width = size
    channels = qkv.shape[1] // (3 * heads)
    blocks = parts(channels)
    if blocks is None:
        raise ValueError(f"a head's {channels} channels are no sum of two powers of two from 16 on")
    low, high = blocks
    count = len(qkv) // (height * width)
    windows = count * -(-height // side) * -(-width // side)
    out = qkv.new_empty(len(qkv), heads * channels)
    is_row = side == height == width and side == _block(side)
    shape = _shape(side, is_row)
    _attention[(-(-side * side // shape["QUERIES"]), heads, windows)](
        qkv, bias, terms, out, height, width, channels**-0.5 * _LOG2_E.value,
        HEADS=heads, SIDE=side, CHANNELS=channels, LOW=low, HIGH=high,
        IS_ROW=is_row, **shape,
    )  # fmt: skip
    return out


def _block(count: int) -> int:
    # Products take blocks of 16 or more.
    return max(16, triton.next_power_of_2(count))


def _shape(side: int, is_row: bool) -> dict[str, Any]:
    """The blocks and options of the attention's programs: the fastest of a sweep on an H200, of six
    for a window of 64 tokens a side and of ten for one of 14."""
    if is_row:
        return {"QUERIES": 64, "KEYS": side, "TERMS": side, "num_warps": 4, "num_stages": 3}
    return {"QUERIES": 64, "KEYS": 64, "TERMS": _block(2 * side), "num_warps": 4, "num_stages": 1}
