"""A local Ray with two workers in processes of their own: moves, deaths, drains, and what is left.

What is killed is killed as the kernel does it, with SIGKILL.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs ray", allow_module_level=True)

from app.build import load  # noqa: E402
from app.cluster import ray_api  # noqa: E402
from app.cluster.collector import PosesCollector  # noqa: E402
from app.cluster.hub import ClusterHub  # noqa: E402
from app.config import ConfigError, load_config  # noqa: E402
from app.options import WebhookOptions  # noqa: E402
from pipeline.events.motion import load_motion  # noqa: E402
from tests.support.cluster import (  # noqa: E402
    PICTURES,
    clustered,
    kill_worker,
    load_poisoned,
    load_slow,
    other_worker,
    ready,
    spec_of,
    worker_of,
)
from tests.support.receiver import Receiver  # noqa: E402
from tests.support.waiting import until  # noqa: E402

SAMPLE = Path(__file__).parents[3] / "samples" / "pitch.mp4"
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(240)]


def views(hub: ClusterHub) -> dict:
    return {view.name: view for view in hub.sources()}


def all_live(hub: ClusterHub) -> bool:
    return all(view.state == "live" and view.worker for view in hub.sources())


def test_twenty_thousand_frames_are_all_accounted_for(tmp_path):
    """Over moves, a worker's death and the controller's: read = drawn + dropped, moved included,
    and each source's frames are read to the last."""
    counts = dict.fromkeys([f"s{k}" for k in range(8)], 2500)
    with clustered(spec_of(tmp_path)) as hub:
        for name, count in counts.items():
            hub.add(f"stub://{name}/{count}", name, trusted=True)
        until(lambda: all(view.drawn > 200 for view in hub.sources()), 30)
        for name in ("s0", "s1", "s2"):
            hub.move(name, other_worker(hub, name))
        dead = worker_of(hub, "s3")
        kill_worker(hub, dead)
        _kill_controller(hub)
        until(lambda: all(view.state == "ended" for view in hub.sources()), 90)
        figures = {view.name: (view, counted) for view, counted in hub.figures()}
        for name, count in counts.items():
            view, counted = figures[name]
            assert counted.read == count
            assert counted.read == counted.drawn + sum(counted.dropped.values())
            # The last reports of a worker that dies are half a second old.
            assert counted.dropped.get("moved", 0) <= 0.1 * count
        assert sum(counted.drawn for _, counted in figures.values()) > 0.8 * sum(counts.values())
        assert sum(view.moves for view, _ in figures.values()) >= 3
        assert sum(view.failovers for view, _ in figures.values()) >= 1


def test_what_a_worker_had_is_live_elsewhere_within_five_seconds(tmp_path):
    said: list[str] = []
    with clustered(spec_of(tmp_path), warnings=said) as hub:
        for name in ("a", "b", "c", "d"):
            hub.add(PICTURES, name, trusted=True)
        until(lambda: all_live(hub), 20)
        until(lambda: len(hub.bodies("a", -1)) > 50, 20)
        dead = worker_of(hub, "a")
        lost = {name for name, view in views(hub).items() if view.worker == dead}
        number, newest = hub.number("a"), hub.bodies("a", -1)[-1][0]
        kill_worker(hub, dead)
        begun_s = time.monotonic()
        until(lambda: worker_of(hub, "a") not in (None, dead) and hub.bodies("a", newest), 10)
        assert time.monotonic() - begun_s < 5
        until(lambda: all_live(hub), 10)
        # The viewer's source is the same one: its number stays, and its frames' numbers go on.
        assert hub.number("a") == number
        assert {name for name, view in views(hub).items() if view.failovers} == lost
        # Another worker takes the dead one's place.
        ready(hub, 2)
        assert any(dead in line for line in said)


