"""Everything that happens to feeds, played against a real RTSP server beside two healthy sources.

Each scene says what it does to one source of a station of three; what came of it is an `Outcome`.
`tests/benchmarks/test_faults.py` holds the outcomes against their limits.
`python -m benchmarks.faults` prints the table of docs/results/live.md.
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pipeline.capture.base import SourceOptions
from pipeline.capture.live import LiveSource
from pipeline.capture.open import open_source
from pipeline.capture.status import State, Status
from pipeline.core.frame import Frame
from pipeline.runtime.scheduler import StreamScheduler
from tests.support.fakes import StubBatchEstimator
from tests.support.lossy_relay import LossyRelay
from tests.support.rtsp import RtspServer, clock_ms, picture_number

FPS = 25
_LEAST_S = 4.0


@dataclass(frozen=True)
class Outcome:
    """What came of a scene: when the fault was ``detected`` and how long after its end the picture
    was ``back`` (s, None where there was nothing to detect), frames ``made`` while the source was
    there, how many of them were ``lost``, by the numbers drawn into them, and came ``twice``, every
    state and reason the user ``saw``, and the ``rate`` of the slower of the two others, over their
    true one."""

    detected_s: float | None
    back_s: float | None
    made: int
    lost: int
    twice: int
    saw: tuple[str, ...]
    rate: float
    size: tuple[int, int]
    breaks: int


@dataclass(frozen=True)
class Picture:
    """What is kept of a frame."""

    id: int
    pts_s: float
    at_s: float
    clock_ms: int
    number: int
    broken: bool
    size: tuple[int, int]


class Taken(NamedTuple):
    """What is kept of a healthy source's frame."""

    at_s: float
    id: int
    pts_s: float


