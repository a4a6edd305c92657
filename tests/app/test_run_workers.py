"""`run --workers N`: shares of sources, and what a worker's end costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

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
    """Live sources, which are shared out at the start."""
    return {f"of {source}": Config(source=f"lavfi:{source}") for source in sources}


def finished(name: str) -> Result:
    return Result(name, RunReport(7, 7), None)


def obey(connection, share):
    """Does what its first source says."""
    word = next(iter(share.values())).source.removeprefix("lavfi:")
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "fail":
        connection.send(("failure", "no such network"))
        return
    if word == "wait":
        connection.recv()
    connection.send(("notice", "a setting is not read"))
    connection.send(("progress", Progress(7, 7, 0, 7, 1.0, 7.0, 1)))
    for name in share:
        connection.send(("result", finished(name)))


def obey_in_turn(connection, first):
    """Does what the name of each clip says."""
    if "fails to load" in first.source:
        connection.send(("failure", "no such network"))
        return
    connection.send(("next", None))
    while (message := connection.recv()) != "stop" and message is not None:
        name, config = message
        if "kill" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "wait" in name:
            connection.send(("progress", Progress(1, 0, 0, 7, 1.0, 7.0, 1)))
            assert connection.recv() == "stop"
        if "slow" in name:
            deadline = time.monotonic() + 60
            while not (Path(config.source).parent / "ended").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        if "last" in name:
            (Path(config.source).parent / "ended").touch()
        connection.send(("progress", Progress(7, 7, 0, 7, 1.0, 7.0, 1)))
        connection.send(("result", Result(name, RunReport(7, 7, seconds=os.getpid()), None)))
        connection.send(("next", None))


def run(configs, workers, stop=None, progress=None, work=obey, ended=None):
    seen = [] if progress is None else progress
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        results = run_in_workers(
            configs, workers, on_progress=seen.append, stop=stop or threading.Event(), work=work,
            on_result=([] if ended is None else ended).append,
        )  # fmt: skip
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


def clips_of(*names: str, folder: str | Path = "/none") -> dict[str, Config]:
    """Clips that are not there, which are handed out one at a time."""
    return {name: Config(source=f"{folder}/{name}.mp4") for name in names}


def test_clips_are_handed_out_one_at_a_time(tmp_path):
    progress, ended = [], []
    configs = clips_of("slow", "b", "c", "d", "last", folder=tmp_path)
    results, _ = run(configs, 2, progress=progress, work=obey_in_turn, ended=ended)
    assert [one.name for one in results] == list(configs)
    assert sorted(ended, key=lambda one: one.name) == sorted(results, key=lambda one: one.name)
    # While one worker has the slow clip, which ends after the last one, the other runs the rest.
    by_worker = {one.name: one.report.seconds for one in results}
    assert len({by_worker[name] for name in ("b", "c", "d", "last")}) == 1
    assert by_worker["slow"] != by_worker["b"]
    done, frames = [one.clips_done for one in progress], [one.frames_drawn for one in progress]
    assert done == sorted(done)
    assert done[-1] == 5
    assert frames == sorted(frames)
    assert frames[-1] == 35


def test_a_worker_that_dies_costs_the_clip_that_it_had_alone():
    ended = []
    results, notices = run(clips_of("a", "b", "kill", "d", "e"), 2, work=obey_in_turn, ended=ended)
    assert [one.error for one in results] == [
        None, None, "kill: its worker process ended unexpectedly (SIGKILL)", None, None
    ]  # fmt: skip
    assert sorted(one.name for one in ended) == ["a", "b", "d", "e", "kill"]
    assert [line for line in notices if line.endswith("ended early, with kill")]


def test_clips_that_no_worker_is_left_for_fail():
    results, _ = run(clips_of("a", "kill", "c", "d"), 1, work=obey_in_turn)
    why = "its worker process ended unexpectedly (SIGKILL)"
    assert [one.error for one in results] == [None, f"kill: {why}", f"c: {why}", f"d: {why}"]


def test_where_no_worker_can_load_the_reason_is_the_runs():
    with pytest.raises(RuntimeError, match="^no such network$"):
        run(clips_of("fails to load", "b", "c"), 1, work=obey_in_turn)


def test_a_stop_lets_running_clips_end_and_begins_no_other():
    stop = threading.Event()

    class Stopping(list):
        def append(self, _):
            stop.set()

    results, _ = run(clips_of("wait", "b", "c"), 1, stop, Stopping(), work=obey_in_turn)
    assert [(one.error, one.report.ended) for one in results] == [
        (None, "end of the source"), (None, "not begun"), (None, "not begun"),
    ]  # fmt: skip


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
