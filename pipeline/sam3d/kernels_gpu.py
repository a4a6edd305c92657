"""Triton kernels of the crops, and between the backbones' products.

Between products a program is one row of tokens. Each kernel that feeds a product can write its row
in 8-bit floating point (E4M3), scaled so that the row's largest number is the type's largest; the
scales go to ``scales``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.sam3d.config import ModelConfig
from pipeline.sam3d.crops import MEAN, STD, Crops

FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0
_LARGEST = tl.constexpr(FP8_LARGEST)
_LEAST_PART, _PART = 256, 1024
"""The fewest and the most numbers of a program where a row is divided: of the latter a thread has
eight, which it reads at once."""


@triton.jit
def _store(row, out, scales, at, mask, QUANTISED: tl.constexpr):
    if QUANTISED:
        scale = tl.maximum(tl.max(tl.abs(tl.where(mask, row, 0.0)), 0) / _LARGEST, 1e-12)
        tl.store(scales, scale)
        row = row / scale
    tl.store(out + at, row.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _add_norm(
    x, added, weight, bias, out, scales, width, eps,
    ADD: tl.constexpr, BLOCK: tl.constexpr, QUANTISED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    place = row * width + at
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(added + place, mask=mask, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + place, rounded, mask=mask)
        value = rounded.to(tl.float32)
    mean = tl.sum(value, 0) / width
    centred = tl.where(mask, value - mean, 0.0)
    variance = tl.sum(centred * centred, 0) / width
    normed = centred * tl.rsqrt(variance + eps)
    gain = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
    shift = tl.load(bias + at, mask=mask, other=0.0).to(tl.float32)
    _store(normed * gain + shift, out + row * width, scales + row, at, mask, QUANTISED)


@triton.jit
def _swiglu(both, out, scales, width, BLOCK: tl.constexpr, QUANTISED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    gate = tl.load(both + row * 2 * width + at, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(both + row * 2 * width + width + at, mask=mask, other=0.0).to(tl.float32)
    _store(gate * tl.sigmoid(gate) * value, out + row * width, scales + row, at, mask, QUANTISED)


@triton.jit
def _gelu(values, out, scales, width, BLOCK: tl.constexpr, QUANTISED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    value = tl.load(values + row * width + at, mask=mask, other=0.0).to(tl.float32)
    half = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    _store(half, out + row * width, scales + row, at, mask, QUANTISED)


@triton.jit
def _quantise(values, out, scales, width, BLOCK: tl.constexpr, QUANTISED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    value = tl.load(values + row * width + at, mask=mask, other=0.0).to(tl.float32)
    _store(value, out + row * width, scales + row, at, mask, QUANTISED)


@triton.jit
def _rotate(qkv, sine, cosine, tokens, first, HEADS: tl.constexpr, HALF: tl.constexpr,
            BLOCK: tl.constexpr):  # fmt: skip
    # Program (row, 0) turns the queries, (row, 1) the keys.
    row = tl.program_id(0).to(tl.int64)
    patch = row % tokens - first
    if patch >= 0:
        head = tl.arange(0, BLOCK)[:, None]
        at = tl.arange(0, HALF)[None]
        width = HEADS * 2 * HALF
        low = qkv + row * 3 * width + tl.program_id(1) * width + head * 2 * HALF + at
        mask = (head < HEADS) & (at < HALF)
        a = tl.load(low, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(low + HALF, mask=mask, other=0.0).to(tl.float32)
        angle = patch * 2 * HALF + at
        # Both halves of the channels have the same angles.
        s, c = tl.load(sine + angle), tl.load(cosine + angle)
        tl.store(low, (a * c - b * s).to(qkv.dtype.element_ty), mask=mask)
        tl.store(low + HALF, (b * c + a * s).to(qkv.dtype.element_ty), mask=mask)


@triton.jit
def _crop(
    pictures, views, out, side, first, columns,
    HALF: tl.constexpr, PATCH: tl.constexpr, PADDING: tl.constexpr, BLOCK: tl.constexpr,
    M0: tl.constexpr, M1: tl.constexpr, M2: tl.constexpr,
    S0: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr,
):  # fmt: skip
    # Program (b, v) writes row v of all patches of crop b. Patches begin PADDING pixels before it.
    crop = tl.program_id(0).to(tl.int64)
    line = tl.program_id(1)
    v = line - PADDING
    at = tl.arange(0, BLOCK)
    mask = at < columns * PATCH
    image = tl.load(pictures + crop * 4).to(tl.pointer_type(tl.uint8))
    height = tl.load(pictures + crop * 4 + 1)
    across = tl.load(pictures + crop * 4 + 2)
    mirrored = tl.load(pictures + crop * 4 + 3)
    scale = side / tl.load(views + crop * 3 + 2)
    x = (at - PADDING + first - HALF).to(tl.float32) / scale + tl.load(views + crop * 3)
    y = (v - HALF).to(tl.float32) / scale + tl.load(views + crop * 3 + 1)
    left, top = tl.floor(x), tl.floor(y)
    part_x, part_y = x - left, y - top
    column, row = left.to(tl.int64), top.to(tl.int64) + tl.zeros([BLOCK], tl.int64)
    for c in tl.static_range(3):
        blended = tl.zeros([BLOCK], tl.float32)
        for below in tl.static_range(2):
            for right in tl.static_range(2):
                i, j = row + below, column + right
                inside = mask & (j >= 0) & (j < across) & (i >= 0) & (i < height)
                k = tl.where(mirrored != 0, across - 1 - j, j)
                share_x = part_x if right else 1 - part_x
                share_y = part_y if below else 1 - part_y
                place = tl.where(inside, (i * across + k) * 3 + c, 0)
                pixel = tl.load(image + place, mask=inside, other=0).to(tl.float32)
                blended += pixel * (share_x * share_y)
        # Adding 1.5 * 2^23 leaves no bits behind the point: it rounds half to even.
        rounded = (blended + 12582912.0) - 12582912.0
        mean = M0 if c == 0 else (M1 if c == 1 else M2)
        std = S0 if c == 0 else (S1 if c == 1 else S2)
        value = (rounded / 255 - mean) / std
        # Before the crop is nothing, which is not black.
        value = tl.where((at >= PADDING) & (line >= PADDING), value, 0.0)
        patch = (crop * (side // PATCH) + line // PATCH) * columns + at // PATCH
        target = patch * (3 * PATCH * PATCH) + (c * PATCH + line % PATCH) * PATCH + at % PATCH
        tl.store(out + target, value.to(out.dtype.element_ty), mask=mask)


def crop_patches(
    pictures: Tensor, crops: Crops, config: ModelConfig, padding: int, dtype: torch.dtype
) -> Tensor:
    """Return the backbone's patches (B, rows * columns, 3 * patch * patch) of crops, normalised.

    They hold what `crops.crop_images` and `crops.normalise` make, colour by colour and row by row.

    Args:
        pictures: (B, 4) int64, each crop's picture: the address of its pixels (H, W, 3) uint8 on
            the GPU, H, W, and 1 if it is to be mirrored from left to right.
        crops: The crops.
        config: The model's sizes.
        padding: How many pixels before the crop's first the first patch begins; they are zero.
        dtype: The type that is wanted.
    """
    count, patch = len(pictures), config.patch
    patches = config.rows * config.columns
    out = crops.sides.new_empty(count, patches, 3 * patch * patch, dtype=dtype)
    views = torch.cat([crops.centres, crops.sides[:, None]], dim=1)
    _crop[(count, config.side)](
        pictures, views, out, config.side, config.first_column * patch, config.columns,
        HALF=config.side // 2, PATCH=patch, PADDING=padding,
        BLOCK=triton.next_power_of_2(config.columns * patch),
        **dict(zip(("M0", "M1", "M2", "S0", "S1", "S2"), (*MEAN, *STD))),
    )  # fmt: skip
    return out


class Rows(NamedTuple):
    """Rows that feed a product.

    Attributes:
        values: (M, C) in half precision, or in 8 bits.
        scales: (M, 1) float32 of rows in 8 bits; else None.
    """

    values: Tensor
    scales: Tensor | None = None


def add_norm(
    x: Tensor,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    quantised: bool,
    dtype: torch.dtype | None = None,
) -> Rows:
    """Add ``added`` to x in place, and return the layer norm of the sum.

    Args:
        x: (M, C), changed.
        added: (M, C), or None to add nothing.
        weight: (C,) the norm's gain.
        bias: (C,) likewise.
        eps: Added to the variance.
        quantised: Whether the result is in 8 bits.
        dtype: The result's type otherwise; None: that of x.
    """
    count, width = x.shape
    out = _empty(x if dtype is None else x.new_empty(0, dtype=dtype), count, width, quantised)
    _add_norm[(count,)](
        x, x if added is None else added, weight, bias, *_pointers(out), width, eps,
        ADD=added is not None, **_shape(width, quantised),
    )  # fmt: skip
    return out


def swiglu(both: Tensor, quantised: bool) -> Rows:
    """Return ``silu(gate) * value`` (M, C) of rows (M, 2 C) that hold both side by side."""
    count, width = both.shape[0], both.shape[1] // 2
    out = _empty(both, count, width, quantised)
    _swiglu[(count,)](both, *_pointers(out), width, **_shape(width, quantised))
    return out


def gelu(values: Tensor, quantised: bool) -> Rows:
    """Return the exact GELU (Hendrycks and Gimpel, 2016) of rows (M, C)."""
    count, width = values.shape
    out = _empty(values, count, width, quantised)
    # Without a scale for a whole row, parts of it can be programs of their own. With a power of two
    # no lane idles.
    part = min(width & -width, _PART)
    if not quantised and part >= _LEAST_PART:
        count, width = count * (width // part), part
    _gelu[(count,)](values, *_pointers(out), width, **_shape(width, quantised))
    return out


def as_rows(values: Tensor, quantised: bool) -> Rows:
    """Return rows (M, C) as a product takes them."""
    if not quantised:
        return Rows(values)
    count, width = values.shape
    out = _empty(values, count, width, quantised)
    _quantise[(count,)](values, *_pointers(out), width, **_shape(width, quantised))
    return out


def rotate(qkv: Tensor, sine: Tensor, cosine: Tensor, tokens: int, heads: int) -> None:
    """Turn queries and keys in place by the positions of their patches, in float32.

    Args:
        qkv: (B * tokens, 3 * heads * D), each row queries, keys and values.
        sine: (patches, D) float32 of the angles; the last patches of ``tokens`` are turned.
        cosine: Likewise.
        tokens: Tokens of a picture.
        heads: Attention heads.
    """
    half = sine.shape[1] // 2
    _rotate[(len(qkv), 2)](
        qkv, sine, cosine, tokens, tokens - len(sine), HEADS=heads, HALF=half,
        BLOCK=triton.next_power_of_2(heads),
    )  # fmt: skip


def _empty(like: Tensor, count: int, width: int, quantised: bool) -> Rows:
    device = like.device
    values = torch.empty(count, width, dtype=FP8 if quantised else like.dtype, device=device)
    return Rows(values, torch.empty(count, 1, device=device) if quantised else None)


def _pointers(rows: Rows) -> tuple[Tensor, Tensor]:
    """The kernels take a second pointer in both cases; without scales they do not use it."""
    return rows.values, rows.values if rows.scales is None else rows.scales


def _shape(width: int, quantised: bool) -> dict[str, Any]:
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "QUANTISED": quantised, "num_warps": 8 if block > 2048 else 4}