class Scene:
    """A station of three sources, one of which ``watch`` looks at; ``close`` ends all of it."""

    def __init__(self) -> None:
        self._servers: list[RtspServer] = []
        self._relays: list[LossyRelay] = []
        self._scheduler = StreamScheduler(StubBatchEstimator())
        self._scheduler.start()
        self._others: list[list[Taken]] = [[], []]
        self.pictures: list[Picture] = []
        self.states: list[tuple[float, State, str]] = []
        self.detected_s: float | None = None
        self.back_s: float | None = None
        self.begun_s = time.monotonic()

    def begin(self) -> None:
        """Wait until the others are there, however long it takes."""
        healthy = self.server("--fps", str(FPS))
        for number, taken in enumerate(self._others):
            self._read(f"other {number}", healthy.url(), {}, self._taker(taken))
        self._ready(lambda: all(len(taken) > 25 for taken in self._others), 60.0)

    def server(self, *arguments: str, port: int = 0) -> RtspServer:
        self._servers.append(RtspServer(port, *arguments))
        return self._servers[-1]

    def relay(self, server: RtspServer, loss: float) -> LossyRelay:
        self._relays.append(LossyRelay(server.port, loss))
        return self._relays[-1]

    def watch(self, address: str, **options: object) -> None:
        # It waits for us: what is missing was lost on its way here.
        options = {"live": False, **options}
        self.begun_s = time.monotonic()
        self._read("watched", address, options, self._keep, self._told)

    def detect(self, *states: State, after_s: float) -> None:
        """Wait until one of these states was told, ``after_s`` being when the fault began."""
        self._ready(lambda: any(at > after_s and state in states for at, state, _ in self.states))
        self.detected_s = next(
            at - after_s for at, state, _ in self.states if at > after_s and state in states
        )

    def return_at(self, since_s: float, limit_s: float = 20.0) -> None:
        """Wait for the first picture after the fault's end."""
        self._ready(lambda: any(each.at_s > since_s for each in self.pictures[-50:]), limit_s)
        self.back_s = next(each.at_s for each in self.pictures if each.at_s > since_s) - since_s

    def more(self, count: int, limit_s: float = 20.0) -> None:
        wanted = len(self.pictures) + count
        self._ready(lambda: len(self.pictures) >= wanted, limit_s)

    def outcome(self) -> Outcome:
        # The others' rate is told to a hundredth by then.
        time.sleep(max(self.begun_s + _LEAST_S - time.monotonic(), 0.0))
        rates = [
            rate([each for each in taken if each.at_s > self.begun_s]) for taken in self._others
        ]
        saw = []
        for _, state, reason in self.states:
            told = f"{state}: {reason}" if reason else str(state)
            saw += [] if saw[-1:] == [told] else [told]
        lost = made = 0
        pictures = self.pictures
        for before, after in pairwise(pictures):
            missed = 0
            if not after.broken:
                missed = max(after.number - before.number - 1, 0)
            lost, made = lost + missed, made + missed + 1
        clocks = [each.clock_ms for each in pictures]
        assert [each.id for each in pictures] == list(range(len(pictures)))
        assert all(a.pts_s < b.pts_s for a, b in pairwise(pictures))
        return Outcome(
            self.detected_s, self.back_s, made, lost, len(clocks) - len(set(clocks)), tuple(saw),
            min(rates), pictures[-1].size if pictures else (0, 0),
            sum(each.broken for each in pictures),
        )  # fmt: skip

    def close(self) -> None:
        self._scheduler.close()
        for each in (*self._servers, *self._relays):
            each.kill()

    def _read(
        self,
        name: str,
        address: str,
        options: dict,
        take: Callable[[Frame], None],
        told: Callable[[Status], None] = lambda _: None,
    ) -> None:
        source = open_source(address, SourceOptions(**{"retry_s": math.inf, **options}))
        assert isinstance(source, LiveSource)
        source.on_status(told)
        stream = self._scheduler.add(name, source)

        def run() -> None:
            for fitted in stream.windows():
                for frame, _ in fitted:
                    stream.stats.drew(frame.captured_ns)
                    take(frame)

        threading.Thread(target=run, daemon=True).start()

    def _told(self, status: Status) -> None:
        self.states.append((time.monotonic(), status.state, status.reason))

    @staticmethod
    def _taker(taken: list[Taken]) -> Callable[[Frame], None]:
        return lambda frame: taken.append(Taken(time.monotonic(), frame.id, frame.pts_s))

    def _keep(self, frame: Frame) -> None:
        self.pictures.append(
            Picture(
                frame.id, frame.pts_s, frame.captured_ns / 1e9, clock_ms(frame.image),
                picture_number(frame.image), frame.discontinuity, frame.size,
            )
        )  # fmt: skip

    def _ready(self, ready: Callable[[], bool], limit_s: float = 20.0) -> None:
        begun_s = time.monotonic()
        while not ready():
            if time.monotonic() - begun_s > limit_s:
                raise TimeoutError(f"{getattr(self, 'states', None)}")
            time.sleep(0.01)


def rate(taken: list[Taken]) -> float:
    """Of frames taken, with when: the part of those made that came, in the time they were made
    in."""
    first, last = taken[0], taken[-1]
    came = (len(taken) - 1) / (last.id - first.id)
    return came * min((last.pts_s - first.pts_s) / (last.at_s - first.at_s), 1.0)


def absent(scene: Scene) -> Outcome:
    gone = scene.server()
    gone.kill()
    scene.watch(gone.url())
    scene.detect(State.CONNECTING, after_s=scene.begun_s)
    time.sleep(1.0)
    scene.server(port=gone.port)
    scene.return_at(time.monotonic())
    scene.more(10)
    return scene.outcome()


def killed(*again: str) -> Callable[[Scene], Outcome]:
    def play(scene: Scene) -> Outcome:
        server = scene.server()
        scene.watch(server.url())
        scene.more(20)
        begun_s = time.monotonic()
        server.kill()
        scene.detect(State.RECONNECTING, after_s=begun_s)
        time.sleep(1.0)
        scene.server(*again, port=server.port)
        scene.return_at(time.monotonic())
        scene.more(10)
        return scene.outcome()

    return play


