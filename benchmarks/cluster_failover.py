"""Measure a cluster under load: what sources it holds, how long a move and a failover take.

It starts a cluster on this machine (or joins one), adds clips that play in a loop as cameras do, at
their own rate, and then moves sources one after another and kills workers one after another. It
prints JSON: for moves, the time from the request to its end, and the gap between the last frame
that was captured by the old worker and drawn and the first of the new one; for failovers, the time
from the kill until each source of the worker has drawn a frame again.

    python -m benchmarks.cluster_failover --sources 8 --moves 8 --kills 2
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from app import hardware
from app.cluster import ray_api
from app.cluster.hub import ClusterHub
from app.cluster.spec import ClusterSpec
from app.config import load_config
from pipeline.core.stats import Snapshot

SAMPLE = Path(__file__).parents[1] / "samples" / "pitch.mp4"
_LOOK_S = 0.01


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    config = load_config("default")
    config = replace(
        config,
        device=options.device,
        render=replace(config.render, hud=False),
        capture=replace(config.capture, loop=True),
        perceive=replace(config.perceive, people=1),
    )
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ray_api.connected(options.cluster):
        spec = ClusterSpec(config, Path(folder), workers=options.workers)
        begun_s = time.monotonic()
        with ClusterHub(spec, said.append) as hub:
            hub.wait_until_ready(threading.Event())
            out: dict[str, Any] = {
                "hardware": hardware.describe(),
                "ready_s": time.monotonic() - begun_s,
                "workers": [vars(worker) for worker in hub.table.workers],
            }
            refused = ""
            for number in range(options.sources):
                try:
                    hub.add(str(options.clip.absolute()), f"s{number}", trusted=True)
                except RuntimeError as error:
                    refused = str(error)
                    break
            time.sleep(options.seconds)
            before = _figures(hub)
            time.sleep(options.seconds)
            out |= {"refused": refused, "load": _load(hub, before, _figures(hub), options.seconds)}
            _say(out)
            out["moves"] = [_say(_move(hub, number)) for number in range(options.moves)]
            out["kills"] = [_say(_kill(hub)) for _ in range(options.kills)]
            figures = _figures(hub)
            out["accounts"] = {
                "read": sum(one.read for one in figures.values()),
                "drawn": sum(one.drawn for one in figures.values()),
                "moved": sum(one.dropped.get("moved", 0) for one in figures.values()),
                "dropped": sum(sum(one.dropped.values()) for one in figures.values()),
            }
    return out | {"said": said}


def _say(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the figures; it is on standard error too, should the rest never come."""
    print(json.dumps(part, default=str), file=sys.stderr, flush=True)
    return part


def _figures(hub: ClusterHub) -> dict[str, Snapshot]:
    time.sleep(0.3)  # Figures are kept for a moment.
    return {view.name: figures for view, figures in hub.figures()}


def _load(
    hub: ClusterHub, before: dict[str, Snapshot], after: dict[str, Snapshot], seconds: float
) -> dict[str, Any]:
    drawn = sum(after[name].drawn - before[name].drawn for name in after)
    lost = sum(
        sum(after[name].dropped.values()) - sum(before[name].dropped.values()) for name in after
    )
    views = hub.sources()
    return {
        "sources": len(after),
        "drawn_fps": drawn / (seconds + 0.3),
        "dropped_share": lost / max(drawn + lost, 1),
        "p95_ms": max((view.latency_ms[1] for view in views if view.latency_ms), default=None),
        "worker_loads": {worker.id: worker.load for worker in hub.table.workers},
        "sources_of": {worker.id: worker.streams for worker in hub.table.workers},
    }


def _newest(hub: ClusterHub, name: str) -> int:
    lines = hub.bodies(name, -1)
    return lines[-1][0] if lines else -1


def _move(hub: ClusterHub, number: int) -> dict[str, Any]:
    rows = hub.table.sources
    row = rows[number % len(rows)]
    others = [w.id for w in hub.table.workers if w.id != row.worker and w.state == "ready"]
    newest = _newest(hub, row.name)
    begun_s = time.monotonic()
    hub.move(row.name, others[number % len(others)])
    moved_s = time.monotonic() - begun_s
    while not hub.bodies(row.name, newest):
        time.sleep(_LOOK_S)
    return {"move_s": moved_s, "gap_s": time.monotonic() - begun_s}


def _kill(hub: ClusterHub) -> dict[str, Any]:
    dead = max(hub.table.workers, key=lambda w: w.streams)
    names = [row.name for row in hub.table.sources if row.worker == dead.id]
    newest = {name: _newest(hub, name) for name in names}
    os.kill(dead.pid, signal.SIGKILL)
    begun_s, back = time.monotonic(), dict[str, float]()
    while len(back) < len(names) and time.monotonic() - begun_s < 60:
        for name in names:
            row = next(row for row in hub.table.sources if row.name == name)
            if (
                name not in back
                and row.worker not in (None, dead.id)
                and hub.bodies(name, newest[name])
            ):
                back[name] = time.monotonic() - begun_s
        time.sleep(_LOOK_S)
    while any(w.state == "starting" for w in hub.table.workers) or dead.id not in {
        w.id for w in hub.table.workers
    }:
        if time.monotonic() - begun_s > 120:
            break
        time.sleep(0.1)
    times = sorted(back.values())
    return {
        "worker": dead.id,
        "sources": len(names),
        "back": len(back),
        "first_s": times[0] if times else None,
        "last_s": times[-1] if times else None,
        "worker_back_s": time.monotonic() - begun_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--clip", type=Path, default=SAMPLE)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--moves", type=int, default=8)
    parser.add_argument("--kills", type=int, default=2)
    json.dump(measure(parser.parse_args()), sys.stdout, indent=1, default=str)


if __name__ == "__main__":
    main()
