"""What the controller tells the page's process: a row for each source and each worker."""

from __future__ import annotations

from dataclasses import dataclass

from app.config import Config


@dataclass(frozen=True)
class SourceRow:
    """A source as the page's process sees it: where it is, and why it is nowhere."""

    name: str
    number: int
    worker: str | None
    epoch: int
    config: Config
    reason: str
    moves: int
    failovers: int
    every: int
    quarantined: bool


@dataclass(frozen=True)
class WorkerRow:
    """A worker as the page's process sees it.

    ``state`` is "starting", "ready", "draining" or "ending"; ``load`` is the share of its time that
    its sources take.
    """

    id: str
    node: str
    state: str
    device: str
    pid: int
    streams: int
    load: float


@dataclass(frozen=True)
class Table:
    """All sources and workers, and the lines of warning so far, numbered from the first."""

    sources: tuple[SourceRow, ...]
    workers: tuple[WorkerRow, ...]
    warnings: tuple[tuple[int, str], ...]
    trouble: str
