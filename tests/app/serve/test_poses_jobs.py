"""Files of poses on request: shared, bounded, and gone with the last client or with the server."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.exports.recording import ExportError
from app.serve import poses_file
from app.serve.folder import RecordingFolder
from app.serve.live import Full
from app.serve.poses_file import Stopped, TooLong, make_poses
from app.serve.poses_jobs import MOST_JOBS, PosesJobs
from tests.support.paths import ROOT
from tests.support.served_recordings import recorded
from tests.support.waiting import until

pytest.importorskip("uvicorn")
pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc"),
]
SERVE = """
import sys
import app.serve.command
from tests.support.fakes import NoPeople
app.serve.command.load = lambda config: NoPeople()
from app.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
NAME = "door_20261127-093029"


def hang(connection, lines, kind, out):
    """Stands in for a long recording."""
    out.with_name(str(os.getpid())).touch()
    time.sleep(600)


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def long(monkeypatch) -> None:
    monkeypatch.setattr(poses_file, "_work", hang)


def children(temporary: Path) -> list[int]:
    return [int(path.name) for path in temporary.glob("*/*") if path.name.isdigit()]


def is_running(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def asks(port: int, kind: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    path = f"/api/recordings/{NAME}/poses?kind={kind}"
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


def test_a_client_that_leaves_ends_its_job(serve, temporary, long):
    served = serve()
    recorded(served.folder)
    with asks(served.port, "npz"), asks(served.port, "glb"):
        until(lambda: len(children(temporary)) == MOST_JOBS)
        pids = children(temporary)
        full = httpx.get(f"{served.url}/api/recordings/{NAME}/poses?kind=bvh")
        assert full.status_code == 503
        assert "other files are being made" in full.json()["detail"]
    until(lambda: not any(map(is_running, pids)) and not list(temporary.iterdir()), 3)
    with asks(served.port, "bvh"):
        until(lambda: len(children(temporary)) == 1)


def test_requests_for_the_same_file_share_a_job_until_the_last_has_left(serve, temporary, long):
    served = serve()
    recorded(served.folder)
    with asks(served.port, "npz"):
        with asks(served.port, "npz"), asks(served.port, "npz"):
            until(lambda: len(children(temporary)) == 1)
            time.sleep(0.3)
            (pid,) = children(temporary)
        time.sleep(0.3)
        assert is_running(pid)
    until(lambda: not is_running(pid) and not list(temporary.iterdir()), 3)


def test_all_that_share_a_job_get_its_file(serve, temporary):
    served = serve()
    recorded(served.folder)
    path = f"{served.url}/api/recordings/{NAME}/poses"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: httpx.get(path, timeout=60), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.content for answer in answers}) == 1
    until(lambda: not list(temporary.iterdir()), 3)


def test_a_place_is_held_until_the_file_is_sent(tmp_path, temporary):
    recorded(tmp_path)
    lines = RecordingFolder(tmp_path).recording(NAME).lines
    jobs = PosesJobs()
    with jobs.file(lines, "npz") as npz, jobs.file(lines, "glb") as glb:
        paths = [npz.result(30), glb.result(30)]
        assert all(path.stat().st_size for path in paths)
        with pytest.raises(Full), jobs.file(lines, "bvh"):
            pass
        with jobs.file(lines, "npz") as same:
            assert same.result(0) == paths[0]
        assert paths[0].exists()
    until(lambda: not list(temporary.iterdir()), 3)
    with jobs.file(lines, "bvh") as bvh:
        assert bvh.result(30).exists()
    jobs.close()


def test_closing_ends_all_jobs_and_refuses_others(tmp_path, temporary, long):
    recorded(tmp_path)
    lines = RecordingFolder(tmp_path).recording(NAME).lines
    jobs = PosesJobs()
    with jobs.file(lines, "npz") as npz, jobs.file(lines, "glb"):
        until(lambda: len(children(temporary)) == 2)
        pids = children(temporary)
        begun_s = time.monotonic()
        jobs.close()
        assert time.monotonic() - begun_s < 1.0
        assert not any(map(is_running, pids))
        assert not list(temporary.iterdir())
        with pytest.raises(Stopped):
            npz.result(0)
        with pytest.raises(Full), jobs.file(lines, "bvh"):
            pass


def test_the_server_ends_soon_while_a_job_runs(tmp_path):
    lines, temporary = recorded(tmp_path / "recordings"), tmp_path / "temporary"
    # Tens of seconds of work.
    lines.write_text(lines.read_text() * 20_000)
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", "0", "--folder", str(lines.parent)],
        cwd=ROOT, text=True, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        found = re.match(r"http://\S+:(\d+)/", process.stderr.readline())
        assert found
        with asks(int(found[1]), "npz") as client:
            # The child's rows.
            until(lambda: any(temporary.glob("*/.*.rows/frame")), 30)
            begun_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143
            assert time.monotonic() - begun_s < 3.0
            assert b" 503 " in client.recv(1000).partition(b"\r\n")[0]
        # The pipe ends with the last process that holds it.
        assert process.stderr.read() == ""
        assert not list(temporary.glob("bodystream-*"))
    finally:
        process.kill()
        process.wait()


def tells_its_limits(connection, lines, kind, out):
    limits = SimpleNamespace(recv=None, send=lambda reason: None)
    poses_file.write_poses = lambda *_: None
    work(limits, lines, kind, out)
    adjusted = Path("/proc/self/oom_score_adj").read_text().strip()
    connection.send(f"{resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20} MB, {adjusted}")


work = poses_file._work


def test_the_child_has_a_limit_of_memory_and_is_ended_before_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr(poses_file, "_work", tells_its_limits)
    with pytest.raises(ExportError, match="^2048 MB, 800$"):
        make_poses(recorded(tmp_path), "npz", tmp_path / "out", 60, threading.Event())


def needs_much(connection, lines, kind, out):
    poses_file.write_poses = lambda *_: bytearray(poses_file._MEMORY_MB << 20)
    work(connection, lines, kind, out)


def test_what_needs_more_memory_says_so_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(poses_file, "_work", needs_much)
    with pytest.raises(ExportError, match="too large for this format"):
        make_poses(recorded(tmp_path), "npz", tmp_path / "out", 60, threading.Event())


def test_a_full_disk_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(poses_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ExportError, match="temporary files is full"):
        make_poses(recorded(tmp_path), "npz", tmp_path / "out", 60, threading.Event())


def test_what_takes_too_long_is_given_up(tmp_path, long):
    with pytest.raises(TooLong):
        make_poses(recorded(tmp_path), "npz", tmp_path / "out.npz", 0.0, threading.Event())
