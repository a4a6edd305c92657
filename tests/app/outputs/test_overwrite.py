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
        ("events in.mp4 --overwrite --jsonl in.mp4", "the source"),
        ("run in.mp4 --no-clobber --video hard.mp4", "the source"),
        ("run in.mp4 --overwrite --video hard.mp4", "the source"),
        ("evaluate --suite s --overwrite --json truth.json", "a file of s"),
        ("evaluate --reuse s --overwrite --json truth.json", "a file of s"),
        ("events in.mp4 --jsonl m/motion.toml --motion m", "a file of --motion"),
        ("events in.mp4 --jsonl body.npz --body body.npz", "--body"),
        ("events in.mp4 --webhook http://127.0.0.1:9 --outbox in.mp4", "the source"),
        ("events in.mp4 --jsonl o --webhook http://127.0.0.1:9 --outbox o", "--outbox"),
        ("events in.mp4 --jsonl webhook.sqlite --webhook http://127.0.0.1:9", "--outbox"),
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
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a_truth.npz").write_text("truth")
    os.link(tmp_path / "s" / "a_truth.npz", tmp_path / "truth.json")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert cli.main(words.split()) == 1
    err = capsys.readouterr().err
    assert f"is {other} already" in err, err
    assert len(err.splitlines()) == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "words",
    [
        "run in.mp4 --no-clobber --video new.mp4 --jsonl there",
        "run in.mp4 in2.mp4 --no-clobber --jsonl th.jsonl",
        "run in.mp4 --no-clobber --video folder/v.mp4 --amass full",
        "events in.mp4 --no-clobber --strip new --jsonl there",
        "events in.mp4 --no-clobber --report page",
        "events in.mp4 --no-clobber --strip full",
        "evaluate in.mp4 --nobody --no-clobber --json there",
    ],
)
def test_no_clobber_ends_every_command_before_anything_is_made(
    tmp_path, monkeypatch, capsys, words
):
    monkeypatch.chdir(tmp_path)
    for name in ("full", "page"):
        (tmp_path / name).mkdir()
    names = ("in.mp4", "in2.mp4", "there", "th_in2.jsonl", "full/x", "page/index.html")
    for name in names:
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(words.split()) == 2
    err = capsys.readouterr().err
    assert "exists, and --no-clobber keeps it" in err, err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_to_overwrite_and_to_refuse_exclude_each_other(capsys):
    for command in ("run", "events", "evaluate"):
        words = [command, "in.mp4", "--overwrite", "--no-clobber"]
        assert cli.main(words) == 2
        assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("events in.mp4 --jsonl out.mp4", "--jsonl out.mp4"),
        ("events in.mp4 --jsonl out.csv", "--jsonl out.csv"),
        ("events in.mp4 --report page.html", "--report page.html"),
        ("events in.mp4 --strip a.png", "--strip a.png"),
        ("events in.mp4 --webhook http://127.0.0.1:9 --outbox o.jsonl", "--outbox o.jsonl"),
        ("evaluate in.mp4 --nobody --json out.jsonl", "--json out.jsonl"),
        ("evaluate in.mp4 --nobody --json out.csv", "--json out.csv"),
        ("serve 0 --events --webhook http://127.0.0.1:9 --outbox o.mp4", "--outbox o.mp4"),
    ],
)
def test_a_suffix_of_another_format_is_refused_in_every_command(
    tmp_path, monkeypatch, capsys, words, flag
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.mp4").touch()
    assert cli.main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {flag}: its suffix promises another format; ")
    assert [each.name for each in tmp_path.iterdir()] == ["in.mp4"]
