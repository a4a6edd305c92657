"""Which parts of a picture are looked at: bounded work, and every part comes again."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.perception.blazepose.resample import parts
from pipeline.perception.blazepose.roi import Roi
from pipeline.perception.blazepose.views import EAGER_PASSES, views_of

SIZE = (1080, 1920)
WHOLE = (0, 0, 1920, 1080)
LATER = range(EAGER_PASSES, EAGER_PASSES + 480)


def passes(size=SIZE, turns=LATER, **options):
    given = {"places_left": True, "all_present": True, **options}
    return [views_of(size, turn, **given) for turn in turns]


def test_everything_is_searched_first():
    first, none = views_of(SIZE, 0, places_left=True, all_present=False)
    assert first[0] == WHOLE
    assert len(first) > 4
    assert none == []
    eager, _ = views_of(SIZE, 1, places_left=True, all_present=True)
    assert set(eager) < set(first)


@pytest.mark.parametrize(("all_present", "mean"), [(True, 1.5), (False, 2.0)])
def test_one_detectors_work_is_bounded_and_every_view_comes_again(all_present, mean):
    every = set(views_of(SIZE, 0, places_left=True, all_present=False)[0])
    views = [first for first, _ in passes(all_present=all_present)]
    assert {view for now in views for view in now} == every
    assert np.mean([len(now) for now in views]) == mean
    assert all(WHOLE in now for now in views[::2])
    assert max(len(now) for now in views) == 2


def test_two_detectors_share_the_work():
    views = passes(second=True)
    assert {len(first) + len(second) for first, second in views} == {1}
    every = set(views_of(SIZE, 0, places_left=True, all_present=False)[0])
    for k in (0, 1):
        assert {view for now in views for view in now[k]} >= every
        assert sum(WHOLE in now[k] for now in views) == len(views) // 4


def test_a_full_house_is_only_looked_at_as_a_whole():
    assert {tuple(first) for first, _ in passes(places_left=False)} == {(WHOLE,)}
    both = passes(places_left=False, second=True)
    assert {(*first, *second) for first, second in both} == {(WHOLE,)}


def test_a_small_picture_has_no_tiles():
    views = passes((240, 320), second=True)
    assert {(*first, *second) for first, second in views} == {((0, 0, 320, 240),)}


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("size", [SIZE, (1920, 1080), (180, 3200), (64, 64)])
@pytest.mark.parametrize("place", [(10, 10, 80), (60, 50, 3000), (-500, 9000, 40)])
def test_the_surroundings_of_a_lost_person_are_searched_in_every_pass(size, place, second):
    lost = Roi(*place, 0.0, 0.0)
    for first, other in passes(size, lost=[lost], second=second):
        for views in (first, other) if second else (first,):
            x, y, width, height = views[-1]
            assert width == height > 0
            assert 0 <= x <= size[1] - width
            assert 0 <= y <= size[0] - height


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("places_left", [False, True])
@pytest.mark.parametrize("size", [(180, 3200), (3200, 180), (600, 4000)])
def test_every_part_of_an_elongated_picture_comes_again(size, places_left, second):
    views = passes(size, places_left=places_left, second=second, all_present=False)
    seen = {view for now in views for each in now for view in each}
    assert seen >= set(parts(*size))
    if places_left:
        every = set(views_of(size, 0, places_left=True, all_present=False)[0])
        assert seen == every
    eager, _ = views_of(size, 1, places_left=places_left, all_present=True)
    assert set(parts(*size)) <= set(eager)
