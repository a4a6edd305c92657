"""Compare decoding feeds in threads of one process with decoding each in a process of its own.

An RTSP server draws the clock into every picture, and several readers take it, first one way, then
the other, in turns. The delay is from the picture made to the RGB frame handed over. CPU seconds
are of this process and its decoder processes; memory is their proportional set size (PSS), so that
shared libraries count once. Run it (Linux, GStreamer's RTSP server):

    python -m benchmarks.feeds [--feeds 16] [--size 640x352] [--seconds 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.capture.base import SourceOptions, StopSignal
from pipeline.capture.devices import network
from pipeline.capture.feed import Feed
from pipeline.capture.live import LiveSource
from pipeline.capture.picture import Allocate, Converter, empty_image
from pipeline.capture.process_reader import ProcessReader
from pipeline.capture.reader import Connect, ThreadReader
from tests.support.rtsp import RtspServer, clock_ms

WAYS: dict[str, tuple[Connect, Allocate]] = {
    # As it was before there were processes: new memory for each frame.
    "threads, new memory": (ThreadReader, lambda shape: np.empty(shape, np.uint8)),
    "threads": (ThreadReader, empty_image),
    "processes": (ProcessReader, empty_image),
}
_OPENING_S = 4.0


class Measured:
    """A source that is read in a thread; it notes when it opened and each frame's delay."""

    def __init__(self, address: str, connect: Connect, allocate: Allocate) -> None:
        stop = StopSignal()
        feed = Feed(
            network(address, "tcp"), 5.0, stop_signal=stop, clock_ns=time.monotonic_ns,
            wait=stop.wait, connect=connect, convert=Converter(allocate),
        )  # fmt: skip
        self.source = LiveSource(feed, SourceOptions(), stop)
        self.delays_ms: list[float] = []
        self.opened_s = 0.0
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        begun = time.monotonic()
        self.source.open()
        self.opened_s = time.monotonic() - begun
        for frame in self.source.frames():
            self.delays_ms.append(time.monotonic() * 1e3 - clock_ms(frame.image))

    def close(self) -> None:
        self.source.close()
        self.thread.join(5)


def processes(server: int) -> list[str]:
    """The numbers of this process and its decoder processes."""
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    found = [pid for pids in children for pid in pids if int(pid) != server]
    return [str(os.getpid()), *found]


def cpu_s(pids: list[str]) -> float:
    """CPU seconds of the processes so far."""
    ticks = 0
    for pid in pids:
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_mb(pids: list[str]) -> float:
    """Proportional set size of the processes, in MB."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(rollup.partition("Pss:")[2].split()[0]) for rollup in rollups) / 1024


def measure(way: str, address: str, server: int, feeds: int, seconds: float) -> list[float]:
    """Return, for one way: time to open (s), delay p50, p95 (ms), CPU ms a frame, memory (MB) and
    frames a second of a feed."""
    sources = [Measured(address, *WAYS[way]) for _ in range(feeds)]
    time.sleep(_OPENING_S)
    pids = processes(server)
    for source in sources:
        source.delays_ms.clear()
    before, begun = cpu_s(pids), time.monotonic()
    time.sleep(seconds)
    spent, took = cpu_s(pids) - before, time.monotonic() - begun
    memory = pss_mb(pids)
    delays = np.concatenate([source.delays_ms for source in sources])
    opened = np.median([source.opened_s for source in sources])
    for source in sources:
        source.close()
    time.sleep(2)
    p50, p95 = np.percentile(delays, [50, 95])
    cpu_ms = spent / len(delays) * 1e3
    return [float(opened), p50, p95, cpu_ms, memory, len(delays) / feeds / took]


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--feeds", type=int, default=16)
    parser.add_argument("--size", default="640x352")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = RtspServer(0, "--size", options.size)
    results: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    try:
        for _ in range(options.rounds):
            for way, rows in results.items():
                # A process of its own: what one way leaves in memory must not count for the other.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    arguments = (way, server.url(), server.pid, options.feeds, options.seconds)
                    rows.append(pool.apply(measure, arguments))
    finally:
        server.kill()
    say(f"{options.feeds} feeds of {options.size}, {os.cpu_count()} cores; medians of rounds")
    say("| decoded in | open, s | delay p50, ms | p95, ms | CPU ms a frame | PSS, MB | fps |")
    say("| --- | --: | --: | --: | --: | --: | --: |")
    for way, rounds in results.items():
        row = np.median(rounds, axis=0)
        say(f"| {way} | " + " | ".join(f"{value:.1f}" for value in row) + " |")


if __name__ == "__main__":
    main()
