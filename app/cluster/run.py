"""`run A B C --cluster`: the sources run by the workers of a Ray cluster.

Clips are handed out one at a time; where a live source is among them, each worker has a share of
all sources from the start.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from app.build import load
from app.clips_in_turn import TurnProgress, Turns, can_run_in_turn
from app.cluster import ray_api
from app.cluster.cost import gpu_share
from app.cluster.run_clients import TurnWorker, Worker
from app.cluster.run_shares import ShareWorker
from app.cluster.spec import absolute
from app.cluster.workers import Places, places, uses_gpu, workers_on_gpu
from app.config import Config
from app.multi_run import ProgressSum
from app.run_report import Progress
from app.run_workers import shares_of
from app.source_result import Result, failed, not_begun
from app.two_passes import STOPPED
from pipeline.core.problem import one_line

_LOOK_S = 0.2
_END_S = 60.0
"""How long a worker may say nothing, once sources are to end with complete files."""


def run_in_cluster(
    configs: Mapping[str, Config],
    address: str,
    workers: int | None,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_build: Callable[[str, int, int], None] | None = None,
    on_result: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Run several sources in a cluster, to their ends or until ``stop`` is set.

    Each source is decoded, and its files are written, where its worker runs: on machines without a
    common folder they are at the same paths there. Where a worker dies, what it ran begins again,
    in the same files; a clip with which `MOST_DEATHS` workers have died fails.

    Args:
        configs: Each source's configuration, by name.
        address: As `ray_api.connected`.
        workers: The number of workers; None: as many as the machines carry. No more than sources.
        on_progress: Called with the sum of all sources' progress.
        stop: Ends all sources when it is set.
        on_build: Not called: engines are built on the workers.
        on_result: Called with the result of each source that was begun, as soon as it is known.

    Returns:
        The results in the order of the sources.

    Raises:
        ConfigError: There is no cluster at the address.
        RuntimeError: Ray is missing, or no machine of the cluster can run a worker.
    """
    configs = {name: absolute(config) for name, config in configs.items()}
    results: dict[str, Result] = {}

    def ended(result: Result) -> None:
        results[result.name] = result
        on_result(result)

    with ray_api.connected(address):
        spots = _spots(next(iter(configs.values())), workers, len(configs), stop)[: len(configs)]
        if stop.is_set():
            return [not_begun(name) for name in configs]
        if not spots:
            raise RuntimeError("--cluster: no machine of the cluster can run a worker")
        in_turn = all(map(can_run_in_turn, configs.values()))
        running: list[Worker] = []
        if in_turn:
            turns, turn_progress = Turns(configs, stop), TurnProgress(len(configs), on_progress)
            deaths = Counter[str]()
            for number, spot in enumerate(spots, 1):
                running.append(TurnWorker(number, spot, turns, deaths, turn_progress, ended))
        else:
            progress = ProgressSum(on_progress)
            for number, (spot, share) in enumerate(zip(spots, shares_of(configs, len(spots))), 1):
                own = progress.of(f"worker {number}")
                running.append(ShareWorker(number, spot, spots, share, own, ended))
        with _ended(running):
            _attend(running, stop)
    why = next((one.failure for one in running if one.failure), "its worker has ended")
    for name in configs.keys() - results.keys():
        results[name] = not_begun(name) if stop.is_set() else failed(name, why)
    return [results[name] for name in configs]


def _attend(running: Sequence[Worker], stop: threading.Event) -> None:
    stopping = False
    while left := [one for one in running if not one.done]:
        if stop.is_set() and not stopping:
            stopping = True
            for one in left:
                one.stop()
            if any(isinstance(one, TurnWorker) and one.runs_clip for one in left):
                print(STOPPED, file=sys.stderr, flush=True)
        time.sleep(_LOOK_S)
        for one in left:
            if one.done:
                continue
            if stopping and time.monotonic() - one.heard_s > _END_S:
                one.end()
            one.look(stopping)


@contextmanager
def _ended(running: Sequence[Worker]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in running:
            one.end()


def _spots(
    config: Config, workers: int | None, sources: int, stop: threading.Event
) -> list[Places]:
    """The place of each worker, those of one machine not side by side in the list: sources that are
    fewer than workers are spread over the machines."""
    nodes = ray_api.nodes()
    on_gpu = None
    if uses_gpu(config, nodes):
        gpus = sum(int(node.gpus) for node in nodes)
        # A GPU of its own for each worker needs no measuring, nor does a number that was given.
        on_gpu = 1 if workers or sources <= gpus else _measured_on_gpu(config, nodes, stop)
    each = [[place] * place.count for place in places(nodes, on_gpu, workers, ())]
    longest = max(map(len, each), default=0)
    return [own[k] for k in range(longest) for own in each if k < len(own)]


def _measured_on_gpu(
    config: Config, nodes: Sequence[ray_api.NodeFacts], stop: threading.Event
) -> int:
    """How many workers share a GPU, measured on the first machine that has one."""
    node = next((node for node in nodes if node.gpus >= 1), None)
    if node is None:
        raise RuntimeError("--cluster: no machine of the cluster has a GPU")
    try:
        share = ray_api.measured(gpu_share, config, load, False, node=node.id, stop=stop)
    except Exception as error:
        if stop.is_set():
            return 1
        line = f"--cluster: the model cannot be loaded on {node.host}: {one_line(error)}"
        raise RuntimeError(line) from None
    return workers_on_gpu(share)