def test_sources_go_on_while_the_controller_is_away(tmp_path):
    with clustered(spec_of(tmp_path)) as hub:
        hub.add(PICTURES, "a", trusted=True)
        until(lambda: all_live(hub), 20)
        worker, pid = worker_of(hub, "a"), _worker_pid(hub, "a")
        _kill_controller(hub)
        number, _ = hub.picture("a", 0, 2.0)
        until(lambda: hub.picture("a", number, 1.0)[0] > number + 5, 10)
        until(lambda: _answers(hub), 30)
        # It found what its forerunner had left, and everything can be asked of it.
        until(lambda: all_live(hub), 20)
        assert (worker_of(hub, "a"), _worker_pid(hub, "a")) == (worker, pid)
        assert views(hub)["a"].failovers == 0
        assert hub.add(PICTURES, "b", trusted=True) == "b"
        assert hub.number("b") != hub.number("a")
        hub.remove("a")
        assert hub.names() == {"b"}


def test_a_worker_that_dies_while_the_controller_is_away_is_missed(tmp_path):
    with clustered(spec_of(tmp_path)) as hub:
        hub.add(PICTURES, "a", trusted=True)
        until(lambda: all_live(hub), 20)
        dead = worker_of(hub, "a")
        _kill_controller(hub)
        kill_worker(hub, dead)
        until(lambda: _answers(hub), 30)
        until(lambda: worker_of(hub, "a") is not None and all_live(hub), 30)
        newest = max((number for number, _ in hub.bodies("a", -1)), default=-1)
        until(lambda: hub.bodies("a", newest), 10)


def test_a_poison_source_is_quarantined_and_the_others_live(tmp_path):
    with clustered(spec_of(tmp_path, load=load_poisoned)) as hub:
        for name in ("a", "b", "c"):
            hub.add(PICTURES, name, trusted=True)
        until(lambda: all_live(hub), 20)
        hub.add("stub://poison/100000", "p", trusted=True)
        until(lambda: "quarantine" in views(hub)["p"].reason, 120)
        assert views(hub)["p"].state == "ended"
        assert 3 <= views(hub)["p"].failovers <= 5
        until(lambda: all(v.state == "live" for v in hub.sources() if v.name != "p"), 60)
        # What is shown of it is the reason, and it can be tried again or removed.
        assert hub.picture("p", 0, 0.1)[1][:2] == b"\xff\xd8"
        hub.remove("p")
        assert hub.names() == {"a", "b", "c"}


def test_a_source_without_room_is_refused_with_the_measured_capacity(tmp_path):
    """A window takes 24 ms of each 133 ms: a source at 30 frames a second costs about a fifth of a
    worker's time, so a worker holds four."""
    with clustered(spec_of(tmp_path, load=load_slow)) as hub:
        added = []

        def add_many() -> None:
            for number in range(40):
                added.append(hub.add(PICTURES, f"s{number}", trusted=True))
                time.sleep(2.5)  # Until its cost is known.

        with pytest.raises(RuntimeError, match="no worker has room: 2 workers run .*%"):
            add_many()
        assert 4 <= len(added) <= 12
        assert hub.names() == set(added)


def test_a_worker_that_is_late_is_named_once(tmp_path):
    said: list[str] = []
    with clustered(spec_of(tmp_path, late_s=0.0), warnings=said) as hub:
        until(lambda: len(said) >= 2)
        names = {worker.id for worker in hub.table.workers}
    assert {f"worker {name}: not ready after 0 s" for name in names} == {
        line.split(".")[0] for line in said
    }
    assert len(said) == 2


def test_a_number_of_sources_can_be_the_limit(tmp_path):
    with clustered(spec_of(tmp_path, most_streams=2)) as hub:
        for number in range(4):
            hub.add(PICTURES, f"s{number}", trusted=True)
        with pytest.raises(RuntimeError, match="all 2 workers are full: 2 sources each, 4 in all"):
            hub.add(PICTURES, "one-too-many", trusted=True)
        hub.remove("s0")
        assert hub.add(PICTURES, "another", trusted=True) == "another"


