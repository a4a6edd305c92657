"""Functions of tensors replayed as CUDA graphs, and batches of any size through few shapes.

A small network or solve is hundreds of kernels of a few microseconds each, and starting them one
by one takes longer than running them. A CUDA graph starts them all at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

CAPTURING = threading.RLock()
"""Held while a graph is captured: two captures at once would record each other's work, and whoever
waits for the whole GPU meanwhile (``torch.cuda.synchronize``) breaks the capture off. Other threads
may go on working, and wait for streams and events."""

_BROKEN: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture broke off. Torch's allocators may go on asking them, so they stay."""


class CaptureError(RuntimeError):
    """A function that runs on the GPU but cannot be recorded as a CUDA graph."""


class Pool:
    """Memory and a stream that several graphs are captured with.

    For graphs that are replayed one after another, never at the same time: what one works with is
    overwritten by the next, and so may results be.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.handle = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)


class Graphed:
    """A function of tensors of fixed shapes, replayed as a CUDA graph.

    ``examples`` have the shapes, types and device of the arguments to come. The function must do
    the same to every value: no branch on values, no copy to the host. It is called ``warmups``
    times, then captured; whatever it returns (a tensor, or any value that holds tensors) is
    returned by each call, in the same memory: valid until the next call, or with a shared ``pool``
    until the next call of any graph in it. They are inference tensors: copy what is to be changed.
    On a CPU, or when not ``enabled``, it is called as it is. Raises CaptureError for a function
    that cannot be captured.

    Belongs to one thread at a time; calls go to the current stream.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        examples: Sequence[Tensor],
        *,
        warmups: int = 3,
        enabled: bool = True,
        pool: Pool | None = None,
    ) -> None:
        self._function, self._device = function, examples[0].device
        self._graph: torch.cuda.CUDAGraph | None = None
        if enabled and examples[0].is_cuda:
            with CAPTURING, torch.inference_mode():
                self._capture(examples, warmups, pool or Pool(examples[0].device))

    @property
    def captured(self) -> bool:
        """Whether calls replay a graph."""
        return self._graph is not None

    def _capture(self, examples: Sequence[Tensor], warmups: int, pool: Pool) -> None:
        device, graph = examples[0].device, torch.cuda.CUDAGraph()
        self._inputs = [example.clone() for example in examples]
        before = torch.cuda.current_stream(device)
        pool.stream.wait_stream(before)
        with torch.cuda.stream(pool.stream):
            # Lets libraries choose their kernels and make their handles and workspaces.
            for _ in range(warmups):
                self._function(*self._inputs)
        torch.cuda.synchronize(device)
        causes: list[Exception] = []
        try:
            # Other threads go on using the GPU meanwhile.
            with torch.cuda.graph(
                graph, pool=pool.handle, stream=pool.stream, capture_error_mode="thread_local"
            ):
                try:
                    self._outputs = self._function(*self._inputs)
                except Exception as error:
                    causes.append(error)
                    raise
        except Exception as error:
            _clear_up(graph, pool, before)
            cause = (*causes, error)[0]
            raise CaptureError(first_line(cause)) from cause
        torch.cuda.synchronize(device)
        self._graph = graph

    @torch.inference_mode()
    def __call__(self, *tensors: Tensor) -> Any:
        """Replay it on these values; tensors in page-locked host memory are brought over.

        Raises ValueError for other shapes than the examples'.
        """
        if self._graph is None:
            return self._function(*(t.to(self._device, non_blocking=True) for t in tensors))
        for place, value in zip(self._inputs, tensors, strict=True):
            if place.shape != value.shape:
                raise ValueError(f"captured for {tuple(place.shape)}, not {tuple(value.shape)}")
            place.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs


class Replayed:
    """A function of tensors captured as a CUDA graph for each kind of arguments (their shapes and
    types), when a call first brings them: then that call takes a while.

    The function and its results are as `Graphed`'s; a result is valid until the next call of any
    kind. Beyond ``most`` kinds, on a CPU, or when not ``enabled`` it is called as it is.
    """

    def __init__(
        self, function: Callable[..., Any], *, enabled: bool = True, most: int = 16
    ) -> None:
        self._function, self._enabled, self._most = function, enabled, most
        self._steps: dict[Any, Graphed] = {}
        self._pool: Pool | None = None

    def __call__(self, *tensors: Tensor) -> Any:
        if not (self._enabled and tensors[0].is_cuda):
            return self._function(*tensors)
        kind = tuple((t.shape, t.dtype) for t in tensors)
        step = self._steps.get(kind)
        if step is None:
            if len(self._steps) >= self._most:
                return self._function(*tensors)
            self._pool = self._pool or Pool(tensors[0].device)
            step = self._steps[kind] = Graphed(self._function, tensors, pool=self._pool)
        return step(*tensors)


def _clear_up(graph: torch.cuda.CUDAGraph, pool: Pool, before: torch.cuda.Stream) -> None:
    """The end of a capture that broke off fails too, so torch leaves it half open: its stream
    current, its pool the place for new memory."""
    torch.cuda.set_stream(before)
    _BROKEN.append(graph)
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    if end is not None:
        with contextlib.suppress(RuntimeError):  # where it had been closed after all
            end(before.device_index, pool.handle)
    # Random numbers would go on being counted as the broken capture's.
    generator = torch.cuda.default_generators[before.device_index]
    generator.graphsafe_set_state(generator.clone_state())


def compiling() -> contextlib.AbstractContextManager[Any]:
    """While torch compiles: its limits are there against a compilation a call, and here the kinds
    of calls are few and known."""
    return torch._dynamo.config.patch(recompile_limit=256, accumulated_recompile_limit=4096)


def first_line(error: BaseException) -> str:
    """What an error says, in a line; with what follows where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200]


def seconds_a_call(
    step: Callable[..., Any], tensors: Sequence[Tensor], *, calls: int = 20, rounds: int = 3
) -> float:
    """How long a call takes, on its device and by itself: the mean of ``calls``, the best of
    ``rounds``. Waits for the current stream."""
    taken = []
    step(*tensors)
    for _ in range(rounds):
        _wait(tensors[0].device)
        begun = time.perf_counter()
        for _ in range(calls):
            step(*tensors)
        _wait(tensors[0].device)
        taken.append((time.perf_counter() - begun) / calls)
    return min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


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
        # The largest first: graphs that share memory find it large enough.
        steps = {size: make(size) for size in reversed(self.sizes)}
        self._steps = {size: steps[size] for size in self.sizes}

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
