"""`export`: files of a recording, and one clear line for what is none."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from app.cli import main
from tests.support.recordings import poses_arrays, save_poses


@pytest.fixture
def poses(tmp_path):
    return save_poses(tmp_path / "p.npz", poses_arrays({1: [0, 1, 3], 12: [3, 4]}))


def flags(folder) -> list[str]:
    named = {"bvh": "bvh", "trc": "trc", "c3d": "c3d", "glb": "people.glb",
             "angles": "angles.csv"}  # fmt: skip
    return [word for flag, name in named.items() for word in (f"--{flag}", str(folder / name))]


def made(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


WANTED = {
    *(f"{name}/track_{track:04d}.{name}" for name in ("bvh", "trc", "c3d") for track in (1, 12)),
    "angles.csv",
    "people.glb",
}


def test_every_format_at_once(poses, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main(["export", str(poses), *flags(out)]) == 0
    assert made(out) == WANTED
    printed = capsys.readouterr().out.splitlines()
    assert {line.removeprefix(f"wrote {out}/") for line in printed} == WANTED


def test_what_exists_stays_is_replaced_or_refused(poses, tmp_path, capsys):
    out = tmp_path / "out"
    table = out / "angles.csv"
    assert main(["export", str(poses), "--angles", str(table)]) == 0
    before = table.read_bytes()
    table.write_text("mine")
    assert main(["export", str(poses), "--angles", str(table), "--no-clobber"]) == 2
    assert main(["export", str(poses), "--angles", str(table)]) == 0
    assert (table.read_text(), (out / "angles.2.csv").read_bytes()) == ("mine", before)
    assert "is there already and stays" in capsys.readouterr().err
    assert main(["export", str(poses), "--angles", str(table), "--overwrite"]) == 0
    assert table.read_bytes() == before


def test_a_licensed_body_is_exported_without_its_mesh(tmp_path, capsys):
    arrays = poses_arrays({1: [0, 1]}) | {"model": np.array("SMPL")}
    poses = save_poses(tmp_path / "p.npz", arrays)
    out = tmp_path / "people.glb"
    assert main(["export", str(poses), "--glb", str(out), "--bvh", str(tmp_path / "bvh")]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {out}: it has bones in place of bodies")


def refused(capsys, words: list[str], code: int = 1) -> str:
    """The one line that a command is refused with."""
    assert main(["export", *words]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line.removeprefix("error: ")


def test_what_is_no_recording_is_refused_and_leaves_nothing(poses, tmp_path, capsys):
    whole = poses.read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, poses=np.zeros((3, 156)), trans=np.zeros((3, 3)))
    empty = save_poses(tmp_path / "empty.npz", poses_arrays({}))
    out = tmp_path / "out"
    for path, why in (
        (cut, "is no recording of --poses: "),
        (foreign, "is no recording of --poses: it has no frame"),
        (empty, "it has no people"),
        (tmp_path / "missing.npz", "No such file or directory"),
    ):
        line = refused(capsys, [str(path), *flags(out)])
        assert line.startswith(str(path))
        assert why in line
    assert not out.exists()


def test_a_missing_package_is_named_before_any_file_is_made(poses, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ezc3d", None)
    out = tmp_path / "out"
    line = refused(capsys, [str(poses), *flags(out)])
    assert line.endswith("pip install 'bodystream[export]'")
    assert made(out) == set()


def test_wrong_paths_are_refused(poses, tmp_path, capsys):
    assert "there is no output: add --bvh DIR, " in refused(capsys, [str(poses)], 2)
    line = refused(capsys, [str(poses), "--angles", str(tmp_path / "a.txt")])
    assert line.endswith("writes CSV, so end its name in .csv")
    line = refused(capsys, [str(poses), "--bvh", str(tmp_path / "walk.bvh")])
    assert line.endswith("writes a folder of BVH files, so give the name of a folder")
    line = refused(capsys, [str(poses), "--bvh", str(poses)])
    assert "give the name of a folder" in line
    link = tmp_path / "same.csv"
    link.symlink_to(poses)
    line = refused(capsys, [str(poses), "--angles", str(link)])
    assert line.endswith("that is the recording already")


def test_two_outputs_do_not_share_a_folder(poses, tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "d")
    for other in ("d", "link"):
        words = [str(poses), "--bvh", str(tmp_path / "d"), "--trc", str(tmp_path / other)]
        assert "--bvh and --trc name the same folder, " in refused(capsys, words)
    assert not (tmp_path / "d").exists()


def test_c3d_needs_a_name_in_utf_8(poses, tmp_path, capsys):
    line = refused(capsys, [str(poses), "--c3d", str(tmp_path / "a\udcff")])
    assert line.endswith("C3D needs a folder with a name in UTF-8; give another one")
