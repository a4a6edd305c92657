"""`recover`: the npz of a run that was killed, from the rows it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.cli import main
from app.outputs.poses import AmassOutput, PosesOutput
from tests.support.bodies import bodies, frame, run_info
from tests.support.paths import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support.bodies import bodies, frame, run_info
from app.outputs.poses import AmassOutput, PosesOutput
outputs = PosesOutput(Path(sys.argv[1]), vertices=True), AmassOutput(Path(sys.argv[2]))
for output in outputs:
    output.open(run_info())
    for i in range(30):
        output.write(frame(i), bodies([1, 7][: 1 + i % 2], seed=i), None)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path) -> Path:
    """A folder with what a killed run left there."""
    killed_run(tmp_path / "p.npz", tmp_path / "tracks")
    return tmp_path


def killed_run(poses: Path, tracks: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(poses), str(tracks)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL


def whole(folder: Path) -> Path:
    """What the same run writes when it ends well."""
    outputs = PosesOutput(folder / "p.npz", vertices=True), AmassOutput(folder / "tracks")
    for output in outputs:
        output.open(run_info())
        for i in range(30):
            output.write(frame(i), bodies([1, 7][: 1 + i % 2], seed=i), None)
        output.close()
    return folder


def same(a: Path, b: Path) -> None:
    with np.load(a) as left, np.load(b) as right:
        assert left.files == right.files
        for name in left.files:
            np.testing.assert_array_equal(left[name], right[name])


def test_all_rows_of_a_killed_run_are_there(killed, tmp_path_factory, capsys):
    good = whole(tmp_path_factory.mktemp("good"))
    assert not (killed / "p.npz").exists()
    assert main(["recover", str(killed / "p.npz")]) == 0
    assert main(["recover", str(killed / "tracks")]) == 0
    assert "45 rows" in capsys.readouterr().out
    same(killed / "p.npz", good / "p.npz")
    for name in ("track_0001.npz", "track_0007.npz"):
        same(killed / "tracks" / name, good / "tracks" / name)
    # Nothing is overwritten.
    for path in (killed / "p.npz", killed / "tracks"):
        assert main(["recover", str(path)]) == 1
        assert "is from a later run; rename it, then recover again" in capsys.readouterr().err


def test_a_row_that_is_not_whole_is_cut_in_every_column(killed):
    (folder,) = killed.glob(".p.npz.*.rows")
    path = folder / "betas"
    os.truncate(path, path.stat().st_size - 7)
    assert main(["recover", str(folder)]) == 0
    with np.load(killed / "p.npz") as saved:
        assert len(saved["frame"]) == len(saved["betas"]) == len(saved["vertices_m"]) == 44
        np.testing.assert_array_equal(saved["betas"][-1], bodies([1, 7], seed=29).betas[0])


def test_where_there_is_nothing_it_is_one_line(tmp_path, capsys):
    assert main(["recover", str(tmp_path / "p.npz")]) == 1
    assert "no rows of a killed run" in capsys.readouterr().err
    folder = tmp_path / ".p.npz.x.rows"
    folder.mkdir()
    (folder / "columns.json").write_text("{}")
    assert main(["recover", str(tmp_path / "p.npz")]) == 1
    assert "not rows of a run" in capsys.readouterr().err


def test_a_run_that_is_still_going_is_left_alone(tmp_path, capsys):
    output = PosesOutput(tmp_path / "p.npz", vertices=False)
    output.open(run_info())
    output.write(frame(0), bodies([1], seed=0), None)
    (folder,) = tmp_path.glob(".p.npz.*.rows")
    for given in (tmp_path / "p.npz", folder):
        assert main(["recover", str(given)]) == 1
        assert "still going" in capsys.readouterr().err
    assert not (tmp_path / "p.npz").exists()
    output.close()
    assert (tmp_path / "p.npz").exists()
    assert not folder.exists()


def test_rows_of_a_run_that_got_a_number_are_found(tmp_path, tmp_path_factory):
    good = whole(tmp_path_factory.mktemp("good"))
    killed_run(tmp_path / "p.2.npz", tmp_path / "tracks.2")
    # The name that the killed run had taken.
    (tmp_path / "p.2.npz").touch()
    (tmp_path / "p.npz").write_text("an earlier run's")
    (tmp_path / "tracks").mkdir()
    assert main(["recover", str(tmp_path / "p.npz")]) == 0
    assert main(["recover", str(tmp_path / "tracks")]) == 0
    same(tmp_path / "p.2.npz", good / "p.npz")
    same(tmp_path / "tracks.2" / "track_0007.npz", good / "tracks" / "track_0007.npz")
    assert (tmp_path / "p.npz").read_text() == "an earlier run's"


def test_what_earlier_runs_left_is_named(killed, capsys):
    (older,) = killed.glob(".p.npz.*.rows")
    os.utime(older, (1, 1))
    killed_run(killed / "p.npz", killed / "others")
    assert main(["recover", str(killed / "p.npz")]) == 0
    assert f"an earlier run left {older}" in capsys.readouterr().out
    (killed / "p.npz").rename(killed / "newer.npz")
    assert main(["recover", str(older)]) == 0
    same(killed / "p.npz", killed / "newer.npz")
