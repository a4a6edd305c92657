"""What the YOLO networks share: their layers up to the head, and where each row of a head looks.

ultralytics' own heads remember the grid of the last picture size in the module and make it anew on
the host when the batch changes, which a captured graph does not survive. Here the grid is a buffer,
and places are decoded in single precision whatever the layers compute in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

STRIDE = 32
"""Sides of pictures are multiples of this."""


class Trunk(nn.Module):
    """A network's layers before its head: pictures (B, 3, S, S) -> the head's maps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        *layers, head = network.model
        self.layers = nn.ModuleList(layers)
        self._from = [layer.f for layer in layers]
        self._wanted = list(head.f)
        self._kept = set(network.save)

    def forward(self, x: Tensor) -> list[Tensor]:
        kept: list[Any] = []
        for layer, source in zip(self.layers, self._from):
            if isinstance(source, list):
                x = layer([x if k == -1 else kept[k] for k in source])
            else:
                x = layer(x if source == -1 else kept[source])
            kept.append(x if len(kept) in self._kept else None)
        return [kept[k] for k in self._wanted]


class YoloNet(nn.Module):
    """A YOLO network of fixed picture size; ``grid`` (2, N) and ``strides`` (N,) say where the N
    places of its head look."""

    grid: Tensor
    strides: Tensor

    def __init__(self, network: Any, side: int, weights: str) -> None:
        super().__init__()
        if side < STRIDE or side % STRIDE:
            raise ValueError(f"pictures are multiples of {STRIDE} a side, not {side}")
        network.fuse(verbose=False)
        self.side, self.weights = side, weights
        self.trunk, self.head = Trunk(network), network.model[-1]
        self.requires_grad_(False)

    def halve(self) -> YoloNet:
        """Compute the layers in half precision; in place."""
        self.trunk.half()
        self.head.half()
        return self

    def maps(self, images: Tensor) -> list[Tensor]:
        """The head's maps of pictures (B, 3, side, side)."""
        return self.trunk(images.to(next(self.trunk.parameters()).dtype))


def places(side: int, strides: list[int]) -> tuple[Tensor, Tensor]:
    """Centres of a head's cells in cells (2, N), x then y, and their size in pixels (N,)."""
    grids, sizes = [], []
    for stride in strides:
        line = torch.arange(side // stride, dtype=torch.float32) + 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        grids.append(torch.stack((x.flatten(), y.flatten())))
        sizes.append(torch.full((x.numel(),), float(stride)))
    return torch.cat(grids, 1), torch.cat(sizes)


def corners(distances: Tensor, grid: Tensor, strides: Tensor) -> Tensor:
    """Boxes (B, N, 4) as x0, y0, x1, y1 in pixels, centres at whole numbers, out of the distances
    (B, 4, N) to left, top, right and bottom in cells (as in FCOS, Tian et al., 2019)."""
    low, high = grid - distances[:, :2], grid + distances[:, 2:]
    return (torch.cat((low, high), 1) * strides - 0.5).transpose(1, 2)
