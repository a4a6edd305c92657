"""The exports as outputs of a run, and by `export` and `recover` afterwards: the same files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.cli import main
from app.exports.outputs import AnglesOutput, BvhOutput, C3dOutput, ExportOutput, TrcOutput
from app.exports.recording import COLUMNS, make_recording, read_recording
from app.outputs.base import OutputError
from app.outputs.catalog import entries
from app.outputs.poses import ROWS, PosesOutput
from app.outputs.spool import ColumnSpool
from tests.support.bodies import bodies, frame, run_info
from tests.support.paths import ROOT
from tests.support.recordings import poses_arrays

KINDS = [entry.load() for entry in entries() if entry.exports]
PEOPLE = [[1], [1, 7], [], [7], [1, 7], [9]]
"""People who come, go and come back."""


def path_of(kind: type[ExportOutput], folder: Path) -> Path:
    entry = next(entry for entry in entries() if entry.name == kind.name)
    return folder / (entry.name + (entry.suffixes or ("",))[0])


def write_all(output, people: list[list[int]] = PEOPLE) -> None:
    output.open(run_info())
    for index, tracks in enumerate(people):
        output.write(frame(index), bodies(tracks, seed=index), None)
    output.close()


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_run_writes_what_export_makes_of_its_poses(kind, tmp_path):
    run, later = tmp_path / "run", tmp_path / "later"
    run.mkdir()
    later.mkdir()
    output = kind(path_of(kind, run))
    write_all(output)
    assert output.warnings == ()
    write_all(PosesOutput(tmp_path / "poses.npz"))
    recording = read_recording(tmp_path / "poses.npz")
    made = tuple(kind(path_of(kind, later)).export(recording))
    assert files_in(run) == files_in(later)
    assert [path.relative_to(later) for path in made] == [p.relative_to(run) for p in output.files]
    assert all(path.stat().st_size for path in made)


@pytest.mark.parametrize("kind", [BvhOutput, TrcOutput, C3dOutput])
def test_one_file_a_track(kind, tmp_path):
    output = kind(tmp_path / "tracks")
    write_all(output)
    names = [f"track_{track:04d}{kind.suffix}" for track in (1, 7, 9)]
    assert [path.name for path in output.files] == names
    assert sorted(path.name for path in output.path.iterdir()) == names


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_people_leave_no_file_but_a_line(kind, tmp_path):
    output = kind(path_of(kind, tmp_path))
    write_all(output, [[], []])
    assert output.files == ()
    (warning,) = output.warnings
    assert warning == f"{output.path}: no people were found, so nothing is written"
    assert files_in(tmp_path) == {}
    # Neither does a run that did not come to its first frame.
    other = kind(path_of(kind, tmp_path))
    other.close()
    assert (other.files, other.warnings) == ((), ())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_closed_twice_is_no_harm(kind, tmp_path):
    output = kind(path_of(kind, tmp_path))
    write_all(output)
    before = files_in(tmp_path)
    output.close()
    assert (files_in(tmp_path), output.warnings) == (before, ())


@pytest.mark.parametrize("kind", [BvhOutput, AnglesOutput])
def test_a_full_disk_leaves_the_rows_for_later(kind, tmp_path, monkeypatch):
    output = kind(path_of(kind, tmp_path))
    output.open(run_info())
    output.write(frame(0), bodies([1]), None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("app.outputs.atomic_file.os.replace", full)
        with pytest.raises(OutputError, match=rf"No space left .* recover {output.path}$"):
            output.close()
    assert output.files == ()
    assert not list(tmp_path.rglob("*.part"))
    assert main(["recover", str(output.path)]) == 0
    assert output.in_the_way() is not None


KILLED = """
import os, signal, sys
from pathlib import Path
from app.outputs.catalog import entries
from tests.app.exports.test_outputs import KINDS, PEOPLE, path_of
from tests.support.bodies import bodies, frame, run_info
for kind in KINDS:
    output = kind(path_of(kind, Path(sys.argv[1])))
    output.open(run_info())
    for index, tracks in enumerate(PEOPLE):
        output.write(frame(index), bodies(tracks, seed=index), None)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_recovered_whole(tmp_path, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    command = [sys.executable, "-c", KILLED, str(killed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    for kind in KINDS:
        write_all(kind(path_of(kind, whole)))
        path = path_of(kind, killed)
        assert main(["recover", str(path)]) == 0
        # Not again: the files would be replaced.
        assert main(["recover", str(path)]) == 1
        assert "is from a later run" in capsys.readouterr().err
    rows = {name for name in files_in(killed) if ".rows/" in name}
    made = {name: data for name, data in files_in(killed).items() if name not in rows}
    assert rows
    assert made == files_in(whole)


def test_without_ezc3d_the_run_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ezc3d", None)
    with pytest.raises(OutputError, match=r"pip install 'bodystream\[export\]'$") as raised:
        C3dOutput(tmp_path / "c3d")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


LONG, SHORT = [0, 70000], [5, 6]


def test_a_track_that_c3d_cannot_count_leaves_the_others_their_files(tmp_path):
    output = C3dOutput(tmp_path / "c3d")
    made = list(output.export(make_recording(poses_arrays({1: LONG, 2: SHORT}))))
    assert [path.name for path in made] == ["track_0002.c3d"]
    (warning,) = output.warnings
    assert warning.startswith(f"{output.path / 'track_0001.c3d'}: not written: C3D counts at most")
    with pytest.raises(OutputError, match="at most 65535 frames, and track 1 has 70001; TRC"):
        list(output.export(make_recording(poses_arrays({1: LONG}))))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_numbers_that_cannot_be_written_are_one_line_and_keep_the_rows(kind, tmp_path, monkeypatch):
    output = kind(path_of(kind, tmp_path))
    output.open(run_info())
    output.write(frame(0), bodies([1]), None)

    def fails(*_: object) -> None:
        raise ZeroDivisionError("no\nnumber")

    monkeypatch.setattr("app.exports.gltf.write", fails)
    monkeypatch.setattr("app.exports.angles.write", fails)
    monkeypatch.setattr(kind, "write_track", staticmethod(fails), raising=False)
    with pytest.raises(OutputError) as raised:
        output.close()
    assert str(raised.value).startswith(str(output.path))
    assert "cannot be written: ZeroDivisionError: no number; its rows are" in str(raised.value)
    # More room would not help.
    assert "recover" not in str(raised.value)
    assert list(tmp_path.rglob("*.rows"))


def rows_left(output: ExportOutput, arrays: dict, count: int) -> None:
    """The first rows of a recording, as a killed run leaves them of an output."""
    whole = ("intrinsics", "image_size", "fps", "model")
    extra = {name: arrays[name] for name in whole} | {"export": np.str_(output.name)}
    columns = ColumnSpool(output.rows_beside, {name: ROWS[name] for name in COLUMNS}, extra)
    columns.append({name: arrays[name][:count] for name in COLUMNS})
    columns._close_files()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_without_a_whole_row_there_is_nothing_to_recover(kind, tmp_path, capsys):
    output = kind(path_of(kind, tmp_path))
    output.rows_beside.parent.mkdir(exist_ok=True)
    rows_left(output, poses_arrays({1: [0]}), 0)
    assert main(["recover", str(output.path)]) == 1
    assert "no whole row is left of that run" in capsys.readouterr().err
    assert output.in_the_way() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", np.array([4])),
        ("intrinsics", np.zeros(3)),
        ("frame", np.array([0, 0, 1])),
        ("joints_m", np.full((3, 24, 3), np.nan)),
    ],
)
def test_damaged_rows_are_one_line(name, value, tmp_path, capsys):
    output = AnglesOutput(tmp_path / "angles.csv")
    rows_left(output, poses_arrays({1: [0, 1, 2]}) | {name: value}, 3)
    assert main(["recover", str(output.path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert ".rows has no rows of a run: " in line
    assert not output.path.exists()
