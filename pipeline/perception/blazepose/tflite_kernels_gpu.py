"""Triton kernels for the layers of BlazePose's networks; `tflite_gpu` launches them.

Images are (B, H, W, C), channels last, without gaps. Sizes are runtime numbers, so that few
kernels are compiled: those of one kind, tile and precision are one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from triton_launch import DirectKernel

POINTWISE, DEPTHWISE, TAPS, FIRST = 0, 1, 2, 3
"""What a convolution reads of its image: the pixel itself; the pixel after a depthwise convolution,
which is computed on the way; all pixels under its kernel, one after another; or the pixels under it
of a network's input (B, 3, H, W), all at once."""

_SIZES = [
    "batch_pixels", "in_height", "in_width", "out_height", "out_width", "channels8", "outputs",
    "padded", "added", "stride", "top", "left",
]  # fmt: skip


@DirectKernel
@triton.jit(do_not_specialize=[*_SIZES, "low", "high", "deep_low", "deep_high"])
def convolution(
    image, weights, bias, deep_weights, deep_bias, addend, out,
    batch_pixels, in_height, in_width, out_height, out_width, channels8, outputs, padded, added,
    stride, top, left, low, high, deep_low, deep_high,
    KIND: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    """Write ``clip(convolution(image) + bias + addend, low, high)``.

    A program makes ROWS pixels of COLUMNS output channels from DEPTH input channels at a time.
    ``weights`` are (taps, channels, padded) with zeros beyond ``outputs``; ``deep_weights`` of a
    depthwise convolution before it (SIDE^2, channels). ``addend`` has the output's pixels and
    ``added`` channels, 0 for none. There are 8 * ``channels8`` input channels: so the compiler
    knows that eight of them can be read at once.
    """
    # `POINTWISE` and its like are globals, which a kernel cannot read.
    pointwise: tl.constexpr = KIND == 0
    deep: tl.constexpr = KIND == 1
    input: tl.constexpr = KIND == 3
    channels = channels8 * 8
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = pixel < batch_pixels
    across = pixel % out_width
    down = (pixel // out_width) % out_height
    # 64 bits: a batch of large images has more than 2^31 numbers.
    number = (pixel // (out_width * out_height)).to(tl.int64)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    single: tl.constexpr = weights.dtype.element_ty == tl.float32
    taps: tl.constexpr = SIDE * SIDE if KIND == 2 else 1
    for tap in range(taps):
        row, col = down * stride - top + tap // SIDE, across * stride - left + tap % SIDE
        seen = inside & (row >= 0) & (row < in_height) & (col >= 0) & (col < in_width)
        place = ((number * in_height + row) * in_width + col) * channels
        for first in range(0, channels, DEPTH):
            channel = first + tl.arange(0, DEPTH)
            exists = channel < channels
            if pointwise:
                at = image + (pixel.to(tl.int64) * channels)[:, None] + channel[None, :]
                values = tl.load(at, mask=inside[:, None] & exists[None, :], other=0.0)
            elif deep:
                start = tl.load(deep_bias + channel, mask=exists, other=0.0).to(tl.float32)
                mixed = tl.zeros((ROWS, DEPTH), tl.float32) + start[None, :]
                # Unrolled, so that all loads are under way at once.
                for k in tl.static_range(SIDE * SIDE):
                    y, x = down * stride - top + k // SIDE, across * stride - left + k % SIDE
                    valid = inside & (y >= 0) & (y < in_height) & (x >= 0) & (x < in_width)
                    at = ((number * in_height + y) * in_width + x) * channels
                    read = tl.load(
                        image + at[:, None] + channel[None, :],
                        mask=valid[:, None] & exists[None, :], other=0.0,
                    )  # fmt: skip
                    factor = tl.load(deep_weights + k * channels + channel, mask=exists, other=0.0)
                    mixed += read.to(tl.float32) * factor.to(tl.float32)[None, :]
                values = tl.minimum(tl.maximum(mixed, deep_low), deep_high)
            elif input:
                # A number of the kernel is a tap and one of three colours.
                k, colour = channel // 3, channel % 3
                y = (down * stride - top)[:, None] + (k // SIDE)[None, :]
                x = (across * stride - left)[:, None] + (k % SIDE)[None, :]
                valid = inside[:, None] & (k < SIDE * SIDE)[None, :]
                valid &= (y >= 0) & (y < in_height) & (x >= 0) & (x < in_width)
                plane = number[:, None] * 3 + colour[None, :]
                values = tl.load(image + (plane * in_height + y) * in_width + x, valid, other=0.0)
            else:
                at = image + place[:, None] + channel[None, :]
                values = tl.load(at, mask=seen[:, None] & exists[None, :], other=0.0)
            at = weights + (tap * channels + channel)[:, None] * padded + column[None, :]
            part = tl.load(at, mask=exists[:, None] & (column < padded)[None, :], other=0.0)
            if single:
                total = tl.dot(values.to(tl.float32), part, total, input_precision="ieee")
            else:
                total = tl.dot(values.to(part.dtype), part, total)
    written = inside[:, None] & (column < outputs)[None, :]
    total += tl.load(bias + column, mask=column < outputs, other=0.0).to(tl.float32)[None, :]
    at = addend + (pixel.to(tl.int64) * added)[:, None] + column[None, :]
    more = inside[:, None] & (column < added)[None, :]
    total += tl.load(at, mask=more, other=0.0).to(tl.float32)
    total = tl.minimum(tl.maximum(total, low), high)
    at = out + (pixel.to(tl.int64) * outputs)[:, None] + column[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=written)


@DirectKernel
@triton.jit(do_not_specialize=[*_SIZES, "low", "high"])
def depthwise(
    image, weights, bias, out,
    batch_pixels, in_height, in_width, out_height, out_width, channels8, stride, top, left,
    low, high,
    SIDE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Write a depthwise convolution with ``weights`` (SIDE^2, channels): ROWS pixels of DEPTH
    channels."""
    channels = channels8 * 8
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    inside, exists = pixel < batch_pixels, channel < channels
    across = pixel % out_width
    down = (pixel // out_width) % out_height
    number = (pixel // (out_width * out_height)).to(tl.int64)
    start = tl.load(bias + channel, mask=exists, other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, DEPTH), tl.float32) + start[None, :]
    for k in tl.static_range(SIDE * SIDE):
        row, col = down * stride - top + k // SIDE, across * stride - left + k % SIDE
        valid = inside & (row >= 0) & (row < in_height) & (col >= 0) & (col < in_width)
        at = ((number * in_height + row) * in_width + col) * channels
        read = tl.load(
            image + at[:, None] + channel[None, :], mask=valid[:, None] & exists[None, :], other=0.0
        )
        factor = tl.load(weights + k * channels + channel, mask=exists, other=0.0)
        total += read.to(tl.float32) * factor.to(tl.float32)[None, :]
    total = tl.minimum(tl.maximum(total, low), high)
    at = out + (pixel.to(tl.int64) * channels)[:, None] + channel[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=inside[:, None] & exists[None, :])


@DirectKernel
@triton.jit(do_not_specialize=[*_SIZES, "low", "high"])
def enlarge(
    image, addend, out,
    batch_pixels, in_height, in_width, out_height, out_width, channels8, added, low, high,
    ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Write ``clip(image resized + addend)``: bilinear, half pixels, edges repeated.

    ``added`` is 0 without an addend, else the number of channels.
    """
    channels = channels8 * 8
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    inside, exists = pixel < batch_pixels, channel < channels
    both = inside[:, None] & exists[None, :]
    x = (pixel % out_width + 0.5) * (in_width / out_width) - 0.5
    y = ((pixel // out_width) % out_height + 0.5) * (in_height / out_height) - 0.5
    x = tl.minimum(tl.maximum(x, 0.0), in_width - 1.0)
    y = tl.minimum(tl.maximum(y, 0.0), in_height - 1.0)
    left, top = tl.floor(x), tl.floor(y)
    right_share, lower_share = (x - left)[:, None], (y - top)[:, None]
    number = (pixel // (out_width * out_height)).to(tl.int64)
    c0, r0 = left.to(tl.int32), top.to(tl.int32)
    c1, r1 = tl.minimum(c0 + 1, in_width - 1), tl.minimum(r0 + 1, in_height - 1)
    upper, lower = (number * in_height + r0) * in_width, (number * in_height + r1) * in_width
    depth = channel[None, :]
    a = tl.load(image + ((upper + c0) * channels)[:, None] + depth, mask=both, other=0.0)
    b = tl.load(image + ((upper + c1) * channels)[:, None] + depth, mask=both, other=0.0)
    c = tl.load(image + ((lower + c0) * channels)[:, None] + depth, mask=both, other=0.0)
    d = tl.load(image + ((lower + c1) * channels)[:, None] + depth, mask=both, other=0.0)
    over = a.to(tl.float32) * (1.0 - right_share) + b.to(tl.float32) * right_share
    under = c.to(tl.float32) * (1.0 - right_share) + d.to(tl.float32) * right_share
    total = over * (1.0 - lower_share) + under * lower_share
    at = (pixel.to(tl.int64) * channels)[:, None] + depth
    more = inside[:, None] & (channel < added)[None, :]
    total += tl.load(addend + at, mask=more, other=0.0).to(tl.float32)
    total = tl.minimum(tl.maximum(total, low), high)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=both)
