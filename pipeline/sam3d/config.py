"""The sizes of the two released SAM 3D Body models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

KEYPOINTS = 70
"""Keypoints of the MHR-70 set that the decoder has tokens for."""
POSE = 519
"""Numbers that the pose head puts out; `pose.PoseHead` names them."""
CAMERA = 3
CONDITION = 3
RAY_FREQUENCIES = 16
RAY_FEATURES = 3 + 2 * 3 * RAY_FREQUENCIES
"""The ray and the sines and cosines of its three numbers, for each cell of the image features."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model. The defaults are those of the release with the DINOv3 backbone.

    Attributes:
        backbone: Which backbone, as in the names of the releases.
        side: Side of the square crop, pixels.
        patch: Side of a patch, pixels.
        columns: Columns of patches that the backbone gets: all, or those in the middle.
        width: Channels of the image features.
        depth: Blocks of the backbone.
        heads: Attention heads of the backbone.
        hidden: Hidden channels of the backbone's feed-forward layers.
        token_width: Channels of the decoder's tokens.
        layers: Layers of the decoder.
        token_heads: Attention heads of the decoder.
        token_inner: Channels of all its heads together.
    """

    backbone: Literal["dinov3", "vith"] = "dinov3"
    side: int = 512
    patch: int = 16
    columns: int = 32
    width: int = 1280
    depth: int = 32
    heads: int = 20
    hidden: int = 5120
    token_width: int = 1024
    layers: int = 6
    token_heads: int = 8
    token_inner: int = 512

    @property
    def rows(self) -> int:
        """Rows of patches, and columns of the whole square."""
        return self.side // self.patch

    @property
    def first_column(self) -> int:
        """The column of the square at which the backbone's input begins."""
        return (self.rows - self.columns) // 2


DINOV3 = ModelConfig()
VITH = replace(DINOV3, backbone="vith", columns=24, heads=16)
CONFIGS = {"dinov3": DINOV3, "vith": VITH}
