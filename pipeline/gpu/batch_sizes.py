"""Run batches of any size through functions that exist for a few sizes, such as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pipeline.gpu.cuda_graphs import Graphed


class Bucketed:
    """A function of batches that exists for a few batch sizes and is called with any size.

    A batch is filled up to the next of the sizes with copies of its first row, whose results are
    cut off. A batch above the largest size is processed in parts.

    Args:
        make: Returns the function for batches of a given size; its results have the batch first.
        sizes: The batch sizes, each 1 or more.

    Raises:
        ValueError: ``sizes`` is empty or holds a number below 1.
    """

    def __init__(self, make: Callable[[int], Callable[..., Any]], sizes: Sequence[int]) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"batch sizes are 1 or more, not {tuple(sizes)}")
        # The largest first, so that graphs which share memory find it large enough.
        steps = {size: make(size) for size in sorted(set(sizes), reverse=True)}
        self._steps = dict(sorted(steps.items()))
        self.sizes = tuple(self._steps)

    def only(self, sizes: Sequence[int]) -> Bucketed:
        """Return the same without other batch sizes than these; nothing is made again."""
        return Bucketed(self._steps.__getitem__, sizes)

    def __call__(self, *tensors: Tensor) -> Any:
        """Return the results for arguments (B, ...) of one batch.

        If the functions return the same memory at each call, so does this, except for a batch that
        was processed in parts.
        """
        count, largest = len(tensors[0]), self.sizes[-1]
        if count > largest:
            parts = [
                # Cloned, because the next part overwrites the results.
                pytree.tree_map(torch.clone, self(*(t[k : k + largest] for t in tensors)))
                for k in range(0, count, largest)
            ]
            leaves = [pytree.tree_flatten(part)[0] for part in parts]
            joined = [torch.cat(outputs) for outputs in zip(*leaves)]
            return pytree.tree_unflatten(joined, pytree.tree_flatten(parts[0])[1])
        size = self._size_for(count)
        if size == count:
            return self._steps[size](*tensors)
        whole = self._inputs_of(size)
        if not whole or any(t.data_ptr() != w.data_ptr() for t, w in zip(tensors, whole)):
            whole = tuple(filled(t, size) for t in tensors)
        padded = self._steps[size](*whole)
        return pytree.tree_map(lambda out: out[:count], padded)

    def inputs(self, count: int) -> Sequence[Tensor]:
        """Return memory for a batch (count, ...) of each argument: as `Graphed.inputs`, empty where
        such a batch is not replayed at once."""
        if not 0 < count <= self.sizes[-1]:
            return ()
        return tuple(t[:count] for t in self._inputs_of(self._size_for(count)))

    def _size_for(self, count: int) -> int:
        return next(size for size in self.sizes if size >= count)

    def _inputs_of(self, size: int) -> Sequence[Tensor]:
        """What the graph of a size reads. Rows beyond a batch hold those of an earlier one."""
        step = self._steps[size]
        return step.inputs if isinstance(step, Graphed) else ()


def filled(batch: Tensor, size: int) -> Tensor:
    """Return a batch (B, ...) filled up to (size, ...) with copies of its first row.

    Raises:
        ValueError: The batch is empty.
    """
    if not len(batch):
        raise ValueError("an empty batch")
    # A real row: zeros may be no safe input.
    copies = batch[:1].expand(size - len(batch), *batch.shape[1:])
    return torch.cat((batch, copies))
