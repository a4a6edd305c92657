"""BlazePose's landmark model and the reading of its outputs as one network on tensors.

`landmarks.readings_of` does this with numpy for one ROI; here it is done for a batch on any device.
A GPU then returns a few thousand numbers for each ROI instead of a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pipeline.perception.blazepose.landmarks import (
    INPUT,
    KERNEL,
    MASK,
    MIN_HEAT,
    PARTS,
    Readings,
)
from pipeline.perception.blazepose.tflite import Graph
from pipeline.perception.blazepose.tflite_torch import GraphModule

_ENDS = (0, *accumulate(PARTS))


class LandmarkNet(nn.Module):
    """Network from crops (B, 3, 256, 256) in [0, 1] to rows (B, WIDTH), for `readings_of_rows`."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.net = GraphModule(graph)

    def halve(self) -> LandmarkNet:
        """Compute in half precision where that costs no accuracy; changes the module in place."""
        self.net.halve()
        return self

    def with_kernels(self) -> nn.Module:
        """Return a module that computes the same in our own kernels on a GPU."""
        # Imported here: Triton is only sure to be there with a GPU.
        from pipeline.perception.blazepose.landmarks_gpu import LandmarkNetGpu

        return LandmarkNetGpu(self.net)

    def forward(self, crops: Tensor) -> Any:
        """Return rows (B, WIDTH) float32 of crops (B, 3, 256, 256) in [0, 1]."""
        values, presence, logits, heatmaps, world = self.net(crops)
        # Landmarks are read in single precision whatever the network computes in.
        values = values.float().unflatten(1, (39, 5))
        points = refine(values[..., :2] / INPUT, heatmaps.float())
        small = avg_pool2d(logits.float().permute(0, 3, 1, 2), INPUT // MASK)
        parts = (points, values[..., 3], presence.float(), world.float(), torch.sigmoid(small))
        return torch.cat([part.flatten(1) for part in parts], 1)


def refine(points: Tensor, heatmaps: Tensor) -> Tensor:
    """Return points (B, L, 2) in [0, 1] refined as by `landmarks.refine`.

    ``heatmaps`` (B, h, w, L) are logits.
    """
    batch, height, width, count = heatmaps.shape
    reach = (KERNEL - 1) // 2
    # Filled on the device: a tensor made of numbers would be a copy from the host, which no CUDA
    # graph can hold.
    size = torch.stack((points.new_full((), width), points.new_full((), height)))
    # A wild number must not overflow the integer; anything this far outside is refused below.
    place = torch.floor(points * size).clamp(-width, 2 * width).long()
    step = torch.arange(-reach, reach + 1, device=points.device)
    cols, rows = place[..., 0, None] + step, place[..., 1, None] + step
    ok = ((rows >= 0) & (rows < height))[..., :, None] & ((cols >= 0) & (cols < width))[
        ..., None, :
    ]
    index = rows.clamp(0, height - 1)[..., :, None] * width
    index = index + cols.clamp(0, width - 1)[..., None, :]
    maps = heatmaps.permute(0, 3, 1, 2).flatten(2)
    heat = torch.sigmoid(maps.gather(2, index.flatten(2))) * ok.flatten(2)
    total = heat.sum(2)
    # The middle of the neighbourhood is the landmark's own pixel.
    inside = ok[..., reach, reach]
    sure = inside & (heat.amax(2) >= MIN_HEAT) & (total > 0)
    heat = heat.unflatten(2, (KERNEL, KERNEL))
    x = (heat * cols[..., None, :]).sum((2, 3))
    y = (heat * rows[..., :, None]).sum((2, 3))
    centre = torch.stack((x, y), 2) / total.clamp_min(1e-9)[..., None] / size
    return torch.where(sure[..., None], centre, points)


def readings_of_rows(rows: np.ndarray, chosen: Sequence[int]) -> Readings:
    """Return the readings of some ROIs from the rows (N, WIDTH) of `LandmarkNet`; copied.

    Args:
        rows: What the network returned.
        chosen: The rows to read.
    """
    points, visibility, presence, world = (
        rows[chosen, first:last] for first, last in pairwise(_ENDS[:5])
    )
    return Readings(
        points.reshape(-1, 39, 2).astype(np.float64),
        visibility,
        presence[:, 0].tolist(),
        # Each by itself, or one person's mask would keep those of the whole batch in memory.
        [rows[k, _ENDS[4] :].reshape(MASK, MASK).copy() for k in chosen],
        world.reshape(-1, 39, 3),
    )


def presences_of_rows(rows: np.ndarray) -> list[float]:
    """Return the presence of each ROI from the rows (N, WIDTH) of `LandmarkNet`."""
    presences: list[float] = rows[:, _ENDS[2]].tolist()
    return presences
