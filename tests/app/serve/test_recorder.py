"""A served source's recordings: both files are complete, a failure ends only the recording, which
is begun again, and writing never waits for the disk."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from itertools import count
from pathlib import Path

import cv2  # noqa: F401  before av

# isort: split
import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import OutputConfig
from app.outputs.atomic_file import AtomicFile
from app.outputs.base import OutputError
from app.outputs.jsonl import line_of
from app.outputs.mp4 import Mp4
from app.serve import recordings as module
from app.serve.recordings import CAUSES, DENIED, FULL, GONE, HANGS, OTHER, Recordings
from tests.support.bodies import bodies, frame, run_info
from tests.support.clips import number_of, numbered
from tests.support.waiting import until

HEIGHT, WIDTH = 96, 160
INFO = run_info(HEIGHT, WIDTH, live=True)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def recordings_in(folder: Path, output: OutputConfig = OutputConfig(), clock=time.monotonic):  # noqa: B008
    """Recordings called 1.mp4, 2.mp4, ... in the order of their tries."""
    numbers = count(1)
    return Recordings(output, lambda: folder / f"{next(numbers)}.mp4", clock)


def write(recordings: Recordings, number: int) -> float:
    """Write a numbered frame; return how many seconds that took."""
    one, who = frame(number, None, HEIGHT, WIDTH), bodies([number])
    picture, line = numbered(number), line_of(INFO, one, who)
    begun_s = time.monotonic()
    recordings.write(INFO, one, who, picture)
    recordings.add_line(line)
    return time.monotonic() - begun_s


def shown(path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_of(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def frames_of(path) -> list[int]:
    # The last line may be on its way to the disk.
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line)["frame"] for line in whole.splitlines()]


def finished() -> bool:
    """Whether no thread of a recording runs."""
    names = [thread.name for thread in threading.enumerate()]
    return not any(name.startswith(("write ", "finish ")) for name in names)


class Disk:
    """Stands in for `AtomicFile`: takes the first ``most`` bytes of a file, then fails."""

    def __init__(self, monkeypatch, what: str, most: int, error: int) -> None:
        limits = self
        self.most, self.error, self.opened = most, error, 0

        class Limited(AtomicFile):
            def __init__(self, path, new=False):
                limits.opened += 1
                if limits.most < 0:
                    raise OSError(limits.error, os.strerror(limits.error))
                super().__init__(path, new)

            def write(self, data):
                if self.end + len(data) > limits.most and self._failed is None:
                    self._failed = OSError(limits.error, os.strerror(limits.error))
                return super().write(data)

        place = "app.outputs.mp4" if what == "mp4" else "app.serve.recorder"
        monkeypatch.setattr(f"{place}.AtomicFile", Limited)


def test_bodies_are_beside_the_video_and_there_at_once(tmp_path):
    recordings = Recordings(OutputConfig(), lambda: tmp_path / "door.lan_1.mp4")
    write(recordings, 0)
    recordings.begin()
    for number in range(1, 20):
        write(recordings, number)
    lines = tmp_path / "door.lan_1.jsonl"
    until(lambda: lines.exists() and frames_of(lines) == list(range(1, 20)))
    assert recordings.state().path == tmp_path / "door.lan_1.mp4"
    recordings.end()
    write(recordings, 20)
    recordings.end()
    state = recordings.state()
    assert (state.wanted, state.path) == (False, None)
    assert shown(tmp_path / "door.lan_1.mp4") == list(range(1, 20))
    assert frames_of(lines) == list(range(1, 20))
    assert (state.trouble, state.dropped, sum(state.failures.values())) == ("", 0, 0)


def test_the_video_rotates_and_its_bodies_stay_one_file(tmp_path):
    recordings = recordings_in(tmp_path, OutputConfig(rotate_s=0.2, rotate_keep=2))
    recordings.begin()
    for number in range(20):
        write(recordings, number)
    recordings.end()
    assert {path.name for path in tmp_path.iterdir()} == {
        "1_0003.mp4", "1_0004.mp4", "1.jsonl", "1.json",
    }  # fmt: skip
    assert shown(tmp_path / "1_0003.mp4") + shown(tmp_path / "1_0004.mp4") == list(range(10, 20))
    assert frames_of(tmp_path / "1.jsonl") == list(range(20))


@pytest.mark.parametrize("what", ["mp4", "jsonl"])
def test_a_full_disk_stops_the_recording_and_nothing_else(tmp_path, monkeypatch, what):
    disk, clock = Disk(monkeypatch, what, 6_000, errno.ENOSPC), Clock()
    recordings = recordings_in(tmp_path, clock=clock)
    recordings.begin()
    number = 0
    while not recordings.state().missing:
        assert write(recordings, number) < 0.1
        number += 1
        time.sleep(0.002)
        assert number < 900
    state = recordings.state()
    assert state.trouble == f"{tmp_path / '1'}.{what}: cannot write: No space left on device"
    assert (state.cause, state.failures[FULL], state.path) == (FULL, 1, None)
    # What fitted is finished without being asked for.
    until(finished)
    numbers, lines = shown(tmp_path / "1.mp4"), frames_of(tmp_path / "1.jsonl")
    assert numbers == list(range(len(numbers)))
    assert lines == list(range(len(lines)))
    assert (len(numbers) > 20) if what == "mp4" else lines
    # It is begun again in a new file, without being asked for.
    disk.most = 1 << 20
    lost = recordings.state().dropped
    write(recordings, 0)
    assert recordings.state().dropped == lost + 1, "what is in no file is counted"
    clock.now_s += 1.0
    for number in range(5):
        write(recordings, number)
    clock.now_s += 5.1
    write(recordings, 5)
    state = recordings.state()
    assert (state.trouble, state.missing, state.path) == ("", False, tmp_path / "2.mp4")
    recordings.end()
    assert shown(tmp_path / "2.mp4") == frames_of(tmp_path / "2.jsonl") == list(range(6))


@pytest.mark.parametrize(
    ("most", "error", "cause"),
    [(0, errno.ENOSPC, FULL), (900, errno.EDQUOT, FULL), (-1, errno.EACCES, DENIED),
     (-1, errno.EROFS, DENIED), (0, errno.EIO, OTHER)],
)  # fmt: skip
def test_tries_on_a_disk_that_takes_nothing_are_few_and_leave_nothing(
    tmp_path, monkeypatch, most, error, cause
):
    Disk(monkeypatch, "mp4", most, error)
    clock = Clock()
    recordings = recordings_in(tmp_path, clock=clock)
    recordings.begin()
    tried_s = []
    while clock.now_s < 700:
        clock.now_s += 0.5
        write(recordings, 0)
        if recordings.state().path is not None:
            tried_s.append(clock.now_s)
            until(lambda: (write(recordings, 0), recordings.state().path is None)[1], 10, 0.001)
            until(finished)
    assert list(tmp_path.iterdir()) == []
    gaps_s = [later - earlier for earlier, later in zip(tried_s, tried_s[1:])]
    # 1, 2, 4, ... 60 seconds in ten minutes.
    assert 14 <= len(tried_s) <= 16
    assert all(later >= 0.9 * earlier for earlier, later in zip(gaps_s, gaps_s[1:]))
    state = recordings.state()
    assert (state.cause, state.missing) == (cause, True)
    assert state.failures == {each: len(tried_s) * (each == cause) for each in CAUSES}


def test_asking_again_tries_at_once(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, "mp4", -1, errno.ENOSPC)
    recordings = recordings_in(tmp_path, clock=Clock())
    recordings.begin()
    until(lambda: (write(recordings, 0), recordings.state().missing)[1])
    until(finished)
    write(recordings, 0)
    assert disk.opened == 1
    disk.most = 1 << 20
    recordings.begin()
    assert not recordings.state().missing
    for number in range(5):
        write(recordings, number)
    recordings.end()
    assert shown(tmp_path / "2.mp4") == list(range(5))


def test_a_file_that_is_there_is_left_as_it_is(tmp_path):
    for name in ("1.mp4", "2.jsonl"):
        (tmp_path / name).write_text("older")
    clock = Clock()
    recordings = recordings_in(tmp_path, clock=clock)
    recordings.begin()
    for number in range(60):
        write(recordings, number)
        clock.now_s += 0.1
        time.sleep(0.01)
    recordings.end()
    assert {p.name for p in tmp_path.iterdir()} >= {"1.mp4", "2.jsonl", "3.mp4", "3.jsonl"}
    assert (tmp_path / "1.mp4").read_text() == (tmp_path / "2.jsonl").read_text() == "older"
    assert len(shown(tmp_path / "3.mp4")) > 10


def test_a_recording_that_is_deleted_is_begun_again(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    clock = Clock()
    recordings = recordings_in(folder, clock=clock)
    recordings.begin()
    for number in range(60):
        write(recordings, number)
    until(lambda: (folder / "1.jsonl").exists() and (folder / "1.mp4").exists())
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    number = count(60)
    until(lambda: (write(recordings, next(number)), recordings.state().missing)[1])
    assert recordings.state().cause == GONE
    until(finished)
    clock.now_s += 1.1
    # The folder may be of a disk that was taken away: it is not made anew on another one.
    until(lambda: (write(recordings, 0), recordings.state().failures[GONE] == 2)[1])
    assert not folder.exists()
    folder.mkdir()
    clock.now_s += 2.1
    for number in range(5):
        write(recordings, number)
    recordings.end()
    assert [len(shown(path)) for path in folder.glob("*.mp4")] == [5]


def test_a_slow_disk_never_holds_up_the_picture_not_even_while_a_recording_ends(
    tmp_path, monkeypatch
):
    class Slow(Mp4):
        def write(self, picture, tick):
            time.sleep(0.02)
            super().write(picture, tick)

    monkeypatch.setattr("app.outputs.video.Mp4", Slow)
    monkeypatch.setattr("app.outputs.video._LIVE_FRAMES", 16)
    recordings = recordings_in(tmp_path)
    recordings.begin()
    took_s = [write(recordings, number) for number in range(100)]
    left_out = recordings.state().dropped
    assert left_out >= 60
    ending = threading.Thread(target=recordings.end)
    ending.start()
    while ending.is_alive():
        took_s.append(write(recordings, 100))
        assert recordings.state().dropped >= left_out
        time.sleep(0.005)
    assert len(took_s) > 110
    assert max(took_s) < 0.1
    assert recordings.state().dropped == left_out
    assert len(shown(tmp_path / "1.mp4")) == 100 - left_out
    assert frames_of(tmp_path / "1.jsonl") == list(range(100))


@pytest.fixture
def hanging(monkeypatch):
    """A disk whose next call hangs until the event is set, for the video and for the lines."""
    answers = threading.Event()

    class Hanging(AtomicFile):
        def write(self, data):
            answers.wait(30)
            return super().write(data)

    for place in ("app.outputs.mp4", "app.serve.recorder"):
        monkeypatch.setattr(f"{place}.AtomicFile", Hanging)
    monkeypatch.setattr(module, "HANGS_S", 0.2)
    monkeypatch.setattr("app.outputs.background_writer._LIVE_STUCK_S", 0.3)
    yield answers
    answers.set()
    until(finished)


def test_a_disk_that_hangs_is_reported_and_the_recording_goes_on_when_it_answers(tmp_path, hanging):
    recordings = recordings_in(tmp_path)
    recordings.begin()
    number = count()
    until(lambda: (write(recordings, next(number)), recordings.state().missing)[1], every_s=0.005)
    for _ in range(10):
        assert write(recordings, next(number)) < 0.1
    state = recordings.state()
    assert (state.cause, state.failures[HANGS]) == (HANGS, 1)
    assert "has not answered for" in state.trouble
    assert state.path == tmp_path / "1.mp4"
    hanging.set()
    until(lambda: (write(recordings, next(number)), not recordings.state().missing)[1])
    recordings.end()
    assert shown(tmp_path / "1.mp4")[-1] == next(number) - 1
    assert recordings.state().failures[HANGS] == 1


def test_stopping_while_the_disk_hangs_is_bounded_and_collects_no_threads(tmp_path, hanging):
    recordings = recordings_in(tmp_path)
    begun_s, number = time.monotonic(), count()
    for _ in range(6):
        recordings.begin()
        for _ in range(40):
            write(recordings, next(number))
        recordings.end()
    assert time.monotonic() - begun_s < 5
    assert len([t for t in threading.enumerate() if t.name.startswith("write ")]) <= 4
    assert recordings.unfinished() == [
        f"{tmp_path / name}: may be incomplete: the disk or the encoder does not answer"
        for name in ("1.mp4", "2.mp4")
    ]
    assert recordings.state().cause == HANGS
    hanging.set()
    until(finished)
    assert recordings.unfinished() == []
    recordings.begin()
    for number in range(5):
        write(recordings, number)
    recordings.end()
    assert shown(max(tmp_path.glob("*.mp4"), key=lambda p: int(p.stem))) == list(range(5))


@given(st.sampled_from(sorted(errno.errorcode)), st.integers(0, 3))
def test_a_cause_is_found_under_whatever_was_raised_over_it(number, depth):
    def fail(left: int) -> None:
        if not left:
            raise OSError(number, os.strerror(number))
        try:
            fail(left - 1)
        except OSError as error:
            raise OutputError(f"a.mp4: cannot write: {error}") from error

    with pytest.raises(OSError) as raised:  # noqa: PT011 (any)
        fail(depth)
    with pytest.raises(OSError) as plain:  # noqa: PT011 (any)
        fail(0)
    assert module._cause_of(raised.value) == module._cause_of(plain.value) in CAUSES
