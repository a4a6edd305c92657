"""How lines go on that a killed run left: nothing is lost, nothing comes twice, numbers rise."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.outputs.base import OutputError
from app.outputs.jsonl import JsonlOutput
from app.outputs.unfinished import Unfinished, command_of, cut_broken_end
from tests.support.bodies import bodies, frame, run_info

LAW = settings(deadline=None, max_examples=40)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), st.integers()), max_size=5)


@LAW
@given(OBJECTS, st.binary(max_size=30).filter(lambda tail: b"\n" not in tail))
def test_only_a_line_that_is_not_whole_is_cut(tmp_path_factory, objects, tail):
    path = tmp_path_factory.mktemp("lines") / "out.jsonl"
    whole = "".join(json.dumps(each) + "\n" for each in objects).encode()
    path.write_bytes(whole + tail)
    last = cut_broken_end(path)
    assert last == (objects[-1] if objects else None)
    assert path.read_bytes() == (whole if objects else tail)


@pytest.mark.parametrize("text", [b"", b"a text\n", b"[1]\n", b"\n", b"\xff\xfe\n", b"\0\0\0"])
def test_what_is_no_lines_of_objects_stays(tmp_path, text):
    path = tmp_path / "out.jsonl"
    path.write_bytes(text)
    assert cut_broken_end(path) is None
    assert path.read_bytes() == text


def test_the_same_command_is_one_with_the_same_sources_and_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = tmp_path / "a.mp4"
    clip.write_text("clip")
    one = command_of(["a.mp4"], {"people": 1})
    assert command_of(["a.mp4"], {"people": 1}) == one
    others = [command_of(["a.mp4"], {"people": 2}), command_of(["b.mp4"], {"people": 1})]
    clip.write_text("another clip")
    others.append(command_of(["a.mp4"], {"people": 1}))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    others += [command_of(["rtsp://a/b"]), command_of(["a.mp4"], {"people": 1})]
    assert one not in others
    assert len(set(others)) == len(others)


def test_a_broken_mark_is_none(tmp_path):
    path = tmp_path / "out.jsonl"
    for text in ("", "{", "[]", '{"command": "a", "more": 1}', "3"):
        (tmp_path / ".out.jsonl.unfinished").write_text(text)
        assert Unfinished.read(path) is None
    Unfinished("a", 3).save(path)
    assert Unfinished.read(path) == Unfinished("a", 3)
    Unfinished.remove(path)
    assert list(tmp_path.iterdir()) == []


def write(path, frames, live, tracks=lambda index: [1 + index % 3]) -> None:
    """A run that writes frames and is not ended."""
    output = JsonlOutput(path)
    output.open(run_info(live=live))
    for index in frames:
        output.write(frame(index), bodies(tracks(index), seed=index), None)
    output.close()


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@LAW
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.lists(st.integers(1, 300), min_size=4, max_size=4),
)
def test_a_clip_that_is_started_again_is_as_if_it_never_ended(tmp_path_factory, kills, cuts):
    folder = tmp_path_factory.mktemp("clip")
    path, whole = folder / "out.jsonl", folder / "whole.jsonl"
    write(whole, range(14), live=False)
    Unfinished("c").save(path)
    for count, cut in zip(kills, cuts):
        write(path, range(count), live=False)
        if path.stat().st_size > cut:
            # Killed within a line, or somewhere in the last lines.
            os.truncate(path, path.stat().st_size - cut)
    write(path, range(14), live=False)
    assert path.read_bytes() == whole.read_bytes()


@LAW
@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=2, max_size=4))
def test_of_a_live_source_numbers_and_times_go_on(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("live") / "out.jsonl"
    Unfinished("c").save(path)
    for tracks in parts:
        # The first frame that is fitted need not be number 0.
        write(path, range(7, 7 + len(tracks)), True, lambda index, own=tracks: [own[index - 7]])
        with path.open("a") as file:
            file.write('{"frame": 9')
    found = lines_of_whole(path)
    assert [each["frame"] for each in found] == list(range(7, 7 + sum(map(len, parts))))
    times = [each["pts_s"] for each in found]
    assert all(b - a >= 1 / 25 - 1e-6 for a, b in zip(times, times[1:]))
    seen: set[int] = set()
    for tracks in parts:
        part, found = found[: len(tracks)], found[len(tracks) :]
        own = {body["track"] for each in part for body in each["bodies"]}
        assert len(own) == len(set(tracks))
        assert not own & seen, "another run's person is another person"
        seen |= own


def lines_of_whole(path) -> list[dict]:
    *whole, broken = path.read_text().split("\n")
    assert broken == '{"frame": 9'
    return [json.loads(line) for line in whole]


def test_the_gap_is_as_long_as_the_pause(tmp_path):
    path = tmp_path / "out.jsonl"
    Unfinished("c").save(path)
    write(path, range(3), live=True)
    then = path.stat().st_mtime - 100
    os.utime(path, (then, then))
    write(path, range(2), live=True)
    times = [each["pts_s"] for each in lines(path)]
    assert times[3] - times[2] == pytest.approx(100, abs=5)
    assert times[4] - times[3] == pytest.approx(1 / 25)


def test_without_a_mark_or_to_overwrite_it_begins_anew(tmp_path):
    path = tmp_path / "out.jsonl"
    write(path, range(3), live=True)
    write(path, range(2), live=True)
    assert len(lines(path)) == 2
    Unfinished("c").save(path)
    output = JsonlOutput(path, "overwrite")
    output.open(run_info())
    output.write(frame(5), bodies([]), None)
    output.close()
    assert [each["frame"] for each in lines(path)] == [5]


def test_lines_of_something_else_are_left(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "an event"}\n')
    Unfinished("c").save(path)
    with pytest.raises(OutputError, match="its last line is no frame"):
        JsonlOutput(path).open(run_info())
    assert path.read_text() == '{"id": "an event"}\n'


def test_a_person_is_noted_before_the_line(tmp_path):
    path = tmp_path / "out.jsonl"
    Unfinished("c").save(path)
    output = JsonlOutput(path)
    output.open(run_info(live=True))
    for tracks in ([], [4, 2], [3]):
        output.write(frame(0), bodies(tracks), None)
        mark = Unfinished.read(path)
        assert mark == replace(Unfinished("c"), track=4 if tracks else 0)
    output.close()
