"""What following people asks of the networks, apart from who answers.

The rules of following are generators that yield lists of asks and are sent the answers, in order.
Rules that do not depend on one another run `gather`: what they ask at the same time is asked
together, so that a GPU answers people, frames and sources in one batch while a CPU answers one
after another. Either way the rules, and so the people found, are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.perception.blazepose.resample import Box
from pipeline.perception.blazepose.roi import Roi

MIN_PRESENCE = 0.5
"""Below this nobody is in a region."""

T = TypeVar("T")
PersonRoi = tuple[Person, Roi]
"""A person, and the region to look for them in next."""


@dataclass(frozen=True, eq=False)
class LandmarkQuery:
    """Who is in a region of a frame? The answer is a Find, or None when the landmark model is less
    sure than ``least``. ``mirrored``: it is shown the region in a mirror; ``without`` somebody:
    with them painted over."""

    frame: Frame
    roi: Roi
    least: float = MIN_PRESENCE
    mirrored: bool = False
    without: Person | None = None


@dataclass(frozen=True, eq=False)
class DetectionQuery:
    """Where are people in parts of a frame? The answer is a list of regions, the surest first."""

    frame: Frame
    views: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class PrefetchHint:
    """No question (the answer is None), but what is likely to be asked next: who is followed in
    these regions of a window's key frame will be looked for there and then, outward from it, where
    each look found them. Whoever answers may begin with it."""

    window: Window
    rois: tuple[Roi, ...]


Query = LandmarkQuery | DetectionQuery | PrefetchHint
Plan = Generator[list[Query], list[Any], T]
"""A rule: yields asks, is sent their answers, returns a T."""


def ask(question: Query) -> Plan[Any]:
    """One ask and its answer."""
    (answer,) = yield [question]
    return answer


def gather(rules: Sequence[Plan[T]]) -> Plan[list[T]]:
    """Run rules in step; what they return, in their order."""
    out: dict[int, T] = {}
    waiting: dict[int, list[Query]] = {}
    for k, rule in enumerate(rules):
        _advance(k, rule, None, waiting, out)
    while waiting:
        answers = yield [question for asked in waiting.values() for question in asked]
        answered, waiting = waiting, {}
        first = 0
        for k, asked in answered.items():
            _advance(k, rules[k], answers[first : first + len(asked)], waiting, out)
            first += len(asked)
    return [out[k] for k in range(len(rules))]


def _advance(
    k: int,
    rule: Plan[T],
    answers: list[Any] | None,
    waiting: dict[int, list[Query]],
    out: dict[int, T],
) -> None:
    try:
        waiting[k] = rule.send(answers)  # type: ignore[arg-type]
    except StopIteration as done:
        out[k] = done.value


def run_plan(rule: Plan[T], answer: Callable[[list[Query]], list[Any]]) -> T:
    """Run a rule to its end with somebody who answers."""
    answers: Any = None
    while True:
        try:
            asked = rule.send(answers)
        except StopIteration as done:
            return done.value
        answers = answer(asked)
