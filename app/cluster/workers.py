"""How many workers each machine of a cluster gets, and with what of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from app.cluster.ray_api import NodeFacts
from app.config import Config

MOST_ON_GPU = 4
"""The most workers on a GPU: with four its streams are bounded by their Python, and more processes
gain little (docs/results/gpu_profile.md)."""
_MEMORY_LEFT = 0.9
"""The part of a GPU's memory that its workers may take."""
_CORES = 4
"""The cores of a worker that computes on a CPU."""


@dataclass(frozen=True)
class Places:
    """The workers of a machine, and what of it each holds.

    Attributes:
        node: The id of the machine.
        host: Its name.
        count: The number of workers.
        cpus: The cores of each.
        gpus: The share of a GPU of each.
    """

    node: str
    host: str
    count: int
    cpus: float
    gpus: float


def uses_gpu(config: Config, nodes: Sequence[NodeFacts]) -> bool:
    """Return whether workers compute on GPUs: where they are to, or where a machine has one."""
    any_gpu = any(node.gpus >= 1 for node in nodes)
    return config.device == "cuda" or (config.device == "auto" and any_gpu)


def workers_on_gpu(memory_share: float) -> int:
    """Return how many workers share a GPU.

    Args:
        memory_share: The part of its memory that one takes, as it was measured.
    """
    return min(max(math.floor(_MEMORY_LEFT / memory_share), 1), MOST_ON_GPU)


def places(
    nodes: Sequence[NodeFacts], on_gpu: int | None, workers: int | None, drained: Collection[str]
) -> list[Places]:
    """Return where workers are to be.

    Args:
        nodes: The machines that are there.
        on_gpu: How many workers share a GPU; None computes on CPUs. With GPUs, machines without one
            get no workers.
        workers: The number of all workers; None: as many as the machines carry.
        drained: The ids of machines that are to have none.
    """
    there = [node for node in nodes if node.id not in drained]
    if on_gpu is not None:
        there = [node for node in there if node.gpus >= 1]
        counts = [int(node.gpus) * on_gpu for node in there]
    else:
        there = [node for node in there if node.cpus > 0]
        counts = [max(int(node.cpus // _CORES), 1) for node in there]
    if workers is not None:
        counts = shared_out(workers, counts)
    return [_places(node, count, on_gpu is not None) for node, count in zip(there, counts) if count]


def missing(
    place: Places, node: NodeFacts, held: Sequence[tuple[float, float]], most: int | None
) -> int:
    """Return how many workers are to start on a machine.

    Args:
        place: What the machine is to have.
        node: The machine.
        held: The cores and the GPU share of each worker that is on it, those that are being ended
            too.
        most: How many may start at most; None for no limit.
    """
    count = place.count - len(held)
    if most is not None:
        count = min(count, most)
    # A worker that was given more when there were fewer leaves no room for one that is to come.
    for free, each in (
        (node.cpus - sum(cpus for cpus, _ in held), place.cpus),
        (node.gpus - sum(gpus for _, gpus in held), place.gpus),
    ):
        if each > 0:
            count = min(count, math.floor(free / each + 1e-6))
    return max(count, 0)


def shared_out(number: int, weights: Sequence[int]) -> list[int]:
    """Return a number of things as parts in proportion to weights (largest remainders)."""
    total = sum(weights)
    if not total:
        return [0 for _ in weights]
    exact = [number * weight / total for weight in weights]
    parts = [math.floor(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda k: parts[k] - exact[k])
    for k in order[: number - sum(parts)]:
        parts[k] += 1
    return parts


def _places(node: NodeFacts, count: int, gpu: bool) -> Places:
    if gpu:
        # Of each GPU the same number of workers, so that none has a share of two.
        gpus = 1 / math.ceil(count / int(node.gpus))
        return Places(node.id, node.host, count, min(1.0, node.cpus / count), _down(gpus))
    # Not all cores of a large machine, or another could not start beside it when a machine goes.
    cpus = min(node.cpus / count, float(_CORES))
    # Ray takes whole cores, or parts of one.
    return Places(
        node.id, node.host, count, float(math.floor(cpus)) if cpus >= 1 else _down(cpus), 0.0
    )


def _down(share: float) -> float:
    """Ray counts in ten-thousandths; rounded up, the last worker would find no room."""
    return math.floor(share * 1e4) / 1e4
