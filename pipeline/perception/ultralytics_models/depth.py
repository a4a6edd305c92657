"""YOLO26-depth: monocular depth of a whole picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipeline.perception.ultralytics_models.yolo import YoloNet


class MonoDepth(YoloNet):
    """Depth along the camera's z (B, S/4, S/4), positive, of pictures (B, 3, S, S) RGB in [0, 1].

    In metres up to a factor: without the camera's focal length, one view does not determine the
    scale, so users align it once for each source.
    """

    def __init__(self, network: Any, side: int = 640, weights: str = "random") -> None:
        super().__init__(network, side, weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.maps(images)).float()[:, 0]
