"""What the controller of a cluster knows: its sources and its workers, and what of it is kept."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from app.cluster.placement import WorkerLoad, is_suspect
from app.cluster.worker import WorkerFacts, WorkerReport
from app.config import Config
from app.serve.handover import BEGINNING, Begin

_COST_OVER_S = 5.0
"""Costs are means over this time, in seconds."""


@dataclass(eq=False)
class PlacedSource:
    """A source of the cluster.

    Attributes:
        name: Its name.
        config: Its settings, with its address.
        number: Its number, which no other source of the cluster ever has.
        begun_again: How often it has begun again with its workers.
        own_number: Its number with its worker, None before the first report.
        begin: How it begins with its next worker.
        worker: The id of its worker, None where it waits for one.
        epoch: How often it was placed.
        pending: The call that begins it with its worker; None once that has returned.
        placed_s: When it was placed last, by the monotonic clock.
        moving: Whether it is being moved now.
        deaths: How many workers died that had it, since it last ran steadily.
        moves, failovers: How often it was moved, and how often it lost its worker.
        every: Only each n-th of its frames is taken.
        reason: Why it has no worker, in a line.
        quarantined: Whether it is not placed again until a request begins it again.
    """

    name: str
    config: Config
    number: int
    begin: Begin = BEGINNING
    worker: str | None = None
    epoch: int = 0
    pending: Any = None
    placed_s: float = 0.0
    moving: bool = False
    deaths: int = 0
    moves: int = 0
    failovers: int = 0
    every: int = 1
    begun_again: int = 0
    own_number: int | None = None
    reason: str = ""
    quarantined: bool = False

    def kept(self) -> dict[str, Any]:
        """Return what a controller that takes this one's place needs of it."""
        left_out = ("pending", "moving", "placed_s")
        return {key: value for key, value in vars(self).items() if key not in left_out}


@dataclass(eq=False)
class KnownWorker:
    """A worker of the cluster.

    Attributes:
        id: Its name.
        node: The id of its machine.
        handle: What calls it.
        cpus: The cores that it holds of Ray's.
        gpus: The share of a GPU that it holds.
        begun_s: When it was started, or found, by the monotonic clock.
        ready: The call whose return says that it is ready; None once it is.
        facts: What it is; None before it is ready.
        asked: The call for its next report.
        asked_s: When that was made, by the monotonic clock.
        report: Its last report.
        draining: Whether its sources are to leave it.
        late: Whether a line has said that it is late to start.
    """

    id: str
    node: str
    handle: Any
    cpus: float
    gpus: float
    ready: Any = None
    facts: WorkerFacts | None = None
    asked: Any = None
    asked_s: float = 0.0
    report: WorkerReport | None = None
    draining: bool = False
    late: bool = False
    begun_s: float = field(default_factory=time.monotonic)
    _busy: deque[tuple[float, dict[str, dict[str, float]]]] = field(default_factory=deque)

    def take(self, report: WorkerReport) -> None:
        """Take a report."""
        self.report = report
        busy = {name: one.figures.busy_ms for name, one in report.sources.items()}
        self._busy.append((report.at_s, busy))
        while len(self._busy) > 2 and report.at_s - self._busy[1][0] >= _COST_OVER_S:
            self._busy.popleft()

    def stage_costs(self) -> dict[str, dict[str, float]]:
        """Return the share of the worker's time that each source takes, by name and stage; of a
        source that began within the last reports nothing is known."""
        if len(self._busy) < 2:
            return {}
        (then_s, then), (now_s, now) = self._busy[0], self._busy[-1]
        span_ms = max(now_s - then_s, 1e-3) * 1e3
        return {
            name: {stage: (ms - then[name].get(stage, 0.0)) / span_ms for stage, ms in busy.items()}
            for name, busy in now.items()
            if name in then
        }

    def costs(self) -> dict[str, float]:
        """Return what each source costs: its share of the busier stage's time."""
        shares = self.stage_costs()
        stage = _busiest(shares)
        return {name: one.get(stage, 0.0) for name, one in shares.items()}

    def load(self, sources: list[PlacedSource], most: int | None, guess: float) -> WorkerLoad:
        """Return the worker as the rules of placement see it.

        Args:
            sources: The sources that are placed on it.
            most: The most sources that it takes.
            guess: The cost of a source that was not measured yet.
        """
        costs = self.costs()
        return WorkerLoad(
            self.id,
            sum(costs.get(one.name, guess / one.every) for one in sources),
            len(sources),
            sum(is_suspect(one.deaths) for one in sources),
            self.facts is not None and not self.draining,
            most,
        )


def _busiest(shares: dict[str, dict[str, float]]) -> str:
    """The stage that all sources together keep busy most."""
    total: dict[str, float] = {}
    for one in shares.values():
        for stage, share in one.items():
            total[stage] = total.get(stage, 0.0) + share
    return max(total, key=lambda stage: total[stage], default="")
