"""Fake pipelines and records for tests of the benchmark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.bench import footage, results
from app.bench.roofline import Ceilings
from app.bench.rows import ROWS
from app.bench.subject import Finished
from app.bench.timers import NoTimer
from pipeline.weights import store as weights


class FakeClock:
    """A clock that only moves when it is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakePipeline:
    """A pipeline that takes known times on a clock of its own: ``host_s`` of the host for each
    submit; of the device, ``call_s`` for each submit and ``window_s`` for each window, one after
    another. It checks that its users keep a pipeline's rules."""

    engine = "fake"
    weights = "real"

    def __init__(self, window_s, *, call_s=0.0, host_s=0.0, at_once=1, depth=1, clock=None):
        self.clock = clock or FakeClock()
        self.window_s, self.call_s, self.host_s = window_s, call_s, host_s
        self.at_once, self.depth = at_once, depth
        self.free_s, self.open, self.timers = 0.0, [], []
        self.closed, self.ready_for = False, 0

    def warm_up(self, sources):
        self.ready_for = sources

    def begin(self):
        return SimpleNamespace(last=-1, busy=False)

    def submit(self, windows, states, timer):
        assert 1 <= len(windows) == len(states) <= self.at_once
        assert len({id(state) for state in states}) == len(states)
        assert len(self.open) < self.depth
        assert len(windows) <= self.ready_for, "more windows than it was warmed up for"
        for window, state in zip(windows, states):
            assert not state.busy, "a source's window before its last was collected"
            assert window.frames[0].id == state.last + 1, "windows out of order"
            state.last, state.busy = window.frames[-1].id, True
        self.timers.append(timer)
        self.clock.now_s += self.host_s
        with timer("fit"):
            self.free_s = max(self.free_s, self.clock.now_s)
            self.free_s += self.call_s + self.window_s * len(windows)
        ticket = (self.free_s, windows, states)
        self.open.append(ticket)
        return ticket

    def collect(self, ticket):
        assert ticket is self.open.pop(0)
        ready_s, windows, states = ticket
        self.clock.now_s = max(self.clock.now_s, ready_s)
        for state in states:
            state.busy = False
        return [Finished([f.image ^ 255 for f in w.frames], 1) for w in windows]

    def close(self):
        self.closed = True


def tiny_player(count=5):
    """Return a player of black frames, 8 by 8."""
    return footage.Player(np.zeros((count, 8, 8, 3), np.uint8))


def quiet(text):
    """Show no progress."""


def record(row_id, ms=10.0, **more):
    """Return a row's record, changed by ``more``."""
    base = {
        "id": row_id, "name": row_id, "total_ms_p50": ms, "total_ms_p95": 2 * ms,
        "stages_ms": {"fit": ms / 2, "draw": ms / 4}, "speedup": None, "weights": "real",
        "plan_ms": None, "speedup_over": "default-cpu", "people": 1, "size": "64x64",
        "clip": "sample", "engine": "fake",
    }  # fmt: skip
    return {**base, **more}


MACHINE = {
    "gpu": None, "driver": None, "cuda": None, "torch": "2", "triton": None, "python": "3",
    "cpu": "abacus", "cores": 2, "memory_gb": 4.0, "ceilings": {},
}  # fmt: skip

ORDER = [row.id for row in ROWS]


def merged(*records, document=None, machine=MACHINE):
    """Return a document with records merged into it."""
    document = document or {"hardware": {}, "command": "", "rows": []}
    for row in records:
        document = results.merge(document, row, machine, "bench", ORDER)
    return document


HERE = Ceilings(700.0, 400.0, 50.0, 2900.0, 50.0, 50.0, launch_us=5.0, graph_launch_us=1.5)


class TorchPipeline(FakePipeline):
    """A fake pipeline that computes real products on a device, in a graph if it is given one."""

    def __init__(self, device, graph=None):
        super().__init__(0.0)
        self.a = torch.ones(64, 64, device=device)
        self.graph = graph

    def submit(self, windows, states, timer):
        with timer("upload"):
            self.a.fill_(1.0)
        with timer("fit"):
            if self.graph is not None:
                self.graph.replay()
            else:
                for _ in range(5):
                    self.a @ self.a
        return super().submit(windows, states, NoTimer())


def blazepose_files():
    """Return BlazePose's weight files; skip the test where they are not installed."""
    try:
        return weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error))