def frozen(seconds: float) -> Callable[[Scene], Outcome]:
    def play(scene: Scene) -> Outcome:
        server = scene.server()
        scene.watch(server.url())
        scene.more(20)
        server.freeze()
        begun_s = time.monotonic()
        scene.detect(State.STALLED, after_s=begun_s)
        time.sleep(max(begun_s + seconds - time.monotonic(), 0.0))
        server.thaw()
        scene.return_at(time.monotonic())
        scene.more(10)
        return scene.outcome()

    return play


def refused(*arguments: str, login: str = "") -> Callable[[Scene], Outcome]:
    """A server with those arguments does not let us, and one without them takes its place."""

    def play(scene: Scene) -> Outcome:
        server = scene.server(*arguments)
        scene.watch(server.url(login=login))
        scene.detect(State.REFUSED, after_s=scene.begun_s)
        server.kill()
        scene.server(port=server.port)
        scene.return_at(time.monotonic())
        scene.more(10)
        return scene.outcome()

    return play


def lossy(loss: float) -> Callable[[Scene], Outcome]:
    def play(scene: Scene) -> Outcome:
        relay = scene.relay(scene.server("--size", "640x480"), loss)
        scene.watch(f"rtsp://127.0.0.1:{relay.port}/test", rtsp_transport="udp")
        scene.more(150)
        assert relay.lost > 0
        assert abs(relay.lost / (relay.lost + relay.passed) / loss - 1) < 0.7
        return scene.outcome()

    return play


def plays(*arguments: str, count: int = 50) -> Callable[[Scene], Outcome]:
    def play(scene: Scene) -> Outcome:
        scene.watch(scene.server(*arguments).url())
        scene.more(count, 40.0)
        return scene.outcome()

    return play


def ends(scene: Scene) -> Outcome:
    scene.watch(scene.server("--frames", "40").url())
    scene.more(5)
    begun_s = time.monotonic()
    scene.detect(State.RECONNECTING, after_s=begun_s)
    scene.return_at(next(at for at, state, _ in scene.states if state is State.RECONNECTING))
    scene.more(10)
    return scene.outcome()


SCENES: dict[str, Callable[[Scene], Outcome]] = {
    "absent at the start": absent,
    "killed and restarted (time stamps begin anew)": killed(),
    "restarted with another size": killed("--size", "480x368"),
    "restarted as H.265": killed("--codec", "h265"),
    "restarted as MJPEG": killed("--codec", "mjpeg"),
    "frozen for 3 s (SIGSTOP, SIGCONT)": frozen(3.0),
    "frozen for 9 s": frozen(9.0),
    "401, then let in": refused("--login", "ann:s3cret", login="ann:wrong@"),
    "401 for want of a login, then let in": refused("--login", "ann:s3cret"),
    "404, then there": refused("--path", "other"),
    "2% of the packets lost (UDP)": lossy(0.02),
    "10% of the packets lost (UDP)": lossy(0.10),
    "B-frames": plays("--codec", "h264-b"),
    "H.265": plays("--codec", "h265"),
    "an audio track": plays("--audio"),
    "3 fps declared as 30": plays("--fps", "30", "--true-fps", "3", count=15),
    "end of the stream": ends,
}


def play(name: str) -> Outcome:
    """Play a scene."""
    scene = Scene()
    try:
        scene.begin()
        return SCENES[name](scene)
    finally:
        scene.close()


def main() -> None:
    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    parser = argparse.ArgumentParser(description="Play scenes and print what came of them.")
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="by name; all by default")
    args = parser.parse_args()
    if wrong := [name for name in args.scenes if name not in SCENES]:
        parser.error(f"no such scene: {wrong[0]}; there are: {', '.join(SCENES)}")
    print("| what happens | detected, s | back, s | frames | lost | twice | the others | seen |")
    print("| --- | --: | --: | --: | --: | --: | --: | --- |")
    for name in args.scenes or SCENES:
        told = play(name)
        seen = " → ".join(state.partition(" (")[0] for state in told.saw)
        print(
            f"| {name} | {cell(told.detected_s)} | {cell(told.back_s)} | {told.made} | {told.lost} "
            f"| {told.twice} | {100 * told.rate:.0f} % | {seen} |",
            flush=True,
        )


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
