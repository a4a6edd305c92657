"""Functions of tensors replayed as CUDA graphs, and batches of any size through few shapes.

A small network or solve is hundreds of kernels of a few microseconds each, and starting them one
by one takes longer than running them. A CUDA graph starts them all at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_CAPTURING = threading.Lock()
"""Captures in two threads at once would record each other's work."""


class Graphed:
    """A function of tensors of fixed shapes, replayed as a CUDA graph.

    ``examples`` have the shapes, types and device of the arguments to come. The function must do
    the same to every value: no branch on values, no copy to the host. It is called ``warmups``
    times, then captured; whatever it returns (a tensor, or tuples, lists and dicts of them) is
    returned by each call, in the same memory: valid until the next call. On a CPU, or when not
    ``enabled``, it is called as it is.

    Belongs to one thread at a time; calls go to the current stream.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        examples: Sequence[Tensor],
        *,
        warmups: int = 3,
        enabled: bool = True,
    ) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if enabled and examples[0].is_cuda:
            with _CAPTURING, torch.inference_mode():
                self._capture(examples, warmups)

    @property
    def captured(self) -> bool:
        """Whether calls replay a graph."""
        return self._graph is not None

    def _capture(self, examples: Sequence[Tensor], warmups: int) -> None:
        device = examples[0].device
        self._inputs = [example.clone() for example in examples]
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            # Lets libraries choose their kernels and make their handles and workspaces.
            for _ in range(warmups):
                self._function(*self._inputs)
        torch.cuda.synchronize(device)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on using the GPU meanwhile.
        with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
            self._outputs = self._function(*self._inputs)
        torch.cuda.synchronize(device)

    @torch.inference_mode()
    def __call__(self, *tensors: Tensor) -> Any:
        """Replay it on these values; tensors in page-locked host memory are brought over."""
        if self._graph is None:
            return self._function(*tensors)
        for place, value in zip(self._inputs, tensors, strict=True):
            place.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs


class Bucketed:
    """A function of batches made ready for a few batch sizes, called with any.

    ``make(size)`` gives the function for batches of that size; its results have the batch first.
    A batch is filled up to the next size with copies of its first row, which are cut off the
    results; one larger than the largest size goes through in parts.
    """

    def __init__(self, make: Callable[[int], Callable[..., Any]], sizes: Sequence[int]) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"batch sizes are 1 or more, not {tuple(sizes)}")
        self.sizes = tuple(sorted(set(sizes)))
        self._steps = {size: make(size) for size in self.sizes}

    def __call__(self, *tensors: Tensor) -> Any:
        """The results for a batch (B, ...) of each argument. Where a function returns the same
        memory at each call, so does this, but for batches that went through in parts."""
        count, largest = len(tensors[0]), self.sizes[-1]
        if count > largest:
            parts = [
                # What the next part would overwrite is kept.
                pytree.tree_map(torch.clone, self(*(t[k : k + largest] for t in tensors)))
                for k in range(0, count, largest)
            ]
            leaves = [pytree.tree_flatten(part)[0] for part in parts]
            joined = [torch.cat(same) for same in zip(*leaves)]
            return pytree.tree_unflatten(joined, pytree.tree_flatten(parts[0])[1])
        size = next(size for size in self.sizes if size >= count)
        if size > count:
            tensors = tuple(filled(t, size) for t in tensors)
        return pytree.tree_map(lambda out: out[:count], self._steps[size](*tensors))


def filled(batch: Tensor, size: int) -> Tensor:
    """A batch (B, ...) with copies of its first row behind it, (size, ...)."""
    if not len(batch):
        raise ValueError("an empty batch")
    more = batch[:1].expand(size - len(batch), *batch.shape[1:])
    return torch.cat((batch, more))
