"""ViT-H/16 as ViTPose uses it (Xu et al., ViTPose, 2022), for inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d.config import ModelConfig
from pipeline.sam3d.layers import Patches

_NORM_EPS = 1e-6
PATCH_PADDING = 2


class VitH(nn.Module):
    """The backbone as the release names it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid = (config.rows, config.columns)
        # The first position is that of a class token, which this network does not have.
        self.pos_embed = nn.Parameter(
            torch.zeros(1, 1 + config.rows * config.columns, config.width)
        )
        self.patch_embed = Patches(config.width, config.patch, PATCH_PADDING)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.last_norm = _Norm(config.width, eps=_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """Return image features of normalised crops.

        Args:
            images: (B, 3, H, W), normalised, in the backbone's precision.

        Returns:
            (B, C, rows, columns), the last block's tokens after the final norm.
        """
        x = self.tokens(self.patch_embed(images))
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x).transpose(1, 2).unflatten(2, self.grid)

    def tokens(self, patches: Tensor) -> Tensor:
        """Return the first block's input (B, rows * columns, C) of the embedded patches."""
        return patches + self.pos_embed[:, 1:] + self.pos_embed[:, :1]

    def fold(self) -> None:
        """Do nothing: this backbone has nothing to fuse."""


class _Norm(nn.LayerNorm):
    """LayerNorm in float32; its weights are float32 in the release too."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = _Norm(config.width, eps=_NORM_EPS)
        self.attn = _Attention(config.width, config.heads)
        self.norm2 = _Norm(config.width, eps=_NORM_EPS)
        self.mlp = _Mlp(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
