"""Feeds that fail, from a real RTSP server: what is seen of it, when, and what comes after."""

from __future__ import annotations

import contextlib
import math
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from pipeline.capture.base import SourceOptions, open_source
from pipeline.capture.live import LiveSource
from pipeline.capture.status import State
from pipeline.frame import Frame

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
SEEN_S, BACK_S = 5.0, 3.0
"""A stall is seen within the first, and the picture is back within the second of the return."""


class Watched:
    """A source read by a thread; what came of it, and every state with its time."""

    def __init__(self, address: str, **options: object) -> None:
        wanted = {"retry_s": math.inf, **options}
        source = open_source(address, SourceOptions(**wanted))  # type: ignore[arg-type]
        assert isinstance(source, LiveSource)
        self.source = source
        self.frames: list[Frame] = []
        self.states: list[tuple[float, State, str]] = []
        self.error: BaseException | None = None
        source.on_status(lambda s: self.states.append((time.monotonic(), s.state, s.reason)))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.source.open()
            for frame in self.source.frames():
                self.frames.append(frame)  # noqa: PERF402 (others look meanwhile)
        except BaseException as error:
            self.error = error

    def until(self, ready: Callable[[], bool], limit_s: float = 20.0) -> float:
        """Wait for something; how long it took, s."""
        begun = time.monotonic()
        while not ready():
            assert time.monotonic() - begun < limit_s, (self.states, len(self.frames), self.error)
            time.sleep(0.01)
        return time.monotonic() - begun

    def until_more(self, count: int = 5, limit_s: float = 20.0) -> float:
        wanted = len(self.frames) + count
        return self.until(lambda: len(self.frames) >= wanted, limit_s)

    def has_been(self, *wanted: State) -> bool:
        return any(state in wanted for _, state, _ in self.states)

    def breaks(self) -> list[int]:
        return [frame.id for frame in self.frames if frame.discontinuity]

    def close(self) -> None:
        self.source.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    watched: list[Watched] = []

    def begin(address: str, **options: object) -> Watched:
        watched.append(Watched(address, **options))
        return watched[-1]

    yield begin
    for each in watched:
        each.close()


def in_order(frames: list[Frame]) -> None:
    """Nothing lost, nothing twice, time rises."""
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert all(a.pts_s < b.pts_s for a, b in pairwise(frames))
    assert all(a.captured_ns <= b.captured_ns for a, b in pairwise(frames))


def test_absent_at_the_start(rtsp_server, watch) -> None:
    gone = rtsp_server()
    gone.kill()
    watched = watch(gone.url())
    watched.until(lambda: "connection refused" in watched.source.status.reason)
    assert watched.source.status.state is State.CONNECTING
    time.sleep(1.0)
    rtsp_server(gone.port)
    assert watched.until_more(1) < BACK_S
    assert watched.source.status.state is State.LIVE
    in_order(watched.frames)


@pytest.mark.parametrize(
    "again", [(), ("--size", "480x360"), ("--codec", "h265"), ("--codec", "mjpeg")],
    ids=["the same", "another size", "h265", "mjpeg"],
)  # fmt: skip
def test_killed_and_restarted(rtsp_server, watch, again) -> None:
    server = rtsp_server()
    watched = watch(server.url())
    watched.until_more(20)
    server.kill()
    assert watched.until(lambda: watched.has_been(State.RECONNECTING)) < SEEN_S
    time.sleep(1.0)
    returned = rtsp_server(server.port, *again)
    assert watched.until_more(1) < BACK_S
    watched.until_more(10)
    in_order(watched.frames)
    assert len(watched.breaks()) == 1
    assert watched.source.counts["reconnected"] == 1
    if "--size" in again:
        assert watched.frames[-1].size == (360, 480)
    if "--codec" in again:
        assert watched.source.info.codec == {"h265": "hevc"}.get(again[1], again[1])
    returned.kill()


@pytest.mark.parametrize("frozen_s", [3.0, 9.0])
def test_frozen_and_thawed(rtsp_server, watch, frozen_s) -> None:
    """Its connections stay open; short of five seconds the same one goes on."""
    server = rtsp_server()
    watched = watch(server.url())
    watched.until_more(20)
    server.freeze()
    assert watched.until(lambda: watched.has_been(State.STALLED)) < SEEN_S
    time.sleep(frozen_s - 2.0)
    server.thaw()
    assert watched.until_more(1) < BACK_S
    watched.until_more(10)
    in_order(watched.frames)
    assert watched.source.counts["reconnected"] == (frozen_s > 5)


