"""Where events go: lines that continue a killed run's, and pictures that replace no other."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import cache

import cv2
import pytest

from app.outputs.base import OutputError
from app.outputs.reservation import Reservation
from app.reports.record import Record, record_of
from app.reports.sinks import Strips, lines_to
from pipeline.core.frame import Window
from pipeline.events.detect import DetectedEvent
from pipeline.events.motion import load_motion
from tests.support.bodies import bodies, frame, made_up_body, run_info
from tests.support.events import renderer_of


@cache
def event(number: int) -> Record:
    """An event of made-up bodies at a frame of a clip."""
    images = tuple(frame(number + k, (number + k) / 30) for k in range(4))
    fitted = [(each, bodies([3], k)) for k, each in enumerate(images)]
    at = number + 2
    seen = DetectedEvent(load_motion(), 3, "right", at, at / 30, at + 1, 0, 0.9, {}, 0.0)
    return record_of(seen, Window(images, 2), fitted, run_info(), renderer_of(made_up_body()))


def watch(path, numbers, killed: bool = False) -> None:
    """A run that finds events at these frames."""
    reserved = Reservation("--jsonl", path, "keep", command="c")
    with ExitStack() as stack:
        lines = lines_to(stack, reserved)
        for number in numbers:
            lines(event(number))
    if not killed:
        reserved.finish()
    reserved.close()


def ids(path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_events_that_a_killed_run_wrote_stay_and_come_once(tmp_path):
    path = tmp_path / "e.jsonl"
    watch(path, [10, 20], killed=True)
    with path.open("a") as file:
        file.write('{"id": "half')
    watch(path, [10, 20, 30], killed=True)
    watch(path, [10, 20, 30, 40])
    assert ids(path) == [event(number).key for number in (10, 20, 30, 40)]
    # It has ended well: the next one has a file of its own.
    watch(path, [10])
    assert ids(tmp_path / "e.2.jsonl") == [event(10).key]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["e.2.jsonl", "e.jsonl"]


def test_pictures_stay_and_the_same_one_is_not_written_again(tmp_path):
    folder = tmp_path / "strips"
    strips, path = Strips(folder), folder / f"{event(10).key}.png"
    strips(event(10))
    shown = cv2.imread(str(path))
    assert shown is not None
    strips(event(10))
    assert list(folder.iterdir()) == [path]
    path.write_bytes(b"the user's")
    strips(event(10))
    second = path.with_name(f"{path.stem}.2.png")
    assert (cv2.imread(str(second)) == shown).all()
    assert path.read_bytes() == b"the user's"
    Strips(folder, replace=True)(event(10))
    assert path.read_bytes() == second.read_bytes()


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path):
    folder = tmp_path / "strips"
    strips = Strips(folder)
    folder.rmdir()
    with pytest.raises(OutputError, match=r"\.png: there is no folder ") as raised:
        strips(event(10))
    assert len(str(raised.value).splitlines()) == 1
