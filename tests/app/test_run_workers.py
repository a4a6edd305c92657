"""`run --workers N`: shares of sources, and what a worker's end costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Config
from app.run_report import Progress, RunReport
from app.run_workers import run_in_workers, shares_of
from app.source_result import Result
from pipeline.core.problem import Notice


@given(st.integers(1, 40), st.integers(1, 12))
def test_every_source_has_one_worker_and_none_is_idle(sources, workers):
    configs = {f"s{k}": Config(source=str(k)) for k in range(sources)}
    shares = shares_of(configs, workers)
    assert len(shares) == min(sources, workers)
    assert sorted(name for share in shares for name in share) == sorted(configs)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share[name] is configs[name] for share in shares for name in share)


def configs_of(*sources: str) -> dict[str, Config]:
    return {f"of {source}": Config(source=source) for source in sources}


def finished(name: str) -> Result:
    return Result(name, RunReport(7, 7), None)


def obey(connection, share):
    """Does what its first source says."""
    word = next(iter(share.values())).source
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "fail":
        connection.send(("failure", "no such network"))
        return
    if word == "wait":
        connection.recv()
    connection.send(("notice", "a setting is not read"))
    connection.send(("progress", Progress(7, 7, 0, 7, 1.0, 7.0, 1)))
    connection.send(("results", [finished(name) for name in share]))


def run(configs, workers, stop=None, progress=None):
    seen = [] if progress is None else progress
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        results = run_in_workers(
            configs, workers, on_progress=seen.append, stop=stop or threading.Event(), work=obey
        )
    assert all(issubclass(each.category, Notice) for each in caught)
    return results, [str(each.message) for each in caught]


def test_results_come_in_the_sources_order_and_progress_is_summed():
    progress: list[Progress] = []
    configs = configs_of("a", "b", "c")
    results, notices = run(configs, 2, progress=progress)
    assert results == [finished(name) for name in configs]
    assert progress[-1].frames_drawn == 14
    assert notices == ["a setting is not read"], "once, though both workers said it"


def test_a_worker_that_ends_costs_the_others_nothing():
    results, notices = run(configs_of("kill", "fail", "c", "d", "e"), 3)
    killed, failed = "its worker process ended unexpectedly (SIGKILL)", "no such network"
    assert [result.error for result in results] == [
        f"of kill: {killed}", f"of fail: {failed}", None, f"of d: {killed}", f"of e: {failed}",
    ]  # fmt: skip
    assert "worker 1 ended early, with of kill, of d" in notices
    assert "worker 2 ended early, with of fail, of e" in notices


def test_where_none_can_run_the_reason_is_the_runs():
    with pytest.raises(RuntimeError, match="^no such network$"):
        run(configs_of("fail", "fail2"), 1)


def test_stop_ends_every_worker():
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    results, _ = run(configs_of("wait", "b", "wait "), 1, stop)
    assert [result.error for result in results] == [None] * 3


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("how", ["SIGINT", "kill a worker"])
def test_a_real_run_ends_in_order(tmp_path, how):
    sources = ["samples/pitch.mp4", "lavfi:testsrc2=size=320x240:rate=30"]
    command = [
        sys.executable, "-m", "app", "run", *sources, "--workers", "2", "--people", "1",
        "--one-pass", "--jsonl", str(tmp_path / "o.jsonl"), "--quiet",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        written = tmp_path / "o_lavfi-testsrc2-size-320x240-rate-30.jsonl"
        deadline = time.monotonic() + 90
        while not (written.exists() and written.stat().st_size > 500):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = workers_of(process.pid)
        assert len(children) == 2
        if how == "SIGINT":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(children[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    if how == "SIGINT":
        assert process.returncode == 130
        assert errors == ""
    else:
        assert process.returncode == 1
        assert "worker 2 ended early" in errors
        assert "its worker process ended unexpectedly (SIGKILL)" in errors
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def workers_of(pid: int) -> list[int]:
    """The children that run sources, in the order of their start."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = [int(word) for word in file.read().split()]
    out = []
    for child in children:
        with open(f"/proc/{child}/cmdline") as file:
            if "spawn_main" in file.read():
                out.append(child)
    return out
