"""Standard input as a source, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.clips import numbered, write_clip

READ = """
import sys, threading
from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from tests.support.clips import number_of
stop = threading.Event()
if len(sys.argv) > 1:
    threading.Timer(0.2, stop.set).start()
source = open_source("-", SourceOptions(start_s=0.2), stop=stop)
try:
    source.open()
    print(source.name, source.mark == "", *[number_of(frame.image) for frame in source.frames()])
except OSError as error:
    print(type(error).__name__, error)
"""


def read(*words: str, **stdin: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READ, *words], stdout=subprocess.PIPE, text=True, timeout=60, **stdin  # type: ignore[call-overload]
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stdin")
    # Noise below the bars: a small file would be in FFmpeg's buffer as a whole.
    images = [numbered(number, 640, 480) for number in range(10)]
    rng = np.random.default_rng(1)
    for image in images:
        image[300:] = rng.integers(0, 256, image[300:].shape, np.uint8)
    write_clip(folder / "a.ts", images)
    write_clip(folder / "index_behind.mp4", images)
    write_clip(folder / "front.mp4", images, container_options={"movflags": "+faststart"})
    return folder


@pytest.mark.parametrize("name", ["a.ts", "front.mp4"])
def test_a_pipe_is_read_once(clips, name):
    with subprocess.Popen(["cat", clips / name], stdout=subprocess.PIPE) as cat:
        assert read(stdin=cat.stdout) == "stdin True 5 6 7 8 9"


def test_a_redirected_file_can_be_sought_in(clips):
    with (clips / "index_behind.mp4").open("rb") as file:
        assert read(stdin=file) == "stdin True 5 6 7 8 9"


def test_what_is_no_video_is_one_line(clips):
    cases = {
        f"cat {clips}/index_behind.mp4": "SourceNotVideo stdin: its video is there",
        "printf ''": "SourceEmpty stdin: is empty",
        "echo hello": "SourceNotVideo stdin: is not a video",
        # A playlist in the pipe names a file of this machine.
        f"printf 'ffconcat version 1.0\\nfile {clips}/a.ts\\n'": "SourceNotVideo stdin: is not",
    }
    for command, says in cases.items():
        with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as shell:
            said = read(stdin=shell.stdout)
        assert said.startswith(says), said
        assert len(said.splitlines()) == 1
    assert read(stdin=subprocess.DEVNULL).startswith("SourceEmpty stdin: is empty")


def test_a_silent_pipe_is_stopped_at_once():
    with subprocess.Popen(["sleep", "30"], stdout=subprocess.PIPE) as sleep:
        begun = time.monotonic()
        assert "stopped before its first frame" in read("stop", stdin=sleep.stdout)
        assert time.monotonic() - begun < 10
        sleep.kill()
