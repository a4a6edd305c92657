"""Find which source is at fault where a batch of several sources' work fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies
from pipeline.core.problem import one_line
from pipeline.runtime.estimator import BodyEstimator, DetectedWindow, FittedWindow

MOST_FAULTS = 3
"""A stage that fails for this number of windows in a row ends their source."""
ENDS_ALL = (KeyboardInterrupt, SystemExit)
"""Errors that are no source's fault: they end the program."""

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Fault:
    """The error in the place of one item's result."""

    error: BaseException


def one_by_one_if_it_fails(
    work: Callable[[Sequence[Item]], Sequence[Done]], items: Sequence[Item]
) -> list[Done | Fault]:
    """Return the result of each item, or its fault.

    All items are worked on together. If that fails, each is tried alone, so that the others get
    their results. This also makes do with less memory.

    Args:
        work: Returns a result for each item it is given. It may be called again with the same
            items after it has failed.
        items: The parts of the batch.
    """
    try:
        return list(_complete(work, items))
    except ENDS_ALL:
        raise
    except BaseException as error:
        if len(items) == 1:
            return [Fault(error)]
    # Out here the error is gone, and with it the memory that its traceback kept.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return [result for item in items for result in one_by_one_if_it_fails(work, [item])]


def _complete(
    work: Callable[[Sequence[Item]], Sequence[Done]], items: Sequence[Item]
) -> Sequence[Done]:
    results = work(items)
    # Fewer would give a source the results of another one.
    if len(results) != len(items):
        raise ValueError(f"{len(results)} results for {len(items)} windows")
    return results


def check_detected(detected: DetectedWindow, window: Window) -> None:
    """Check that a window's people belong to its frames.

    Raises:
        ValueError: There are people of more or fewer frames.
    """
    if not len(detected.people) == len(detected.window.frames) == len(window.frames):
        raise ValueError(f"people of {len(detected.people)} frames for {len(window.frames)}")


def check_fitted(fitted: FittedWindow, window: Window) -> None:
    """Check that a window's bodies belong to its frames and have finite numbers only.

    Raises:
        ValueError: There are bodies of more or fewer frames.
        FloatingPointError: A number is not finite.
    """
    if len(fitted) != len(window.frames):
        raise ValueError(f"bodies of {len(fitted)} frames for {len(window.frames)}")
    for _, bodies in fitted:
        if isinstance(bodies, Bodies) and not bodies.finite:
            raise FloatingPointError("the bodies have numbers that are not finite")


def perceive_blank(estimator: BodyEstimator) -> None:
    """Try a black picture of no source. Raises what the estimator raises."""
    estimator.perceive([_blank_window()], [estimator.begin()])


def fit_blank(estimator: BodyEstimator) -> None:
    """Try a black picture of no source, without people. Raises what the estimator raises."""
    estimator.fit([DetectedWindow(_blank_window(), ({},))], [estimator.begin()])


def _blank_window() -> Window:
    return Window((Frame(0, "", 0, 0.0, np.zeros((360, 640, 3), np.uint8)),), key=0, reset=True)


class FaultLog:
    """The faults of one source by stage. Each stage belongs to one thread; any thread may read."""

    def __init__(self) -> None:
        self._in_a_row: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}

    def succeeded(self, stage: str) -> None:
        """Take note that a stage worked."""
        if self._in_a_row[stage]:
            self._in_a_row[stage] = 0

    def failed(self, stage: str, error: BaseException) -> bool:
        """Take note that a stage failed; return whether that is too often to go on."""
        self._in_a_row[stage] += 1
        self._reasons[stage] = f"{stage} failed: {one_line(error)}"
        return self._in_a_row[stage] >= MOST_FAULTS

    @property
    def trouble(self) -> str:
        """The stage that fails now and why, in a line; empty where none does."""
        failing = [stage for stage, faults in tuple(self._in_a_row.items()) if faults]
        return self._reasons[failing[-1]] if failing else ""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The last fault of each stage that has failed, a line each."""
        return tuple(self._reasons.values())


def as_exception(error: BaseException) -> Exception:
    """Return the error as one that readers expect: another kind would end their thread at once."""
    return error if isinstance(error, Exception) else RuntimeError(one_line(error))
