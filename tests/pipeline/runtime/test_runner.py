"""The runner with stub models: order, accounts, errors and endings, without weights."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pipeline.capture.base import SourceDefaults, SourceInfo
from pipeline.core.frame import Frame
from pipeline.core.stats import Stats
from pipeline.runtime.keypoint_estimator import DetectedWindow
from pipeline.runtime.runner import Runner


class StubSource(SourceDefaults):
    """``count`` small frames (None: for ever), or an error after ``fails_at``."""

    name = "stub"

    def __init__(self, count=20, live=False, fails_at=None, pause_s=0.0) -> None:
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
                raise RuntimeError("the source broke")
            image = np.full((24, 32, 3), index % 251, np.uint8)
            yield Frame(index, "stub", time.monotonic_ns(), index / 30, image)
            index += 1
            if self.pause_s:
                self.closed.wait(self.pause_s)

    def close(self) -> None:
        self.closed.set()


class StubInference:
    """Sees nobody and fits nothing; may be slow, or fail on a frame."""

    def __init__(self, slow_s=0.0, perceive_fails_at=None, fit_fails_at=None) -> None:
        self.slow_s = slow_s
        self.fails = perceive_fails_at, fit_fails_at
        self.windows = []

    def begin(self):
        return object()

    def perceive(self, window, state):
        self.windows.append(window)
        if self.fails[0] in [frame.id for frame in window.frames]:
            raise ValueError("perception broke")
        time.sleep(self.slow_s)
        return DetectedWindow(window, tuple({} for _ in window.frames))

    def fit(self, perceived, state):
        frames = perceived.window.frames
        if self.fails[1] in [frame.id for frame in frames]:
            raise ValueError("the fit broke")
        return [(frame, frame.id) for frame in frames]

    def fit_event(self, perceived, before, track, state):
        return [(frame, track) for frame in perceived.window.frames]

    def perceive_many(self, windows, states):
        return [self.perceive(window, state) for window, state in zip(windows, states)]

    def fit_many(self, perceived, states):
        return [self.fit(one, state) for one, state in zip(perceived, states)]


def threads():
    return {t.name for t in threading.enumerate()} & {"capture", "perceive", "fit"}


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 50])
def test_a_clip_comes_out_whole_and_in_order(count):
    stats = Stats()
    with Runner(StubSource(count), StubInference(), stats=stats) as run:
        out = []
        for frame, bodies in run:
            assert bodies == frame.id
            stats.drew(frame.captured_ns)
            out.append(frame.id)
    assert out == list(range(count))
    seen = stats.snapshot()
    assert (seen.read, seen.drawn, seen.dropped, seen.in_flight) == (count, count, {}, 0)
    assert not threads()


def test_windows_have_four_frames_and_the_last_is_shorter():
    estimator = StubInference()
    with Runner(StubSource(10), estimator) as run:
        list(run)
    assert [len(w.frames) for w in estimator.windows] == [4, 4, 2]
    assert [w.reset for w in estimator.windows] == [True, False, False]


def test_a_live_source_drops_the_oldest_and_accounts_for_it():
    stats = Stats()
    source = StubSource(200, live=True, pause_s=0.001)
    with Runner(source, StubInference(slow_s=0.03), stats=stats) as run:
        out = []
        for frame, _ in run:
            stats.drew(frame.captured_ns)
            out.append(frame.id)
    seen = stats.snapshot()
    assert out == sorted(set(out))
    assert seen.read == 200
    assert seen.drawn == len(out) < 200
    assert seen.dropped == {"ring full": 200 - len(out)}


def take(run, out):
    """Frame ids into ``out``, which keeps what came before an error."""
    for frame, _ in run:
        out.append(frame.id)


@pytest.mark.parametrize(
    ("source", "estimator", "message"),
    [
        (StubSource(50, fails_at=9), StubInference(), "the source broke"),
        (StubSource(50), StubInference(perceive_fails_at=9), "perception broke"),
        (StubSource(50), StubInference(fit_fails_at=9), "the fit broke"),
    ],
)
def test_an_error_anywhere_comes_out_and_ends_every_thread(source, estimator, message):
    out = []
    with pytest.raises((RuntimeError, ValueError), match=message), Runner(source, estimator) as run:
        take(run, out)
    assert out == list(range(len(out)))
    assert len(out) <= 9
    assert not threads()


def test_stop_delivers_what_is_under_way_and_close_does_not():
    stats = Stats()
    with Runner(StubSource(None), StubInference(), stats=stats) as run:
        out = []
        for frame, _ in run:
            stats.drew(frame.captured_ns)
            out.append(frame.id)
            if len(out) == 10:
                run.stop()
    assert out == list(range(len(out)))
    assert stats.snapshot().in_flight == 0
    assert stats.snapshot().dropped == {}

    stats = Stats()
    with Runner(StubSource(None), StubInference(), stats=stats) as run:
        for frame, _ in run:
            stats.drew(frame.captured_ns)
            if frame.id == 10:
                break
    seen = stats.snapshot()
    assert seen.in_flight == 0
    assert seen.dropped.get("stopped", 0) == seen.read - 11
    assert not threads()


def test_a_source_that_does_not_open_starts_nothing():
    class Missing(StubSource):
        def open(self) -> None:
            raise RuntimeError("not there")

    run = Runner(Missing(), StubInference())
    with pytest.raises(RuntimeError, match="not there"):
        run.start()
    run.close()
    assert not threads()
