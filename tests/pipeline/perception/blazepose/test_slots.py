"""Who gets a place: those who matter, and a place does not change hands lightly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.perception.blazepose.roi import Roi
from pipeline.perception.blazepose.slots import fill_places, importance, worth_checking

SIZE = (720, 1280)


def people(first_id, most):
    one = st.builds(
        lambda x, y, side, age: Roi(x, y, side, 0.0, 0.9, age=age),
        st.floats(0, 1280), st.floats(0, 720), st.floats(20, 900), st.integers(0, 500),
    )  # fmt: skip
    return st.lists(one, max_size=most).map(
        lambda rois: [replace(roi, id=first_id + k) for k, roi in enumerate(rois)]
    )


def at(x, y, side, age=0, name=0):
    return Roi(x, y, side, 0.0, 0.9, id=name, age=age)


@given(people(0, 8), people(100, 8), st.integers(1, 8))
def test_places_are_filled_and_no_smaller_person_drives_a_larger_one_out(tracked, new, places):
    tracked = tracked[:places]
    kept = fill_places(tracked, new, places, SIZE)
    assert len(kept) == min(places, len(tracked) + len(new))
    assert len({roi.id for roi in kept}) == len(kept)
    ids = {roi.id for roi in kept}
    gone = [roi for roi in tracked if roi.id not in ids]
    entered = [roi for roi in new if roi.id in ids]
    # Those who leave are matched with larger ones who enter.
    for out in gone:
        assert any(roi.side >= out.side for roi in entered)


@given(people(0, 8), people(100, 8), st.integers(1, 8))
def test_a_choice_stands_when_it_is_made_again(tracked, new, places):
    kept = fill_places(tracked[:places], new, places, SIZE)
    out = [roi for roi in (*tracked[:places], *new) if roi not in kept]
    assert fill_places(kept, [roi for roi in out if roi in new], places, SIZE) == kept


@given(people(0, 8), people(100, 12), st.integers(1, 8), st.integers(0, 4))
def test_only_those_who_could_get_a_place_are_checked(tracked, candidates, places, spare):
    tracked = tracked[:places]
    chosen = worth_checking(candidates, tracked, places, spare, SIZE)
    assert len(chosen) <= places - len(tracked) + spare
    values = [importance(roi, SIZE) for roi in chosen]
    assert values == sorted(values, reverse=True)
    if len(tracked) == places:
        for roi in chosen:
            assert any(roi.side >= old.side for old in tracked)


@given(st.floats(0, 1280), st.floats(0, 720), st.floats(20, 900))
def test_the_middle_matters_more_and_size_matters(x, y, side):
    middle = importance(at(640, 360, side), SIZE)
    assert middle >= importance(at(x, y, side), SIZE) >= 0.59 * middle
    assert importance(at(x, y, 1.1 * side), SIZE) > importance(at(x, y, side), SIZE)


@pytest.mark.parametrize(
    ("side", "age", "wins"), [(100, 0, False), (131, 0, True), (131, 60, False)]
)
def test_a_newcomer_must_matter_clearly_more(side, age, wins):
    old = [at(640, 360, 150, age, 0), at(640, 360, 100, age, 1)]
    kept = fill_places(old, [at(640, 360, side, 0, 9)], 2, SIZE)
    assert (9 in {roi.id for roi in kept}) == wins