def test_bad_requests_are_refused_as_without_a_cluster(tmp_path):
    with clustered(spec_of(tmp_path)) as hub:
        with pytest.raises(ValueError, match="an address is"):
            hub.add("/etc/passwd")
        with pytest.raises(ValueError, match="a name is"):
            hub.add(PICTURES, "../x", trusted=True)
        hub.add(PICTURES, "a", trusted=True)
        with pytest.raises(ValueError, match="named a already"):
            hub.add(PICTURES, "a", trusted=True)
        for ask in (hub.remove, hub.restart, hub.settings, hub.number, hub.snapshot):
            with pytest.raises(KeyError):
                ask("nothing")


def test_settings_and_a_recording_survive_a_move(tmp_path):
    with clustered(spec_of(tmp_path)) as hub:
        hub.add(PICTURES, "a", trusted=True)
        until(lambda: all_live(hub), 20)
        hub.change("a", {"alpha": 0.25})
        assert hub.record("a", True).startswith("a_")
        _let_frames_pass(hub, "a")
        hub.move("a", other_worker(hub, "a"))
        until(lambda: all_live(hub), 10)
        assert hub.settings("a")["alpha"] == 0.25
        assert views(hub)["a"].settings["alpha"] == 0.25
        until(lambda: views(hub)["a"].recording is not None, 10)
        _let_frames_pass(hub, "a")
        hub.record("a", False)
        until(lambda: len(list((tmp_path / "recordings").glob("a_*.mp4"))) == 2, 10)


