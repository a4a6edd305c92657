"""`run --cluster`: clips run by workers, whose deaths cost no clip."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs ray", allow_module_level=True)

from app.cli import main  # noqa: E402
from app.clips_in_turn import EstimatorBroken  # noqa: E402
from app.cluster import (
    ray_api,  # noqa: E402
    run_clients,  # noqa: E402
)
from app.cluster import run as cluster_run  # noqa: E402
from app.cluster.cost import gpu_share  # noqa: E402
from app.cluster.ray_api import Gone, NodeFacts  # noqa: E402
from app.cluster.spec import absolute, continued  # noqa: E402
from app.cluster.workers import Places  # noqa: E402
from app.config import Config, OutputConfig, load_config, with_changes  # noqa: E402
from app.run_report import Progress, RunReport  # noqa: E402
from app.source_result import Result  # noqa: E402
from pipeline.core.problem import Notice  # noqa: E402
from pipeline.weights.store import cache_folder  # noqa: E402
from tests.support.clips import numbered, write_clip  # noqa: E402
from tests.support.waiting import until  # noqa: E402

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


def is_written(path: Path) -> bool:
    """Whether there is something in a file; the command makes it before, without."""
    return path.exists() and path.stat().st_size > 0


def kill_run_workers() -> None:
    """End this process's own, as the kernel does where memory is short."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    below, killed = [os.getpid()], 0
    while below:
        below = [child for pid in below for child in children.get(pid, [])]
        for pid in below:
            with contextlib.suppress(OSError):
                if b"ray::RunWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    assert killed


