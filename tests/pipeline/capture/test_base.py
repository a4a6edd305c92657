"""The protocol of sources, and the defaults that a source of one's own inherits."""

from __future__ import annotations

import inspect
import threading
from collections import Counter

import numpy as np
import pytest

from pipeline.capture.base import Source, SourceDefaults, SourceInfo, SourceOptions, StopSignal
from pipeline.capture.clip import ClipSource
from pipeline.capture.live import LiveSource
from pipeline.capture.paced import PacedSource
from pipeline.capture.status import State, Status
from pipeline.core.frame import Frame


class Pictures(SourceDefaults):
    """A source as a user of this library would write it."""

    live = False

    def __init__(self) -> None:
        self.name = "pictures"
        self.warnings: list[str] = []
        self.info = SourceInfo("pictures", False, 4, 4, 30.0, 2, "raw")

    def open(self) -> None: ...

    def close(self) -> None: ...

    def frames(self):
        for number in range(2):
            yield Frame(number, self.name, 0, number / 30, np.zeros((4, 4, 3), np.uint8))


class Watched(Pictures):
    status = Status(State.STALLED, "no picture for 2 s", 7)
    counts = Counter(reconnected=3)
    mark = "abcd"


def test_a_source_without_a_connection_has_the_defaults():
    source: Source = Pictures()
    assert (source.status, source.counts, source.mark) == (None, Counter(), "")


def test_a_paced_source_has_the_status_and_counts_of_the_one_inside():
    for source in (Pictures(), Watched()):
        paced: Source = PacedSource(source, clock_ns=lambda: 0, wait=lambda seconds: False)
        assert (paced.status, paced.counts) == (source.status, source.counts)
        assert paced.info.live
        assert [frame.id for frame in paced.frames()] == [0, 1]


@pytest.mark.parametrize("kind", [ClipSource, LiveSource, PacedSource, Pictures, SourceDefaults])
def test_every_source_has_the_members_with_defaults(kind):
    for name in ("status", "counts", "mark"):
        assert inspect.getattr_static(kind, name) is not None
    assert {"status", "counts", "mark"} < set(vars(Source))


def test_a_stop_signal_listens_to_both_its_events():
    outside = threading.Event()
    signal = StopSignal(outside)
    assert not signal.wait(0)
    outside.set()
    assert signal.is_set()
    assert signal.wait(10)
    own = StopSignal()
    own.set()
    assert own.wait(10)


@pytest.mark.parametrize("wrong", [{"start_s": -1}, {"retry_s": -0.1}, {"seconds": 0}])
def test_impossible_times_are_refused(wrong):
    with pytest.raises(ValueError, match="0 or more"):
        SourceOptions(**wrong)
