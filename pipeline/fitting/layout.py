"""Many small arrays as rows of one: one copy to a GPU and one back instead of a dozen."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]


class Layout:
    """Named float32 arrays side by side in a row of numbers.

    Attributes:
        shapes: Each array's shape by name, in the order of the row.
        places: Each array's slice of a row, by name.
        size: How many numbers a row has.
    """

    def __init__(self, **shapes: Shape) -> None:
        self.shapes = shapes
        self.places: dict[str, slice] = {}
        first = 0
        for name, shape in shapes.items():
            self.places[name] = slice(first, first + prod(shape))
            first += prod(shape)
        self.size = first

    def split(self, rows: Any) -> dict[str, Any]:
        """Return views (B, *shape) of the arrays in ``rows`` (B, size), numpy or torch, by name."""
        return {
            name: rows[:, place].reshape(len(rows), *self.shapes[name])
            for name, place in self.places.items()
        }

    def join(self, **arrays: Tensor) -> Tensor:
        """Return arrays (B, *shape), one for every name, as rows (B, size).

        Raises:
            ValueError: An array has another shape than the layout's.
        """
        for name, shape in self.shapes.items():
            if tuple(arrays[name].shape[1:]) != shape:
                raise ValueError(f"{name} is (B, *{shape}), not {tuple(arrays[name].shape)}")
        return torch.cat([arrays[name].reshape(len(arrays[name]), -1) for name in self.shapes], 1)

    def row(self, **arrays: np.ndarray) -> np.ndarray:
        """Return one row (size,) float32 of numpy arrays; a name without an array is zero."""
        row = np.zeros(self.size, np.float32)
        for name, values in arrays.items():
            row[self.places[name]] = np.asarray(values, np.float32).reshape(-1)
        return row
