"""The workers of `run --cluster` as the command sees them."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from app.clips_in_turn import TurnProgress, Turns
from app.cluster import ray_api
from app.cluster.placement import MOST_DEATHS
from app.cluster.ray_api import Gone, call, result
from app.cluster.run_worker import RunWorker
from app.cluster.workers import Places
from app.config import Config
from app.run_report import Progress
from app.run_workers import Share
from app.source_result import Result, failed
from pipeline.core.problem import Notice, one_line

_LOOK_S = 0.2
_THREADS = 4
_RESULTS_S = 10.0
_START_S = 120.0
"""How long a worker may take to start."""


class Worker:
    """A worker as the command sees it; it begins anew where its process has died.

    Attributes:
        done: Whether it has no more to do.
        failure: Why it cannot go on, "" if it can.
    """

    def __init__(self, number: int, spot: Places, others: Sequence[Places]) -> None:
        self.number, self.done, self.failure = number, False, ""
        self._spot, self._others = spot, others
        self._begun = 0
        self.begin()

    def begin(self) -> None:
        """Start its process."""
        # Its machine may have gone with it.
        there = {node.id for node in ray_api.nodes()}
        spot = next((s for s in (self._spot, *self._others) if s.node in there), self._spot)
        self._begun += 1
        self._begun_s = self.heard_s = time.monotonic()
        self._answered = False
        self.handle = ray_api.start_actor(
            RunWorker, name=f"run-{os.getpid()}-{self.number}-{self._begun}",
            node=spot.node, cpus=spot.cpus, gpus=spot.gpus, threads=_THREADS, detached=False,
        )  # fmt: skip
        self._asked = call(self.handle, "progress")

    def stop(self) -> None:
        call(self.handle, "stop")

    def end(self) -> None:
        ray_api.kill(self.handle)

    def look(self, stopping: bool) -> None:
        """Take its progress and its results, and give it what is next."""
        raise NotImplementedError

    def hear(self, name: str) -> Progress | None:
        """Return the progress of the clip of a name, "" for a share, if it is known anew."""
        now = None
        if self._asked in ray_api.finished([self._asked]):
            with suppress(Gone):  # What it runs says so too.
                now = result(self._asked, _LOOK_S)
                self._answered, self.heard_s = True, time.monotonic()
            self._asked = call(self.handle, "progress")
        # An answer may be of the clip before.
        return now[1] if now is not None and now[0] == name else None

    @property
    def is_late(self) -> bool:
        """Whether it should have started by now."""
        return not self._answered and time.monotonic() - self._begun_s > _START_S

    def warn(self, line: str) -> None:
        warnings.warn(f"worker {self.number}: {line}", Notice, stacklevel=2)


_LATE = f"its worker has not started within {_START_S:g} s: are the cores taken?"


class TurnWorker(Worker):
    """A worker that runs clips one after the other."""

    def __init__(
        self,
        number: int,
        spot: Places,
        others: Sequence[Places],
        turns: Turns,
        deaths: Counter[str],
        progress: TurnProgress,
        on_result: Callable[[Result], None],
    ) -> None:
        self._turns, self._deaths, self._progress = turns, deaths, progress
        self._on_result, self._show = on_result, progress.of(f"worker {number}")
        self._deaths_at_start = 0
        super().__init__(number, spot, others)

    def begin(self) -> None:
        super().begin()
        self._clip: tuple[str, Config] | None = None
        self._running: Any = None
        self._ready = False

    def look(self, stopping: bool) -> None:
        now = self.hear("" if self._clip is None else self._clip[0])
        if now is not None:
            self._show(now)
        if self.is_late:
            self._give_up(_LATE)
        elif self._running is None:
            self._next()
        elif self._running in ray_api.finished([self._running]):
            try:
                self._take(result(self._running, _RESULTS_S))
            except Gone as error:
                self._died(error, stopping)
            except Exception as error:
                self._give_up(one_line(error))

    def _next(self) -> None:
        self._clip = self._turns.next()
        if self._clip is None:
            self.done = True
        elif not self._ready:
            # Loaded for the first clip that it gets: there may be none.
            self._running = call(self.handle, "load", self._clip[1])
        else:
            self._running = call(self.handle, "run_clip", *self._clip)

    def _take(self, answer: Any) -> None:
        """Take the answer of `load` or of `run_clip`."""
        assert self._clip is not None
        notices = answer
        if self._ready:
            one, notices = answer
            self._on_result(one)
            self._progress.ended(f"worker {self.number}", one)
            self._running = None
        else:
            self._ready = True
            self._running = call(self.handle, "run_clip", *self._clip)
        for line in notices:
            warnings.warn(line, Notice, stacklevel=2)

    def _died(self, error: Gone, stopping: bool) -> None:
        assert self._clip is not None
        # It may run on where its answer was late: two would write the same files.
        self.end()
        name, config = self._clip
        if not self._ready:
            # No clip has part in that.
            self._turns.again(name, config)
            self._deaths_at_start += 1
            if stopping or self._deaths_at_start >= MOST_DEATHS:
                self.done, self.failure = True, f"its worker could not start: {error}"
                return
            self.warn(f"{error}; it begins again")
        else:
            self._deaths[name] += 1
            if stopping or self._deaths[name] >= MOST_DEATHS:
                end = failed(name, f"{self._deaths[name]} workers ended with it: {error}")
                self._on_result(end)
                self._progress.ended(f"worker {self.number}", end)
            else:
                self._turns.again(name, config)
                self.warn(f"{error}; it begins again, with {name}")
        if stopping:
            self.done = True
        else:
            self.begin()

    def _give_up(self, why: str) -> None:
        self.end()
        self.done, self.failure = True, why
        if self._clip is not None:
            self._turns.again(*self._clip)
        self.warn(why)


class ShareWorker(Worker):
    """A worker that runs a share of all sources side by side."""

    def __init__(
        self,
        number: int,
        spot: Places,
        others: Sequence[Places],
        share: Share,
        on_progress: Callable[[Progress], None],
        on_result: Callable[[Result], None],
    ) -> None:
        self._share, self._show, self._on_result = share, on_progress, on_result
        self._deaths = 0
        super().__init__(number, spot, others)

    def begin(self) -> None:
        super().begin()
        self._running = call(self.handle, "run", self._share)

    def look(self, stopping: bool) -> None:
        now = self.hear("")
        if now is not None:
            self._show(now)
        if self.is_late:
            self._fail(_LATE)
            return
        if self._running not in ray_api.finished([self._running]):
            return
        try:
            results, notices = result(self._running, _RESULTS_S)
        except Gone as error:
            self._deaths += 1
            # It may run on where its answer was late: two would write the same files.
            self.end()
            if self._deaths >= MOST_DEATHS or stopping:
                self._fail(f"its worker ended {self._deaths} times: {error}")
            else:
                self.warn(f"{error}; it begins again, with {', '.join(self._share)}")
                self.begin()
        except Exception as error:
            self._fail(one_line(error))
        else:
            self.done = True
            for line in notices:
                warnings.warn(line, Notice, stacklevel=2)
            for one in results:
                self._on_result(one)

    def _fail(self, why: str) -> None:
        self.done, self.failure = True, why
        for name in self._share:
            self._on_result(failed(name, why))
