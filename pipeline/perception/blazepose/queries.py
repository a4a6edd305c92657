"""What tracking people asks of the networks, apart from which hardware answers.

Tracking is written as plans: generators that yield lists of queries and are sent the answers, in
order. Plans that do not depend on one another run through `gather`, which yields their queries
together. So a GPU answers people, frames and sources in one batch while a CPU answers one query
after another, and either way the same plans run and the same people are found.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from pipeline.core.frame import Frame
from pipeline.core.people import Person
from pipeline.perception.blazepose.resample import Box
from pipeline.perception.blazepose.roi import Roi

MIN_PRESENCE = 0.5
"""An ROI whose presence is below this is empty."""

T = TypeVar("T")
PersonRoi = tuple[Person, Roi]
"""A person, and the ROI in which to find that person in the next frame."""


@dataclass(frozen=True, eq=False)
class LandmarkQuery:
    """Which person is in an ROI of a frame? The answer is a `PersonRoi`, or None.

    Attributes:
        frame: The frame.
        roi: The ROI to crop for the landmark model.
        min_presence: The answer is None when the model's presence is below this.
        mirrored: Whether the model is given the crop mirrored; the answer is mirrored back.
        without: A person to paint over, so that the model sees the one behind.
    """

    frame: Frame
    roi: Roi
    min_presence: float = MIN_PRESENCE
    mirrored: bool = False
    without: Person | None = None


@dataclass(frozen=True, eq=False)
class DetectionQuery:
    """Where are people in parts of a frame? The answer is a list of ROIs, best score first.

    Attributes:
        frame: The frame.
        views: The parts to run BlazePose's detector on.
        second_views: The parts to run the second detector on, which finds small and half hidden
            people; empty where there is none.
        later: Whether the answer is a function that waits for the ROIs and returns them
            (`ask_later`).
    """

    frame: Frame
    views: tuple[Box, ...]
    second_views: tuple[Box, ...] = ()
    later: bool = False


Query = LandmarkQuery | DetectionQuery
Plan = Generator[list[Query], list[Any], T]
"""A generator that yields lists of queries, is sent their answers, and returns a T."""


def ask(query: Query) -> Plan[Any]:
    """Yield one query and return its answer."""
    (answer,) = yield [query]
    return answer


def ask_later(plan: Plan[T]) -> Plan[Callable[[], T]]:
    """Yield the only query of a plan, if it has one; return a function that waits for the answer
    and returns the plan's result.

    Args:
        plan: A plan that yields one `DetectionQuery`, or nothing.
    """
    try:
        (query,) = plan.send(None)  # type: ignore[arg-type]
    except StopIteration as end:
        known = end.value
        return lambda: known
    (answer,) = yield [replace(query, later=True)]  # type: ignore[arg-type]

    @cache
    def result() -> T:
        try:
            plan.send([answer()])
        except StopIteration as end:
            return end.value
        raise ValueError("a plan that is asked later has one query")

    return result


def counted(plan: Plan[T]) -> Plan[tuple[T, int]]:
    """Run a plan; return its result and how many rounds of queries it took."""
    answers: Any = None
    rounds = 0
    while True:
        try:
            queries = plan.send(answers)
        except StopIteration as end:
            return end.value, rounds
        rounds += 1
        answers = yield queries


def gather(plans: Sequence[Plan[T]]) -> Plan[list[T]]:
    """Run plans in step, their queries yielded together; return their results in order."""
    results: dict[int, T] = {}
    waiting: dict[int, list[Query]] = {}
    for k, plan in enumerate(plans):
        # A generator starts when it is sent None.
        _advance(k, plan, None, waiting, results)
    while waiting:
        answers = yield [query for queries in waiting.values() for query in queries]
        answered, waiting = waiting, {}
        # Answers have the order of the queries, so each plan gets its own stretch of them.
        first = 0
        for k, queries in answered.items():
            _advance(k, plans[k], answers[first : first + len(queries)], waiting, results)
            first += len(queries)
    return [results[k] for k in range(len(plans))]


def _advance(
    k: int,
    plan: Plan[T],
    answers: list[Any] | None,
    waiting: dict[int, list[Query]],
    results: dict[int, T],
) -> None:
    """Send a plan its answers; note its next queries, or its result when it ends."""
    try:
        waiting[k] = plan.send(answers)  # type: ignore[arg-type]
    except StopIteration as end:
        results[k] = end.value


def run_plan(plan: Plan[T], answer: Callable[[list[Query]], list[Any]]) -> T:
    """Run a plan to its end, its queries answered by ``answer``; return its result."""
    answers: Any = None
    while True:
        try:
            queries = plan.send(answers)
        except StopIteration as end:
            return end.value
        answers = answer(queries)
