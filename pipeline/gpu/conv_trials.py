"""Whether cuDNN's trials, in which it times its algorithms for each convolution, pay for a module.

They take half of a start. What they gain is measured once and kept beside the engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.gpu.engine_module import tuned_convolutions

_LEAST_GAIN = 0.05
"""The share of a pass that trials must save."""
_SLEEP_CYCLES = 100_000_000
"""About 60 ms of a GPU's clock, in which the host queues a whole pass."""

Seconds = Callable[[nn.Module, Sequence[Tensor]], float]


def trials_pay(
    module: nn.Module, batch: Sequence[Tensor], cache: Path | None, seconds: Seconds | None = None
) -> bool:
    """Return whether a pass of a module is clearly faster with algorithms that cuDNN has timed.

    Args:
        module: The module as it will run.
        batch: Its inputs; one batch size stands for all of them.
        cache: The folder where the answer is kept; None measures nothing and takes the trials.
        seconds: Measures a pass, for tests.
    """
    if cache is None:
        return True
    path = cache / f"trials-{_digest(module, batch)}.json"
    try:
        return bool(json.loads(path.read_text())["pay"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # Not measured yet, or damaged.
    took_s = [_alone(seconds or gpu_seconds, module, batch, trials) for trials in (False, True)]
    pay = took_s[1] < (1 - _LEAST_GAIN) * took_s[0]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"pay": pay, "without_s": took_s[0], "with_s": took_s[1]}))
    except OSError:
        pass  # It is measured again at the next start.
    return pay


def gpu_seconds(module: nn.Module, batch: Sequence[Tensor]) -> float:
    """Return how long the GPU computes for a pass, in seconds, without the host's part: the best of
    three."""
    took_ms = []
    with torch.inference_mode(), torch.cuda.device(batch[0].device):
        # The first pass chooses the algorithms.
        module(*batch)
        for _ in range(3):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            # Meanwhile the host queues the whole pass, so that no kernel waits for its launch.
            torch.cuda._sleep(_SLEEP_CYCLES)
            begin.record()
            module(*batch)
            end.record()
            end.synchronize()
            took_ms.append(begin.elapsed_time(end))
    return min(took_ms) / 1e3


def _alone(seconds: Seconds, module: nn.Module, batch: Sequence[Tensor], trials: bool) -> float:
    """Measure in a new thread: torch keeps what cuDNN has chosen for each thread by itself."""
    with (
        tuned_convolutions() if trials else nullcontext(),
        ThreadPoolExecutor(1) as thread,
    ):
        return thread.submit(seconds, module, batch).result()


def _digest(module: nn.Module, batch: Sequence[Tensor]) -> str:
    """A short name for all that the answer depends on: shapes, types, the GPU and the versions."""
    state = module.state_dict(keep_vars=True).items()
    facts: list[Any] = [
        type(module).__name__,
        [[name, str(t.dtype), *t.shape] for name, t in state if isinstance(t, Tensor)],
        [[str(t.dtype), *t.shape, *t.stride()] for t in batch],
        torch.cuda.get_device_name(batch[0].device) if batch[0].is_cuda else "cpu",
        torch.__version__,
        torch.backends.cudnn.version(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
