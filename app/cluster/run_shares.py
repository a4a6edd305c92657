"""The workers of `run --cluster` that run a share of all sources side by side, as the command sees
them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence

from app.cluster import ray_api
from app.cluster.placement import MOST_DEATHS, STEADY_S
from app.cluster.ray_api import Gone, call, result
from app.cluster.run_clients import GONE, RESULTS_S, Worker, nodes_there
from app.cluster.spec import continued
from app.cluster.workers import Places
from app.run_report import Progress
from app.run_workers import Share
from app.source_result import Result, failed
from pipeline.core.problem import Notice, one_line


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
        self._others, self._deaths = others, 0
        super().__init__(number, spot)

    def begin(self) -> None:
        super().begin()
        self._running = call(self.handle, "run", self._share)

    def look(self, stopping: bool) -> None:
        now = self.hear("")
        if now is not None:
            self._show(now)
        if why := self.why_not_started():
            self._fail(why)
            return
        if self._running not in ray_api.finished([self._running]):
            return
        try:
            results, notices = result(self._running, RESULTS_S)
        except Gone as error:
            if time.monotonic() - self._begun_s > STEADY_S:
                self._deaths = 0
            self._deaths += 1
            # It may run on where its answer was late: two would write the same files.
            self.end()
            if self._deaths >= MOST_DEATHS or stopping:
                self._fail(f"its worker ended {self._deaths} times: {error}")
            else:
                self._begin_again(str(error))
        except Exception as error:
            self._fail(one_line(error))
        else:
            self.done = True
            # Its cores are another worker's, where a machine goes.
            self.end()
            for line in notices:
                warnings.warn(line, Notice, stacklevel=2)
            for one in results:
                self._on_result(one)

    def _begin_again(self, error: str) -> None:
        if self._is_gone:
            there = nodes_there()
            other = next((spot for spot in self._others if spot.node in there), None)
            if other is None:
                self._fail(GONE)
                return
            self._spot = other
        self.warn(f"{error}; it begins again, with {', '.join(self._share)}")
        self._share = {
            name: continued(config, self._deaths) for name, config in self._share.items()
        }
        self.begin()

    def _fail(self, why: str) -> None:
        # Or it would run later, when cores are free.
        self.end()
        self.done, self.failure = True, why
        for name in self._share:
            self._on_result(failed(name, why))
