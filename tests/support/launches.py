"""How many kernels a function launches, also where there is no GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction


class _TorchOps(TorchDispatchMode):
    """Counts torch's operations but views and empty tensors, which launch nothing."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = func._schema.arguments
        is_view = any(a.alias_info and not a.alias_info.is_write for a in arguments)
        if not is_view and "empty" not in str(func):
            self.counted[str(func)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def launches() -> Iterator[Counter[str]]:
    """Count the launches of torch's and Triton's kernels inside, by name.

    On a GPU, a few of torch's operations launch more than one kernel.
    """
    counted: Counter[str] = Counter()

    def counting(run: Any) -> Any:
        def counted_run(kernel: Any, *args: Any, **kwargs: Any) -> Any:
            counted[kernel.fn.__name__] += 1
            # Triton's interpreter copies arguments by torch, which is no launch.
            mode.counted = Counter()
            try:
                return run(kernel, *args, **kwargs)
            finally:
                mode.counted = counted

        return counted_run

    mode = _TorchOps(counted)
    with (
        patch.object(InterpretedFunction, "run", counting(InterpretedFunction.run)),
        patch.object(JITFunction, "run", counting(JITFunction.run)),
        mode,
    ):
        yield counted