def test_a_login_that_is_refused_and_then_let_in(rtsp_server, watch) -> None:
    server = rtsp_server(0, "--login", "ann:s3cret")
    watched = watch(server.url(login="ann:wrong@"))
    watched.until(lambda: watched.source.status.state is State.REFUSED)
    assert "login is refused: check user and password" in watched.source.status.reason
    assert "wrong" not in watched.source.status.reason


def test_a_path_that_is_not_there_yet(rtsp_server, watch) -> None:
    watched = watch(rtsp_server().url("nope"))
    watched.until(lambda: watched.source.status.state is State.REFUSED)
    assert "no such stream there: check the path" in watched.source.status.reason


def test_the_end_of_a_stream_is_a_loss(rtsp_server, watch) -> None:
    server = rtsp_server(0, "--frames", "40")
    watched = watch(server.url())
    watched.until(lambda: watched.has_been(State.RECONNECTING))
    watched.until(lambda: len(watched.breaks()) >= 1)
    watched.until_more(5)
    in_order(watched.frames)


@pytest.mark.parametrize(
    "how", [("--codec", "h264-b"), ("--codec", "h265"), ("--audio",)],
    ids=["b-frames", "h265", "an audio track"],
)  # fmt: skip
def test_other_streams_play(rtsp_server, watch, how) -> None:
    watched = watch(rtsp_server(0, "--fps", "25", *how).url())
    watched.until_more(30)
    in_order(watched.frames)
    assert not watched.breaks()
    taken_s = watched.frames[-1].pts_s - watched.frames[5].pts_s
    assert (len(watched.frames) - 6) / taken_s == pytest.approx(25, rel=0.1)


def test_three_frames_a_second_declared_as_thirty(rtsp_server, watch) -> None:
    watched = watch(rtsp_server(0, "--fps", "30", "--true-fps", "3").url())
    # What had gathered while the first pictures were looked at comes at once.
    watched.until_more(20)
    in_order(watched.frames)
    assert not watched.has_been(State.STALLED, State.RECONNECTING)
    spaced = [b.captured_ns - a.captured_ns for a, b in pairwise(watched.frames[-6:])]
    assert sum(spaced) / len(spaced) == pytest.approx(1e9 / 3, rel=0.15)


class LossyRelay:
    """An RTSP proxy through which media go by UDP, and some of it is lost."""

    def __init__(self, to: int, loss: float) -> None:
        self._random, self._loss, self._to = random.Random(1), loss, to
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.1)
        self.port = self._server.getsockname()[1]
        self.lost = self.passed = 0
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, step: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=step, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._begin(self._talk, client, server, self._rewritten)
                self._begin(self._talk, server, client, lambda data: data)
        self._server.close()

    def _talk(
        self, source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]
    ) -> None:
        source.settimeout(0.1)
        while not self._done.is_set():
            try:
                data = source.recv(65536)
                if not data:
                    break
                target.sendall(change(data))
            except TimeoutError:
                continue
            except OSError:
                break
        target.close()

    def _rewritten(self, request: bytes) -> bytes:
        """The client's ports for media become ours."""
        found = re.search(rb"client_port=(\d+)-(\d+)", request)
        if found is None:
            return request
        ours = []
        for theirs, loss in zip(found.groups(), (self._loss, 0.0)):
            here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            here.bind(("127.0.0.1", 0))
            here.settimeout(0.1)
            ours.append(here.getsockname()[1])
            self._begin(self._pass_on, here, int(theirs), loss)
        return request.replace(found[0], b"client_port=%d-%d" % tuple(ours))

    def _pass_on(self, here: socket.socket, to: int, loss: float) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                data = here.recv(65536)
                if self._random.random() < loss:
                    self.lost += 1
                else:
                    self.passed += 1
                    here.sendto(data, ("127.0.0.1", to))
        here.close()

    def close(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(5)


@pytest.mark.parametrize("loss", [0.02, 0.10])
def test_packets_lost_by_udp(rtsp_server, watch, loss) -> None:
    """What is damaged is stepped over; the feed goes on and the picture comes back."""
    server = rtsp_server(0, "--fps", "25", "--size", "640x480")
    relay = LossyRelay(server.port, loss)
    try:
        watched = watch(f"rtsp://127.0.0.1:{relay.port}/test", rtsp_transport="udp")
        watched.until_more(150)
        assert relay.lost > 0
        assert relay.lost / (relay.lost + relay.passed) == pytest.approx(loss, rel=0.7)
        in_order(watched.frames)
        assert not watched.has_been(State.RECONNECTING, State.STALLED)
        # Six seconds of video in about six seconds.
        took_s = (watched.frames[-1].captured_ns - watched.frames[0].captured_ns) / 1e9
        assert took_s < 1.5 * 150 / 25
    finally:
        watched.close()
        relay.close()