def test_a_node_is_added_and_drained(tmp_path):
    """Two nodes of a Ray on one machine: workers come with the second one, and leave it again."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        spec = spec_of(tmp_path, workers=None)
        with ray_api.connected(cluster.address), ClusterHub(spec) as hub:
            ready(hub, 1)
            for name in ("a", "b"):
                hub.add(PICTURES, name, trusted=True)
            until(lambda: all_live(hub), 20)
            second = cluster.add_node(num_cpus=1)
            ready(hub, 2)
            hub.add(PICTURES, "c", trusted=True)
            new = worker_of(hub, "c")
            assert new != worker_of(hub, "a")
            node = next(worker.node for worker in hub.table.workers if worker.id == new)
            hub.drain(node)
            until(lambda: {worker.node for worker in hub.table.workers}.isdisjoint({node}), 40)
            until(lambda: all_live(hub), 10)
            assert views(hub)["c"].moves == 1
            assert views(hub)["c"].failovers == 0
            cluster.remove_node(second)
            with pytest.raises(ValueError, match="no machine"):
                hub.drain("nowhere")
            # Workers that are being ended when the end comes end too.
            for name in ("a", "b", "c"):
                hub.remove(name)
            (last,) = hub.table.workers
            hub.drain(last.node)
        until(lambda: not os.path.exists(f"/proc/{last.pid}"), 20)
    finally:
        cluster.shutdown()


def test_a_killed_command_leaves_its_sources_and_the_next_one_finds_them(tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        spec = spec_of(tmp_path)
        # A command of its own that is killed, as it may be on a server.
        command = subprocess.Popen(
            [sys.executable, "-m", "tests.support.cluster", cluster.address, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        newest = int(command.stdout.readline())
        with ray_api.connected(cluster.address):
            with pytest.raises(ConfigError, match="another `serve` has it"):
                ClusterHub(spec).__enter__()
            command.kill()
            command.wait()
            with pytest.raises(ConfigError, match="other settings"):
                ClusterHub(spec_of(tmp_path, workers=1)).__enter__()
            until(lambda: _enters(spec), 10)
            # A command that fails leaves what ran before it.
            assert _enters(spec)
            with ClusterHub(spec) as again:
                assert again.names() == {"a"}
                # The same words on the command line mean the source that is there.
                assert again.add(PICTURES, "a", trusted=True) == "a"
                assert again.add(PICTURES, trusted=True) == "a"
                until(lambda: again.bodies("a", newest), 20)
                assert views(again)["a"].failovers == 0
    finally:
        cluster.shutdown()


def _enters(spec) -> bool:
    """Whether a hub attaches to what a killed command has left; it fails, and leaves it."""
    try:
        with ClusterHub(spec):
            raise ZeroDivisionError
    except ConfigError:
        return False
    except ZeroDivisionError:
        return True


@pytest.mark.weights
def test_people_keep_their_numbers_over_a_move_and_live_on_after_a_death(tmp_path):
    """The real model, on a clip that plays again and again as a camera does."""
    config = load_config("default")
    config = replace(
        config,
        render=replace(config.render, hud=False),
        capture=replace(config.capture, loop=True),
        perceive=replace(config.perceive, people=2),
    )
    spec = replace(spec_of(tmp_path, load=load), config=config)
    with clustered(spec) as hub:
        hub.add(str(SAMPLE), "p", trusted=True)

        def newest() -> dict | None:
            lines = hub.bodies("p", -1)
            return json.loads(lines[-1][1]) if lines else None

        # In the second repetition the person has another number than at the first one's start.
        until(lambda: (line := newest()) and line["bodies"] and line["bodies"][0]["track"] > 1, 60)
        before = newest()
        begun_s = time.monotonic()
        hub.move("p", other_worker(hub, "p"))
        until(lambda: (line := newest()) and line["frame"] > before["frame"], 10)
        assert time.monotonic() - begun_s < 2
        first = json.loads(hub.bodies("p", -1)[0][1])
        if first["pts_s"] - before["pts_s"] < 1:
            # No repetition has begun meanwhile.
            assert first["bodies"][0]["track"] == before["bodies"][0]["track"]
        kill_worker(hub, worker_of(hub, "p"))
        last = first["frame"]
        until(lambda: (line := newest()) and line["frame"] > last + 30 and line["bodies"], 30)
        assert views(hub)["p"].failovers == 1


@pytest.mark.weights
def test_events_are_told_and_sent_as_without_a_cluster(tmp_path):
    """The real model, on the sample's throw: on the page, with its strip, and to the webhook."""
    receiver = Receiver()
    webhook = WebhookOptions(webhook=receiver.url, outbox=tmp_path / "webhook.sqlite")
    spec = spec_of(tmp_path, load=load, workers=1, motion=load_motion(), webhook=webhook)
    try:
        with clustered(spec) as hub:
            assert hub.looks_for_events
            hub.add(str(SAMPLE), "pitch", trusted=True)
            until(lambda: hub.events("pitch", -1), 60)
            ((number, line),) = hub.events("pitch", -1)
            strip = cv2.imdecode(np.frombuffer(hub.strip("pitch", number), np.uint8), 1)
            until(lambda: receiver.came, 20)
            assert views(hub)["pitch"].events == 1
    finally:
        receiver.close()
    told = json.loads(line)
    assert (told["source"], told["motion"]) == ("pitch", "throw")
    assert abs(told["release_frame"] - 60) <= 1
    assert strip.shape[1] == 4 * strip.shape[0]
    ((key, sent),) = receiver.came
    assert key.strip('"') == told["id"]
    assert [each["frame"] for each in sent.pop("pictures")] == told["frames"]
    assert sent == told
    # The worker's own outbox, beside the one that was named.
    assert len(list(tmp_path.glob("webhook-*-1.sqlite"))) == 1


def test_a_drained_machine_keeps_its_recordings_whole(tmp_path):
    spec = spec_of(tmp_path)
    with clustered(spec) as hub:
        hub.add(PICTURES, "a", trusted=True)
        until(lambda: all_live(hub), 20)
        hub.record("a", True)
        _let_frames_pass(hub, "a")
        # Both workers are of one machine: its sources have no other place, and stay.
        node = hub.table.workers[0].node
        hub.drain(node)
        _let_frames_pass(hub, "a")
        assert views(hub)["a"].state == "live"
        hub.drain(node, False)
        # The empty one has ended.
        ready(hub, 2)
        hub.move("a", other_worker(hub, "a"))
    for path in (tmp_path / "recordings").glob("a_*.mp4"):
        with av.open(str(path)) as video:
            assert sum(1 for _ in video.decode(video=0)) > 20


