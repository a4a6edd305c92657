"""Which worker gets a source: pure rules, without Ray, threads or a clock of their own.

Costs are shares of a worker's time: a source costs as much of it as the model's busier stage works
for the source in a second. Workers are not all alike; a cost is that of the worker where it was
measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

FULL = 0.85
"""The share of a worker's time that its sources may take. The rest is for moments with more
people: above it windows wait, and the 95th percentile of the delay rises."""
OVERLOADED = 0.95
"""Above this share sources are moved away from a worker."""
_AFTER_MOVE = 0.75
"""A worker that gets a source for another's relief is not fuller than this afterwards, so that no
source goes to and fro."""
MOST_DEATHS = 3
"""A source for which this many workers' deaths count (`after_death`) is quarantined."""
STEADY_S = 30.0
"""A source that has run for so long with a worker, in seconds, has no part in earlier deaths."""
LEAST_FPS = 5.0
"""A source that is admitted at a lower rate keeps at least this many frames a second."""


@dataclass(frozen=True)
class WorkerLoad:
    """A worker as the rules see it.

    Attributes:
        id: Its name.
        load: The share of its time that its sources take.
        streams: The number of its sources.
        suspects: Those of them for which two deaths count.
        open: Whether it takes sources.
        most: The most sources that it takes, None for no such limit.
    """

    id: str
    load: float
    streams: int
    suspects: int = 0
    open: bool = True
    most: int | None = None

    def has_room(self, cost: float) -> bool:
        """Return whether a source of some cost fits."""
        if not self.open or (self.most is not None and self.streams >= self.most):
            return False
        # One source is always taken: where it is too much, no other worker could do more.
        return self.streams == 0 or self.load + cost <= FULL


def choose(
    workers: Sequence[WorkerLoad], cost: float, suspect: bool = False, suspects: int = 0
) -> str | None:
    """Return the worker that a source is placed on: the one that has the most time left.

    Args:
        workers: All workers.
        cost: The source's share of a worker's time.
        suspect: Whether the source may be what ended its last two workers. Such sources are spread
            evenly, so that the next death tells more of which one it is.
        suspects: How many such sources there are.

    Returns:
        The worker's id, None if none has room.
    """
    fit = [w for w in workers if w.has_room(cost)]
    return _best(fit, workers, suspect, suspects)


def anyway(workers: Sequence[WorkerLoad], suspect: bool = False, suspects: int = 0) -> str | None:
    """Return the worker for a source that has lost its own and fits nowhere: its place was promised
    to it, so the least loaded one takes it, and all become slower."""
    return _best([w for w in workers if w.open], workers, suspect, suspects)


def _best(
    fit: Sequence[WorkerLoad], workers: Sequence[WorkerLoad], suspect: bool, suspects: int
) -> str | None:
    if suspect:
        # With one worker alone the half of them waits, or its death would tell nothing.
        parts = max(sum(w.open for w in workers), 2)
        fit = [w for w in fit if w.suspects < max(math.ceil(suspects / parts), 1)]
        return min(fit, key=lambda w: (w.suspects, w.load, w.id)).id if fit else None
    return min(fit, key=lambda w: (w.load, w.streams, w.id)).id if fit else None


def after_death(deaths: Mapping[str, int], lost: Set[str]) -> dict[str, int]:
    """Return how many deaths count for each source once a worker has died.

    As long as there are no suspects, the death counts for all sources that the worker had. Then
    it tells suspects apart: those on other workers are none any more, and it counts for the one
    that the worker had, if it had one alone.

    Args:
        deaths: How many count for each source so far.
        lost: The sources that the worker had.
    """
    suspects = {name for name, count in deaths.items() if is_suspect(count)}
    here = suspects & lost
    if not here:
        return {name: count + (name in lost) for name, count in deaths.items()}
    after = {name: 0 if name in suspects - lost else count for name, count in deaths.items()}
    if len(here) == 1:
        (found,) = here
        after[found] += 1
        if after[found] >= MOST_DEATHS:
            # It was this one: the others had no part in it.
            after = dict.fromkeys(after, 0) | {found: after[found]}
    return after


def slower(workers: Sequence[WorkerLoad], cost: float, fps: float) -> tuple[str, int] | None:
    """Return the worker and the step for a source that fits only if each n-th frame is taken.

    Args:
        workers: All workers.
        cost: Its share of a worker's time at its full rate.
        fps: Its full rate.

    Returns:
        The worker's id and the step n, None if even the lowest rate does not fit.
    """
    for step in range(2, max(math.floor(fps / LEAST_FPS), 1) + 1):
        found = choose(workers, cost / step)
        if found is not None:
            return found, step
    return None


def relief(
    workers: Sequence[WorkerLoad], costs: Mapping[str, Mapping[str, float]]
) -> tuple[str, str] | None:
    """Return a source to move away from an overloaded worker, and where to.

    Args:
        workers: All workers.
        costs: The cost of each source, by worker and name.

    Returns:
        The source's name and the other worker's id: the cheapest source that is relief enough, or
        else the dearest one. None if nothing is to be done.
    """
    for full in sorted(workers, key=lambda w: -w.load):
        if full.load <= OVERLOADED or full.streams < 2:
            continue
        others = [w for w in workers if w.id != full.id and w.open and w.has_room(0.0)]
        needed = full.load - FULL
        own = sorted(costs.get(full.id, {}).items(), key=lambda item: item[1])
        enough = [item for item in own if item[1] >= needed]
        rest = sorted((item for item in own if item[1] < needed), key=lambda item: -item[1])
        for name, cost in [*enough, *rest]:
            fit = [w for w in others if w.load + cost <= _AFTER_MOVE]
            if fit and cost > 0:
                return name, min(fit, key=lambda w: (w.load, w.id)).id
    return None


def is_suspect(deaths: int) -> bool:
    """Return whether a source may be what ended its workers.

    Args:
        deaths: How many workers' deaths count for it, since it last ran for `STEADY_S` seconds.
    """
    return deaths >= MOST_DEATHS - 1


def refusal(workers: Sequence[WorkerLoad], cost: float) -> str:
    """Return, in a line, why a source is refused, with the measured capacity."""
    there = [w for w in workers if w.open]
    if not there:
        return "no worker is ready"
    held = sum(w.streams for w in there)
    if all(w.most is not None and w.streams >= w.most for w in there):
        return f"all {len(there)} workers are full: {there[0].most} sources each, {held} in all"
    busiest = ", ".join(f"{w.load:.0%}" for w in sorted(there, key=lambda w: w.load)[:8])
    return (
        f"no worker has room: {len(there)} workers run {held} sources in {busiest} of their time, "
        f"and another takes about {cost:.0%} ({FULL:.0%} may be taken)"
    )
