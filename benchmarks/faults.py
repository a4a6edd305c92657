"""Play faults of feeds with a real RTSP server, beside two healthy sources.

Each scene does something to one of the three sources of a scheduler; its result is an `Outcome`.
`tests/benchmarks/test_faults.py` checks the outcomes against their limits. To print the table of
docs/results/live.md:

    python -m benchmarks.faults
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
"""The others are watched for at least this time, so that their rate is exact to a hundredth."""


@dataclass(frozen=True)
class Outcome:
    """The result of a scene.

    Attributes:
        detected_s: How long after its start the fault was detected; None if there was none.
        back_s: How long after the fault's end the picture was back; None if there was none.
        made: The frames that were made while the source was connected.
        lost: How many of them did not arrive, by the numbers drawn into them.
        twice: How many of them arrived twice.
        saw: Every state with its reason, as shown to the user, in order.
        rate: The rate of the slower of the two healthy sources, over their true one.
        size: The (height, width) of the last frame.
        breaks: The discontinuities in the frames.
    """

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
    """The facts of a frame of the watched source."""

    id: int
    pts_s: float
    at_s: float
    clock_ms: int
    number: int
    broken: bool
    size: tuple[int, int]


class Taken(NamedTuple):
    """The facts of a frame of a healthy source."""

    at_s: float
    id: int
    pts_s: float


class Scene:
    """A scheduler with two healthy sources and the watched one, which ``watch`` starts; ``close``
    ends everything."""

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
        """Start the healthy sources and wait until their frames come."""
        healthy = self.server("--fps", str(FPS))
        for number, taken in enumerate(self._others):
            self._read(f"other {number}", healthy.url(), {}, self._taker(taken))
        # The scene begins with both running: starting them costs time that is not the fault's.
        self._ready(lambda: all(len(taken) > 25 for taken in self._others), 60.0)

    def server(self, *arguments: str, port: int = 0) -> RtspServer:
        """Start an RTSP server."""
        self._servers.append(RtspServer(port, *arguments))
        return self._servers[-1]

    def relay(self, server: RtspServer, loss: float) -> LossyRelay:
        """Start a relay that loses a share of a server's packets."""
        self._relays.append(LossyRelay(server.port, loss))
        return self._relays[-1]

    def watch(self, address: str, **options: object) -> None:
        """Start the watched source."""
        # Not live, so that the app drops no frames: a missing frame was lost on its way here.
        options = {"live": False, **options}
        self.begun_s = time.monotonic()
        self._read("watched", address, options, self._add_picture, self._add_state)

    def detect(self, *states: State, after_s: float) -> None:
        """Wait until one of these states is reported; ``after_s`` is the time of the fault."""
        self._ready(lambda: any(at > after_s and state in states for at, state, _ in self.states))
        self.detected_s = next(
            at - after_s for at, state, _ in self.states if at > after_s and state in states
        )

    def return_at(self, since_s: float, limit_s: float = 20.0) -> None:
        """Wait for the first picture after the fault's end."""
        # Only the newest: the list grows, and this runs a hundred times a second.
        self._ready(lambda: any(seen.at_s > since_s for seen in self.pictures[-50:]), limit_s)
        self.back_s = next(seen.at_s for seen in self.pictures if seen.at_s > since_s) - since_s

    def more(self, count: int, limit_s: float = 20.0) -> None:
        """Wait for that many more pictures."""
        total = len(self.pictures) + count
        self._ready(lambda: len(self.pictures) >= total, limit_s)

    def outcome(self) -> Outcome:
        """Return the outcome, once the healthy sources were watched long enough."""
        time.sleep(max(self.begun_s + _LEAST_S - time.monotonic(), 0.0))
        rates = [
            rate([frame for frame in taken if frame.at_s > self.begun_s]) for taken in self._others
        ]
        saw = []
        for _, state, reason in self.states:
            words = f"{state}: {reason}" if reason else str(state)
            saw += [] if saw[-1:] == [words] else [words]
        lost = made = 0
        pictures = self.pictures
        for before, after in pairwise(pictures):
            missed = 0
            # Across a break the server was away, so its numbers say nothing about losses.
            if not after.broken:
                missed = max(after.number - before.number - 1, 0)
            lost, made = lost + missed, made + missed + 1
        clocks = [picture.clock_ms for picture in pictures]
        # What the app promises of every frame: ids without gaps, and times that rise.
        assert [picture.id for picture in pictures] == list(range(len(pictures)))
        assert all(a.pts_s < b.pts_s for a, b in pairwise(pictures))
        return Outcome(
            self.detected_s, self.back_s, made, lost, len(clocks) - len(set(clocks)), tuple(saw),
            min(rates), pictures[-1].size if pictures else (0, 0),
            sum(picture.broken for picture in pictures),
        )  # fmt: skip

    def close(self) -> None:
        """End the sources, the servers and the relays."""
        self._scheduler.close()
        for part in (*self._servers, *self._relays):
            part.kill()

    def _read(
        self,
        name: str,
        address: str,
        options: dict,
        take: Callable[[Frame], None],
        on_status: Callable[[Status], None] = lambda _: None,
    ) -> None:
        source = open_source(address, SourceOptions(**{"retry_s": math.inf, **options}))
        assert isinstance(source, LiveSource)
        source.on_status(on_status)
        stream = self._scheduler.add(name, source)

        def run() -> None:
            for fitted in stream.windows():
                for frame, _ in fitted:
                    stream.stats.drew(frame.captured_ns)
                    take(frame)

        # A daemon: a scene that fails must not keep the process alive.
        threading.Thread(target=run, daemon=True).start()

    def _add_state(self, status: Status) -> None:
        self.states.append((time.monotonic(), status.state, status.reason))

    @staticmethod
    def _taker(taken: list[Taken]) -> Callable[[Frame], None]:
        return lambda frame: taken.append(Taken(time.monotonic(), frame.id, frame.pts_s))

    def _add_picture(self, frame: Frame) -> None:
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
    """Return the rate of frames over their true rate: the share that arrived, less if they came
    slower than they were made."""
    first, last = taken[0], taken[-1]
    came = (len(taken) - 1) / (last.id - first.id)
    return came * min((last.pts_s - first.pts_s) / (last.at_s - first.at_s), 1.0)


def absent(scene: Scene) -> Outcome:
    gone = scene.server()
    # The port is known now and free, as that of a camera that is switched off.
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
        # Stopped, not killed: the connection stays open, and no error tells of the fault.
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
    """Connect to a server with arguments that make it refuse us; a server without them then takes
    its place."""

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
        # Else the scene would show nothing: the relay has to lose about the share that it should.
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
    """Play the scene of that name and return its outcome."""
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
        out = play(name)
        seen = " → ".join(state.partition(" (")[0] for state in out.saw)
        print(
            f"| {name} | {cell(out.detected_s)} | {cell(out.back_s)} | {out.made} | {out.lost} "
            f"| {out.twice} | {100 * out.rate:.0f} % | {seen} |",
            flush=True,
        )


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
