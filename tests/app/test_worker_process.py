"""Child processes: they end with their pipe and their parent, and leave signals to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from app import worker_process
from app.worker_process import WorkerProcess, ending_of


def echo(connection, before):
    try:
        while True:
            connection.send((before, connection.recv()))
    except EOFError:
        pass


def end_as(connection, status):
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def test_it_talks_and_ends_with_its_pipe():
    worker = WorkerProcess(echo, "heard")
    for number in (signal.SIGINT, signal.SIGTERM):
        # The terminal's signals reach the whole group; the parent says what becomes of them.
        os.kill(worker.pid, number)
    worker.connection.send([1, 2])
    assert worker.connection.recv() == ("heard", [1, 2])
    assert worker.end() == 0


@pytest.mark.parametrize(("status", "words"), [(3, "exit status 3"), (-9, "SIGKILL")])
def test_its_end_is_seen_and_named(status, words):
    worker = WorkerProcess(end_as, status)
    with pytest.raises((EOFError, OSError)):
        worker.connection.recv()
    assert ending_of(worker.end()) == words


def test_one_that_does_not_leave_is_ended(monkeypatch):
    monkeypatch.setattr(worker_process, "_LEAVE_S", 0.2)
    worker = WorkerProcess(hang)
    assert worker.connection.recv() == "here"
    assert ending_of(worker.end()) == "SIGKILL"


def test_it_is_killed_at_once():
    worker = WorkerProcess(hang)
    assert worker.connection.recv() == "here"
    begun_s = time.monotonic()
    assert ending_of(worker.kill()) == "SIGKILL"
    assert time.monotonic() - begun_s < 2.0


def hang(connection):
    connection.send("here")
    time.sleep(600)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_killed_parent_leaves_no_child():
    lines = (
        "from tests.app.test_worker_process import echo",
        "from app.worker_process import WorkerProcess",
        "import time",
        "if __name__ == '__main__':",
        "    worker = WorkerProcess(echo, '')",
        "    worker.connection.send('')",
        "    worker.connection.recv()",
        "    print(worker.pid, flush=True)",
        "    time.sleep(600)",
    )
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline, "the child goes on without its parent"
        time.sleep(0.02)
