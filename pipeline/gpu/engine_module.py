"""What is done to a module, and around it, before an engine is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Values = tuple[Tensor, ...]


def memory_format(channels_last: bool) -> torch.memory_format:
    """How images, and weights of convolutions, lie in memory."""
    return torch.channels_last if channels_last else torch.contiguous_format


def laid(batch: Tensor, channels_last: bool) -> Tensor:
    """A batch lying so; ``channels_last`` is for images (B, C, H, W) alone."""
    return batch.contiguous(memory_format=memory_format(channels_last and batch.dim() == 4))


def halved(module: nn.Module) -> nn.Module:
    """A module gone over to half precision, in place; it takes and gives any."""
    halve = getattr(module, "halve", None)
    return halve() if halve is not None else _Halved(module)


class _Halved(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, *batch: Tensor) -> Any:
        return self.module(*(t.half() for t in batch))


def in_single(step: Callable[..., Any]) -> Callable[..., Values]:
    """The step with its results as a tuple of float32 tensors."""

    @torch.inference_mode()
    def run(*batch: Tensor) -> Values:
        return tuple(out.float() for out in as_tuple(step(*batch)))

    return run


def at_one_place(step: Callable[..., Any], batch: Values) -> Callable[..., Any]:
    """The step with its inputs always in the same memory."""

    @torch.inference_mode()
    def run(*given: Tensor) -> Any:
        for place, value in zip(batch, given, strict=True):
            place.copy_(value, non_blocking=True)
        return step(*batch)

    return run


@contextmanager
def exact() -> Iterator[None]:
    """Products in full single precision, without TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def tried_convolutions() -> Iterator[None]:
    """The library times its ways to do a convolution when a shape is new, and keeps the best."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def as_tuple(outputs: Any) -> Values:
    """What a module returned, one tensor or several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
