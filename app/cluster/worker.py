"""A worker of a cluster: a hub with an estimator of its own, in a process that Ray started.

Its calls come in two groups of threads, so that viewers who wait for pictures never keep the
controller from hearing that the worker is well.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from app.cluster import ray_api
from app.cluster.cost import window_cost
from app.cluster.spec import ClusterSpec
from app.config import Config
from app.garbage import leave_out_loaded
from app.options import OUTBOX
from app.reports.dispatcher import Sink
from app.reports.sinks import webhook_of
from app.serve.handover import Begin, Handover, SourceReport
from app.serve.hub import Hub
from app.serve.settings import Values
from app.serve.source_view import SourceView
from app.serve.warm_up import warm_up_for_many
from pipeline.core.problem import one_line
from pipeline.core.stats import Snapshot

WATCHING = "watching"
"""The group of calls that wait for pictures and bodies."""
REPORTING = "reporting"
"""The group of calls that say that the worker is well: a disk that hangs never holds them up."""
GROUPS = {WATCHING: 96, REPORTING: 2}
THREADS = 16
"""Threads for all other calls."""


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker is, once it is ready.

    Attributes:
        node: Ray's id of its machine.
        host: The machine's name.
        pid: The number of its process.
        device: What computes: the GPU's name, or "cpu".
        memory_bytes: The GPU memory that its process holds; 0 without a GPU.
        cost: The share of its time that a source at 30 frames a second with one person takes,
            measured at its start.
        reports: The estimator's lines about its engines.
    """

    node: str
    host: str
    pid: int
    device: str
    memory_bytes: int
    cost: float
    reports: tuple[str, ...]


@dataclass(frozen=True)
class WorkerReport:
    """How a worker stands: its sources by name, and lines of warning since the last report."""

    sources: dict[str, SourceReport]
    warnings: tuple[str, ...]
    at_s: float


class Worker:
    """Runs sources for a controller. Made by Ray, in a process of its own.

    Args:
        spec: What all workers are made with.
        id: Its name.
    """

    def __init__(self, spec: ClusterSpec, id: str) -> None:
        self._spec, self._id = spec, id
        self._fault: BaseException | None = None
        self._warnings: list[str] = []
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._facts: WorkerFacts | Exception
        try:
            self._facts = self._begin(spec)
        except Exception as error:
            # Told by `facts`: what an actor's own making raises comes out as its death.
            self._facts = error

    def _begin(self, spec: ClusterSpec) -> WorkerFacts:
        with ExitStack() as stack:
            estimator = spec.load(spec.config)
            stack.callback(estimator.close)
            # Before the first source, whose first frames would wait for it.
            warm_up_for_many(estimator, spec.config, events=spec.motion is not None)
            cost = window_cost(estimator)
            leave_out_loaded()
            self._hub = stack.enter_context(
                Hub(
                    spec.config,
                    estimator,
                    spec.folder,
                    self._ended,
                    spec.motion,
                    self._hook(stack),
                    self._warn,
                    spec.make_source,
                )  # fmt: skip
            )
            self._stack = stack.pop_all()
        gpu = estimator.device.type == "cuda"
        return WorkerFacts(
            ray_api.this_node(),
            socket.gethostname(),
            os.getpid(),
            torch.cuda.get_device_name(estimator.device) if gpu else "cpu",
            torch.cuda.memory_reserved(estimator.device) if gpu else 0,
            cost,
            estimator.reports,
        )

    def facts(self) -> WorkerFacts:
        """Return what the worker is.

        Raises:
            WeightsError, ValueError, RuntimeError: The estimator could not be made.
        """
        if isinstance(self._facts, Exception):
            raise self._facts
        return self._facts

    def report(self) -> WorkerReport:
        """Return how the worker's sources stand.

        Raises:
            RuntimeError: The estimator has failed for good, so the worker is of no use any more.
        """
        if self._fault is not None:
            raise RuntimeError(f"its model failed: {one_line(self._fault)}")
        with self._lock:
            warnings, self._warnings = tuple(self._warnings), []
        return WorkerReport(self._hub.reports(), warnings, time.monotonic())

    def end(self) -> None:
        """End all sources and wait until their files are complete; no other call may follow."""
        self._stack.close()

    # As the hub's own; the controller and the page call them.

    def prepare(self, name: str, config: Config, every: int) -> None:
        self._hub.prepare(name, config, every)

    def withdraw(self, name: str) -> None:
        self._hub.withdraw(name)

    def begin(self, name: str, config: Config, how: Begin) -> None:
        self._hub.begin(name, config, how)

    def hand_over(self, name: str) -> Handover:
        return self._hub.hand_over(name)

    def remove(self, name: str) -> None:
        self._hub.remove(name)

    def change(self, name: str, values: Values) -> bool:
        return self._hub.change(name, values)

    def restart(self, name: str) -> None:
        self._hub.restart(name)

    def record(self, name: str, on: bool) -> str | None:
        return self._hub.record(name, on)

    def figures(self) -> list[tuple[SourceView, Snapshot]]:
        return self._hub.figures()

    def written(self) -> set[str]:
        return self._hub.written()

    def picture(self, name: str, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        return self._hub.picture(name, after, timeout_s)

    def snapshot(self, name: str) -> bytes:
        return self._hub.snapshot(name)

    def bodies(self, name: str, after: int, timeout_s: float) -> list[tuple[int, str]]:
        return self._hub.bodies(name, after, timeout_s)

    def view(self, name: str, after: int | None, timeout_s: float) -> Any:
        return self._hub.view(name, after, timeout_s)

    def events(self, name: str, after: int) -> list[tuple[int, str]]:
        return self._hub.events(name, after)

    def strip(self, name: str, number: int) -> bytes:
        return self._hub.strip(name, number)

    def _hook(self, stack: ExitStack) -> Sink | None:
        """The way to the webhook. Each worker has an outbox of its own, beside the others': one
        that takes the place of a dead worker has its name, and sends what that one left."""
        options = self._spec.webhook
        if options is None:
            return None
        outbox = options.outbox or Path(OUTBOX)
        own = outbox.with_name(f"{outbox.stem}-{self._id}{outbox.suffix}")
        return webhook_of(stack, replace(options, outbox=own))

    def _ended(self, error: BaseException) -> None:
        self._fault = error

    def _warn(self, line: str) -> None:
        with self._lock:
            self._warnings.append(line)
