"""Copy frames to the GPU, once: perception and drawing share the copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from pipeline.core.frame import Window


def pinned_image(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised uint8 array in page-locked memory, which a GPU reads directly.

    The memory comes from torch's pool and returns to it when the array is deleted.
    """
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()


@contextmanager
def own_stream() -> Iterator[None]:
    """Use a CUDA stream of this thread's own, so that the GPU work of several threads overlaps.

    Does nothing if no GPU is in use. A thread must wait for its results before it hands them to
    another thread.
    """
    # Making a stream would initialise CUDA, in a run on the CPU too.
    if not torch.cuda.is_initialized():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield


def upload(window: Window, device: torch.device) -> Window:
    """Return the window with its frames also on ``device``, as parts of one (T, H, W, 3) tensor.

    The copies are queued on the current stream, so work queued there later sees them. Images in
    page-locked memory (`pinned_image`) are copied without waiting; others are copied into such
    memory first. The frames must not be deleted before the copies are done.

    Args:
        window: The window. If all its frames are on the device already, it is returned unchanged.
        device: The GPU.
    """
    if all(frame.on_device is not None for frame in window.frames):
        return window
    height, width = window.key_frame.size
    target = torch.empty(
        len(window.frames), height, width, 3, dtype=torch.uint8, device=device
    )  # fmt: skip
    frames = []
    for place, frame in zip(target, window.frames):
        if frame.on_device is None:
            place.copy_(_page_locked(frame.image), non_blocking=True)
        else:
            place.copy_(frame.on_device, non_blocking=True)
        frames.append(replace(frame, on_device=place))
    return replace(window, frames=tuple(frames))


def _page_locked(image: np.ndarray) -> torch.Tensor:
    host = torch.from_numpy(image)
    if not torch.cuda.is_available() or host.is_pinned():
        return host
    staged = torch.empty(host.shape, dtype=torch.uint8, pin_memory=True)
    return staged.copy_(host)


class AsyncCopy:
    """A copy of a tensor to the host, queued on the current stream."""

    def __init__(self, values: torch.Tensor) -> None:
        self._host, self._event = values, None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host = host.copy_(values, non_blocking=True)
            # The event marks this copy, so `result` does not wait for work that is queued later.
            self._event = torch.cuda.Event()
            self._event.record()

    def result(self) -> np.ndarray:
        """Wait for the copy and return it."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()
