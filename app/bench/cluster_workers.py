"""The workers of `stream_workers` as Ray's actors, each with a share of a GPU that Ray gives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.bench.stream_workers import MakeSources, StartWorker, obey
from app.cluster import ray_api
from app.cluster.ray_api import Gone, call, result

_ANSWER_S = 600.0
"""The longest time for an order: kernels are compiled in the first one."""


class StreamActor:
    """Sources on a pipeline of its own; made by Ray, in a process of its own."""

    def __init__(self, make: MakeSources) -> None:
        self._sources, self._facts = make()

    def facts(self) -> dict[str, Any]:
        """Return the description of its pipeline."""
        return self._facts

    def order(self, *order: Any) -> tuple[Any, ...]:
        """Do what `stream_workers.obey` does."""
        return obey(self._sources, *order)


class ActorWorker:
    """An actor with the members of a `WorkerProcess` that `WorkerSources` uses: what is sent to it
    is an order, and what is received the answer."""

    def __init__(self, name: str, make: MakeSources, gpus: float) -> None:
        self._handle = ray_api.start_actor(
            StreamActor, make, name=name, gpus=gpus, threads=1, detached=False
        )
        self._ref = call(self._handle, "facts")
        self.connection = self

    def send(self, order: tuple[Any, ...]) -> None:
        """Begin an order."""
        self._ref = call(self._handle, "order", *order)

    def recv(self) -> tuple[Any, str]:
        """Wait for the answer to the last order, and for an error's line.

        Raises:
            EOFError: The actor has ended.
        """
        try:
            return result(self._ref, _ANSWER_S), ""
        except Gone:
            raise EOFError from None
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"

    def end(self) -> None:
        """End the actor."""
        ray_api.kill(self._handle)


@contextmanager
def on_gpus(gpus: int, workers: int) -> Iterator[StartWorker]:
    """Yield what starts a worker, inside a Ray of this machine with a number of its GPUs.

    Args:
        gpus: The number of GPUs.
        workers: The number of workers, a multiple of it.

    Raises:
        RuntimeError: Ray is not installed.
    """
    with ray_api.connected("local", gpus=gpus):
        started = 0

        def start(make: MakeSources) -> ActorWorker:
            nonlocal started
            started += 1
            return ActorWorker(f"streams-{started}", make, gpus / workers)

        yield start
