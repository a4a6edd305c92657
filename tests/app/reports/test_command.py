"""`python -m app events`: from a clip to lines of JSON, strips, a page and a receiver."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from app.config import Config
from app.options import EventsOptions
from app.outputs.base import OutputClosed, OutputError
from app.reports import command
from app.reports.dispatcher import EventDispatcher
from app.reports.record import measures_of, strip_of, timeline_of
from app.reports.record import record_of as make_record
from pipeline.body.load import load_body
from pipeline.capture.base import SourceOptions
from pipeline.capture.clip import ClipSource
from pipeline.events.motion import load_motion
from pipeline.events.motions.throw.measures import MEASURES
from tests.support.events import a_person, event_of, renderer_of
from tests.support.fakes import StubSource
from tests.support.faults import FaultyNobody
from tests.support.paths import ROOT
from tests.support.receiver import Receiver

THROW = load_motion("throw")


def run(*arguments: str, **how) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "events", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, **how)


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.mark.weights
@pytest.mark.slow
def test_a_throw_is_told_everywhere(tmp_path, receiver):
    done = run(
        "samples/pitch.mp4", "--people", "1", "--report", str(tmp_path / "page"), "--strip",
        str(tmp_path / "strips"), "--jsonl", str(tmp_path / "e.jsonl"), "--webhook", receiver.url,
        "--outbox", str(tmp_path / "outbox"), "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told["schema"] == "bodystream.release/1"
    assert abs(told["release_frame"] - 60) <= 1
    assert (told["hand"], told["motion"], told["source"]) == ("right", "throw", "pitch.mp4")
    assert told["time"] is None
    t = told["release_frame"]
    assert told["frames"] == [t - 2, t - 1, t, t + 1]
    assert [body["frame"] for body in told["bodies"]] == told["frames"]
    assert len(told["bodies"][0]["body_pose"]) == 69
    assert set(told["measures"]) == set(MEASURES)
    for name, each in told["measures"].items():
        assert (each["unit"], each["definition"]) == (
            MEASURES[name].unit,
            MEASURES[name].definition,
        )
        if each["value"] is not None:
            assert each["low"] < each["value"] < each["high"]
    # The file and the receiver have the pictures too, and the same otherwise.
    (kept,) = (tmp_path / "e.jsonl").read_text().splitlines()
    ((key, sent),) = receiver.came
    assert key.strip('"') == told["id"]
    for whole in (json.loads(kept), sent):
        pictures = whole.pop("pictures")
        assert whole == told
        assert [each["frame"] for each in pictures] == told["frames"]
        image = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[2]["jpeg"]), np.uint8), 1)
        assert image.shape == (480, 480, 3)
    (strip,) = (tmp_path / "strips").iterdir()
    assert cv2.imread(str(strip)).shape == (480, 1920, 3)
    page = (tmp_path / "page" / "index.html").read_text()
    assert "pitch.mp4" in page
    assert "1 event in 108 frames" in done.stderr
    # Once more: the receiver has it.
    again = run("samples/pitch.mp4", "--people", "1", "--webhook", receiver.url, "--outbox",
                str(tmp_path / "outbox"), "--device", "cpu")  # fmt: skip
    assert again.returncode == 0
    assert len(receiver.came) == 1


@pytest.mark.weights
@pytest.mark.slow
def test_what_the_receiver_was_not_there_for_comes_with_the_next_run(tmp_path):
    gone = Receiver()
    gone.close()
    outbox = ("--outbox", str(tmp_path / "outbox"), "--webhook", gone.url)
    done = run("samples/pitch.mp4", "--people", "1", "--device", "cpu", *outbox)
    assert done.returncode == 0
    assert "1 event waits for the next run" in done.stderr
    back = Receiver(gone.server.server_port)
    done = run("samples/pitch.mp4", "--seconds", "0.5", "--device", "cpu", *outbox)
    assert done.returncode == 0
    assert done.stdout == ""
    assert [event["release_frame"] for _, event in back.came] == [59]
    back.close()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nosuch.mp4",), 1, "nosuch.mp4"),
        (("samples/pitch.mp4", "--motion", "nosuch"), 2, "--motion"),
        (("samples/pitch.mp4", "--motion", "configs/default.toml"), 2, "no such setting"),
        (("samples/pitch.mp4", "--webhook", "ftp://x/y"), 2, "--webhook"),
        (("samples/pitch.mp4", "--outbox", "x"), 2, "need --webhook"),
        (("rtsp://127.0.0.1:9/x", "samples/pitch.mp4"), 2, "put it last"),
        (("samples/pitch.mp4", "--webhook", "http://u:s3cret@[bad"), 2, "--webhook"),
        (("samples/pitch.mp4", "--strip", "samples/pitch.mp4/x"), 1, "cannot be made"),
        (("samples/pitch.mp4", "--jsonl", "samples"), 1, "that is a folder; give a file's name"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(arguments, code, words):
    done = run(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "s3cret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert "Traceback" not in done.stderr


# A record, without a run.


@pytest.fixture(scope="module")
def body():
    return load_body()


def test_a_record_of_four_frames(body):
    event, info = event_of(body, live=True)
    record = make_record(event.seen, event.window, event.fitted, info, renderer_of(body))
    json.dumps(record.with_pictures(), allow_nan=False)
    assert record.key.isascii()
    assert "/" not in record.key
    assert record.data["time"].endswith("Z")
    assert record.joints_m.shape == (4, 24, 3)
    strip = strip_of(record)
    assert strip.shape == (480, 1920, 3)
    # The event's own picture is framed, and a person is drawn in the middle of each.
    assert (strip[1, 960 + 240] == strip[478, 960 + 240]).all()
    assert not np.allclose(strip[240, 240], 90, atol=20)


@pytest.mark.parametrize("present", [(True, True, True), (True, False, True, True), (False,) * 4])
def test_what_cannot_be_measured_is_null(body, present):
    event, info = event_of(body, present)
    record = make_record(event.seen, event.window, event.fitted, info, renderer_of(body))
    assert record.data["measures"] is None
    assert measures_of(event.fitted, event.seen) is None
    assert len(record.pictures) == len(present)
    assert len(record.data["bodies"]) == sum(present)
    json.dumps(record.data, allow_nan=False)


def test_a_motion_without_corrections_is_told_as_fitted(body):
    event, info = event_of(body)
    throw = measures_of(event.fitted, event.seen)
    uncorrected = replace(THROW.measures, estimator=None)
    other = measures_of(
        event.fitted, replace(event.seen, motion=replace(THROW, measures=uncorrected))
    )
    assert set(other) == set(throw) == set(MEASURES)
    for name, told in other.items():
        assert (told["value"], told["low"], told["high"]) == (None, None, None)
        if name != "shoulder_external_rotation":
            assert told["fitted"] == throw[name]["fitted"]
            assert throw[name]["low"] < throw[name]["value"] < throw[name]["high"]


def test_frames_too_far_apart_are_told_as_fitted(body):
    event, _ = event_of(body)
    apart = [
        (replace(frame, pts_s=frame.pts_s + (0.05 if frame.id == 53 else 0)), bodies)
        for frame, bodies in event.fitted
    ]
    told = measures_of(apart, event.seen)
    assert all(each["value"] is None for each in told.values())
    assert told["trunk_tilt"]["fitted"] is not None


def test_nobody_s_size_changes_an_angle(body):
    """One camera cannot tell it."""
    one = a_person(body).joints_m[0] + np.random.default_rng(0).normal(0, 0.02, (4, 24, 3))
    times = [k / 30 for k in range(4)]
    tall, small = (THROW.measures.estimates(s * one, times, "right", 2) for s in (1.2, 0.8))
    for name, each in tall.items():
        assert each.value == pytest.approx(small[name].value, abs=1e-4), name
        least = MEASURES[name].least
        assert least <= each.low <= each.value <= each.high


def test_clips_of_one_name_have_keys_of_their_own(tmp_path):
    paths = [tmp_path / day / "clip.mp4" for day in ("mon", "tue")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"the same")
    marks = [ClipSource(str(path), SourceOptions()).mark for path in paths]
    assert marks[0] != marks[1]
    assert marks[0] == ClipSource(str(paths[0]), SourceOptions()).mark
    assert ClipSource(str(tmp_path / "nosuch.mp4"), SourceOptions()).mark == ""


def test_every_sink_gets_an_event_whatever_another_does(body):
    event, info = event_of(body)
    stopped, came = threading.Event(), []

    def closed(_):
        raise OutputClosed

    def full(_):
        raise OutputError("the disk is full")

    for failing, raises in ((closed, OutputClosed), (full, OutputError)):
        run_ = SimpleNamespace(
            events=lambda: iter([event]), stop=stopped.set,
            stats=SimpleNamespace(timed=lambda *_: None),
        )  # fmt: skip
        sinks = [closed, failing, came.append]
        dispatcher = EventDispatcher(run_, lambda _: info, sinks, lambda: renderer_of(body)).start()
        with pytest.raises(raises):
            dispatcher.close()
        assert dispatcher.reported == 1
    assert len(came) == 2
    assert stopped.is_set()


@pytest.mark.parametrize("stage", ["perceive", "fit", "source", "open"])
def test_a_fault_of_one_source_leaves_the_others_watched(monkeypatch, capsys, stage):
    error = RuntimeError("bad pixels")

    class Unopened(StubSource):
        def open(self):
            raise error

    def source_of(config, _):
        if config.source == "bad" and stage == "open":
            return Unopened(name="bad")
        at = 5 if config.source == "bad" and stage == "source" else None
        return StubSource(24, name=config.source, fails_at=at, error=error)

    monkeypatch.setattr(command, "load", lambda _: FaultyNobody(stage, error))
    monkeypatch.setattr(command, "source_of", source_of)
    monkeypatch.setattr(command, "claim_stdout", io.StringIO)
    options = EventsOptions(source=("bad", "good", "last"))
    code = command.run_command(options, Config(), threading.Event())
    lines = capsys.readouterr().err.splitlines()
    assert code == 1
    assert [line for line in lines if line.startswith("error")] == ["error: bad: bad pixels"]
    assert [line.split(",")[0] for line in lines[-2:]] == [
        "good: 0 events in 24 frames", "last: 0 events in 24 frames",
    ]  # fmt: skip


def test_a_timeline_has_every_measure_in_every_frame(body):
    joints = a_person(body).joints_m[0]
    moving = [(k / 30, joints + [0.01 * k, 0, 0]) for k in range(5)]
    told = timeline_of(moving, "left", THROW.measures)
    assert set(told) == set(MEASURES)
    assert all(values.shape == (5,) for values in told.values())
    assert np.isnan(told["hand_speed"][0])
    np.testing.assert_allclose(told["hand_speed"][1:], 0.0, atol=1e-6)
