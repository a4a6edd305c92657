"""A source at a part of its rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.every_nth import EveryNth
from tests.support.fakes import StubSource


class Broken(StubSource):
    """A stub whose frames of some numbers are discontinuities."""

    def __init__(self, breaks: set[int], **how) -> None:
        super().__init__(**how)
        self.breaks = breaks

    def frames(self):
        for frame in super().frames():
            yield replace(frame, discontinuity=frame.id in self.breaks)


@given(st.integers(0, 40), st.integers(1, 9), st.sets(st.integers(0, 40)))
def test_each_nth_frame_is_taken_and_no_break_is_lost(count, step, breaks):
    source = EveryNth(Broken(breaks, count=count), step)
    source.open()
    frames = list(source.frames())
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert [round(frame.pts_s * 30) for frame in frames] == list(range(0, count, step))
    assert len(frames) == source.info.frame_count
    assert source.info.fps == pytest.approx(30 / step)
    for number, frame in enumerate(frames):
        left_out = range((number - 1) * step + 1, number * step + 1)
        assert frame.discontinuity == any(one in breaks for one in left_out if one >= 0)


def test_what_else_is_said_of_a_source_is_its_own():
    own = StubSource(live=True, name="door")
    source = EveryNth(own, 3)
    assert (source.name, source.live, source.warnings) == ("door", True, own.warnings)
    assert (source.status, source.decoder_bytes, source.mark) == (None, 0, "")
    source.close()
    assert own.closed.is_set()


def test_a_step_below_one_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        EveryNth(StubSource(), 0)
