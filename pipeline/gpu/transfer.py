"""Copy frames to the GPU, once: perception and drawing share the copy. Copy pictures back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import torch

from pipeline.core.frame import Frame, Window
from pipeline.core.records import replaced
from pipeline.core.yuv import BT709, Colour, YuvImage, yuv_bytes


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

    Planes of YUV are copied as they are, half the bytes, and become RGB there. The copies are
    queued on the current stream, so work queued there later sees them. Images in page-locked
    memory (`pinned_image`) are copied without waiting; others are copied into such memory first.
    The frames must not be deleted before the copies are done.

    Args:
        window: The window. If all its frames are on the device already, it is returned unchanged.
        device: The GPU.
    """
    if all(frame.on_device is not None for frame in window.frames):
        return window
    height, width = window.key_frame.size
    runs = [
        (colour, list(run))
        for colour, run in groupby(window.frames, lambda frame: _colour_there(frame, device))
    ]
    # Copies of planes take the longest, so they begin before the rest is prepared.
    planes = [None if colour is None else _upload_planes(run, device) for colour, run in runs]
    target = torch.empty(
        len(window.frames), height, width, 3, dtype=torch.uint8, device=device
    )  # fmt: skip
    parts = target.split([len(run) for _, run in runs])
    for (colour, run), there, part in zip(runs, planes, parts):
        if colour is None or there is None:
            for place, frame in zip(part, run):
                on_device = frame.on_device
                source = _page_locked(frame.image, device) if on_device is None else on_device
                place.copy_(source, non_blocking=True)
        else:
            # Imported here: Triton is only needed, and only sure to be there, with a GPU.
            from pipeline.gpu.yuv_gpu import to_rgb

            to_rgb(there, part, colour)
    placed = zip(window.frames, target)
    return replaced(window, frames=tuple(replaced(f, on_device=place) for f, place in placed))


def _colour_there(frame: Frame, device: torch.device) -> Colour | None:
    """The matrix and range by which a frame becomes RGB on a device; None where it is RGB."""
    if frame.on_device is not None or device.type == "cpu":
        return None
    return frame.pixels.colour if isinstance(frame.pixels, YuvImage) else None


def _upload_planes(frames: list[Frame], device: torch.device) -> torch.Tensor:
    """The planes of frames of one size (T, N), as `YuvImage.data`."""
    pictures = [frame.pixels for frame in frames if isinstance(frame.pixels, YuvImage)]
    shape = len(pictures), yuv_bytes(pictures[0].size)
    planes = torch.empty(shape, dtype=torch.uint8, device=device)
    for row, picture in zip(planes, pictures):
        row.copy_(_page_locked(picture.data, device), non_blocking=True)
    return planes


def _page_locked(image: np.ndarray, device: torch.device) -> torch.Tensor:
    host = torch.from_numpy(image)
    if device.type == "cpu" or host.is_pinned():
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


class PlanesCopy:
    """Copies of pictures to the host as planes of YUV, queued on the current stream.

    Args:
        images: (T, H, W, 3) uint8 RGB, contiguous, on a GPU.
        colour: The matrix and range of the planes.
    """

    def __init__(self, images: torch.Tensor, colour: Colour = BT709) -> None:
        from pipeline.gpu.yuv_gpu import to_planes

        self._size, self._colour = (images.shape[1], images.shape[2]), colour
        shape = len(images), yuv_bytes(self._size)
        planes = torch.empty(shape, dtype=torch.uint8, device=images.device)
        to_planes(images, planes, colour)
        self._copy = AsyncCopy(planes)

    def result(self) -> list[YuvImage]:
        """Wait for the copies and return the T pictures."""
        return [YuvImage(data, self._size, self._colour) for data in self._copy.result()]
