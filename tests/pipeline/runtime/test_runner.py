"""The runner with stub models: order, accounts, errors and endings, without weights."""

from __future__ import annotations

import threading

import pytest

from pipeline.core.stats import Stats
from pipeline.runtime.runner import Runner
from pipeline.runtime.stream import stream
from tests.support.fakes import StubEstimator, StubSource
from tests.support.paths import SAMPLES


def threads():
    return {t.name for t in threading.enumerate()} & {"capture", "perceive", "fit"}


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 50])
def test_a_clip_comes_out_whole_and_in_order(count):
    stats = Stats()
    with Runner(StubSource(count), StubEstimator(), stats=stats) as run:
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
    estimator = StubEstimator()
    with Runner(StubSource(10), estimator) as run:
        list(run)
    assert [len(w.frames) for w in estimator.windows] == [4, 4, 2]
    assert [w.reset for w in estimator.windows] == [True, False, False]


def test_a_live_source_drops_the_oldest_and_accounts_for_it():
    stats = Stats()
    source = StubSource(200, live=True, pause_s=0.001)
    with Runner(source, StubEstimator(slow_s=0.03), stats=stats) as run:
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
        (StubSource(50, fails_at=9), StubEstimator(), "the source broke"),
        (StubSource(50), StubEstimator(perceive_fails_at=9), "perception broke"),
        (StubSource(50), StubEstimator(fit_fails_at=9), "the fit broke"),
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
    with Runner(StubSource(None), StubEstimator(), stats=stats) as run:
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
    with Runner(StubSource(None), StubEstimator(), stats=stats) as run:
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

    run = Runner(Missing(), StubEstimator())
    with pytest.raises(RuntimeError, match="not there"):
        run.start()
    run.close()
    assert not threads()


class ClosingEstimator(StubEstimator):
    """The stub that counts how often it is closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("own", [True, False])
def test_an_estimator_is_closed_only_where_it_is_the_runners_own(own):
    estimator = ClosingEstimator()
    with Runner(StubSource(8), estimator, close_estimator=own) as run:
        next(iter(run))
    assert estimator.closed == own


@pytest.mark.weights
def test_stream_closes_the_estimator_that_it_makes():
    """The networks have threads of their own."""
    before = set(threading.enumerate())
    with stream(str(SAMPLES / "pitch.mp4"), people=1) as run:
        next(iter(run))
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) <= before
