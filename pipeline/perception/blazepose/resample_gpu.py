"""Views of frames that lie on a GPU: every crop and letterbox of a batch in one launch (Triton).

The pixels are those of `resample`: bilinear between means of blocks. There, intermediate results
are rounded to whole levels; here they are not, which changes a value by one level at most.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pipeline.perception.blazepose.resample import Sampling
from triton_launch import DirectKernel

COLUMNS = 16
"""How many numbers describe a view; double precision holds all of them exactly, addresses too."""
_BLOCK = 256


@DirectKernel
@triton.jit
def _views(
    table, out, scale, offset, SIDE: tl.constexpr, BLOCK: tl.constexpr, STRIDE: tl.constexpr
):
    view = tl.program_id(1)
    at = table + view * STRIDE
    pixels = tl.load(at).to(tl.int64).to(tl.pointer_type(tl.uint8))
    width = tl.load(at + 1).to(tl.int32)
    block = tl.load(at + 2).to(tl.int32)
    left = tl.load(at + 3).to(tl.int32)
    top = tl.load(at + 4).to(tl.int32)
    cols = tl.load(at + 5).to(tl.int32)
    rows = tl.load(at + 6).to(tl.int32)
    replicate = tl.load(at + 7).to(tl.float32)
    mirrored = tl.load(at + 8).to(tl.float32)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < SIDE * SIDE
    y = (index // SIDE).to(tl.float32)
    x = (index % SIDE).to(tl.float32)
    x = tl.where(mirrored > 0, SIDE - 1 - x, x)
    # Single precision places a sample to a thousandth of a pixel and is much faster than double.
    u = tl.load(at + 9).to(tl.float32) * x + tl.load(at + 10).to(tl.float32) * y
    v = tl.load(at + 12).to(tl.float32) * x + tl.load(at + 13).to(tl.float32) * y
    u += tl.load(at + 11).to(tl.float32)
    v += tl.load(at + 14).to(tl.float32)
    # Everything far outside is border; the bounds keep the integers small.
    u = tl.minimum(tl.maximum(u, -2.0), cols + 1.0)
    v = tl.minimum(tl.maximum(v, -2.0), rows + 1.0)
    low_u = tl.floor(u)
    low_v = tl.floor(v)
    red = tl.zeros((BLOCK,), tl.float32)
    green = tl.zeros((BLOCK,), tl.float32)
    blue = tl.zeros((BLOCK,), tl.float32)
    for corner in tl.static_range(4):
        col = low_u.to(tl.int32) + corner % 2
        row = low_v.to(tl.int32) + corner // 2
        share_u = 1.0 - tl.abs(u - col)
        share_v = 1.0 - tl.abs(v - row)
        # With `replicate` the nearest pixel inside stands for one outside; else it counts as black.
        there = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
        share = share_u * share_v * tl.maximum(replicate, tl.where(there, 1.0, 0.0))
        share = share / (block * block)
        col = tl.minimum(tl.maximum(col, 0), cols - 1) * block + left
        row = tl.minimum(tl.maximum(row, 0), rows - 1) * block + top
        # `block` is known at run time only, so one compiled kernel serves every reduction.
        for k in range(0, block * block):
            place = ((row + k // block) * width + col + k % block) * 3
            red += share * tl.load(pixels + place, mask=inside, other=0).to(tl.float32)
            green += share * tl.load(pixels + place + 1, mask=inside, other=0).to(tl.float32)
            blue += share * tl.load(pixels + place + 2, mask=inside, other=0).to(tl.float32)
    target = out + view * 3 * SIDE * SIDE + index
    tl.store(target, red * scale + offset, mask=inside)
    tl.store(target + SIDE * SIDE, green * scale + offset, mask=inside)
    tl.store(target + 2 * SIDE * SIDE, blue * scale + offset, mask=inside)


def take_views(table: Tensor, out: Tensor, scale: float, offset: float) -> None:
    """Fill ``out`` with the views that a table describes.

    May be captured in a CUDA graph. The images must stay until it is done.

    Args:
        table: (B, 16 or more) float64 on the GPU; rows begin as `describe` returns them.
        out: (B, 3, side, side) float on the GPU.
        scale: Factor on the pixels.
        offset: Added to the product.
    """
    count, _, side, _ = out.shape
    grid = (triton.cdiv(side * side, _BLOCK), count)
    _views[grid](table, out, scale, offset, SIDE=side, BLOCK=_BLOCK, STRIDE=table.stride(0))


def describe(image: Tensor, sampling: Sampling, mirrored: bool = False) -> list[float]:
    """Return the table's row for a view of ``image`` (H, W, 3) uint8, contiguous, on the GPU."""
    (left, top), (cols, rows) = sampling.low, sampling.grid
    first, second = sampling.to_blocks
    return [
        image.data_ptr(), image.shape[1], sampling.block, left, top, cols, rows,
        sampling.replicate, mirrored, *first, *second, 0,
    ]  # fmt: skip
