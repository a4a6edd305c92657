"""YOLO26-depth: how far everything in a picture is, as one network estimates it from one view."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipeline.perception.ultralytics_models.yolo import YoloNet


class MonoDepth(YoloNet):
    """Pictures (B, 3, S, S) RGB in [0, 1] -> depth along the camera's z (B, S/4, S/4), positive.

    Metres up to a factor: without the camera's focal length one view does not tell the scale, so
    whoever uses it aligns the scale once a source.
    """

    def __init__(self, network: Any, side: int = 640, weights: str = "random") -> None:
        super().__init__(network, side, weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.maps(images)).float()[:, 0]
