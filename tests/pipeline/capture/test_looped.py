"""A source that begins again: one stream of frames whose numbers and times rise."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import SourceError
from pipeline.capture.looped import LoopedSource, Position
from pipeline.capture.open import open_source
from tests.support.clips import number_of, numbered, write_clip
from tests.support.fakes import StubSource
from tests.support.waiting import until


def looped(times: int, **how) -> LoopedSource:
    """A stub of a few frames that is played ``times`` times."""
    left = itertools.count(times - 1, -1)
    return LoopedSource(lambda: StubSource(**how), lambda: next(left) > 0)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_numbers_and_times_go_on_and_each_beginning_is_a_break(count, times):
    source = looped(times, count=count)
    source.open()
    frames = list(source.frames())
    assert [frame.id for frame in frames] == list(range(count * times))
    for before, after in itertools.pairwise(frames):
        assert after.pts_s - before.pts_s == pytest.approx(1 / 30)
    begins = [number for number, frame in enumerate(frames) if frame.discontinuity]
    assert begins == [count * k for k in range(1, times)]


def test_a_clip_shows_the_same_pictures_again(tmp_path):
    clip = write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(6)])
    left = iter([True, False])
    source = LoopedSource(lambda: open_source(str(clip), SourceOptions()), lambda: next(left))
    source.open()
    assert [number_of(frame.image) for frame in source.frames()] == [*range(6), *range(6)]
    assert source.info.fps == 25


def test_closing_ends_it_in_any_repetition():
    source = LoopedSource(lambda: StubSource(count=3), lambda: True)
    source.open()
    frames = source.frames()
    seen = [next(frames) for _ in range(7)]
    source.close()
    assert len(list(frames)) <= 2
    assert seen[-1].id == 6


def test_closing_ends_the_wait_between_repetitions():
    """A picture alone lasts as long as its rate says, here for hours."""
    slow = StubSource(count=1)
    slow.info = slow.info.__class__("stub", False, 32, 24, 1e-4, 1, "raw")
    source, seen = LoopedSource(lambda: slow, lambda: True), []
    thread = threading.Thread(target=lambda: seen.extend(source.frames()))
    thread.start()
    until(lambda: len(seen) == 1)
    source.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(seen) == 1


def test_a_clip_that_is_gone_ends_it_with_its_reason(tmp_path):
    clip = write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(3)])
    source = LoopedSource(lambda: open_source(str(clip), SourceOptions()), lambda: True)
    source.open()
    frames = source.frames()
    for _ in range(3):
        next(frames)
    clip.unlink()
    with pytest.raises(SourceError, match=r"c\.mp4"):
        next(frames)


def test_a_source_without_frames_is_not_opened_again():
    made = []

    def make() -> StubSource:
        made.append(StubSource(count=0))
        return made[-1]

    source = LoopedSource(make, lambda: True)
    source.open()
    assert list(source.frames()) == []
    assert len(made) == 1


@given(st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_a_clip_that_is_read_on_elsewhere_is_one_stream(before, after, loops):
    """Its numbers and times go on at once, and nothing is a break but a repetition."""
    times = itertools.count()
    first = LoopedSource(lambda: StubSource(count=before), lambda: False)
    first.open()
    seen = list(first.frames())
    position = first.position_of(seen[-1].id)
    assert position is not None
    second = LoopedSource(
        lambda: StubSource(count=3),
        lambda: loops and next(times) < 1,
        position,
        lambda: StubSource(count=after),
    )
    second.open()
    seen += second.frames()
    assert [frame.id for frame in seen] == list(range(len(seen)))
    for one, other in itertools.pairwise(seen):
        assert other.pts_s - one.pts_s == pytest.approx(1 / 30)
    assert len(seen) == before + after + (3 if loops else 0)
    assert [frame.id for frame in seen if frame.discontinuity] == (
        [before + after] if loops else []
    )


@given(st.floats(0.0, 100.0), st.integers(0, 1000))
def test_a_live_source_goes_on_by_the_time_that_has_passed(away_s, last_id):
    position = Position(last_id, last_id / 30, 0.0, 1000.0)
    source = LoopedSource(
        lambda: StubSource(count=5, live=True),
        lambda: False,
        position,
        clock_s=lambda: 1000 + away_s,
    )
    source.open()
    frames = list(source.frames())
    assert frames[0].id > last_id
    assert frames[0].pts_s - position.pts_s == pytest.approx(max(away_s, 1 / 30))
    assert frames[0].id - last_id == pytest.approx(away_s * 30, abs=1)
    assert [frame.id for frame in frames] == list(range(frames[0].id, frames[0].id + 5))
    assert not any(frame.discontinuity for frame in frames)


def test_of_frames_long_ago_no_position_is_known():
    source = LoopedSource(lambda: StubSource(count=1000), lambda: False)
    source.open()
    list(source.frames())
    assert source.position_of(3) is None
    assert source.position_of(999).id == 999


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("read", [5, 6])
def test_a_clip_that_was_read_to_its_end_is_over_or_begins_again(tmp_path, loops, read):
    """Also where the clip's start is searched for, and where it is only read past."""
    clip = write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(6)])
    times = itertools.count()

    def make(start_s: float = 0.0):
        return open_source(str(clip), SourceOptions(start_s=start_s))

    position = Position(read - 1, (read - 1) / 25, (read - 1) / 25, 0.0)
    source = LoopedSource(
        make,
        lambda: loops and next(times) < 1,
        position,
        lambda: make(position.own_s + 1e-3),
    )
    source.open()
    frames = list(source.frames())
    expected = [*range(read, 6), *(range(6) if loops else ())]
    assert [number_of(frame.image) for frame in frames] == expected
    assert [frame.id for frame in frames] == list(range(read, read + len(expected)))
