"""Stub sources and models for tests of the runtime: small, without weights."""

from __future__ import annotations

import threading
import time

import numpy as np
import torch

from pipeline.body.load import load_body
from pipeline.capture.base import SourceDefaults, SourceInfo
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.runtime.estimator import DetectedWindow


class StubSource(SourceDefaults):
    """``count`` small frames (None: endless); raises ``error`` at frame ``fails_at``."""

    def __init__(
        self, count=20, live=False, fails_at=None, pause_s=0.0, name="stub", error=None
    ) -> None:
        self.name, self.error = name, error or RuntimeError("the source broke")
        self.count, self.live, self.fails_at, self.pause_s = count, live, fails_at, pause_s
        self.warnings: list[str] = []
        self.closed = threading.Event()
        self.info = SourceInfo("stub", live, 32, 24, 30.0, count, "raw")

    def open(self) -> None:
        pass

    def frames(self):
        index = 0
        while (self.count is None or index < self.count) and not self.closed.is_set():
            if index == self.fails_at:
                raise self.error
            image = np.full((24, 32, 3), index % 251, np.uint8)
            yield Frame(index, self.name, time.monotonic_ns(), index / 30, image)
            index += 1
            if self.pause_s:
                self.closed.wait(self.pause_s)

    def close(self) -> None:
        self.closed.set()


class StubEstimator:
    """An estimator that detects no people and fits nothing; may be slow, or fail on a frame."""

    def __init__(self, slow_s=0.0, perceive_fails_at=None, fit_fails_at=None) -> None:
        self.slow_s = slow_s
        self.fails = perceive_fails_at, fit_fails_at
        self.windows = []

    def begin(self):
        return object()

    def perceive(self, windows, states):
        return [self._perceive(window) for window in windows]

    def fit(self, detected, states):
        return [self._fit(one.window.frames) for one in detected]

    def fit_event(self, detected, before, track, state):
        return [(frame, track) for frame in detected.window.frames]

    def _perceive(self, window):
        self.windows.append(window)
        if _reached(self.fails[0], window.frames):
            raise ValueError("perception broke")
        time.sleep(self.slow_s)
        return DetectedWindow(window, tuple({} for _ in window.frames))

    def _fit(self, frames):
        if _reached(self.fails[1], frames):
            raise ValueError("the fit broke")
        return [(frame, frame.id) for frame in frames]


def _reached(fails_at, frames) -> bool:
    """Whether a frame or a later one is there: with low latency the frame itself may be dropped."""
    return fails_at is not None and max(frame.id for frame in frames) >= fails_at


class StubBatchEstimator(StubEstimator):
    """The stub that also records which states each batch had."""

    def __init__(self, **how) -> None:
        super().__init__(**how)
        self.batches = []

    def perceive(self, windows, states):
        self.batches.append([id(state) for state in states])
        return super().perceive(windows, states)


class NoPeople:
    """An estimator that detects no people."""

    reports = ()

    def __init__(self) -> None:
        self.body, self.device = load_body(), torch.device("cpu")

    def begin(self):
        return object()

    def intrinsics(self, frame):
        return default_intrinsics(*frame.size)

    def warm_up(self, people, *, events=False, low_latency=False):
        pass

    def close(self):
        pass

    def perceive(self, windows, states):
        return [DetectedWindow(window, tuple({} for _ in window.frames)) for window in windows]

    def fit(self, detected, states):
        none = Bodies.none(len(self.body.v_template))
        return [[(frame, none) for frame in one.window.frames] for one in detected]
