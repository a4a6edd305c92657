"""The parts that all YOLO networks share: the layers up to the head, and the grid of its cells.

ultralytics' heads keep the grid of the last picture size in the module and compute it again on the
host when the batch changes, which a captured graph does not allow. Here the grid is a buffer, and
positions are decoded in single precision whatever the layers' precision is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

STRIDE = 32
"""The side of a picture is a multiple of this."""


class Trunk(nn.Module):
    """A network's layers before its head; they make the head's maps of pictures (B, 3, S, S)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        *layers, head = network.model
        self.layers = nn.ModuleList(layers)
        self._inputs = [layer.f for layer in layers]
        self._outputs = list(head.f)
        self._saved = set(network.save)

    def forward(self, x: Tensor) -> list[Tensor]:
        saved: list[Any] = []
        for layer, source in zip(self.layers, self._inputs):
            # -1 is the layer before; other numbers are earlier layers.
            if isinstance(source, list):
                x = layer([x if k == -1 else saved[k] for k in source])
            else:
                x = layer(x if source == -1 else saved[source])
            # Only maps that a later layer reads are kept.
            saved.append(x if len(saved) in self._saved else None)
        return [saved[k] for k in self._outputs]


class YoloNet(nn.Module):
    """A YOLO network for one picture size.

    ``grid`` (2, N) and ``strides`` (N,) are the centres and sizes of its head's N cells, as
    `places` returns them. ``weights`` is "real" or "random".
    """

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
        """Convert the layers to half precision, in place."""
        self.trunk.half()
        self.head.half()
        return self

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the head's input maps of pictures (B, 3, side, side)."""
        return self.trunk(images.to(next(self.trunk.parameters()).dtype))


def places(side: int, strides: list[int]) -> tuple[Tensor, Tensor]:
    """Return the centres of a head's cells, in cells (2, N), x then y, and their sizes (N,) in
    pixels."""
    grids, sizes = [], []
    for stride in strides:
        line = torch.arange(side // stride, dtype=torch.float32) + 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        grids.append(torch.stack((x.flatten(), y.flatten())))
        sizes.append(torch.full((x.numel(),), float(stride)))
    return torch.cat(grids, 1), torch.cat(sizes)


def corners(distances: Tensor, grid: Tensor, strides: Tensor) -> Tensor:
    """Return boxes (B, N, 4), x0, y0, x1, y1 in pixels with centres at whole numbers.

    From the distances (B, 4, N) to left, top, right and bottom, in cells (as in FCOS, Tian et al.,
    2019).
    """
    low, high = grid - distances[:, :2], grid + distances[:, 2:]
    return (torch.cat((low, high), 1) * strides - 0.5).transpose(1, 2)
