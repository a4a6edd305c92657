"""Replay functions of tensors as CUDA graphs.

A small network or solve is hundreds of kernels of a few microseconds each. Launching them one by
one takes longer than running them; a CUDA graph launches all of them at once.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

CAPTURING = threading.RLock()
"""Held while a graph is captured. Two captures at once would record each other's work, and a
thread that waits for the whole GPU meanwhile (``torch.cuda.synchronize``) breaks the capture. Other
threads may continue to use the GPU, and may wait for streams and events."""

_FAILED: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed. Torch's allocators may still use them, so they are never freed."""


class CaptureError(RuntimeError):
    """A function that runs on the GPU but cannot be recorded as a CUDA graph."""


class Pool:
    """Memory and a stream that several graphs share.

    For graphs that are replayed one after another, never at the same time: each overwrites the
    working memory, and possibly the results, of the one before.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.handle = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)


class Graphed:
    """A function of tensors of fixed shapes, replayed as a CUDA graph.

    The function must do the same work for all values: no branch on values, no copy to the host.
    Each call returns what the function returned when it was captured, in the same memory. So a
    result is valid until the next call, or with a shared ``pool`` until the next call of any graph
    in it. Results are inference tensors: copy them before changing them.

    Belongs to one thread at a time; calls go to the current stream.

    Args:
        function: Takes tensors; returns a tensor, or any value that holds tensors.
        examples: Tensors with the shapes, types and device of later arguments.
        warmups: Number of calls before the capture.
        enabled: False calls the function as it is, as always on a CPU.
        pool: Memory shared with other graphs; None: memory of its own.

    Raises:
        CaptureError: The function cannot be captured.
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
        self._inputs: list[Tensor] = []
        if enabled and examples[0].is_cuda:
            with CAPTURING, torch.inference_mode():
                self._capture(examples, warmups, pool or Pool(examples[0].device))

    @property
    def captured(self) -> bool:
        """Whether calls replay a graph."""
        return self._graph is not None

    @property
    def inputs(self) -> Sequence[Tensor]:
        """The memory that a replay reads; empty without a graph. A caller may write the next
        arguments there, on the stream of the calls, and pass these tensors: nothing is copied."""
        return self._inputs

    def _capture(self, examples: Sequence[Tensor], warmups: int, pool: Pool) -> None:
        device, graph = examples[0].device, torch.cuda.CUDAGraph()
        # A graph reads the same addresses at each replay; new values are copied there.
        self._inputs = [example.clone() for example in examples]
        before = torch.cuda.current_stream(device)
        # The examples may still be in the making on the current stream.
        pool.stream.wait_stream(before)
        with torch.cuda.stream(pool.stream):
            # In these calls libraries choose kernels and create their handles and workspaces, which
            # they may not do during a capture.
            for _ in range(warmups):
                self._function(*self._inputs)
        torch.cuda.synchronize(device)
        causes: list[Exception] = []
        try:
            # "thread_local": other threads may use the GPU meanwhile.
            with (
                _without_collection(),
                torch.cuda.graph(
                    graph, pool=pool.handle, stream=pool.stream, capture_error_mode="thread_local"
                ),
            ):
                try:
                    self._outputs = self._function(*self._inputs)
                except Exception as error:
                    # Ending a failed capture raises an error of its own; this one names the cause.
                    causes.append(error)
                    raise
        except Exception as error:
            _clean_up(graph, pool, before)
            cause = (*causes, error)[0]
            raise CaptureError(first_line(cause)) from cause
        torch.cuda.synchronize(device)
        self._graph = graph

    @torch.inference_mode()
    def __call__(self, *tensors: Tensor) -> Any:
        """Replay the function on these values; tensors in host memory are copied to the GPU.

        Raises:
            ValueError: A shape is not the example's.
        """
        if self._graph is None:
            return self._function(*(t.to(self._device, non_blocking=True) for t in tensors))
        for target, value in zip(self._inputs, tensors, strict=True):
            if target.shape != value.shape:
                raise ValueError(f"captured for {tuple(target.shape)}, not {tuple(value.shape)}")
            if value.data_ptr() != target.data_ptr():
                # Queued on the stream of the replay, so the host need not wait in between.
                target.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs


class Replayed:
    """A function of tensors, captured as a CUDA graph for each kind of arguments it meets.

    A kind is the arguments' shapes and types. Its first call captures the graph and takes longer.
    The function and its results are as for `Graphed`; a result is valid until the next call of any
    kind.

    Args:
        function: As for `Graphed`.
        enabled: False calls the function as it is, as always on a CPU.
        most: Number of kinds to capture; further kinds call the function as it is.
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
            # Made with the first graph, because only arguments tell the device.
            self._pool = self._pool or Pool(tensors[0].device)
            step = self._steps[kind] = Graphed(self._function, tensors, pool=self._pool)
        return step(*tensors)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python from collecting garbage: a CUDA graph that is freed while another is captured in
    the same thread ends the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _clean_up(graph: torch.cuda.CUDAGraph, pool: Pool, before: torch.cuda.Stream) -> None:
    """Finish a failed capture. Ending it fails too, so torch leaves it half open: its stream stays
    current, and new memory comes from its pool."""
    torch.cuda.set_stream(before)
    _FAILED.append(graph)
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    if end is not None:
        with contextlib.suppress(RuntimeError):  # in case torch has closed it after all
            end(before.device_index, pool.handle)
    # Otherwise the generator would count further random numbers as the failed capture's.
    generator = torch.cuda.default_generators[before.device_index]
    generator.graphsafe_set_state(generator.clone_state())


def compiling() -> contextlib.AbstractContextManager[Any]:
    """Return a context for compiling with torch, with higher limits on recompilation.

    The limits guard against a compilation at each call. Here the kinds of calls are few and known.
    """
    return torch._dynamo.config.patch(recompile_limit=256, accumulated_recompile_limit=4096)


def first_line(error: BaseException) -> str:
    """Return an error's first line, and the second too if the first ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200]


def seconds_a_call(
    step: Callable[..., Any], tensors: Sequence[Tensor], *, calls: int = 20, rounds: int = 3
) -> float:
    """Return the time of one call alone on its device, in seconds.

    It is the mean of ``calls`` calls, in the best of ``rounds`` rounds. Waits for the current
    stream.
    """
    times = []
    step(*tensors)
    for _ in range(rounds):
        _wait(tensors[0].device)
        begun = time.perf_counter()
        for _ in range(calls):
            step(*tensors)
        _wait(tensors[0].device)
        # Disturbances only add time, so the best round counts.
        times.append((time.perf_counter() - begun) / calls)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
