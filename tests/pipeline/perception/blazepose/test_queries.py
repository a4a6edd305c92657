"""Plans that query: gathered they get what they get alone, in as few rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.frame import Frame
from pipeline.perception.blazepose.queries import LandmarkQuery, ask, gather, run_plan
from pipeline.perception.blazepose.roi import Roi

FRAME = Frame(0, "clip", 0, 0.0, np.zeros((4, 4, 3), np.uint8))


def query(number):
    return LandmarkQuery(FRAME, Roi(float(number), 0, 1, 0, 0))


def answer_with(rounds):
    """Answer a query with its ROI's x doubled, and note how many queries came together."""

    def answer(queries):
        rounds.append(len(queries))
        return [2 * each.roi.x for each in queries]

    return answer


def summing(numbers):
    """Yield one query after another, each depending on the last answer."""
    total = 0.0
    for number in numbers:
        total += yield from ask(query(number + total % 7))
    return total


def pairs(numbers):
    """Yield queries two by two."""
    out = []
    for number in numbers:
        out += yield [query(number), query(-number)]
    return out


lists = st.lists(st.integers(-20, 20), max_size=5)


@given(st.lists(st.tuples(st.sampled_from((summing, pairs)), lists), max_size=6))
def test_gathered_plans_return_what_each_returns_alone(plans):
    alone, rounds = [], []
    for plan, numbers in plans:
        alone.append(run_plan(plan(numbers), answer_with([])))
    together = run_plan(gather([plan(numbers) for plan, numbers in plans]), answer_with(rounds))
    assert together == alone
    assert len(rounds) == max((len(numbers) for _, numbers in plans), default=0)
    assert sum(rounds) == sum(len(n) * (2 if plan is pairs else 1) for plan, n in plans)


def test_gather_nests():
    rounds = []
    inner = [gather([summing([1, 2]), summing([3])]), summing([4, 5, 6])]
    (first, second), third = run_plan(gather(inner), answer_with(rounds))
    assert rounds == [3, 2, 1]
    assert [first, second, third] == [
        run_plan(summing(n), answer_with([])) for n in ([1, 2], [3], [4, 5, 6])
    ]


def test_an_error_in_a_plan_is_raised():
    def broken():
        yield from ask(query(1))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_plan(gather([summing([1, 2]), broken()]), answer_with([]))
