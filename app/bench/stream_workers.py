"""30 Hz sources spread over several processes, each with a pipeline of its own on the same GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from app.bench import footage
from app.bench.decoded import DecodedPlayer
from app.bench.measure import memory_mb
from app.bench.pipelines import make_pipeline
from app.bench.rows import Settings
from app.bench.streams import LiveClock, Probe, Sources, WindowMaker, probe_of
from app.worker_process import WorkerProcess
from pipeline.capture.picture import empty_image
from pipeline.gpu.transfer import pinned_image

_HEADSTART_S = 0.05
"""From the word to begin to the first arrival, so that every worker hears it in time."""

MakeSources = Callable[[], tuple[Sources, dict[str, Any]]]
"""Makes a worker's sources, and describes its pipeline."""


def make_sources(
    settings: Settings, clip: Path | None, size: tuple[int, int], most: int, warm: int
) -> tuple[Sources, dict[str, Any]]:
    """Return the sources of a worker on a pipeline of its own, and the pipeline's description.

    Args:
        settings: The row's settings.
        clip: The path of the clip; None for the sample.
        size: The (width, height) of the frames.
        most: The most frames to load.
        warm: As `Sources`.
    """
    frames = footage.load_frames(clip, size, settings.people, most)
    player = footage.Player(footage.ready_frames(frames, settings))
    return _sources(settings, player, warm)


def make_decoded_sources(
    settings: Settings, clip: Path | None, warm: int
) -> tuple[Sources, dict[str, Any]]:
    """Return the sources of a worker that decode a clip while they play, and what `make_sources`
    returns with them.

    Args:
        settings: The row's settings.
        clip: The path of the clip; None for the sample.
        warm: As `Sources`.
    """
    allocate = pinned_image if settings.device == "cuda" else empty_image
    return _sources(settings, DecodedPlayer(clip or footage.SAMPLE, allocate), warm)


def _sources(settings: Settings, player: WindowMaker, warm: int) -> tuple[Sources, dict[str, Any]]:
    pipeline = make_pipeline(settings)
    facts = {"engine": pipeline.engine, "weights": pipeline.weights}
    return Sources(pipeline, player, warm), facts


class StreamWorker(Protocol):
    """A process that serves orders, as `WorkerProcess` with `_serve`: an order is sent, and an
    answer received with an error's line, empty for none."""

    connection: Any

    def end(self) -> object: ...


StartWorker = Callable[[MakeSources], StreamWorker]
"""Starts a worker, whose first answer describes its pipeline."""


def start_process(make: MakeSources) -> StreamWorker:
    """Start a worker as a child of this process."""
    return WorkerProcess(_serve, make)


class WorkerSources:
    """What `streams.Sources` is, over several processes, in a ``with`` block.

    All sources deliver a window at the same moment, the start of every period, by the clock that
    the processes share; so a probe takes as long as its periods.

    Args:
        workers: How many processes.
        make: Makes a worker's sources in its process; it is pickled.
        start: Starts a worker.

    Attributes:
        facts: The description of the first worker's pipeline.
        people: The number of people drawn in each measured window.
        memory_mb: The GPU memory of all workers; None without a GPU.

    Raises:
        RuntimeError: A worker cannot make its pipeline, or ends early.
    """

    def __init__(self, workers: int, make: MakeSources, start: StartWorker = start_process) -> None:
        self.people: list[int] = []
        self.memory_mb: float | None = None
        self.facts: dict[str, Any] = {}
        self._count, self._make, self._start = workers, make, start
        self._stack = ExitStack()
        self._workers: list[StreamWorker] = []

    def __enter__(self) -> WorkerSources:
        with ExitStack() as stack:
            for _ in range(self._count):
                worker = self._start(self._make)
                stack.callback(worker.end)
                self._workers.append(worker)
            self.facts = [_answer(worker) for worker in self._workers][0]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def prepare(self, streams: int) -> None:
        """Warm up for a number of streams, so that nothing of it is measured."""
        self._ask([("prepare", share) for share in shares_of(streams, self._count)])

    def play(self, streams: int, periods: int) -> Probe:
        """Measure a number of streams that were prepared, for a number of periods."""
        begin_s = time.monotonic() + _HEADSTART_S
        answers = self._ask(
            [("play", s, periods, begin_s) for s in shares_of(streams, self._count)]
        )
        self.people = [people for _, _, seen, _ in answers for people in seen]
        used = [memory for *_, memory in answers if memory is not None]
        self.memory_mb = sum(used) if used else None
        # Every process must keep up: one that does not loses its sources' frames.
        worst = max(
            (probe_of(streams, times_ms, cut) for times_ms, cut, *_ in answers),
            key=lambda probe: (probe.cut_short, probe.p95_ms),
        )
        every = probe_of(streams, [ms for times_ms, *_ in answers for ms in times_ms], False)
        return Probe(streams, every.p50_ms, worst.p95_ms, worst.cut_short)

    def _ask(self, orders: list[tuple[Any, ...]]) -> list[Any]:
        asked = self._workers[: len(orders)]
        for worker, order in zip(asked, orders):
            worker.connection.send(order)
        return [_answer(worker) for worker in asked]


def shares_of(streams: int, workers: int) -> list[int]:
    """Return how many streams each worker runs; those that would have none are left out."""
    return [share for k in range(workers) if (share := (streams + workers - 1 - k) // workers)]


def _answer(worker: StreamWorker) -> Any:
    try:
        answer, error = worker.connection.recv()
    except (EOFError, OSError):
        raise RuntimeError("a worker process ended unexpectedly") from None
    if error:
        raise RuntimeError(f"a worker process: {error}")
    return answer


def _serve(connection: Connection, make: MakeSources) -> None:
    """Obey the parent until it hangs up."""
    try:
        sources, facts = make()
    except Exception as error:
        connection.send((None, f"{type(error).__name__}: {error}"))
        return
    connection.send((facts, ""))
    with closing(sources), suppress(EOFError, OSError):
        while True:
            order = connection.recv()
            try:
                answer = obey(sources, *order)
            except Exception as error:
                connection.send((None, f"{type(error).__name__}: {error}"))
                return
            connection.send((answer, ""))


def obey(
    sources: Sources, kind: str, streams: int, periods: int = 0, begin_s: float = 0.0
) -> tuple[Any, ...]:
    """Carry out an order: "prepare" for a number of streams, or "play" them."""
    if kind == "prepare":
        sources.prepare(streams)
        return ()
    times_ms, cut_short = sources.measure(streams, periods, LiveClock(begin_s))
    return times_ms, cut_short, sources.people, memory_mb()
