"""`serve` on the loopback, with a model that detects no people; needs the extra "serve"."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np

from app.config import load_config
from app.serve.connection import listen, server_of
from app.serve.hub import Hub
from app.serve.poses_jobs import PosesJobs
from app.serve.source_hub import SourceHub
from app.serve.web import create_app
from pipeline.events.motion import Motion
from tests.support.fakes import NoPeople

PICTURES = "lavfi:testsrc2=size=320x180:rate=25"
TOKEN = "sixteen-letters-or-more"


@dataclass
class Served:
    hub: SourceHub
    port: int
    folder: Path
    end: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=10)


@contextlib.contextmanager
def serving(
    nobody: NoPeople, folder: Path, token: str | None = None, motion: Motion | None = None
) -> Iterator[Served]:
    """Run a hub behind a real server, as the command line does."""
    hub = Hub(load_config("default"), nobody, folder / "recordings", motion=motion)
    with hub, served(hub, folder / "recordings", token) as found:
        yield found


@contextlib.contextmanager
def served(hub: SourceHub, folder: Path, token: str | None = None) -> Iterator[Served]:
    """Run a real server for a hub."""
    listening = listen("127.0.0.1", 0)
    listening.listen()
    jobs = PosesJobs()
    server = server_of(create_app(hub, jobs, token))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    ended = threading.Event()

    def end() -> None:
        if not ended.is_set():
            ended.set()
            jobs.close()
            server.should_exit = server.force_exit = True
            thread.join(10)

    try:
        yield Served(hub, listening.getsockname()[1], folder, end)
    finally:
        end()


def pictures(client: httpx.Client, name: str, count: int) -> list[np.ndarray]:
    """Return the first ``count`` pictures of a viewer, decoded."""
    found, data = [], b""
    with client.stream("GET", f"/video/{name}") as answer:
        assert answer.headers["content-type"].startswith("multipart/x-mixed-replace")
        for part in answer.iter_raw():
            data += part
            while True:
                head, _, rest = data.partition(b"\r\n\r\n")
                if b"Content-Length" not in head:
                    break
                length = int(head.rpartition(b"Content-Length: ")[2].split(b"\r")[0])
                if len(rest) < length + 2:
                    break
                found.append(cv2.imdecode(np.frombuffer(rest[:length], np.uint8), cv2.IMREAD_COLOR))
                data = rest[length + 2 :]
            if len(found) >= count:
                return found
    raise AssertionError("the stream ended")
