"""The mp4 as a recording: beside the drawing thread, over several files, and what is left of it."""

from __future__ import annotations

import errno
import threading
import time
from functools import partial
from itertools import accumulate
from pathlib import Path

import cv2  # noqa: F401  before av

# isort: split
import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import app.outputs.background_writer
from app.config import OutputConfig, load_config
from app.outputs.background_writer import BackgroundWriter
from app.outputs.base import OutputError
from app.outputs.mp4 import Mp4
from app.outputs.paths import prepare_outputs
from app.outputs.rotation import Rotation
from app.outputs.video import VideoOutput
from tests.support.bodies import bodies, frame, run_info
from tests.support.clips import number_of, numbered
from tests.support.fakes import NoPeople

NOBODY = bodies([])
HEIGHT, WIDTH = 96, 160
LAW = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def put(output: VideoOutput, number: int, pts_s: float | None = None, **more) -> None:
    output.write(frame(number, pts_s, HEIGHT, WIDTH, **more), NOBODY, numbered(number))


def seen(path: Path) -> tuple[list[int], list[float]]:
    """The numbers that a file shows, and when."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert frames[0].key_frame
    return [number_of(f.to_ndarray(format="rgb24")) for f in frames], [f.time for f in frames]


@pytest.fixture
def slow(monkeypatch) -> None:
    """An encoder that takes twenty milliseconds a frame."""

    class Slow(Mp4):
        def write(self, picture, tick):
            time.sleep(0.02)
            super().write(picture, tick)

    monkeypatch.setattr("app.outputs.video.Mp4", Slow)


@LAW
@given(
    st.lists(st.sampled_from([0.001, 0.04, 0.3, 1.7]), min_size=1, max_size=40),
    st.floats(0.02, 3.0),
    st.booleans(),
)
def test_over_files_by_time_no_frame_is_lost_or_twice(tmp_path, steps_s, limit_s, live):
    folder = tmp_path / str(time.monotonic_ns())
    folder.mkdir()
    times = [7.0, *(7.0 + shift for shift in accumulate(steps_s))]
    output = VideoOutput(folder / "v.mp4", rotation=Rotation(seconds=limit_s))
    output.open(run_info(HEIGHT, WIDTH, live=live))
    for number, pts_s in enumerate(times):
        put(output, number, pts_s)
    output.close()
    # By the rule: a file ends at the first frame that far from its first.
    files: list[list[int]] = [[0]]
    for number, pts_s in enumerate(times[1:], 1):
        if round((pts_s - times[files[-1][0]]) * 90_000) / 90_000 >= limit_s:
            files.append([])
        files[-1].append(number)
    names = [f"v_{number:04d}.mp4" for number in range(1, len(files) + 1)]
    assert [path.name for path in output.files] == names
    assert sorted(path.name for path in folder.iterdir()) == names
    for path, numbers in zip(output.files, files):
        shown, shown_s = seen(path)
        assert shown == numbers
        wanted_s = np.subtract([times[number] for number in numbers], times[numbers[0]])
        np.testing.assert_allclose(shown_s, wanted_s, atol=1e-4)


@settings(LAW, max_examples=5)
@given(st.integers(1, 150), st.sampled_from([0.001, 0.03, 0.08]))
def test_over_files_by_size_no_frame_is_lost_or_twice(tmp_path, count, limit_mb):
    folder = tmp_path / str(time.monotonic_ns())
    folder.mkdir()
    rng = np.random.default_rng(count)
    output = VideoOutput(folder / "v.mp4", rotation=Rotation(megabytes=limit_mb))
    output.open(run_info(HEIGHT, WIDTH))
    for number in range(count):
        picture = numbered(number) // 2 + rng.integers(0, 24, (HEIGHT, WIDTH, 3), np.uint8)
        output.write(frame(number, None, HEIGHT, WIDTH), NOBODY, picture)
    output.close()
    shown = []
    for path in output.files:
        with av.open(str(path)) as container:
            bars = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        shown += [number_of(np.where(image > 70, 255, 0)) for image in bars]
        # A second of video is a fragment; about as much again is still in the encoder.
        per_frame = path.stat().st_size / len(bars)
        assert path.stat().st_size < limit_mb * 1e6 + 40 * per_frame
    assert shown == list(range(count))


def test_only_this_runs_oldest_files_are_deleted(tmp_path):
    older = {"v.mp4", "v_0050.mp4", "v_0002.mp4", "other_0001.mp4"}
    for name in older:
        (tmp_path / name).write_bytes(b"older")
    output = VideoOutput(tmp_path / "v.mp4", rotation=Rotation(seconds=0.2, keep=2))
    output.open(run_info(HEIGHT, WIDTH))
    for number in range(23):
        put(output, number)
    output.close()
    # Numbers go on: nothing of an earlier run is written over.
    assert output.files == (tmp_path / "v_0054.mp4", tmp_path / "v_0055.mp4")
    assert sum((seen(path)[0] for path in output.files), []) == list(range(15, 23))
    assert {path.name for path in tmp_path.iterdir()} == {*older, "v_0054.mp4", "v_0055.mp4"}
    assert all((tmp_path / name).read_bytes() == b"older" for name in older)


def test_a_slow_encoder_costs_a_live_source_frames_of_the_recording_only(tmp_path, slow):
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info(HEIGHT, WIDTH, live=True))
    took_s = []
    for number in range(300):
        begun_s = time.monotonic()
        put(output, number)
        took_s.append(time.monotonic() - begun_s)
        time.sleep(0.002)
    output.close()
    # Who waited for the encoder would wait again and again; a busy machine stops us now and then.
    assert np.percentile(took_s, 98) < 0.02
    assert max(took_s) < 0.5
    numbers, times = seen(tmp_path / "v.mp4")
    assert output.dropped > 0
    assert len(numbers) == 300 - output.dropped
    assert numbers == sorted(set(numbers))
    # To the last frame, and each at its own time.
    assert numbers[-1] == 299
    np.testing.assert_allclose(times, np.subtract(numbers, numbers[0]) / 25, atol=1e-4)
    (line,) = output.warnings
    assert line == (
        f"{tmp_path / 'v.mp4'}: {output.dropped} frames were not recorded: "
        "the disk or the encoder is too slow"
    )


def test_a_slow_encoder_costs_a_clip_nothing(tmp_path, slow):
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info(HEIGHT, WIDTH))
    for number in range(40):
        put(output, number)
    output.close()
    assert seen(tmp_path / "v.mp4")[0] == list(range(40))
    assert (output.dropped, output.warnings) == (0, ())


def test_a_clip_is_encoded_while_its_next_frames_are_made(tmp_path, slow):
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info(HEIGHT, WIDTH))
    begun_s = time.monotonic()
    for number in range(20):
        time.sleep(0.02)
        put(output, number)
    output.close()
    assert time.monotonic() - begun_s < 20 * 0.04


def test_a_break_is_one_though_its_frame_was_left_out(tmp_path, monkeypatch):
    going = threading.Event()

    class Held(Mp4):
        def write(self, picture, tick):
            going.wait(10)
            super().write(picture, tick)

    monkeypatch.setattr("app.outputs.video.Mp4", Held)
    monkeypatch.setattr("app.outputs.video._LIVE_FRAMES", 2)
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info(HEIGHT, WIDTH, live=True))
    put(output, 0)
    time.sleep(0.05)
    for number in range(1, 5):
        put(output, number, 5000 + number / 25, discontinuity=number == 1)
    going.set()
    output.close()
    numbers, times = seen(tmp_path / "v.mp4")
    assert numbers == [0, 3, 4]
    np.testing.assert_allclose(times, [0.0, 0.04, 0.08], atol=1e-4)


@pytest.mark.parametrize("pace", ["live", "every-frame"])
def test_a_run_tells_what_was_not_recorded(tmp_path, monkeypatch, slow, pace):
    from app import build

    monkeypatch.setattr(build, "load", lambda *_: NoPeople())
    monkeypatch.setattr("app.outputs.video._LIVE_FRAMES", 4)
    flags = {
        "source": "lavfi:testsrc2=size=160x96:rate=100",
        "capture.seconds": 1.0, "capture.pace": pace, "output.video": tmp_path / "v.mp4",
    }  # fmt: skip
    config = load_config("default", flags)
    report = build.run(config, on_progress=lambda _: None, stop=threading.Event())
    with av.open(str(tmp_path / "v.mp4")) as container:
        recorded = sum(1 for _ in container.decode(video=0))
    told = [line for line in report.warnings if "not recorded" in line]
    if pace == "live":
        (line,) = told
        lost = report.frames_drawn - recorded
        assert line.startswith(f"{tmp_path / 'v.mp4'}: {lost} frame")
        assert lost > 10
    else:
        assert (recorded, told) == (100, [])


@pytest.mark.parametrize("fails_at", [0, 3, 9])
@pytest.mark.parametrize("live", [False, True])
def test_what_the_encoder_meets_is_told_once(tmp_path, monkeypatch, fails_at, live):
    class Failing(Mp4):
        def write(self, picture, tick):
            if self.frames == fails_at:
                raise OutputError(f"{self.path}: cannot write: it broke")
            super().write(picture, tick)

    monkeypatch.setattr("app.outputs.video.Mp4", Failing)
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info(HEIGHT, WIDTH, live=live))
    told = []
    for step in [*(partial(put, output, number) for number in range(10)), *[output.close] * 3]:
        try:
            step()
        except OutputError as error:
            told.append(str(error))
    assert told == [f"{tmp_path / 'v.mp4'}: cannot write: it broke"]
    assert output.warnings == ()
    if fails_at:
        assert seen(tmp_path / "v.mp4")[0] == list(range(fails_at))
        assert output.files == (tmp_path / "v.mp4",)
    else:
        assert list(tmp_path.iterdir()) == []
        assert output.files == ()


def test_a_disk_that_is_full_at_the_next_file_is_told_and_the_first_plays(tmp_path, monkeypatch):
    class Full(Mp4):
        def __init__(self, path, *rest):
            if path.name == "v_0002.mp4":
                raise OutputError(f"{path}: cannot be written: {errno.errorcode[errno.ENOSPC]}")
            super().__init__(path, *rest)

    monkeypatch.setattr("app.outputs.video.Mp4", Full)
    output = VideoOutput(tmp_path / "v.mp4", rotation=Rotation(seconds=0.2))
    output.open(run_info(HEIGHT, WIDTH))
    for number in range(6):
        put(output, number)
    with pytest.raises(OutputError, match=r"v_0002\.mp4: cannot be written: ENOSPC"):
        output.close()
    output.close()
    assert output.files == (tmp_path / "v_0001.mp4",)
    assert seen(tmp_path / "v_0001.mp4")[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("live", [False, True])
def test_a_disk_that_never_answers_is_left_behind(monkeypatch, live):
    monkeypatch.setattr(app.outputs.background_writer, "_LIVE_STUCK_S", 0.1)
    monkeypatch.setattr(app.outputs.background_writer, "_STUCK_S", 0.1)
    answers = threading.Event()
    behind: BackgroundWriter[int] = BackgroundWriter(
        "v.mp4", lambda _: answers.wait(20), lambda: None, 4, live=live
    )
    for item in range(3):
        behind.put(item)
    begun_s = time.monotonic()
    with pytest.raises(OutputError, match=r"v\.mp4: not finished: .* does not answer"):
        behind.close()
    behind.close()
    assert time.monotonic() - begun_s < 2
    answers.set()


def test_what_is_live_and_slow_is_given_up_at_its_end_and_counted(monkeypatch):
    monkeypatch.setattr(app.outputs.background_writer, "_LIVE_S", 0.1)
    done, ended = [], []
    behind: BackgroundWriter[int] = BackgroundWriter(
        "v.mp4", lambda item: (time.sleep(0.03), done.append(item)), lambda: ended.append(1), 64,
        live=True,
    )  # fmt: skip
    for item in range(64):
        behind.put(item)
    behind.close()
    assert ended == [1]
    assert done == list(range(64 - behind.dropped))
    assert 0 < behind.dropped < 64


def test_a_bug_in_the_thread_is_not_swallowed():
    behind: BackgroundWriter[int] = BackgroundWriter(
        "v.mp4", lambda item: 1 // item, lambda: None, 4
    )
    behind.put(0)
    with pytest.raises(ZeroDivisionError):
        behind.close()
    behind.close()


def test_the_files_a_video_will_go_on_in_are_nobody_elses(tmp_path):
    source = tmp_path / "v_0012.mp4"
    source.touch()
    output = OutputConfig(video=tmp_path / "v.mp4", rotate_s=60.0)
    with pytest.raises(OutputError, match=r"would become .*v_0012\.mp4, which is the source"):
        prepare_outputs(output, [("the source", source)])
    prepare_outputs(output, [("the source", tmp_path / "v.mp4")])
    prepare_outputs(OutputConfig(video=tmp_path / "v.mp4"), [("the source", source)])
    (tmp_path / "v_0001.mp4").mkdir()
    with pytest.raises(OutputError, match=r"v_0001\.mp4: that is a folder"):
        prepare_outputs(output, [])


def test_two_runs_with_one_name_share_no_file(tmp_path):
    outputs = [VideoOutput(tmp_path / "v.mp4", rotation=Rotation(seconds=0.2)) for _ in range(2)]
    # An empty file, as a run leaves that is killed before its first fragment, is used.
    (tmp_path / "v_0001.mp4").touch()
    for output in outputs:
        output.open(run_info(HEIGHT, WIDTH))
    for number in range(40):
        for output in outputs:
            put(output, number)
    for output in outputs:
        output.close()
    first, second = (set(output.files) for output in outputs)
    assert not first & second
    assert sorted(first | second) == sorted(tmp_path.iterdir())
    for output in outputs:
        assert [n for path in output.files for n in seen(path)[0]] == list(range(40))


@pytest.mark.parametrize("count", [1, 5, 60])
def test_a_killed_runs_file_is_empty_or_plays(tmp_path, count):
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info(HEIGHT, WIDTH, live=True))
    for number in range(count):
        put(output, number)
        # Paced, so that a live source's ring drops nothing.
        time.sleep(0.005)
    left = tmp_path / "left.mp4"
    left.write_bytes((tmp_path / "v.mp4").read_bytes())
    output.close()
    if left.stat().st_size:
        shown, _ = seen(left)
        assert shown == list(range(len(shown)))
        assert shown
    assert seen(tmp_path / "v.mp4")[0] == list(range(count))
