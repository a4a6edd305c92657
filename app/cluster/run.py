"""`run A B C --cluster`: the sources shared out over the workers of a Ray cluster."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from app.cluster import ray_api
from app.cluster.placement import MOST_DEATHS
from app.cluster.ray_api import Gone, call, result
from app.cluster.spec import absolute
from app.cluster.workers import MOST_ON_GPU, Places, places
from app.config import Config
from app.multi_run import ProgressSum, run_many
from app.run_report import Progress, RunReport
from app.run_workers import Share, shares_of
from app.source_result import Result
from pipeline.core.problem import Notice, one_line

_LOOK_S = 0.2
_THREADS = 4
_RESULTS_S = 10.0
_START_S = 120.0
"""How long a worker may take to start."""
_END_S = 60.0
"""How long sources may take to end, with complete files, once they are stopped."""


class RunWorker:
    """Runs a share of the sources; made by Ray, in a process of its own."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._progress: Progress | None = None
        self._ended: list[Result] = []
        self._notices: list[str] = []

    def run(self, configs: Share) -> list[Result]:
        """Run sources to their ends, or until `stop` is called; as `multi_run.run_many`."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", Notice)
            results = run_many(
                configs, on_progress=self._take, stop=self._stop, on_result=self._ended.append
            )
        self._notices = [str(one.message) for one in caught if issubclass(one.category, Notice)]
        return results

    def progress(self) -> tuple[Progress | None, list[Result]]:
        """Return the progress of the run, None before its first frame, and the results of clips
        that have ended before the others."""
        return self._progress, list(self._ended)

    def notices(self) -> list[str]:
        """Return the lines that the run has said of its settings."""
        return self._notices

    def stop(self) -> None:
        """End the sources; what was read is still written."""
        self._stop.set()

    def _take(self, progress: Progress) -> None:
        self._progress = progress


def run_in_cluster(
    configs: Mapping[str, Config],
    address: str,
    workers: int | None,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_build: Callable[[str, int, int], None] | None = None,
) -> list[Result]:
    """Run several sources in a cluster, to their ends or until ``stop`` is set.

    Each source is decoded, and its files are written, where its worker runs: on machines without a
    common folder they are at the same paths there. Where a worker dies, its sources that have not
    ended begin again, in the same files; one that ends `MOST_DEATHS` workers fails.

    Args:
        configs: Each source's configuration, by name.
        address: As `ray_api.connected`.
        workers: The number of workers; None: as many as the machines carry. No more than sources.
        on_progress: Called with the sum of all sources' progress.
        stop: Ends all sources when it is set.
        on_build: Not called: engines are built on the workers.

    Returns:
        The results in the order of the sources.

    Raises:
        ConfigError: There is no cluster at the address.
        RuntimeError: Ray is missing, or no machine of the cluster can run a worker.
    """
    configs = {name: absolute(config) for name, config in configs.items()}
    with ray_api.connected(address):
        spots = _spots(next(iter(configs.values())), workers)[: len(configs)]
        if not spots:
            raise RuntimeError("--cluster: no machine of the cluster can run a worker")
        progress = ProgressSum(on_progress)
        shares = shares_of(configs, len(spots))
        running = [
            _Running(number, spot, spots, share, progress.of(f"worker {number}"))
            for number, (spot, share) in enumerate(zip(spots, shares), 1)
        ]
        with _ended(running):
            _attend(running, stop)
        results = {one.name: one for each in running for one in each.results}
        return [results[name] for name in configs]


class _Running:
    """A worker as the command sees it."""

    def __init__(
        self,
        number: int,
        spot: Places,
        others: Sequence[Places],
        share: Share,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.number, self.results = number, list[Result]()
        # Clips that have ended with workers that died since, and with this one.
        self._ended, self._ended_here = list[Result](), list[Result]()
        self._in_turn = False
        self._spot, self._others = spot, others
        self._share, self._on_progress = share, on_progress
        self._deaths, self._answered = 0, False
        self._asked: Any = None
        self._begin()

    @property
    def done(self) -> bool:
        return bool(self.results)

    def stop(self) -> None:
        call(self._handle, "stop")

    def look(self, stopping: bool) -> None:
        """Take the worker's progress, and its results."""
        if self._asked in ray_api.finished([self._asked]):
            try:
                now, self._ended_here = result(self._asked, _LOOK_S)
                if now is not None:
                    self._in_turn = now.clips > 0
                    self._on_progress(now)
            except Gone:
                pass  # Its run says so too, below.
            self._asked, self._answered = call(self._handle, "progress"), True
        if not self._answered and time.monotonic() - self._begun_s > _START_S:
            self._fail(f"its worker has not started within {_START_S:g} s: are the cores taken?")
            return
        if self._run not in ray_api.finished([self._run]):
            return
        try:
            self.results = self._ended + result(self._run, _RESULTS_S)
            self._warn_notices()
        except Gone as error:
            self._died(error, stopping)
        except Exception as error:
            self._fail(one_line(error))

    def _died(self, error: Gone, stopping: bool) -> None:
        """Begin again with the clips that have not ended."""
        # It may run on where its answer was late: two would write the same files.
        ray_api.kill(self._handle)
        self._deaths = 1 if self._ended_here else self._deaths + 1
        self._take_out(self._ended_here)
        self._ended_here = []
        if stopping or (self._deaths >= MOST_DEATHS and not self._in_turn):
            self._fail(f"its worker ended {self._deaths} times: {error}")
            return
        if self._deaths >= MOST_DEATHS:
            # It ran alone: the others had no part in it.
            name = next(iter(self._share))
            self._take_out([_failed(name, f"{self._deaths} workers ended with it: {error}")])
            self._deaths = 0
        if self._share:
            line = f"worker {self.number}: {error}; it begins again, with {', '.join(self._share)}"
            warnings.warn(line, Notice, stacklevel=2)
            self._begin()
        else:
            self.results = self._ended

    def _take_out(self, results: list[Result]) -> None:
        for one in results:
            self._ended.append(one)
            del self._share[one.name]

    def end(self) -> None:
        ray_api.kill(self._handle)

    def _warn_notices(self) -> None:
        with suppress(Gone):  # Its files are complete all the same.
            for line in result(call(self._handle, "notices"), _RESULTS_S):
                warnings.warn(line, Notice, stacklevel=2)

    def _begin(self) -> None:
        # Its machine may have gone with it.
        there = {node.id for node in ray_api.nodes()}
        spot = next((s for s in (self._spot, *self._others) if s.node in there), self._spot)
        self._begun_s = time.monotonic()
        self._handle = ray_api.start_actor(
            RunWorker, name=f"run-{os.getpid()}-{self.number}-{self._deaths}",
            node=spot.node, cpus=spot.cpus, gpus=spot.gpus, threads=_THREADS, detached=False,
        )  # fmt: skip
        self._run = call(self._handle, "run", self._share)
        self._asked = call(self._handle, "progress")

    def _fail(self, why: str) -> None:
        self.results = self._ended + [_failed(name, why) for name in self._share]


def _failed(name: str, why: str) -> Result:
    return Result(name, RunReport(0, 0, ended="an error"), f"{name}: {why}")


def _attend(running: list[_Running], stop: threading.Event) -> None:
    end_s: float | None = None
    while left := [one for one in running if not one.done]:
        if stop.is_set() and end_s is None:
            end_s = time.monotonic() + _END_S
            for one in left:
                one.stop()
        if end_s is not None and time.monotonic() > end_s:
            for one in left:
                one.end()
        time.sleep(_LOOK_S)
        for one in left:
            one.look(end_s is not None)


@contextmanager
def _ended(running: list[_Running]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in running:
            one.end()


def _spots(config: Config, workers: int | None) -> list[Places]:
    """The place of each worker, those of one machine not side by side in the list: sources that are
    fewer than workers are spread over the machines."""
    nodes = ray_api.nodes()
    gpus = any(node.gpus >= 1 for node in nodes)
    on_gpu = MOST_ON_GPU if config.device != "cpu" and gpus else None
    each = [[place] * place.count for place in places(nodes, on_gpu, workers, ())]
    longest = max(map(len, each), default=0)
    return [own[k] for k in range(longest) for own in each if k < len(own)]
