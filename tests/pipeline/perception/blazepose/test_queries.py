"""Rules that ask: side by side they get what they would get alone, in as few rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.frame import Frame
from pipeline.perception.blazepose.queries import LandmarkQuery, ask, gather, run_plan
from pipeline.perception.blazepose.roi import Roi

FRAME = Frame(0, "clip", 0, 0.0, np.zeros((4, 4, 3), np.uint8))


def look(number):
    return LandmarkQuery(FRAME, Roi(float(number), 0, 1, 0, 0))


def answer_with(rounds):
    """Answers a look with its region's x doubled, and notes how many were asked together."""

    def answer(asked):
        rounds.append(len(asked))
        return [2 * one.roi.x for one in asked]

    return answer


def summing(numbers):
    """Asks one after another, each ask depending on the last answer."""
    total = 0.0
    for number in numbers:
        total += yield from ask(look(number + total % 7))
    return total


def pairs(numbers):
    """Asks two by two."""
    out = []
    for number in numbers:
        out += yield [look(number), look(-number)]
    return out


lists = st.lists(st.integers(-20, 20), max_size=5)


@given(st.lists(st.tuples(st.sampled_from((summing, pairs)), lists), max_size=6))
def test_side_by_side_is_each_alone(rules):
    alone, rounds = [], []
    for rule, numbers in rules:
        alone.append(run_plan(rule(numbers), answer_with([])))
    together = run_plan(gather([rule(numbers) for rule, numbers in rules]), answer_with(rounds))
    assert together == alone
    assert len(rounds) == max((len(numbers) for _, numbers in rules), default=0)
    assert sum(rounds) == sum(len(n) * (2 if rule is pairs else 1) for rule, n in rules)


def test_side_by_side_nests():
    rounds = []
    inner = [gather([summing([1, 2]), summing([3])]), summing([4, 5, 6])]
    (first, second), third = run_plan(gather(inner), answer_with(rounds))
    assert rounds == [3, 2, 1]
    assert [first, second, third] == [
        run_plan(summing(n), answer_with([])) for n in ([1, 2], [3], [4, 5, 6])
    ]


def test_an_error_in_a_rule_comes_out():
    def broken():
        yield from ask(look(1))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_plan(gather([summing([1, 2]), broken()]), answer_with([]))
