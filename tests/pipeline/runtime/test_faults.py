"""One source's fault, wherever and however it comes, ends or skips that source alone."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.core.people import Bodies
from pipeline.runtime.estimator import DetectedWindow
from pipeline.runtime.faults import MOST_FAULTS, Fault, one_by_one_if_it_fails
from pipeline.runtime.scheduler import StreamScheduler
from tests.support.fakes import StubEstimator, StubSource
from tests.support.faults import KINDS, FaultyEstimator

GOOD, BAD = 60, 40
kinds = pytest.mark.parametrize("error", KINDS.values(), ids=KINDS)


class Reader:
    """Reads a stream to its end in a thread of its own."""

    def __init__(self, stream) -> None:
        self.stream, self.ids, self.events, self.error = stream, [], [], None
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._watch)]
        for thread in self._threads:
            thread.start()

    def _read(self):
        try:
            for window in self.stream.windows():
                for frame, _ in window:
                    self.stream.stats.drew(frame.captured_ns)
                    self.ids.append(frame.id)
        except BaseException as error:
            self.error = error

    def _watch(self):
        self.events += self.stream.events()

    def join(self):
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        return self


def run(estimator, bad=None, watch=None, opened=True):
    """A bad source among two good ones, read to their ends."""
    heard = []
    with StreamScheduler(estimator, on_error=heard.append) as scheduler:
        sources = {
            "first": StubSource(GOOD, name="first"),
            "bad": bad or StubSource(BAD, name="bad"),
            "last": StubSource(GOOD, name="last"),
        }
        readers = {
            name: Reader(scheduler.add(name, s, watch=watch if name == "bad" else None))
            for name, s in sources.items()
        }
        for reader in readers.values():
            reader.join()
    assert heard == []
    for name in ("first", "last"):
        assert readers[name].error is None
        assert readers[name].ids == list(range(GOOD))
        assert readers[name].stream.warnings == ()
    return readers["bad"]


@kinds
@pytest.mark.parametrize("stage", ["perceive", "fit"])
def test_a_stage_that_keeps_failing_for_one_source_ends_that_source(stage, error):
    estimator = FaultyEstimator(stage, error, at=13)
    bad = run(estimator)
    assert isinstance(bad.error, Exception)
    assert bad.error is error or str(bad.error)
    # The window with frame 13 is the first to be left out.
    assert bad.ids == list(range(12))
    (line,) = bad.stream.warnings
    assert line.startswith(f"bad: {stage} failed: ")
    assert "\n" not in line
    assert len(line) < 400


@kinds
@pytest.mark.parametrize("stage", ["perceive", "fit"])
def test_a_window_that_fails_is_left_out_and_the_source_goes_on_anew(stage, error):
    estimator = FaultyEstimator(stage, error, at=8, times=1)
    bad = run(estimator)
    assert bad.error is None
    left_out = set(range(BAD)) - set(bad.ids)
    assert left_out == {8, 9, 10, 11}
    assert bad.ids == sorted(bad.ids)
    bad.stream.settle()
    assert bad.stream.stats.snapshot().dropped == {f"{stage} failed": 4}
    assert bad.stream.faults.trouble == ""
    assert sum(estimator.resets) == 2, "it begins, and begins anew"


def nan_bodies(results, n):
    """The results, of which one has a body that is not finite."""
    bodies = Bodies.none(3)
    parts = {name: getattr(bodies, name) for name in ("global_orient", "body_pose", "betas")}
    one = Bodies(
        np.array([1]), np.ones(1, np.float32), *(np.zeros((1, p.shape[1])) for p in parts.values()),
        np.full((1, 3), np.nan), np.zeros((1, 24, 3)), np.zeros((1, 33, 3)), np.zeros((1, 3, 3)),
        np.zeros((1, 24)),
    )  # fmt: skip
    return [*results[:n], [(frame, one) for frame, _ in results[n]], *results[n + 1 :]]


def put(value):
    return lambda results, n: [*results[:n], value, *results[n + 1 :]]


SPOILS = {
    ("perceive", "too few results"): lambda results, n: results[:-1],
    ("perceive", "nothing"): lambda results, n: None,
    ("perceive", "no window"): put(None),
    ("perceive", "too few frames"): lambda results, n: put(
        DetectedWindow(results[n].window, results[n].people[:-1])
    )(results, n),
    ("fit", "too few results"): lambda results, n: results[:-1],
    ("fit", "too many results"): lambda results, n: [*results, results[0]],
    ("fit", "nothing"): lambda results, n: None,
    ("fit", "no bodies"): put(None),
    ("fit", "too few frames"): lambda results, n: put(results[n][:-1])(results, n),
    ("fit", "no numbers"): nan_bodies,
}


@pytest.mark.parametrize(("stage", "what"), SPOILS, ids="-".join)
def test_results_that_are_wrong_are_a_fault_of_their_source(stage, what):
    bad = run(FaultyEstimator(stage, None, at=8, spoil=SPOILS[stage, what]))
    assert isinstance(bad.error, Exception)
    assert bad.ids == list(range(8))


@kinds
@pytest.mark.parametrize("call", ["open", "frames", "close"])
def test_a_source_that_fails_ends_alone(call, error):
    class Broken(StubSource):
        def open(self):
            if call == "open":
                raise error

        def close(self):
            super().close()
            if call == "close" and isinstance(error, Exception):
                raise error

    at = 8 if call == "frames" else None
    bad = run(StubEstimator(), Broken(BAD, name="bad", fails_at=at, error=error))
    # A ring that is closed ends a source without an error: it is how a source is stopped.
    quiet = call == "close" or str(error) == "closed"
    assert (bad.error is None) is quiet
    assert bad.ids == {"open": [], "frames": list(range(8)), "close": list(range(BAD))}[call]


@pytest.mark.parametrize("image", [None, np.zeros((0, 0, 3), np.uint8), np.zeros(3), "text"])
def test_a_picture_that_is_none_ends_its_source(image):
    class Broken(StubSource):
        def frames(self):
            for frame in super().frames():
                yield replace(frame, pixels=image) if frame.id == 8 else frame

    bad = run(StubEstimator(), Broken(BAD, name="bad"))
    assert bad.error is not None
    assert max(bad.ids, default=0) < 8


class Watch:
    """Sees an event in every fourth frame; raises ``error`` from frame ``at`` on, or at the end."""

    def __init__(self, error=None, at=0, ends=False) -> None:
        self.error, self.at, self.ends = error, at, ends

    def see(self, frame, people, reset):
        if self.error is not None and not self.ends and frame.id >= self.at:
            raise self.error
        return [SimpleNamespace(frame_id=frame.id, track=7)] if frame.id % 4 == 1 else []

    def finish(self):
        if self.ends:
            raise self.error


@kinds
@pytest.mark.parametrize("stage", ["search", "fit", "finish"])
def test_a_fault_of_the_events_of_one_source_ends_that_source(stage, error):
    estimator = FaultyEstimator("event fit" if stage == "fit" else "", error)
    watch = {"search": Watch(error, 9), "fit": Watch(), "finish": Watch(error, ends=True)}[stage]
    bad = run(estimator, watch=watch)
    assert isinstance(bad.error, Exception)
    assert len(bad.events) == {"search": 2, "fit": 0, "finish": BAD // 4}[stage]
    if stage == "fit":
        assert bad.stream.stats.snapshot().lost_events >= MOST_FAULTS


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_the_program_ends_all(error):
    heard = []
    with StreamScheduler(FaultyEstimator("fit", error, at=200), on_error=heard.append) as scheduler:
        readers = [Reader(scheduler.add(n, StubSource(None, name=n))) for n in ("bad", "good")]
        for reader in readers:
            reader.join()
            assert reader.error is error
    assert heard == [error]


@pytest.mark.parametrize("size", [1, 2, 16])
def test_memory_that_does_for_one_alone_is_no_fault(size):
    def work(items):
        if len(items) > 1:
            raise MemoryError
        return [2 * item for item in items]

    assert one_by_one_if_it_fails(work, range(size)) == [2 * item for item in range(size)]


def test_each_item_of_a_batch_that_fails_is_tried_once():
    tried = []

    def work(items):
        tried.append(tuple(items))
        if 2 in items:
            raise ValueError("two")
        return list(items)

    found = one_by_one_if_it_fails(work, [1, 2, 3])
    assert [type(each) is Fault for each in found] == [False, True, False]
    assert tried == [(1, 2, 3), (1,), (2,), (3,)]
