"""Add and remove sources of `serve` at random, healthy and hostile ones, and see what grows.

Up to twenty sources are there at a time; each is added, lives for some seconds, is removed. Every
ten seconds all are removed for a moment, and the threads, handles, decoder processes and the memory
of `serve` are read. The slopes are least-squares lines after the first quarter. Run it (Linux,
GStreamer's RTSP server):

    python -m benchmarks.churn [--minutes 10] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import httpx
import numpy as np

from benchmarks.hangs import KINDS, Jpegs, Server, serve, use_of
from tests.support.rtsp import RtspServer

_SOURCES = 20
_ROUND_S = 10.0
_SETTLE_S = 5.0
"""Nothing of a removed source may be left after this time."""
_CALM = ("drip", "silent", "control only", "no video", "redirects", "junk playlist")
"""The hostile kinds that do not fill the machine's processors."""


def addresses() -> tuple[list[str], RtspServer]:
    """Return the addresses of healthy and hostile servers, and the RTSP server to end."""
    rtsp = RtspServer()
    jpegs = Jpegs().port
    hostile = [(KINDS[kind][0], Server(KINDS[kind][1], jpegs).port) for kind in _CALM]
    healthy = [f"http://127.0.0.1:{jpegs}/test", rtsp.url()] * 2
    return [*healthy, *(f"{scheme}://127.0.0.1:{port}/test" for scheme, port in hostile)], rtsp


def churn(client: httpx.Client, choose: random.Random, known: list[str], until_s: float) -> int:
    """Add and remove sources until then; remove all; return how many were added."""
    there: list[str] = []
    added = 0
    while time.monotonic() < until_s:
        if len(there) < _SOURCES and choose.random() < 0.6:
            name = f"s{choose.randrange(10**9)}"
            body = {"address": choose.choice(known), "name": name}
            client.post("/api/sources", json=body).raise_for_status()
            there.append(name)
            added += 1
        elif there:
            _remove(client, there.pop(choose.randrange(len(there))))
        time.sleep(choose.uniform(0.0, 0.3))
    for name in there:
        _remove(client, name)
    return added


def _remove(client: httpx.Client, name: str) -> None:
    client.delete(f"/api/sources/{name}").raise_for_status()


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description="Sources that come and go.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    choose = random.Random(options.seed)
    known, rtsp = addresses()
    rows: list[list[float]] = []
    added = 0
    try:
        with serve() as (pid, client):
            begun = time.monotonic()
            while time.monotonic() - begun < options.minutes * 60:
                added += churn(client, choose, known, time.monotonic() + _ROUND_S)
                time.sleep(_SETTLE_S)
                use = use_of(pid)
                minute = (time.monotonic() - begun) / 60
                rows.append([minute, use.threads, use.handles, use.children, use.memory_mb])
    finally:
        rtsp.kill()
    table = np.array(rows)
    kept = table[len(table) // 4 :]
    say(f"{added} sources added and removed in {table[-1, 0]:.0f} minutes, seed {options.seed}")
    say("| of `serve` | at the start | at the end | most | a minute |")
    say("| --- | --: | --: | --: | --: |")
    for column, name in enumerate(("threads", "handles", "decoder processes", "memory, MB"), 1):
        slope = np.polyfit(kept[:, 0], kept[:, column], 1)[0]
        first, last, most = table[0, column], table[-1, column], table[:, column].max()
        say(f"| {name} | {first:.0f} | {last:.0f} | {most:.0f} | {slope:+.2f} |")


if __name__ == "__main__":
    main()
