"""What exists stays, no two runs share a file, and no name remains taken by a run that is gone."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.outputs import reservation
from app.outputs.base import OutputError
from app.outputs.reservation import OutputExists, Reservation, numbered, take
from app.outputs.streams import is_stream
from app.outputs.unfinished import Unfinished
from tests.support.paths import ROOT

FOLDERS = itertools.count()
LAW = settings(deadline=None, max_examples=40)
KILLED = """
import os, signal, sys
from pathlib import Path
from app.outputs.reservation import Reservation
made = Reservation("--out", Path(sys.argv[1]), "keep", command=sys.argv[3] or None)
made.path.write_text(sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(path: Path, text: str, command: str = "") -> None:
    """A run that is killed after it has written a text."""
    words = [sys.executable, "-c", KILLED, str(path), text, command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(words, env=environment).returncode == -signal.SIGKILL


@pytest.fixture(params=["out.mp4", "out", "out.tar.npz", "日本.jsonl"])
def path(request, tmp_path) -> Path:
    return tmp_path / request.param


@LAW
@given(st.lists(st.sampled_from(["", "text"]), max_size=8), st.booleans())
def test_what_was_written_never_changes_and_the_next_number_is_used(tmp_path_factory, runs, there):
    folder = tmp_path_factory.mktemp(f"f{next(FOLDERS)}")
    asked = folder / "out.mp4"
    if there:
        asked.write_text("the user's")
    wanted: dict[Path, str] = {asked: "the user's"} if there else {}
    for index, text in enumerate(runs):
        free = next(name for name in numbered(asked) if name not in wanted)
        with Reservation("--video", asked, "keep") as made:
            assert made.path == free
            assert bool(made.notes) == (free != asked)
            made.path.write_text(text and f"{text} {index}")
        if text:
            wanted[free] = f"{text} {index}"
        # A run that wrote nothing leaves nothing, and no other file lies beside these.
        assert {name: name.read_text() for name in folder.iterdir()} == wanted


@pytest.mark.parametrize("folder", [False, True])
def test_runs_at_the_same_moment_get_names_of_their_own(path, folder):
    made: list[Reservation] = []
    start = threading.Barrier(12)

    def run() -> None:
        start.wait()
        made.append(Reservation("--out", path, "keep", folder=folder))

    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.path for each in made} == set(itertools.islice(numbered(path, folder), 12))
    with Reservation("--out", path, "keep", folder=folder) as other:
        assert other.path not in {each.path for each in made}, "all of them are taken"
    for each in made:
        each.close()


def test_a_killed_run_holds_no_name(path):
    killed(path, "")
    assert path.stat().st_size == 0
    with Reservation("--out", path, "keep") as made:
        assert made.path == path
        made.path.write_text("now")
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_killed_runs_file_stays(path):
    killed(path, "what it wrote")
    with Reservation("--out", path, "keep") as made:
        assert made.path != path
    assert path.read_text() == "what it wrote"


def test_an_empty_file_is_used_and_stays(path):
    path.touch()
    with Reservation("--out", path, "keep") as made:
        assert (made.path, made.notes) == (path, [])
    # As `mktemp` made it: it is not this run's to delete.
    assert path.exists()


def test_overwriting_is_for_one_run_at_a_time(path):
    path.write_text("old")
    with Reservation("--out", path, "overwrite") as made:
        assert made.path == path
        # Nothing is lost before the run has something to write.
        assert path.read_text() == "old"
        with pytest.raises(OutputError, match=r"another run is writing it$"):
            Reservation("--out", path, "overwrite")
        with Reservation("--out", path, "keep") as other:
            assert other.path != path
    with Reservation("--out", path, "overwrite") as again:
        assert again.path == path


def test_no_clobber_refuses_all_that_exists(path, tmp_path):
    path.touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "link").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    for name, folder in ((path, False), (tmp_path / "full", True), (tmp_path / "link", False)):
        with pytest.raises(OutputExists, match=f"^--out {name}: exists, "):
            Reservation("--out", name, "refuse", folder=folder)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    with Reservation("--out", tmp_path / "empty", "refuse", folder=True) as made:
        assert made.path == tmp_path / "empty"
    with Reservation("--out", tmp_path / "new", "refuse") as new:
        assert new.path.exists()


def test_files_of_a_folder_that_exists_stay(tmp_path):
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "track_0001.npz").write_text("old")
    with Reservation("--amass", tmp_path / "tracks", "keep", folder=True) as made:
        assert made.path == tmp_path / "tracks.2"
        (made.path / "track_0001.npz").write_text("new")
    assert (tmp_path / "tracks" / "track_0001.npz").read_text() == "old"
    # Empty it is free, and was there before.
    (tmp_path / "empty").mkdir()
    with Reservation("--amass", tmp_path / "empty", "keep", folder=True) as empty:
        assert empty.path == tmp_path / "empty"
    assert (tmp_path / "empty").is_dir()