def test_a_source_at_a_lower_rate_stays_so_over_a_move(tmp_path):
    with clustered(spec_of(tmp_path, load=load_slow, admit="slower")) as hub:
        number = 0
        while not any(view.every > 1 for view in hub.sources()):
            hub.add(PICTURES, f"s{number}", trusted=True)
            time.sleep(2.5)
            number += 1
            assert number < 20
        slow = next(view for view in hub.sources() if view.every > 1)
        hub.move(slow.name, other_worker(hub, slow.name))
        until(lambda: len(hub.bodies(slow.name, -1)) > 20, 20)
        times = [json.loads(line)["pts_s"] for _, line in hub.bodies(slow.name, -1)[-12:]]
        assert (times[-1] - times[0]) / 11 > 1.5 / 25


def test_the_bodies_of_all_sources_come_to_one_place(tmp_path):
    with clustered(spec_of(tmp_path)) as hub, PosesCollector(hub, tmp_path / "poses", print):
        for name in ("a", "b"):
            hub.add(PICTURES, name, trusted=True)
        until(lambda: len(hub.bodies("a", -1)) > 30, 20)
        hub.move("a", other_worker(hub, "a"))
        until(lambda: len(hub.bodies("a", -1)) > 30, 20)
    for name in ("a", "b"):
        lines = (tmp_path / "poses" / f"{name}.jsonl").read_text().splitlines()
        numbers = [json.loads(line)["frame"] for line in lines]
        assert len(numbers) > 30
        assert numbers == sorted(set(numbers))


def test_bodies_are_written_once_by_the_next_command_too(tmp_path):
    class Fixed:
        lines: list[tuple[int, str]] = [(k, f'{{"frame": {k}}}') for k in range(5)]

        def names(self):
            return {"a"}

        def number(self, name):
            return 7

        def bodies(self, name, after):
            return [(k, line) for k, line in self.lines if k > after]

    file = tmp_path / "a.jsonl"
    for count in (5, 8):
        Fixed.lines = [(k, f'{{"frame": {k}}}') for k in range(count)]
        with PosesCollector(Fixed(), tmp_path, print):
            pass
        assert file.read_text().splitlines() == [line for _, line in Fixed.lines]
    # Of another beginning all are new.
    Fixed.lines = [(0, '{"frame": 0, "track": 2}')]
    with PosesCollector(Fixed(), tmp_path, print):
        pass
    assert len(file.read_text().splitlines()) == 9


def test_nothing_is_left_behind(tmp_path):
    """No process, and no block of shared memory, of the cluster or of its decoders."""
    before = _leftovers()
    with clustered(spec_of(tmp_path)) as hub:
        for name in ("a", "b"):
            hub.add(PICTURES, name, trusted=True)
        until(lambda: all_live(hub), 20)
        kill_worker(hub, worker_of(hub, "a"))
        until(lambda: views(hub)["a"].failovers == 1 and all_live(hub), 30)
    until(lambda: _leftovers() <= before, 20)


def _let_frames_pass(hub: ClusterHub, name: str) -> None:
    drawn = views(hub)[name].drawn
    until(lambda: views(hub)[name].drawn > drawn + 25, 10)


def _leftovers() -> set[str]:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    ours = ("ray::", "raylet", "gcs_server", "decoder_process")
    found = {line for line in listed.stdout.splitlines() if any(word in line for word in ours)}
    return found | {f"/dev/shm/{path.name}" for path in Path("/dev/shm").iterdir()}


def _kill_controller(hub: ClusterHub) -> None:
    pid = ray_api.result(ray_api.call(hub._controller, "pid"), 10)
    os.kill(pid, signal.SIGKILL)


def _answers(hub: ClusterHub) -> bool:
    try:
        hub._ask("spec")
    except RuntimeError:
        return False
    return True


def _worker_pid(hub: ClusterHub, name: str) -> int:
    return next(w.pid for w in hub.table.workers if w.id == worker_of(hub, name))
