"""Drawn people are in their pictures where the truth says."""

from __future__ import annotations

import numpy as np
import pytest

from app.check.pictures import HEIGHT, POINTS, WIDTH, draw_people


@pytest.fixture(scope="module")
def drawn():
    return draw_people()


def test_there_are_four_whole_people(drawn):
    assert len(drawn) == 4
    for person in drawn:
        assert person.image.shape == (HEIGHT, WIDTH, 3)
        assert (person.box >= 0).all()
        assert (person.box <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
        low, high = person.box[:2], person.box[2:]
        assert ((person.points_px > low) & (person.points_px < high)).all()
        assert 1.5 < person.height_m < 1.9
        # Most of the box's height is the body.
        assert 0.85 < person.height_px / (high - low)[1] < 1


def test_the_points_are_on_the_body(drawn):
    """Which is redder than the wall and the floor."""
    for person in drawn:
        for x, y in person.points_px.round().astype(int):
            red, _, blue = person.image[y, x].astype(int)
            assert red > 1.38 * blue


def test_a_person_is_seen_from_the_front_and_one_from_behind(drawn):
    left, right = POINTS.index("left_shoulder"), POINTS.index("right_shoulder")
    sides = [np.sign(p.points_px[left, 0] - p.points_px[right, 0]) for p in drawn]
    assert sides == [1, 1, 1, -1]


def test_pictures_are_the_same_each_time(drawn):
    again = draw_people()
    assert all(np.array_equal(a.image, b.image) for a, b in zip(drawn, again, strict=True))
