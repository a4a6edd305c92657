"""FastSAM: all instances of a picture at once, and the choice of those that fill people's boxes.

Zhao et al., Fast Segment Anything, 2023: YOLOv8's segmentation network (as in YOLACT, Bolya et al.,
2019: a mask is a sum of prototypes), trained on one class. A choice by boxes needs no non-maximum
suppression.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.perception.ultralytics_models.yolo import YoloNet, corners, places

COEFFICIENTS = 32
ROW = 5 + COEFFICIENTS
"""Length of an instance's row: box x0, y0, x1, y1 in pixels of the picture, score, the mask's
coefficients."""
STRIDE = 4
"""Pixels of the picture for each pixel of the prototypes, along a side."""
LEAST_SCORE = 0.1
"""Rows with a lower score are noise."""
BACKGROUND = -20.0
"""The logit outside of an instance."""


class FastSam(YoloNet):
    """Prototypes (B, 32, S/4, S/4) and rows of instances (B, N, ROW), N = 21 S^2 / 1024, of
    pictures (B, 3, S, S) RGB in [0, 1]."""

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
        probabilities = raw["boxes"].float().unflatten(1, (4, -1)).softmax(2)
        boxes = corners((probabilities * self.bins).sum(2), self.grid, self.strides)
        score = raw["scores"].float().sigmoid().amax(1)
        coefficients = raw["mask_coefficient"].float().transpose(1, 2)
        return self.head.proto(maps[0]), torch.cat((boxes, score[..., None], coefficients), 2)


def instances_in_boxes(
    prototypes: Tensor, rows: Tensor, boxes: Tensor, picture: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mask of the instance that fits each person's box best.

    The best instance has the largest product of score and overlap. Nothing waits for the device.

    Args:
        prototypes: (B, 32, h, w), of `FastSam`.
        rows: (B, N, ROW), of `FastSam`.
        boxes: People's boxes (P, 4), x0, y0, x1, y1 in pixels of the picture; P may be 0.
        picture: The picture of each box (P,) int64; None: the first.

    Returns:
        Mask logits (P, h, w) over the whole picture, negative outside the instance's box; and the
        intersection over union of the two boxes (P,), 0 where there is no instance.
    """
    if picture is None:
        picture = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    candidates, score = rows[..., :4][picture], rows[..., 4][picture]
    overlap = _overlap(boxes[:, None], candidates)
    # -1 lies below every product, so `best > 0` tells pictures without an instance.
    fitness = torch.where(score >= LEAST_SCORE, overlap * score, -1.0)
    best, index = fitness.max(1)
    chosen = rows[picture, index]
    overlap = overlap.gather(1, index[:, None])[:, 0]
    coefficients = chosen[:, 5:].to(prototypes.dtype)
    masks = torch.einsum("pc,pchw->phw", coefficients, prototypes[picture]).float()
    inside = _inside(chosen[:, :4], masks.shape[1], masks.shape[2])
    exists = best > 0
    masks = torch.where(inside & exists[:, None, None], masks, BACKGROUND)
    return masks, torch.where(exists, overlap, 0.0)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    common = (high - low).clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b)]
    return common / (areas[0] + areas[1] - common).clamp_min(1e-6)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Whether each pixel of the prototypes is inside each box (P, 4): (P, h, w)."""
    x = (torch.arange(width, device=boxes.device) + 0.5) * STRIDE - 0.5
    y = (torch.arange(height, device=boxes.device) + 0.5) * STRIDE - 0.5
    x0, y0, x1, y1 = (boxes[:, k, None] for k in range(4))
    return ((y >= y0) & (y <= y1))[:, :, None] & ((x >= x0) & (x <= x1))[:, None, :]
