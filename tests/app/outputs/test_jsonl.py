"""`--jsonl`: a line a frame, at once, and a reader that leaves is no error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from app.outputs.base import OutputClosed, OutputError
from app.outputs.jsonl import JsonlOutput
from tests.support.bodies import bodies, frame, run_info
from tests.support.paths import ROOT


def test_a_line_a_frame_with_all_there_is_to_say(tmp_path):
    path = tmp_path / "b.jsonl"
    output = JsonlOutput(path)
    output.open(run_info())
    value = bodies([3, 5])
    output.write(frame(0), value, None)
    output.write(frame(1), bodies([]), None)
    # Flushed a line at a time: there before the file is closed.
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    output.close()
    output.close()
    assert [line["frame"] for line in lines] == [0, 1]
    assert lines[1] == {"frame": 1, "pts_s": 0.04, "captured_ns": 1_000_000, "bodies": []}
    body = lines[0]["bodies"][1]
    assert body["track"] == 5
    names = ("score", "global_orient", "body_pose", "betas", "transl_m", "joints_m")
    for name in (*names, "joint_visibility"):
        np.testing.assert_allclose(body[name], getattr(value, name)[1], atol=1e-6)
    assert np.shape(body["joints_px"]) == (24, 2)
    assert np.shape(body["landmarks_px"]) == (33, 2)
    assert output.files == (path,)


def test_numbers_that_are_none_never_reach_a_reader(tmp_path):
    output = JsonlOutput(tmp_path / "b.jsonl")
    output.open(run_info())
    value = bodies([1])
    value.betas[0, 0] = np.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        output.write(frame(0), value, None)
    output.close()


def test_a_full_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    output = JsonlOutput(Path("/dev/full"))
    output.open(run_info())
    with pytest.raises(OutputError, match="^/dev/full: cannot write: No space left"):
        output.write(frame(0), bodies([1]), None)


def test_a_reader_that_leaves_ends_the_output(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def read_a_line() -> None:
        with pipe.open() as reader:
            reader.readline()

    reader = threading.Thread(target=read_a_line)
    reader.start()
    output = JsonlOutput(pipe)
    output.open(run_info())
    output.write(frame(0), bodies([1]), None)
    reader.join()
    with pytest.raises(OutputClosed, match="was closed"):
        output.write(frame(1), bodies([1]), None)
    output.close()


def test_standard_output_is_the_lines_alone():
    script = """
import os
from pathlib import Path
from tests.support.bodies import bodies, frame, run_info
from app.outputs.jsonl import JsonlOutput
print("before")
output = JsonlOutput(Path("-"))
output.open(run_info())
print("from python")
os.write(1, b"from a library\\n")
output.write(frame(0), bodies([1]), None)
output.close()
print("after")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    before, line = done.stdout.splitlines()
    assert before == "before"
    assert json.loads(line)["frame"] == 0
    assert set(done.stderr.splitlines()) == {"from python", "from a library", "after"}
