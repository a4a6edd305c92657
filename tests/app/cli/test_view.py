"""`view` on the command line: what it refuses, and that it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from app.cli import main
from tests.support.paths import ROOT
from tests.support.recordings import poses_arrays, save_poses


@pytest.fixture
def poses(tmp_path):
    return save_poses(tmp_path / "poses.npz", poses_arrays({1: [0, 1]}))


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def _foreign(path):
    np.savez(path, a=np.zeros(3))


def _empty(path):
    save_poses(path, poses_arrays({}))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_truncated, "is no recording of --poses"),
        (_foreign, "is no recording of --poses"),
        (_empty, "has no people"),
        (os.remove, "No such file"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(poses, spoil, why, capsys):
    spoil(poses)
    assert main(["view", str(poses), "--no-browser"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "poses.npz" in line
    assert why in line


def test_a_wrong_address_is_refused(poses, capsys):
    assert main(["view", str(poses), "80x", "--no-browser"]) == 2
    assert "[HOST:]PORT" in capsys.readouterr().err


@pytest.mark.slow
def test_it_serves_until_a_signal_comes(poses):
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "view", str(poses), "--no-browser"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