def test_without_locks_names_are_still_different(path, monkeypatch):
    monkeypatch.setattr(reservation, "lock", lambda descriptor: None)
    made = [Reservation("--out", path, "keep") for _ in range(3)]
    assert [each.path for each in made] == list(itertools.islice(numbered(path), 3))
    assert all("has no locks" in each.notes[-1] for each in made)
    for each in made:
        each.close()
    assert list(path.parent.iterdir()) == []
    # Nor is it known whether the run that left this one still goes.
    path.write_text("{}\n")
    Unfinished("c").save(path)
    with Reservation("--out", path, "keep", command="c") as other:
        assert other.path != path
        assert not other.continues


def test_without_a_module_for_locks_it_is_the_same(path, monkeypatch):
    monkeypatch.setattr(reservation, "fcntl", None)
    made = [Reservation("--out", path, "keep") for _ in range(3)]
    assert [each.path for each in made] == list(itertools.islice(numbered(path), 3))
    for each in made:
        each.close()
    assert list(path.parent.iterdir()) == []


def test_a_file_that_was_deleted_and_made_again_is_another_ones(tmp_path):
    path = tmp_path / "out.mp4"
    first = take(path)
    assert first is not None
    path.unlink()
    second = take(path)
    assert second is not None
    first.close()
    assert path.exists(), "it is the second run's"
    second.close()
    assert not path.exists()


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.npz").symlink_to(tmp_path / "disk" / "real.npz")
    with Reservation("--poses", tmp_path / "out.npz", "keep") as made:
        made.path.write_text("rows")
    assert (tmp_path / "disk" / "real.npz").read_text() == "rows"
    with Reservation("--poses", tmp_path / "out.npz", "keep") as second:
        assert second.path == tmp_path / "out.2.npz"


def test_streams_are_used_as_they_are(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read, write = os.pipe()
    (tmp_path / "log").write_text("kept")
    with open(tmp_path / "log", "a") as log:
        names = ["-", "/dev/null", str(tmp_path / "pipe"), f"/dev/fd/{write}"]
        for name in [*names, f"/dev/fd/{log.fileno()}", f"/proc/self/fd/{log.fileno()}"]:
            assert is_stream(Path(name)), name
            for existing in ("keep", "overwrite", "refuse"):
                with Reservation("--jsonl", Path(name), existing, command="c") as made:
                    assert (str(made.path), made.notes) == (name, [])
    os.close(read)
    os.close(write)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "pipe"]
    for name in ("log", "none", "", "none/x"):
        assert not is_stream(tmp_path / name)


def test_a_name_that_cannot_be_is_one_line(tmp_path):
    for name in ("x" * 300, "none/x"):
        with pytest.raises(OutputError) as raised:
            Reservation("--out", tmp_path / name, "keep")
        assert len(str(raised.value).splitlines()) == 1
        assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize(("command", "same"), [("one", True), ("two", False), ("", False)])
def test_lines_that_a_killed_run_left_are_for_the_same_command(tmp_path, command, same):
    path = tmp_path / "out.jsonl"
    killed(path, '{"frame": 0}\n', "one")
    for _ in range(2):
        # Twice: a run that ends by an error leaves it unfinished.
        made = Reservation("--jsonl", path, "keep", command=command or None)
        assert made.continues == same
        assert (made.path == path) == same
        made.close()
    with Reservation("--jsonl", path, "keep", command="one"):
        pass  # One that ends well finishes it.
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]
    with Reservation("--jsonl", path, "keep", command="one") as after:
        assert after.path == tmp_path / "out.2.jsonl"


def test_an_empty_file_in_a_folder_that_is_read_only_is_written(tmp_path, monkeypatch):
    def refuse(self, path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Unfinished, "save", refuse)
    (tmp_path / "out.jsonl").touch()
    with Reservation("--jsonl", tmp_path / "out.jsonl", "keep", command="c") as made:
        assert made.path == tmp_path / "out.jsonl"
        assert not made.continues


def test_lines_of_a_run_that_still_goes_are_not_continued(tmp_path):
    path = tmp_path / "out.jsonl"
    first = Reservation("--jsonl", path, "keep", command="one")
    path.write_text('{"frame": 0}\n')
    with Reservation("--jsonl", path, "keep", command="one") as second:
        assert second.path == tmp_path / "out.2.jsonl"
    first.close()


def test_a_file_that_was_put_in_its_place_is_not_continued(tmp_path):
    path = tmp_path / "out.jsonl"
    killed(path, '{"frame": 0}\n', "one")
    path.write_text("something of the user's\n")
    with Reservation("--jsonl", path, "keep", command="one") as made:
        assert made.path == tmp_path / "out.2.jsonl"
    assert path.read_text() == "something of the user's\n"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize("folder", [False, True])
def test_a_folder_that_makes_no_file_is_one_line(folder):
    with pytest.raises(OutputError, match=r"^/proc/x.glb: cannot be written: No such file"):
        take(Path("/proc/x.glb"), folder=folder)