@pytest.mark.weights
def test_a_worker_that_dies_begins_its_clips_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", [numbered(k) for k in range(400)])

    def kill_one() -> None:
        until(lambda: is_written(tmp_path / "out_a.jsonl"), 90)
        kill_run_workers()

    killer = threading.Thread(target=kill_one)
    killer.start()
    words = ["run", "a.mp4", "--jsonl", "out.jsonl", "--video", "out.mp4", "--quiet"]
    assert main([*words, "--cluster", "local"]) == 0
    killer.join()
    assert "it begins again, with a\n" in capsys.readouterr().err
    with av.open(str(tmp_path / "out_a.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 400
    (written,) = tmp_path.glob("out*.jsonl")
    assert len(written.read_text().splitlines()) == 400


@pytest.mark.weights
def test_a_clip_that_has_ended_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, count in (("a", 12), ("b", 1200)):
        write_clip(tmp_path / f"{name}.mp4", [numbered(k) for k in range(count)])
    first, done_s = tmp_path / "out_a.jsonl", []

    def kill_behind_the_first() -> None:
        # The next one begins once the first one's report has come.
        until(lambda: is_written(tmp_path / "out_b.jsonl"), 120)
        done_s.append(first.stat().st_mtime_ns)
        kill_run_workers()

    killer = threading.Thread(target=kill_behind_the_first)
    killer.start()
    words = ["run", "a.mp4", "b.mp4", "--jsonl", "out.jsonl", "--quiet", "--cluster", "local"]
    assert main(words) == 0
    killer.join()
    assert "it begins again, with b\n" in capsys.readouterr().err
    assert [first.stat().st_mtime_ns] == done_s
    (second,) = tmp_path.glob("out_b*.jsonl")
    assert len(second.read_text().splitlines()) == 1200


@pytest.fixture
def made_up(monkeypatch):
    """Runs clips with made-up workers: ``dies(method, name)`` says with which call one dies, or
    the error that the call raises."""

    def run(names, dies, stop_at=None, workers=1, nodes=("node",)):
        begun: list[tuple[str, str]] = []
        stop = threading.Event()

        def call(_, method: str, *args):
            if method in ("load", "run_clip"):
                begun.append((method, args[0].source if method == "load" else args[0]))
                if begun[-1] == stop_at:
                    stop.set()
                return begun[-1]
            return (method, "")

        def answer(ref: tuple[str, str], _: float):
            method, name = ref
            if found := dies(method, name):
                raise found if isinstance(found, Exception) else Gone("it was killed")
            answers = {
                "run_clip": (Result(name, RunReport(1, 1), None), []),
                "load": [],
                # Of the clip before, now and then, as from a real worker.
                "progress": ("a", Progress(1, 1, 0, 1, 1.0, 1.0, 1)),
            }
            return answers[method]

        for module in (run_clients, cluster_run):
            for name, does in (("call", call), ("result", answer), ("_LOOK_S", 0.0)):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, does)
        spots = [Places(f"node{k or ''}", "host", 1, 1.0, 0.0) for k in range(workers)]
        monkeypatch.setattr(cluster_run, "_spots", lambda *_: spots)
        monkeypatch.setattr(ray_api, "connected", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(ray_api, "finished", set)
        there = [NodeFacts(node, "host", 1.0, 0.0) for node in nodes]
        monkeypatch.setattr(ray_api, "nodes", lambda: there)
        monkeypatch.setattr(ray_api, "kill", lambda _: None)
        monkeypatch.setattr(ray_api, "start_actor", lambda *_, **__: None)
        configs = {name: Config(source=f"/none/{name}.mp4") for name in names}
        progress, ended = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            results = cluster_run.run_in_cluster(
                configs, "local", 1, on_progress=progress.append, stop=stop, on_result=ended.append
            )
        assert [one.name for one in results] == list(names)
        return {one.name: one for one in results}, begun, progress, ended

    return run


def test_a_clip_that_ends_its_workers_fails_alone(made_up):
    names = ("a", "b", "poison", "c", "d")
    results, begun, progress, ended = made_up(names, lambda method, name: name == "poison")
    clips = [name for method, name in begun if method == "run_clip"]
    assert clips == ["a", "b", "poison", "poison", "poison", "c", "d"]
    # The estimator is loaded once in each process.
    assert sum(method == "load" for method, _ in begun) == 4
    assert results.pop("poison").error == "poison: 3 workers ended with it: it was killed"
    assert all(one.error is None for one in results.values())
    assert len(ended) == 5
    done = [one.clips_done for one in progress]
    assert done == sorted(done)
    assert (done[-1], progress[-1].clips) == (5, 5)
    frames = [one.frames_drawn for one in progress]
    assert frames == sorted(frames)
    assert frames[-1] == 4


def test_where_no_worker_can_start_no_clip_is_blamed(made_up):
    results, begun, _, ended = made_up(("a", "b"), lambda method, _: method == "load")
    assert len(begun) == 3
    assert {one.error for one in results.values()} == {
        f"{name}: its worker could not start: it was killed" for name in "ab"
    }
    assert not ended


def test_a_stop_ends_a_worker_that_still_loads_at_once(made_up):
    results, begun, _, ended = made_up(
        ("a", "b"), lambda *_: False, stop_at=("load", "/none/a.mp4")
    )  # fmt: skip
    assert [method for method, _ in begun] == ["load"]
    assert not ended
    assert {one.report.ended for one in results.values()} == {"not begun"}


def test_a_clip_is_written_anew_and_a_camera_s_video_stays():
    output = replace(OutputConfig(video=Path("o.mp4")), jsonl=Path("o.jsonl"))
    clip = continued(Config(source="a.mp4", output=output), 1).output
    assert (clip.existing, clip.video) == ("overwrite", Path("o.mp4"))
    camera = Config(source="rtsp://h/s", output=output)
    for deaths in (1, 2):
        camera = continued(camera, deaths)
        assert camera.output.video == Path(f"o.again{deaths}.mp4")
        assert (camera.output.existing, camera.output.jsonl) == ("keep", Path("o.jsonl"))
    plain = Config(source="0")
    assert continued(plain, 1) == plain


@pytest.fixture
def first_b():
    """Says for `made_up` that the first worker that runs clip b dies with it."""
    tries = Counter[str]()

    def dies(method, name):
        tries[method + name] += 1
        return method == "run_clip" and name == "b" and tries["run_clipb"] == 1

    return dies


def test_a_worker_without_a_clip_takes_one_that_comes_back(made_up, first_b):
    def dies(method, name):
        return first_b(method, name) or (method == "load" and sum(loads) > 2)

    loads = []
    results, begun, _, ended = made_up(
        ("a", "b"), lambda m, n: loads.append(m == "load") or dies(m, n), workers=2,
        nodes=("node", "node1"),
    )  # fmt: skip
    assert all(one.error is None for one in results.values())
    assert [name for method, name in begun if method == "run_clip"] == ["a", "b", "b"]
    assert [one.name for one in ended] == ["a", "b"]


def test_the_clip_of_a_machine_that_goes_is_another_ones(made_up, first_b):
    # The second worker's machine, which has clip b, is not there any more.
    results, begun, _, _ = made_up(("a", "b", "c"), first_b, workers=2, nodes=("node",))
    assert all(one.error is None for one in results.values())
    # Its worker begins nowhere else: the other machines' cores are taken.
    assert sum(method == "load" for method, _ in begun) == 2


def test_an_estimator_that_cannot_go_on_is_replaced(made_up):
    def dies(method, name):
        return EstimatorBroken("it failed") if method == "run_clip" and name == "b" else None

    results, begun, _, _ = made_up(("a", "b", "c"), dies)
    assert results.pop("b").error == "b: 3 workers ended with it: it failed"
    assert all(one.error is None for one in results.values())
    assert sum(method == "load" for method, _ in begun) == 4


def test_a_stop_begins_no_other_clip(made_up):
    results, begun, _, ended = made_up(("a", "b", "c"), lambda *_: False, stop_at=("run_clip", "b"))
    assert [name for method, name in begun if method == "run_clip"] == ["a", "b"]
    assert [one.name for one in ended] == ["a", "b"]
    assert results["c"].report.ended == "not begun"


@pytest.mark.parametrize(
    ("gpus", "clips", "asked", "workers", "is_measured"),
    [
        ((2, 1), 3, None, 3, False),  # A GPU each.
        ((2, 1), 9, 5, 5, False),
        ((2, 1), 9, None, 6, True),  # Of a memory of which two and a half take all.
        ((0,), 9, None, 2, False),
    ],
)
def test_how_many_share_a_gpu_is_measured(monkeypatch, gpus, clips, asked, workers, is_measured):
    nodes = [NodeFacts(f"n{k}", "host", 8.0, float(each)) for k, each in enumerate(gpus)]
    measured_on: list[str] = []

    def measured(made, *args, node: str, stop: threading.Event) -> float:
        assert made is gpu_share
        measured_on.append(node)
        return 0.4

    monkeypatch.setattr(ray_api, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_api, "measured", measured)
    spots = cluster_run._spots(Config(), asked, clips, threading.Event())
    assert len(spots) == workers
    assert measured_on == (["n0"] if is_measured else [])
    # Clips that are fewer than workers are spread over the machines.
    assert {spot.node for spot in spots[: len(nodes)]} == {node.id for node in nodes}


def test_a_model_that_cannot_be_loaded_is_a_line(monkeypatch):
    monkeypatch.setattr(ray_api, "nodes", lambda: [NodeFacts("n", "far", 8.0, 1.0)])

    def measured(*_, **__):
        raise ValueError("no such file\nand more")

    monkeypatch.setattr(ray_api, "measured", measured)
    with pytest.raises(RuntimeError, match="^--cluster: the model cannot be loaded on far: no"):
        cluster_run._spots(Config(), None, 2, threading.Event())
    monkeypatch.setattr(ray_api, "nodes", lambda: [NodeFacts("n", "far", 8.0, 0.0)])
    with pytest.raises(RuntimeError, match="no machine of the cluster has a GPU"):
        cluster_run._spots(Config(device="cuda"), None, 2, threading.Event())


def own_gpus() -> tuple[str, int]:
    return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()


def divided(a: int, b: int) -> float:
    return a / b


def slept(seconds: float) -> None:
    time.sleep(seconds)


def test_what_is_measured_has_a_gpu_for_itself():
    stop = threading.Event()
    # Ray believes in the GPU that is not here.
    with ray_api.connected("local", gpus=1):
        node = ray_api.this_node()
        gpus, pid = ray_api.measured(own_gpus, node=node, stop=stop)
        assert gpus == "0"
        # Its process would keep a part of the GPU's memory.
        until(lambda: not os.path.exists(f"/proc/{pid}"), 20)
        with pytest.raises(ZeroDivisionError):
            ray_api.measured(divided, 1, 0, node=node, stop=stop)
        threading.Timer(1.0, stop.set).start()
        begun_s = time.monotonic()
        with pytest.raises(Gone, match="stopped"):
            ray_api.measured(slept, 60, node=node, stop=stop)
        assert time.monotonic() - begun_s < 10
        # The GPU is free again.
        assert ray_api.measured(divided, 4, 2, node=node, stop=threading.Event()) == 2


@pytest.fixture
def head(tmp_path) -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster that `ray start` made, with a token and TLS: its address, and what a command needs
    in its environment to reach it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    # Of no other user, and short: sockets are below it.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text(64 * "a")
    # A command asks the head by the address that Ray takes for this machine's.
    own = ray_api._ray().util.get_node_ip_address()
    (folder / "names").write_text(f"subjectAltName=IP:127.0.0.1,IP:{own}")
    for asked in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca",
        "req -newkey rsa:2048 -nodes -keyout node.key -out node.csr -subj /CN=node",
        "x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out node.crt -days 2 "
        "-extfile names",
    ):
        subprocess.run(["openssl", *asked.split()], cwd=folder, capture_output=True, check=True)
    environment = os.environ | {
        "HOME": str(folder), "BODYSTREAM_WEIGHTS": str(cache_folder()),
        "RAY_AUTH_MODE": "token", "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *f"ray start --head --block --port {port} --num-cpus 2 --include-dashboard=false".split(),
        "--temp-dir", str(folder),
    ]  # fmt: skip
    command[0] = str(Path(sys.executable).with_name("ray"))
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}", environment
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.weights
def test_a_cluster_with_a_token_and_tls(tmp_path, head):
    address, environment = head
    clip = write_clip(tmp_path / "a.mp4", [numbered(k) for k in range(12)])
    out = tmp_path / "o.jsonl"

    def run(place: str = address, **changed: str | None) -> subprocess.CompletedProcess[str]:
        own = {k: v for k, v in (environment | changed).items() if v is not None}
        return subprocess.run(
            [sys.executable, "-m", "app", "run", str(clip), "--jsonl", str(out), "--quiet",
             "--overwrite", "--cluster", place],
            env=own, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    end_s = time.monotonic() + 60
    while "no Ray cluster answers" in (done := run()).stderr:
        assert time.monotonic() < end_s
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "o_a.jsonl").read_text().splitlines()) == 12
    # A cluster that is found on this machine gets the token that is here.
    assert run("auto", RAY_ADDRESS=address, RAY_AUTH_MODE=None).returncode == 0
    for place in (address, "auto"):
        done = run(place, RAY_ADDRESS=address, RAY_USE_TLS=None)
        assert done.returncode == 2
        assert f"{address} speaks TLS; set RAY_USE_TLS=1" in done.stderr
    done = run(HOME="/nowhere")
    assert done.returncode == 2
    assert "no authentication token was found" in done.stderr


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
