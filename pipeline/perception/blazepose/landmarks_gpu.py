"""BlazePose's landmark model in our own kernels, with the reading of its outputs as one launch."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, nn

from pipeline.perception.blazepose.landmarks import INPUT, KERNEL, MASK, MIN_HEAT, PARTS, WIDTH
from pipeline.perception.blazepose.tflite_gpu import FusedGraph
from pipeline.perception.blazepose.tflite_torch import GraphModule
from triton_launch import DirectKernel

_LANDMARKS = 39
_CHUNK = 1024
"""How many numbers of a mask a program reads."""


class LandmarkNetGpu(nn.Module):
    """What `landmarks_torch.LandmarkNet` computes.

    Args:
        reference: The model's module, already halved where it shall compute in half precision.
    """

    def __init__(self, reference: GraphModule) -> None:
        super().__init__()
        # The mask's logits are only needed as means of squares.
        mask = reference.ends[2]
        self.net = FusedGraph(reference, averaged={mask: INPUT // MASK})

    def forward(self, crops: Tensor) -> Tensor:
        """Return rows (B, WIDTH) float32 of crops (B, 3, 256, 256) in [0, 1]."""
        values, presence, logits, heatmaps, world = self.net(crops)
        rows = values.new_empty(len(crops), WIDTH)
        height, width = heatmaps.shape[1:3]
        read[len(crops), _LANDMARKS + triton.cdiv(MASK * MASK, _CHUNK)](
            values, presence, logits, heatmaps, world, rows,
            height, width, MIN_HEAT, 1.0 / INPUT,
            LANDMARKS=_LANDMARKS, KERNEL=KERNEL, PIXELS=MASK * MASK, CHUNK=_CHUNK, WIDTH=WIDTH,
            MASK_AT=sum(PARTS[:4]), LANES=64, num_warps=2,
        )  # fmt: skip
        return rows


@DirectKernel
@triton.jit
def read(
    values, presence, logits, heatmaps, world, rows, height, width, min_heat, unit,
    LANDMARKS: tl.constexpr, KERNEL: tl.constexpr, PIXELS: tl.constexpr, CHUNK: tl.constexpr,
    WIDTH: tl.constexpr, MASK_AT: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write one landmark's numbers of a row, refined as by `landmarks_torch.refine`, or a part of
    its mask."""
    number, part = tl.program_id(0), tl.program_id(1)
    row = rows + number * WIDTH
    lanes = tl.arange(0, LANES)
    if part >= LANDMARKS:
        pixel = (part - LANDMARKS) * CHUNK + tl.arange(0, CHUNK)
        logit = tl.load(logits + number * PIXELS + pixel, mask=pixel < PIXELS, other=0.0)
        tl.store(row + MASK_AT + pixel, tl.sigmoid(logit.to(tl.float32)), mask=pixel < PIXELS)
    else:
        own = values + (number * LANDMARKS + part) * 5
        x, y = tl.load(own) * unit, tl.load(own + 1) * unit
        # A wild number must not overflow the integer; anything this far outside is refused below.
        place_x = tl.minimum(tl.maximum(tl.floor(x * width), -1.0 * width), 2.0 * width)
        place_y = tl.minimum(tl.maximum(tl.floor(y * height), -1.0 * height), 2.0 * height)
        column, line = place_x.to(tl.int32), place_y.to(tl.int32)
        reach: tl.constexpr = (KERNEL - 1) // 2
        side: tl.constexpr = 8
        col = column - reach + lanes % side
        lin = line - reach + lanes // side
        near = (lanes % side < KERNEL) & (lanes // side < KERNEL)
        near &= (col >= 0) & (col < width) & (lin >= 0) & (lin < height)
        heats = heatmaps + ((number * height + lin) * width + col) * LANDMARKS + part
        heat = tl.sigmoid(tl.load(heats, mask=near, other=0.0).to(tl.float32))
        heat = tl.where(near, heat, 0.0)
        total = tl.sum(heat, 0)
        inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
        sure = inside & (tl.max(heat, 0) >= min_heat) & (total > 0)
        total = tl.maximum(total, 1e-9)
        better_x = tl.sum(heat * col.to(tl.float32), 0) / total / width
        better_y = tl.sum(heat * lin.to(tl.float32), 0) / total / height
        tl.store(row + 2 * part, tl.where(sure, better_x, x))
        tl.store(row + 2 * part + 1, tl.where(sure, better_y, y))
        tl.store(row + 2 * LANDMARKS + part, tl.load(own + 3))
        if part == 0:
            tl.store(row + 3 * LANDMARKS, tl.load(presence + number).to(tl.float32))
        third = world + (number * LANDMARKS + part) * 3 + lanes
        out = row + 3 * LANDMARKS + 1 + 3 * part + lanes
        tl.store(out, tl.load(third, mask=lanes < 3, other=0.0), mask=lanes < 3)
