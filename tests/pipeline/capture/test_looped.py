"""A source that begins again: one stream of frames whose numbers and times rise."""

from __future__ import annotations

import itertools
import threading

import pytest

from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import SourceError
from pipeline.capture.looped import LoopedSource
from pipeline.capture.open import open_source
from tests.support.clips import number_of, numbered, write_clip
from tests.support.fakes import StubSource
from tests.support.waiting import until


def looped(times: int, **how) -> LoopedSource:
    """A stub of a few frames that is played so many times."""
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
