"""What a worker and a source take before they have run, measured with the example picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from app.config import Config
from app.serve.warm_up import warm_up_for_many
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.runtime.estimator import BodyEstimator

_WINDOWS, _WARM = 8, 4
_FPS = 30.0
_SIZE = (1080, 1920)


def window_cost(estimator: BodyEstimator) -> float:
    """Return the share of a worker's time that a source at 30 frames a second with one person
    takes: the median time of the busier of perceive and fit, over a window's duration.

    Args:
        estimator: The worker's estimator; nothing else may use it meanwhile.
    """
    picture = _picture()
    state, spent = estimator.begin(), []
    for number in range(_WARM + _WINDOWS):
        window = _window(picture, number)
        begun_s = time.perf_counter()
        detected = estimator.perceive([window], [state])
        between_s = time.perf_counter()
        estimator.fit(detected, [state])
        spent.append(max(between_s - begun_s, time.perf_counter() - between_s))
    return median(spent[_WARM:]) * _FPS / WINDOW_FRAMES


def gpu_share(config: Config, load: Callable[[Config], BodyEstimator], events: bool) -> float:
    """Return the share of this process's GPU that a worker takes, by the memory that it needs.

    It is called where nothing else runs on the GPU: it loads the estimator, lets it work, and looks
    at what is left.

    Args:
        config: The worker's configuration.
        load: Makes its estimator.
        events: Whether it fits windows around events too.
    """
    estimator = load(config)
    try:
        warm_up_for_many(estimator, config, events)
        window_cost(estimator)
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        # All that is taken, its context included: nothing else is on this GPU.
        return max(total - free, 1) / total
    finally:
        estimator.close()


def _picture() -> np.ndarray:
    """The example picture, of one person, in the middle of a frame (1080, 1920, 3)."""
    from pipeline.perception.blazepose.example import example_image

    example = example_image()
    out = np.full((*_SIZE, 3), 127, np.uint8)
    height, width = example.shape[:2]
    top, left = (_SIZE[0] - height) // 2, (_SIZE[1] - width) // 2
    out[top : top + height, left : left + width] = example
    return out


def _window(picture: np.ndarray, number: int) -> Window:
    first = number * WINDOW_FRAMES
    frames = tuple(
        Frame(index, "example", time.monotonic_ns(), index / _FPS, picture)
        for index in range(first, first + WINDOW_FRAMES)
    )
    return Window(frames, 0, number == 0)
