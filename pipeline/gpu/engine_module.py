"""Preparation of a module before an engine is made of it: precision, memory format, inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Values = tuple[Tensor, ...]


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return torch's memory format for images and for the weights of convolutions."""
    return torch.channels_last if channels_last else torch.contiguous_format


def in_memory_format(batch: Tensor, channels_last: bool) -> Tensor:
    """Return a batch in that format. ``channels_last`` concerns images (B, C, H, W) only."""
    return batch.contiguous(memory_format=memory_format(channels_last and batch.dim() == 4))


def halved(module: nn.Module) -> nn.Module:
    """Convert a module to half precision, in place. It still accepts inputs of any precision."""
    halve = getattr(module, "halve", None)
    return halve() if halve is not None else _Halved(module)


class _Halved(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, *batch: Tensor) -> Any:
        return self.module(*(t.half() for t in batch))


def in_single(step: Callable[..., Any]) -> Callable[..., Values]:
    """Return the step with its results as a tuple of float32 tensors."""

    @torch.inference_mode()
    def run(*batch: Tensor) -> Values:
        return tuple(out.float() for out in as_tuple(step(*batch)))

    return run


def with_fixed_inputs(step: Callable[..., Any], batch: Values) -> Callable[..., Any]:
    """Return the step with its inputs always in the memory of ``batch``."""

    @torch.inference_mode()
    def run(*inputs: Tensor) -> Any:
        for target, value in zip(batch, inputs, strict=True):
            target.copy_(value, non_blocking=True)
        return step(*batch)

    return run


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute products in full single precision."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def tuned_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms for each new shape of a convolution, and keep the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def as_tuple(outputs: Any) -> Values:
    """Return a module's outputs, one tensor or several, as a tuple."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
