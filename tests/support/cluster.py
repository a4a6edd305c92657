"""Clusters of two CPU workers on this machine, with stubs for sources and models."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.cluster import ray_api
from app.cluster.hub import ClusterHub
from app.cluster.spec import ClusterSpec
from app.config import Config, load_config
from pipeline.capture.base import SourceDefaults, SourceInfo
from pipeline.capture.open import open_source
from pipeline.core.frame import Frame
from tests.support.fakes import NoPeople
from tests.support.waiting import until

PICTURES = "lavfi:testsrc2=size=320x180:rate=25"
READY_S = 60.0
FPS = 200.0


class NumberedSource(SourceDefaults):
    """``stub://NAME/COUNT``: COUNT small frames at `FPS`, from ``start_s`` of its own time on."""

    def __init__(self, address: str, start_s: float) -> None:
        name, count = address.removeprefix("stub://").split("/")
        self.name, self.live = name, True
        self.warnings: list[str] = []
        self._first, self._count = round(start_s * FPS + 0.49), int(count)
        self._closed = threading.Event()
        self.info = SourceInfo(name, True, 32, 24, FPS, self._count, "raw")

    def open(self) -> None:
        pass

    def frames(self) -> Iterator[Frame]:
        image = np.zeros((24, 32, 3), np.uint8)
        begun_s = time.monotonic()
        for number in range(self._first, self._count):
            due_s = begun_s + (number - self._first) / FPS
            if self._closed.wait(max(due_s - time.monotonic(), 0)):
                return
            first = number - self._first
            yield Frame(first, self.name, time.monotonic_ns(), number / FPS, image)

    def close(self) -> None:
        self._closed.set()


def make_source(config: Config, stop: threading.Event) -> Any:
    """A numbered source for stub://, any other source as usual."""
    if config.source.startswith("stub://"):
        return NumberedSource(config.source, config.capture.start_s)
    return open_source(config.source, stop=stop)


class Poisoned(NoPeople):
    """Sees no people, and ends its process at a frame of a source whose name begins so."""

    def perceive(self, windows, states):
        if any(frame.source.startswith("poison") for w in windows for frame in w.frames):
            os._exit(66)
        return super().perceive(windows, states)


class Slow(NoPeople):
    """Takes 24 ms for each window that it perceives."""

    def perceive(self, windows, states):
        for window in windows:
            if window.key_frame.source != "example":
                time.sleep(0.024)
        return super().perceive(windows, states)


def load_no_people(config: Config) -> NoPeople:
    return NoPeople()


def load_poisoned(config: Config) -> NoPeople:
    return Poisoned()


def load_slow(config: Config) -> NoPeople:
    return Slow()


def spec_of(folder: Path, **changed: Any) -> ClusterSpec:
    """How a cluster of tests serves; generous with a busy machine's slowness."""
    config = load_config("default")
    config = replace(config, render=replace(config.render, hud=False))
    usual: dict[str, Any] = {
        "workers": 2, "lost_s": 15.0, "load": load_no_people, "make_source": make_source,
    }  # fmt: skip
    return ClusterSpec(config, folder / "recordings", **(usual | changed))


@contextlib.contextmanager
def clustered(
    spec: ClusterSpec, address: str = "local", warnings: list[str] | None = None
) -> Iterator[ClusterHub]:
    """A hub of a cluster whose workers are all ready."""
    said: list[str] = [] if warnings is None else warnings
    with ray_api.connected(address), ClusterHub(spec, said.append) as hub:
        ready(hub, spec.workers or 1)
        yield hub


def ready(hub: ClusterHub, count: int) -> None:
    """Wait until this number of workers is ready."""
    until(lambda: _ready_count(hub) == count, READY_S)


def _ready_count(hub: ClusterHub) -> int:
    return sum(worker.state == "ready" for worker in hub.table.workers)


def worker_of(hub: ClusterHub, name: str) -> str | None:
    return next(row.worker for row in hub.table.sources if row.name == name)


def other_worker(hub: ClusterHub, name: str) -> str:
    mine = worker_of(hub, name)
    return next(w.id for w in hub.table.workers if w.id != mine and w.state == "ready")


def kill_worker(hub: ClusterHub, worker: str) -> None:
    """End a worker's process as the kernel does where memory is short."""
    os.kill(next(w.pid for w in hub.table.workers if w.id == worker), signal.SIGKILL)


def serve_for_ever(address: str, folder: Path) -> None:
    """Add a source and print the number of a frame of it; then wait to be killed."""
    with ray_api.connected(address), ClusterHub(spec_of(folder)) as hub:
        ready(hub, 2)
        hub.add(PICTURES, "a", trusted=True)
        until(lambda: hub.bodies("a", -1), 20)
        print(hub.bodies("a", -1)[-1][0], flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    # By its own name, under which the workers import what they are given.
    from tests.support import cluster

    cluster.serve_for_ever(sys.argv[1], Path(sys.argv[2]))
