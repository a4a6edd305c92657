"""YOLO26-pose: people's boxes and 17 COCO keypoints in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.perception.ultralytics_models.yolo import YoloNet, corners, places

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""COCO's keypoints (Lin et al., 2014). Left and right are the person's."""
ROW = 5 + 3 * len(KEYPOINTS)
"""Length of a person's row: box x0, y0, x1, y1 in pixels of the picture, score, then for each
keypoint x, y in pixels and its visibility."""


class YoloPose(YoloNet):
    """Rows (B, N, ROW) of N = 21 S^2 / 1024 cells, of pictures (B, 3, S, S) RGB in [0, 1].

    They come from the branch that assigns each person one cell, so they need no suppression.
    """

    def __init__(self, network: Any, side: int = 640, weights: str = "random") -> None:
        network.end2end = True
        super().__init__(network, side, weights)
        grid, strides = places(side, [int(s) for s in network.stride])
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        raw = self.head.forward_head(self.maps(images), **self.head.one2one)
        boxes = corners(raw["boxes"].float(), self.grid, self.strides)
        score = raw["scores"].float().sigmoid().amax(1)
        points = raw["kpts"].float().unflatten(1, (len(KEYPOINTS), 3))
        # Offsets are from the cell's centre, in cells. Pixel centres are at whole numbers.
        xy = (points[:, :, :2] + self.grid) * self.strides - 0.5
        points = torch.cat((xy, points[:, :, 2:].sigmoid()), 2).flatten(1, 2).transpose(1, 2)
        return torch.cat((boxes, score[..., None], points), 2)


def best_rows(rows: Tensor, count: int) -> Tensor:
    """Return the ``count`` best-scored rows of each picture, best first: (B, count, ROW)."""
    indices = rows[..., 4].topk(min(count, rows.shape[1]), 1).indices
    return rows.gather(1, indices[..., None].expand(-1, -1, rows.shape[2]))
