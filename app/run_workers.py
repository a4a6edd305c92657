"""`run A B C --workers N`: several processes share the sources, each with an estimator of its own.

One process's Python bounds how many sources a GPU serves, long before the GPU does. Each worker
runs its sources from the feed to the files (`multi_run.run_many`); the parent hands out the
sources, adds up the progress, and collects the results.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from app.config import Config
from app.multi_run import ProgressSum, run_many
from app.run_report import Progress, RunReport
from app.source_result import Result
from app.worker_process import Target, WorkerProcess, ending_of
from pipeline.core.problem import Notice, one_line

_IDLE_S = 0.05
"""How soon a signal that has set `stop` is noticed."""

Share = dict[str, Config]
"""The sources of one worker, each with its configuration, by name."""


def shares_of(configs: Mapping[str, Config], workers: int) -> list[Share]:
    """Return the sources of each worker: as many as there are sources at most, in turn, so that
    their numbers differ by one at most."""
    names = list(configs)
    count = min(workers, len(names))
    return [{name: configs[name] for name in names[first::count]} for first in range(count)]


def run_in_workers(
    configs: Mapping[str, Config],
    workers: int,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_build: Callable[[str, int, int], None] | None = None,
    work: Target | None = None,
) -> list[Result]:
    """Run several sources in several processes, to their ends or until ``stop`` is set.

    A worker that ends early ends its sources as failed; the others go on.

    Args:
        configs: Each source's configuration, by name; the first one's describes the estimators.
        workers: How many processes.
        on_progress: Called with the sum of all sources' progress.
        stop: Ends all sources when it is set.
        on_build: Called with (name, done, of) while the first worker builds its engines.
        work: What a worker runs with its share, for tests.

    Returns:
        The results in the order of the sources.

    Raises:
        RuntimeError: No worker could run its sources; the line says why.
    """
    progress = ProgressSum(on_progress)
    with ExitStack() as stack:
        running: list[_Running] = []
        for number, share in enumerate(shares_of(configs, workers), 1):
            worker = WorkerProcess(work or _work, share)
            stack.callback(worker.end)
            # The engines are the same in all of them: one process's progress speaks for all.
            build = on_build if number == 1 else None
            running.append(_Running(number, worker, share, progress.of(f"worker {number}"), build))
        _attend(running, stop)
    failures = [one.failure for one in running]
    if all(failures):
        raise RuntimeError(failures[0])
    results = {result.name: result for one in running for result in one.results()}
    return [results[name] for name in configs]


class _Running:
    """A worker as its parent sees it: its sources, and what it has sent."""

    def __init__(
        self,
        number: int,
        worker: WorkerProcess,
        share: Share,
        on_progress: Callable[[Progress], None],
        on_build: Callable[[str, int, int], None] | None,
    ) -> None:
        self.number, self.connection, self.names = number, worker.connection, list(share)
        self.done = False
        self.failure = ""
        self._worker, self._on_progress, self._on_build = worker, on_progress, on_build
        self._results: list[Result] | None = None

    def receive(self) -> None:
        """Take one message, or the end of them."""
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            self._ended()
            return
        if kind == "progress":
            self._on_progress(content)
        elif kind == "build" and self._on_build is not None:
            self._on_build(*content)
        elif kind == "notice":
            # One that several workers give is shown once, as any repeated warning.
            warnings.warn(content, Notice, stacklevel=2)
        elif kind == "failure":
            self.failure = content
        elif kind == "results":
            self._results = content

    def stop(self) -> None:
        # It may have ended meanwhile, which the next message shows.
        with suppress(OSError):
            self.connection.send("stop")

    def results(self) -> list[Result]:
        """Return what became of its sources."""
        if self._results is not None:
            return self._results
        ended = RunReport(0, 0, ended="an error")
        return [Result(name, ended, f"{name}: {self.failure}") for name in self.names]

    def _ended(self) -> None:
        self.done = True
        status = self._worker.end()
        if self._results is None and not self.failure:
            self.failure = f"its worker process ended unexpectedly ({ending_of(status)})"
        if self.failure:
            # At once: the other workers' sources may go on for days.
            lost = ", ".join(self.names)
            warnings.warn(f"worker {self.number} ended early, with {lost}", Notice, stacklevel=2)


def _attend(running: list[_Running], stop: threading.Event) -> None:
    """Take the workers' messages until all have ended; once ``stop`` is set, end them."""
    ending = False
    while left := {one.connection: one for one in running if not one.done}:
        if stop.is_set() and not ending:
            ending = True
            for one in left.values():
                one.stop()
        for ready in wait(list(left), _IDLE_S):
            left[ready].receive()  # type: ignore[index]


def _work(connection: Connection, configs: Share) -> None:
    """Run sources in the worker: send progress while they run, and their results at the end."""
    send = _Sender(connection)
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, stop), daemon=True).start()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_notice(message: Warning | str, *place: Any, **more: Any) -> None:
            if isinstance(message, Notice):
                send("notice", str(message))
            else:
                show(message, *place, **more)

        warnings.showwarning = show_notice
        try:
            results = run_many(
                configs,
                on_progress=lambda now: send("progress", now),
                stop=stop,
                on_build=lambda *built: send("build", built),
            )
        except Exception as error:
            send("failure", one_line(error))
        else:
            send("results", results)


class _Sender:
    """Sends messages to the parent, from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def __call__(self, kind: str, content: Any) -> None:
        # A parent that has ended hears nothing; the listening thread ends the sources.
        with self._lock, suppress(OSError):
            self._connection.send((kind, content))


def _listen(connection: Connection, stop: threading.Event) -> None:
    """End the sources when the parent says so, or has ended."""
    with suppress(EOFError, OSError):
        connection.recv()
    stop.set()
