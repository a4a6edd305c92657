"""The workers of `run --cluster` as the command sees them, and those that run clip after clip."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from app.clips_in_turn import TurnProgress, Turns
from app.cluster import ray_api
from app.cluster.placement import MOST_DEATHS
from app.cluster.ray_api import Gone, call, result
from app.cluster.run_worker import RunWorker
from app.cluster.spec import continued
from app.cluster.workers import Places
from app.config import Config
from app.run_report import Progress
from app.source_result import Result, failed
from pipeline.core.problem import Notice, one_line

_LOOK_S = 0.2
_THREADS = 4
RESULTS_S = 10.0
_START_S = 120.0
"""How long a worker may take to start."""
_LATE = f"its worker has not started within {_START_S:g} s: are the cores taken?"
GONE = "its machine has gone"


class Worker:
    """A worker as the command sees it; it begins anew where its process has died.

    Attributes:
        done: Whether it has no more to do.
        failure: Why it cannot go on, "" if it can.
    """

    def __init__(self, number: int, spot: Places) -> None:
        self.number, self.done, self.failure = number, False, ""
        self._spot = spot
        self.begin()

    def begin(self) -> None:
        """Start its process."""
        spot = self._spot
        self._begun_s = self.heard_s = time.monotonic()
        self._answered = False
        self.handle = ray_api.start_actor(
            RunWorker, name=f"run-{uuid4().hex}",
            node=spot.node, cpus=spot.cpus, gpus=spot.gpus, threads=_THREADS, detached=False,
        )  # fmt: skip
        self._asked = call(self.handle, "progress")

    def stop(self) -> None:
        """Let what it runs end with complete files; end it at once where it runs nothing yet."""
        if self._has_begun:
            call(self.handle, "stop")
        else:
            self.end()
            self.done = True

    @property
    def _has_begun(self) -> bool:
        """Whether it may have something to finish."""
        return self._answered

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

    def why_not_started(self) -> str:
        """Return why it will not start, "" if it has, or still may."""
        if self._answered:
            return ""
        if self._is_gone:
            return GONE
        return _LATE if time.monotonic() - self._begun_s > _START_S else ""

    @property
    def _is_gone(self) -> bool:
        """Whether its machine has gone."""
        return self._spot.node not in nodes_there()

    def warn(self, line: str) -> None:
        warnings.warn(f"worker {self.number}: {line}", Notice, stacklevel=2)


def nodes_there() -> set[str]:
    """The ids of the machines that are there."""
    return {node.id for node in ray_api.nodes()}


class TurnWorker(Worker):
    """A worker that runs clips one after the other."""

    def __init__(
        self,
        number: int,
        spot: Places,
        turns: Turns,
        deaths: Counter[str],
        progress: TurnProgress,
        on_result: Callable[[Result], None],
    ) -> None:
        self._turns, self._deaths, self._progress = turns, deaths, progress
        self._on_result, self._show = on_result, progress.of(f"worker {number}")
        self._deaths_at_start = 0
        super().__init__(number, spot)

    def begin(self) -> None:
        super().begin()
        self._clip: tuple[str, Config] | None = None
        self._running: Any = None
        self._ready = False

    @property
    def runs_clip(self) -> bool:
        """Whether a clip is being run."""
        return self._ready and self._running is not None

    @property
    def _has_begun(self) -> bool:
        return self.runs_clip

    def look(self, stopping: bool) -> None:
        now = self.hear("" if self._clip is None else self._clip[0])
        if now is not None:
            self._show(now)
        if why := self.why_not_started():
            self._give_up(why)
        elif self._running is None:
            self._next()
        elif self._running in ray_api.finished([self._running]):
            try:
                self._take(result(self._running, RESULTS_S))
            except Gone as error:
                self._died(str(error), stopping)
            except Exception as error:
                # With a clip, that its estimator is of no use any more: another process has a new
                # one. Without, that there is none.
                if self._ready:
                    self._died(one_line(error), stopping)
                else:
                    self._give_up(one_line(error))

    def _next(self) -> None:
        self._clip = self._turns.next()
        if self._clip is None:
            # One that another worker runs may come back.
            self.done = self._turns.is_over
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
            self._ended(one)
            self._running = None
        else:
            self._ready = True
            self._running = call(self.handle, "run_clip", *self._clip)
        for line in notices:
            warnings.warn(line, Notice, stacklevel=2)

    def _ended(self, one: Result) -> None:
        self._turns.ended(one.name)
        self._on_result(one)
        self._progress.ended(f"worker {self.number}", one)

    def _again(self) -> None:
        """Put its clip back."""
        if self._clip is not None:
            self._turns.again(*self._clip)
            self._progress.begins_again(f"worker {self.number}")

    def _died(self, error: str, stopping: bool) -> None:
        assert self._clip is not None
        # It may run on where its answer was late: two would write the same files.
        self.end()
        name = self._clip[0]
        if not self._ready:
            # No clip has part in that.
            self._again()
            self._deaths_at_start += 1
            if stopping or self._deaths_at_start >= MOST_DEATHS:
                self.done, self.failure = True, f"its worker could not start: {error}"
                return
            self.warn(f"{error}; it begins again")
        else:
            self._deaths[name] += 1
            if stopping or self._deaths[name] >= MOST_DEATHS:
                self._ended(failed(name, f"{self._deaths[name]} workers ended with it: {error}"))
            else:
                self._clip = name, continued(self._clip[1])
                self._again()
                self.warn(f"{error}; it begins again, with {name}")
        if stopping:
            self.done = True
        elif self._is_gone:
            # The other machines' cores are held by their workers, which take its clip.
            self.done, self.failure = True, GONE
        else:
            self.begin()

    def _give_up(self, why: str) -> None:
        self.end()
        self.done, self.failure = True, why
        self._again()
        self.warn(why)
