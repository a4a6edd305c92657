"""`run --cluster`: clips run by workers, whose deaths cost no clip."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import threading
import time

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs ray", allow_module_level=True)

from app.cli import main  # noqa: E402
from app.cluster.run import _Running  # noqa: E402
from app.cluster.spec import absolute  # noqa: E402
from app.config import load_config, with_changes  # noqa: E402
from tests.support.clips import numbered, write_clip  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(240)]


@pytest.mark.weights
def test_clips_are_run_as_without_a_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", [numbered(k) for k in range(12)])
    words = ["run", "a.mp4", "b.mp4", "--jsonl", "out.jsonl", "--quiet"]
    assert main([*words, "--cluster", "local", "--workers", "2"]) == 0
    assert main([*words, "--overwrite", "--jsonl", "alone.jsonl"]) == 0
    for name in ("a", "b"):
        there, alone = (tmp_path / f"{kind}_{name}.jsonl" for kind in ("out", "alone"))
        assert len(there.read_text().splitlines()) == len(alone.read_text().splitlines()) == 12
    # One clip that cannot be read fails alone.
    (tmp_path / "c.mp4").write_bytes(b"no video")
    words = ["run", "a.mp4", "c.mp4", "--jsonl", "more.jsonl", "--quiet"]
    assert main([*words, "--cluster", "local", "--workers", "2"]) == 1
    assert "c.mp4" in capsys.readouterr().err
    assert (tmp_path / "more_a.jsonl").exists()


@pytest.mark.weights
def test_a_worker_that_dies_begins_its_clips_again(tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", [numbered(k) for k in range(200)])
    begun = threading.Event()
    begin = _Running._begin

    def seen(self: _Running) -> None:
        begin(self)
        begun.set()

    monkeypatch.setattr(_Running, "_begin", seen)

    def kill_one() -> None:
        begun.wait(60)
        time.sleep(4)
        listed = subprocess.run(["pgrep", "-f", "ray::RunWorker"], capture_output=True, text=True)
        for pid in listed.stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    words = ["run", "a.mp4", "--jsonl", "out.jsonl", "--quiet", "--cluster", "local"]
    assert main(words) == 0
    killer.join()
    (written,) = tmp_path.glob("out*.jsonl")
    assert len(written.read_text().splitlines()) == 200


def test_paths_mean_the_same_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    config = with_changes(load_config("default"), {"source": "a.mp4"})
    config = absolute(config)
    assert config.source == str(tmp_path / "a.mp4")
    assert absolute(with_changes(config, {"source": "rtsp://x/y"})).source == "rtsp://x/y"


def test_a_wrong_address_is_one_clear_line(tmp_path, capsys):
    clip = str(write_clip(tmp_path / "a.mp4", [numbered(0)]))
    out = str(tmp_path / "o.jsonl")
    for address, words in (
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("ray://host:1", "give auto, or HOST:PORT"),
        ("nowhere", "give auto, or HOST:PORT"),
    ):
        assert main(["run", clip, clip, "--jsonl", out, "--cluster", address, "--quiet"]) == 2
        assert words in capsys.readouterr().err
        assert main(["serve", "0", "--cluster", address]) == 2
        assert words in capsys.readouterr().err


def test_what_a_cluster_alone_reads_is_refused_without_one(capsys):
    for words in (["--workers", "2"], ["--admit", "slower"], ["--poses-to", "x"]):
        assert main(["serve", "0", *words]) == 2
        assert "needs --cluster" in capsys.readouterr().err
    assert main(["serve", "0", "--cluster", "local", "--workers", "none"]) == 2
    assert "auto, or a whole number" in capsys.readouterr().err
