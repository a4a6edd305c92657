"""FastSAM: every instance of a picture at once, and those that fill people's boxes.

Zhao et al., Fast Segment Anything, 2023: YOLOv8's segmentation network (as in YOLACT, Bolya et al.,
2019: a mask is a sum of prototypes) trained on one class. No suppression of doubles is needed to
choose by boxes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.perception.ultralytics_models.yolo import YoloNet, corners, places

COEFFICIENTS = 32
ROW = 5 + COEFFICIENTS
"""Of an instance: box x0, y0, x1, y1 in pixels of the picture, score, the mask's coefficients."""
STRIDE = 4
"""Picture pixels a pixel of the prototypes, along a side."""
LEAST_SCORE = 0.1
"""Below this a row is noise."""
NOBODY = -20.0
"""The logit where an instance is not."""


class FastSam(YoloNet):
    """Pictures (B, 3, S, S) RGB in [0, 1] -> prototypes (B, 32, S/4, S/4) and every row
    (B, N, ROW), N = 21 S^2 / 1024."""

    bins: Tensor

    def __init__(self, network: Any, side: int = 1024, weights: str = "random") -> None:
        super().__init__(network, side, weights)
        grid, strides = places(side, [int(s) for s in network.stride])
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        bins = torch.arange(self.head.reg_max, dtype=torch.float32)
        self.register_buffer("bins", bins[:, None], persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(images)
        raw = self.head.forward_head(maps, **self.head.one2many)
        # A distance is the mean of a distribution over bins (Li et al., Generalized Focal Loss).
        chances = raw["boxes"].float().unflatten(1, (4, -1)).softmax(2)
        boxes = corners((chances * self.bins).sum(2), self.grid, self.strides)
        score = raw["scores"].float().sigmoid().amax(1)
        coefficients = raw["mask_coefficient"].float().transpose(1, 2)
        return self.head.proto(maps[0]), torch.cat((boxes, score[..., None], coefficients), 2)


def instances_in_boxes(
    prototypes: Tensor, rows: Tensor, boxes: Tensor, picture: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For each person's box the instance that fits it: mask logits (P, h, w) over the whole
    picture, below nought outside the instance's box, and how far the boxes agree (P,): their
    intersection over union, nought where there is no instance at all.

    ``boxes`` (P, 4) are x0, y0, x1, y1 in pixels of the picture; ``picture`` (P,) int64 says which
    row of ``prototypes`` (B, 32, h, w) and ``rows`` (B, N, ROW) each is in (None: the first). The
    instance is the one of the best agreement times score. P may be 0. Nothing waits for the device.
    """
    if picture is None:
        picture = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    found, score = rows[..., :4][picture], rows[..., 4][picture]
    agreement = _agreement(boxes[:, None], found)
    fitness = torch.where(score >= LEAST_SCORE, agreement * score, -1.0)
    best, which = fitness.max(1)
    chosen = rows[picture, which]
    agreement = agreement.gather(1, which[:, None])[:, 0]
    coefficients = chosen[:, 5:].to(prototypes.dtype)
    masks = torch.einsum("pc,pchw->phw", coefficients, prototypes[picture]).float()
    inside = _inside(chosen[:, :4], masks.shape[1], masks.shape[2])
    there = (best > 0)[:, None, None]
    return torch.where(inside & there, masks, NOBODY), torch.where(best > 0, agreement, 0.0)


def _agreement(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    common = (high - low).clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b)]
    return common / (areas[0] + areas[1] - common).clamp_min(1e-6)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels (P, h, w) of the prototypes lie in boxes (P, 4)."""
    x = (torch.arange(width, device=boxes.device) + 0.5) * STRIDE - 0.5
    y = (torch.arange(height, device=boxes.device) + 0.5) * STRIDE - 0.5
    x0, y0, x1, y1 = (boxes[:, k, None] for k in range(4))
    return ((y >= y0) & (y <= y1))[:, :, None] & ((x >= x0) & (x <= x1))[:, None, :]
