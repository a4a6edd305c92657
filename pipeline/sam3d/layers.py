"""Layers that several parts of the model share. Names of parameters are those of the releases."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNEL_NORM_EPS = 1e-6


class Mlp(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: nn.Module) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(inputs, hidden), activation)
        self.layers = nn.Sequential(first, nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class BoxMlp(nn.Module):
    """Three linear layers with ReLU between."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        sizes = ((width, width), (width, width), (width, outputs))
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of feature maps (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        channels_last = F.layer_norm(
            x.movedim(1, -1), self.weight.shape, self.weight, self.bias, CHANNEL_NORM_EPS
        )
        return channels_last.movedim(-1, 1)


class Patches(nn.Module):
    """Linear map of non-overlapping patches of an image."""

    def __init__(self, width: int, patch: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch, padding=padding)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, rows * columns, C) of images (B, 3, H, W)."""
        return self.proj(images).flatten(2).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Return the attention (B, N, C) of queries (B, N, C) to keys and values (B, M, C)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def linear_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the layer of a weight (outputs, inputs) and a bias (outputs,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer
