"""`run A B C --workers N`: several processes share the sources, each with an estimator of its own.

One process's Python bounds how many sources a GPU serves, long before the GPU does. Each worker
runs its sources from the feed to the files: clips one after the other, as they come
(`clips_in_turn`), or the share of the sources that it was started with (`multi_run.run_many`). The
parent hands them out, adds up the progress, and collects the results.
"""

from __future__ import annotations

import queue
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from app.build import load
from app.clips_in_turn import TurnProgress, Turns, can_run_in_turn, run_clip
from app.config import Config
from app.garbage import leave_out_loaded
from app.multi_run import ProgressSum, run_many
from app.run_report import Progress
from app.source_result import Result, failed, not_begun
from app.two_passes import STOPPED
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
    on_result: Callable[[Result], None] = lambda _: None,
    work: Target | None = None,
) -> list[Result]:
    """Run several sources in several processes, to their ends or until ``stop`` is set.

    A worker that ends early ends the sources that it has as failed; the others go on.

    Args:
        configs: Each source's configuration, by name; the first one's describes the estimators.
        workers: How many processes.
        on_progress: Called with the sum of all sources' progress.
        stop: Ends all sources when it is set.
        on_build: Called with (name, done, of) while the first worker builds its engines.
        on_result: Called with the result of each source that was begun, as soon as it is known.
        work: What a worker runs with its share, for tests.

    Returns:
        The results in the order of the sources.

    Raises:
        RuntimeError: No worker could run its sources; the line says why.
    """
    results: dict[str, Result] = {}
    turns = Turns(configs, stop) if all(map(can_run_in_turn, configs.values())) else None
    turn_progress = TurnProgress(len(configs), on_progress)
    progress = ProgressSum(on_progress) if turns is None else turn_progress

    def ended(worker: str, result: Result) -> None:
        results[result.name] = result
        on_result(result)
        if turns is not None:
            turns.ended(result.name)
            turn_progress.ended(worker, result)

    with ExitStack() as stack:
        running: list[_Running] = []
        for number, share in enumerate(shares_of(configs, workers), 1):
            name = f"worker {number}"
            if turns is None:
                worker = WorkerProcess(work or _work, share)
            else:
                worker = WorkerProcess(work or _work_in_turn, next(iter(share.values())))
            stack.callback(worker.end)
            # The engines are the same in all of them: one process's progress speaks for all.
            build = on_build if number == 1 else None
            names = list(share) if turns is None else []
            running.append(
                _Running(
                    number, worker, names, turns, progress.of(name), build, partial(ended, name)
                )
            )
        _attend(running, stop)
    failures = [one.failure for one in running]
    if all(failures) and not results:
        raise RuntimeError(failures[0])
    for one in running:
        for name in one.names:
            results[name] = failed(name, one.failure)
    why = next(filter(None, failures), "")
    for name in configs.keys() - results.keys():
        # No worker is left, or the run was stopped.
        results[name] = not_begun(name) if stop.is_set() else failed(name, why)
    return [results[name] for name in configs]


class _Running:
    """A worker as its parent sees it: the sources that it has, and what it has sent."""

    def __init__(
        self,
        number: int,
        worker: WorkerProcess,
        names: list[str],
        turns: Turns | None,
        on_progress: Callable[[Progress], None],
        on_build: Callable[[str, int, int], None] | None,
        on_result: Callable[[Result], None],
    ) -> None:
        self.number, self.connection, self.names = number, worker.connection, names
        self.done = False
        self.failure = ""
        self._worker, self._turns = worker, turns
        self._on_progress, self._on_build, self._on_result = on_progress, on_build, on_result
        self._left = False

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
        elif kind == "result":
            self.names.remove(content.name)
            self._on_result(content)
        elif kind == "next":
            self._give()

    @property
    def runs_clip(self) -> bool:
        """Whether it runs a clip, which will be written all the same."""
        return self._turns is not None and bool(self.names)

    def stop(self) -> None:
        # It may have ended meanwhile, which the next message shows.
        with suppress(OSError):
            self.connection.send("stop")

    def _give(self) -> None:
        """Give the worker the next clip, or let it go."""
        turn = None if self._turns is None else self._turns.next()
        self.names, self._left = ([] if turn is None else [turn[0]]), turn is None
        with suppress(OSError):
            self.connection.send(turn)

    def _ended(self) -> None:
        self.done = True
        status = self._worker.end()
        if not self.failure and (self.names or (self._turns is not None and not self._left)):
            self.failure = f"its worker process ended unexpectedly ({ending_of(status)})"
        if self.failure:
            # At once: the other workers' sources may go on for days.
            lost = f", with {', '.join(self.names)}" if self.names else ""
            warnings.warn(f"worker {self.number} ended early{lost}", Notice, stacklevel=2)
            if self._turns is not None:
                # The clip that it ran, which no other worker begins again.
                for name in self.names:
                    self._on_result(failed(name, self.failure))


def _attend(running: list[_Running], stop: threading.Event) -> None:
    """Take the workers' messages until all have ended; once ``stop`` is set, end them."""
    ending = False
    while left := {one.connection: one for one in running if not one.done}:
        if stop.is_set() and not ending:
            ending = True
            for one in left.values():
                one.stop()
            if any(one.runs_clip for one in left.values()):
                print(STOPPED, file=sys.stderr, flush=True)
        for ready in wait(list(left), _IDLE_S):
            left[ready].receive()  # type: ignore[index]


def _work(connection: Connection, configs: Share) -> None:
    """Run a share of the sources in a worker."""
    stop, _ = _listen(connection)
    with _sending(connection) as send:
        results = run_many(
            configs,
            on_progress=lambda now: send("progress", now),
            stop=stop,
            on_build=lambda *built: send("build", built),
            side_by_side=True,
        )
        for result in results:
            send("result", result)


def _work_in_turn(connection: Connection, config: Config) -> None:
    """Run clips in a worker, each as it comes; the first one's configuration describes the
    estimator."""
    stop, clips = _listen(connection)
    with (
        _sending(connection) as send,
        closing(load(config, lambda *built: send("build", built))) as estimator,
    ):
        leave_out_loaded()
        send("next", None)
        while (clip := clips.get()) is not None:
            name, own = clip
            send("result", run_clip(name, own, estimator, lambda now: send("progress", now), stop))
            send("next", None)


@contextmanager
def _sending(connection: Connection) -> Iterator[_Sender]:
    """Send the parent what is sent in the block, its notices, and the error that ends it."""
    send = _Sender(connection)
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_notice(message: Warning | str, *place: Any, **more: Any) -> None:
            if isinstance(message, Notice):
                send("notice", str(message))
            else:
                show(message, *place, **more)

        warnings.showwarning = show_notice
        try:
            yield send
        except Exception as error:
            send("failure", one_line(error))


class _Sender:
    """Sends messages to the parent, from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def __call__(self, kind: str, content: Any) -> None:
        # A parent that has ended hears nothing; the listening thread ends the sources.
        with self._lock, suppress(OSError):
            self._connection.send((kind, content))


def _listen(connection: Connection) -> tuple[threading.Event, queue.Queue[Any]]:
    """Return what is set when the parent says "stop" or has ended, and the clips that it sends;
    None is the end of these."""
    stop, clips = threading.Event(), queue.Queue[Any]()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                if message == "stop":
                    stop.set()
                else:
                    clips.put(message)
        stop.set()
        clips.put(None)

    threading.Thread(target=listen, daemon=True).start()
    return stop, clips
