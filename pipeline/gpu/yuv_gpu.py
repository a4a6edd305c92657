"""RGB of YUV 4:2:0 pictures that are on a GPU, and back, a launch for several pictures (Triton).

The arithmetic is that of `pipeline.core.yuv`: the same matrices, the same chroma for two by two
pixels, and their mean on the way back. A program converts one row of chroma samples or of pixels, a
pixel a thread, so that neighbouring threads read and write neighbouring bytes.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pipeline.core.yuv import Colour, rgb_from_yuv, yuv_bytes, yuv_from_rgb
from triton_launch import DirectKernel

_BLOCK = 256
_WARPS = 8


@triton.jit
def _level(value):
    """The nearest whole number from 0 to 255."""
    return tl.minimum(tl.maximum(tl.floor(value + 0.5), 0.0), 255.0).to(tl.int32).to(tl.uint8)


@DirectKernel
@triton.jit
def _to_rgb(
    planes, images, height, width, size,
    ry, ru, rv, r1, gy, gu, gv, g1, by, bu, bv, b1, BLOCK: tl.constexpr,
):  # fmt: skip
    row, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    luma = planes + picture * size + row * width
    chroma = planes + picture * size + height * width + row // 2 * half_width
    target = images + (picture * height + row) * width * 3
    for begin in range(0, width, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        inside = column < width
        y = tl.load(luma + column, mask=inside, other=0).to(tl.float32)
        u = tl.load(chroma + column // 2, mask=inside, other=0).to(tl.float32)
        v_at = chroma + half_height * half_width + column // 2
        v = tl.load(v_at, mask=inside, other=0).to(tl.float32)
        at = target + 3 * column
        tl.store(at, _level(ry * y + ru * u + rv * v + r1), mask=inside)
        tl.store(at + 1, _level(gy * y + gu * u + gv * v + g1), mask=inside)
        tl.store(at + 2, _level(by * y + bu * u + bv * v + b1), mask=inside)


@DirectKernel
@triton.jit
def _to_planes(
    images, planes, height, width, size,
    yr, yg, yb, y1, ur, ug, ub, u1, vr, vg, vb, v1, BLOCK: tl.constexpr,
):  # fmt: skip
    row, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    source = images + picture * height * width * 3
    luma = planes + picture * size
    chroma = luma + height * width + row * half_width
    for begin in range(0, half_width, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        inside = column < half_width
        red = tl.zeros((BLOCK,), tl.float32)
        green = tl.zeros((BLOCK,), tl.float32)
        blue = tl.zeros((BLOCK,), tl.float32)
        for corner in tl.static_range(4):
            # A block at an odd edge has the edge's pixels twice.
            y_row = tl.minimum(2 * row + corner // 2, height - 1)
            y_column = tl.minimum(2 * column + corner % 2, width - 1)
            place = y_row * width + y_column
            r = tl.load(source + 3 * place, mask=inside, other=0).to(tl.float32)
            g = tl.load(source + 3 * place + 1, mask=inside, other=0).to(tl.float32)
            b = tl.load(source + 3 * place + 2, mask=inside, other=0).to(tl.float32)
            tl.store(luma + place, _level(yr * r + yg * g + yb * b + y1), mask=inside)
            red += 0.25 * r
            green += 0.25 * g
            blue += 0.25 * b
        u = _level(ur * red + ug * green + ub * blue + u1)
        v = _level(vr * red + vg * green + vb * blue + v1)
        tl.store(chroma + column, u, mask=inside)
        tl.store(chroma + half_height * half_width + column, v, mask=inside)


def to_rgb(planes: Tensor, images: Tensor, colour: Colour) -> None:
    """Fill images with the RGB of planes.

    Args:
        planes: (T, N) uint8, contiguous, on the GPU; rows as `YuvImage.data`.
        images: (T, H, W, 3) uint8, contiguous, on the GPU.
        colour: The matrix and range of the planes.
    """
    count, height, width, _ = images.shape
    _to_rgb[(height, count)](
        planes, images, height, width, yuv_bytes((height, width)),
        *rgb_from_yuv(colour).ravel().tolist(), BLOCK=_BLOCK, num_warps=_WARPS,
    )  # fmt: skip


def to_planes(images: Tensor, planes: Tensor, colour: Colour) -> None:
    """Fill planes with images; as `to_rgb`, the other way round."""
    count, height, width, _ = images.shape
    _to_planes[((height + 1) // 2, count)](
        images, planes, height, width, yuv_bytes((height, width)),
        *yuv_from_rgb(colour).ravel().tolist(), BLOCK=_BLOCK, num_warps=_WARPS,
    )  # fmt: skip
