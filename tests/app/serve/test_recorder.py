"""A served source's recordings: both files are complete, a failure ends only the recording, and
writing never waits."""

from __future__ import annotations

import errno
import json
import threading
import time

import cv2  # noqa: F401  before av

# isort: split
import av
import pytest

from app.config import OutputConfig
from app.outputs.atomic_file import AtomicFile
from app.outputs.jsonl import line_of
from app.outputs.mp4 import Mp4
from app.serve.recorder import Recordings
from tests.support.bodies import bodies, frame, run_info
from tests.support.clips import number_of, numbered
from tests.support.waiting import until

HEIGHT, WIDTH = 96, 160
INFO = run_info(HEIGHT, WIDTH, live=True)


def write(recordings: Recordings, number: int) -> float:
    """A numbered frame; how many seconds that took."""
    one, who = frame(number, None, HEIGHT, WIDTH), bodies([number])
    picture, line = numbered(number), line_of(INFO, one, who)
    begun_s = time.monotonic()
    recordings.write(INFO, one, who, picture)
    recordings.add_line(line)
    return time.monotonic() - begun_s


def shown(path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_of(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def told(path) -> list[int]:
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def test_bodies_are_beside_the_video_and_there_at_once(tmp_path):
    recordings = Recordings(OutputConfig())
    write(recordings, 0)
    recordings.record(tmp_path / "door.lan_1.mp4")
    for number in range(1, 20):
        write(recordings, number)
    lines = tmp_path / "door.lan_1.jsonl"
    until(lambda: lines.exists() and told(lines) == list(range(1, 20)))
    assert recordings.path == tmp_path / "door.lan_1.mp4"
    recordings.record(None)
    write(recordings, 20)
    recordings.record(None)
    assert recordings.path is None
    assert shown(tmp_path / "door.lan_1.mp4") == list(range(1, 20))
    assert told(lines) == list(range(1, 20))
    assert (recordings.trouble, recordings.dropped) == ("", 0)


def test_the_video_rotates_and_its_bodies_stay_one_file(tmp_path):
    recordings = Recordings(OutputConfig(rotate_s=0.2, rotate_keep=2))
    recordings.record(tmp_path / "a.mp4")
    for number in range(20):
        write(recordings, number)
    recordings.record(None)
    assert {path.name for path in tmp_path.iterdir()} == {"a_0003.mp4", "a_0004.mp4", "a.jsonl"}
    assert shown(tmp_path / "a_0003.mp4") + shown(tmp_path / "a_0004.mp4") == list(range(10, 20))
    assert told(tmp_path / "a.jsonl") == list(range(20))


@pytest.mark.parametrize("what", ["mp4", "jsonl"])
def test_a_full_disk_stops_the_recording_and_nothing_else(tmp_path, monkeypatch, what):
    class Full(AtomicFile):
        def write(self, data):
            if self.end + len(data) > 6_000 and self._failed is None:
                self._failed = OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    place = "app.outputs.mp4" if what == "mp4" else "app.serve.recorder"
    monkeypatch.setattr(f"{place}.AtomicFile", Full)
    recordings = Recordings(OutputConfig())
    recordings.record(tmp_path / "a.mp4")
    number = 0
    while recordings.path is not None:
        assert write(recordings, number) < 0.1
        number += 1
        time.sleep(0.002)
        assert number < 900
    assert recordings.trouble == f"{tmp_path / 'a'}.{what}: cannot write: No space left on device"
    # What fitted is finished without anybody asking.
    until(lambda: not any("a." in thread.name for thread in threading.enumerate()))
    numbers, lines = shown(tmp_path / "a.mp4"), told(tmp_path / "a.jsonl")
    assert numbers == list(range(len(numbers)))
    assert lines == list(range(len(lines)))
    assert (len(numbers) > 20) if what == "mp4" else lines
    # And another can begin.
    monkeypatch.undo()
    recordings.record(tmp_path / "b.mp4")
    assert recordings.trouble == ""
    for number in range(5):
        write(recordings, number)
    recordings.record(None)
    assert shown(tmp_path / "b.mp4") == told(tmp_path / "b.jsonl") == list(range(5))
    assert recordings.dropped == 0


def test_a_slow_disk_never_holds_up_the_picture_not_even_while_a_recording_ends(
    tmp_path, monkeypatch
):
    class Slow(Mp4):
        def write(self, picture, tick):
            time.sleep(0.02)
            super().write(picture, tick)

    monkeypatch.setattr("app.outputs.video.Mp4", Slow)
    monkeypatch.setattr("app.outputs.video._LIVE_FRAMES", 16)
    recordings = Recordings(OutputConfig())
    recordings.record(tmp_path / "a.mp4")
    took_s = [write(recordings, number) for number in range(100)]
    left_out = recordings.dropped
    assert left_out >= 60
    ending = threading.Thread(target=recordings.record, args=(None,))
    ending.start()
    while ending.is_alive():
        took_s.append(write(recordings, 100))
        assert recordings.dropped >= left_out
        time.sleep(0.005)
    assert len(took_s) > 110
    assert max(took_s) < 0.1
    assert recordings.dropped == left_out
    assert len(shown(tmp_path / "a.mp4")) == 100 - left_out
    assert told(tmp_path / "a.jsonl") == list(range(100))


def test_a_folder_that_is_not_there_is_told(tmp_path):
    recordings = Recordings(OutputConfig())
    recordings.record(tmp_path / "no" / "a.mp4")
    write(recordings, 0)
    assert recordings.path is None
    assert "a.mp4: cannot be written: No such file" in recordings.trouble
    recordings.record(None)
