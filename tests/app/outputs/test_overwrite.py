"""No output overwrites an input or another output, whatever the spelling or the link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import cli
from app.outputs.base import OutputError
from app.outputs.overwrite import check_overwrites

NAMES = ("a.mp4", "b.mp4", "c/d.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two files, one in a folder, and a hard and a symbolic link to each."""
    made = tmp_path_factory.mktemp("files")
    (made / "c").mkdir()
    for name in NAMES[1:]:
        (made / name).write_text(name)
        os.link(made / name, made / f"{Path(name).name}.hard")
        (made / f"{Path(name).name}.soft").symlink_to(made / name)
    (made / "to_a").symlink_to(made / "a.mp4")
    (made / "here").symlink_to(made, target_is_directory=True)
    return made


def spellings(folder: Path, name: str) -> list[Path]:
    """Paths that lead to one file."""
    plain = folder / name
    ways = [plain, folder / "here" / name, folder / "c" / ".." / name]
    if name == "a.mp4":
        return [*ways, folder / "to_a"]  # It does not exist yet.
    return [*ways, folder / f"{plain.name}.hard", folder / f"{plain.name}.soft"]


@given(st.data())
def test_one_file_in_two_places_is_found_and_two_files_are_not(folder, data):
    first, second = (data.draw(st.sampled_from(NAMES)) for _ in range(2))
    one, two = (data.draw(st.sampled_from(spellings(folder, n))) for n in (first, second))
    same = first == second
    for inputs, outputs in (([("in", one)], [("out", two)]), ([], [("one", one), ("two", two)])):
        exists = inputs == [] or one.exists()
        if same and exists:
            with pytest.raises(OutputError, match="already"):
                check_overwrites(inputs, outputs)
        else:
            check_overwrites(inputs, outputs)


def test_devices_and_pipes_may_be_used_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        check_overwrites([("in", path)], [("one", path), ("two", path)])


def test_paths_that_cannot_be_are_no_files():
    for path in (Path("x\0y"), Path("x" * 5000), Path("rtsp://a/b")):
        check_overwrites([("in", path)], [("out", Path("other"))])
        check_overwrites([], [("out", path)])
        with pytest.raises(OutputError, match="that is one already"):
            check_overwrites([], [("one", path), ("two", path)])


@pytest.mark.parametrize(
    ("words", "other"),
    [
        ("run in.mp4 --video hard.mp4", "the source"),
        ("run in.mp4 --poses body.npz --body body.npz", "--body"),
        ("run in.mp4 --jsonl p.toml --config p.toml", "--config"),
        ("run in.mp4 --jsonl w/m.tflite --weights w", "a file of --weights"),
        ("run in.mp4 out_in.mp4 --video out.mp4", "the source out_in.mp4"),
        ("run in.mp4 out_in_0001.mp4 --video out.mp4 --rotate-s 5", "the source out_in_0001.mp4"),
        ("events in.mp4 --jsonl in.mp4", "the source"),
        ("events in.mp4 --jsonl m/motion.toml --motion m", "a file of --motion"),
        ("events in.mp4 --jsonl body.npz --body body.npz", "--body"),
        ("events in.mp4 --webhook http://127.0.0.1:9 --outbox in.mp4", "the source"),
        ("events in.mp4 --jsonl o --webhook http://127.0.0.1:9 --outbox o", "--outbox"),
        ("serve 0 a=in.mp4 --events --webhook http://127.0.0.1:9 --outbox in.mp4", "the source"),
        ("evaluate in.mp4 --truth body.npz --json body.npz", "--truth"),
        ("evaluate in.mp4 --truth body.npz --json in.mp4", "the clip"),
    ],
)
def test_every_command_leaves_what_it_reads(tmp_path, monkeypatch, capsys, words, other):
    monkeypatch.chdir(tmp_path)
    for name in ("in.mp4", "out_in.mp4", "out_in_0001.mp4", "body.npz"):
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "p.toml").write_text("")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "m.tflite").write_text("weights")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "motion.toml").write_text("")
    os.link(tmp_path / "in.mp4", tmp_path / "hard.mp4")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert cli.main(words.split()) == 1
    err = capsys.readouterr().err
    assert f"is {other} already" in err, err
    assert len(err.splitlines()) == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
