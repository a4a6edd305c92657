"""Errors of every kind, and stages that raise them for one source among several."""

from __future__ import annotations

import threading

import torch

from pipeline.core.people import Bodies
from pipeline.core.ring import Closed
from tests.support.fakes import NoPeople, StubEstimator

KINDS = {
    "value": ValueError("bad pixels"),
    "key": KeyError("landmarks"),
    "assertion": AssertionError(),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "memory": MemoryError(),
    "GPU memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "stop": StopIteration("no more"),
    "generator": GeneratorExit("left"),
    "ring": Closed("closed"),
    "base": type("Odd", (BaseException,), {})("odd"),
    "pages": OSError("one\n\ntwo\n" * 500),
}
"""An error of every kind that a stage may raise."""


class FaultyEstimator(StubEstimator):
    """Raises ``error`` in one stage for the windows of one source, from its frame ``at`` on.

    ``batches`` counts the batches that had windows of other sources too.
    """

    def __init__(self, stage, error, source="bad", at=0, times=None, spoil=None) -> None:
        super().__init__()
        self.stage, self.error, self.source, self.at = stage, error, source, at
        self.left, self.spoil, self.batches, self.resets = times, spoil, 0, []

    def perceive(self, windows, states):
        self.resets += [w.reset for w in windows if w.frames[0].source == self.source]
        return self._worked("perceive", windows, super().perceive(windows, states))

    def fit(self, detected, states):
        return self._worked("fit", [d.window for d in detected], super().fit(detected, states))

    def fit_event(self, detected, before, track, state):
        fitted = super().fit_event(detected, before, track, state)
        return self._worked("event fit", [detected.window], [fitted])[0]

    def _worked(self, stage, windows, results):
        bad = [n for n, w in enumerate(windows) if self._is_bad(stage, w.frames)]
        if not bad:
            return results
        self.batches += len(windows) > 1
        if self.spoil is not None:
            return self.spoil(results, bad[0])
        if self.left is not None and len(windows) == 1:
            self.left -= 1
        raise self.error

    def _is_bad(self, stage, frames):
        there = stage == self.stage and frames[0].source == self.source
        return there and frames[-1].id >= self.at and self.left != 0


class FaultyNobody(FaultyEstimator):
    """Detects no people, and fails in one stage for one source."""

    reports = ()

    def __init__(self, stage="", error=None) -> None:
        super().__init__(stage, error)
        self._plain = NoPeople()
        self.body, self.device = self._plain.body, self._plain.device

    def intrinsics(self, frame):
        if self.stage == "lens" and frame.source == self.source:
            raise self.error
        return self._plain.intrinsics(frame)

    def _fit(self, frames):
        return [(frame, Bodies.none(len(self.body.v_template))) for frame in frames]

    def warm_up(self, people, *, events=False, low_latency=False):
        pass

    def close(self):
        pass


class FaultyRenderer:
    """Draws nothing, and fails for pictures of one source."""

    together = False

    def __init__(self, stage, error) -> None:
        self.stage, self.error = stage, error

    def draw_batch(self, pictures, *_):
        self._fail("draw")
        return [picture.copy() for picture in pictures]

    def close(self):
        self._fail("renderer's end")

    def _fail(self, stage):
        if stage == self.stage and threading.current_thread().name == "show bad":
            raise self.error
