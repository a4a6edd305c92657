"""What people look like: the same in other light, and only their own pixels count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.people import Mask, Person
from pipeline.tracking import likeness
from pipeline.tracking.appearance import Appearance, describe, difference, mean_light
from tests.support.dressed import dressed, picture

FEW = settings(deadline=None, max_examples=20)


def look(person, image) -> Appearance:
    return describe(person, image, mean_light(image))


@FEW
@given(st.integers(0, 1000), st.floats(0.6, 1.3), st.floats(150, 1100), st.floats(0.6, 1.2))
def test_light_place_and_size_matter_little(seed, gain, x, scale):
    one, other = dressed(seed, 500), dressed(seed, x, scale=scale)
    first = look(one[0], picture([one]))
    again = look(other[0], picture([other], gain))
    stranger = one[0], np.where(one[1] > 128, one[1] - 110, one[1] + 110)
    another = look(one[0], picture([stranger]))
    assert likeness.of_appearance(first, again) > 1.5
    assert likeness.of_appearance(first, another) < -1.0


def test_pixels_beside_the_mask_do_not_count():
    person, colours = dressed(3, 400)
    image = picture([(person, colours)])
    covered = image.copy()
    middle = round(float(person.landmarks_px[:, 0].mean()))
    covered[:, middle:] = (255, 0, 255)
    # The left half of the mask is the person's.
    values = np.zeros((128, 128), np.float32)
    values[:, :64] = 1
    low, side = person.box_px[:2] - 20, 240 / 128
    to_image = np.array([[side, 0, middle - 64 * side], [0, side, low[1]]], np.float32)
    half = replace(person, mask=Mask(values, to_image))
    light = mean_light(image)
    whole, seen = describe(person, image, light), describe(half, covered, light)
    assert likeness.of_appearance(whole, seen) > 1.5
    assert 0 < seen.seen[1] <= 0.6
    assert difference(whole, describe(person, covered, light))[0].max() > 0.15


def test_a_person_outside_the_picture_says_nothing():
    person, colours = dressed(3, 400)
    away, _ = dressed(3, 5000)
    image = picture([(person, colours)])
    nothing = look(away, image)
    assert not nothing.seen.any()
    assert np.isfinite(nothing.colours).all()
    assert likeness.of_appearance(look(person, image), nothing) == 0.0


@FEW
@given(st.integers(0, 100), st.floats(0.05, 0.5))
def test_an_appearance_moves_slowly_towards_newer_ones(seed, share):
    rng = np.random.default_rng(seed)
    full = np.ones(5, np.float32)
    one = Appearance(rng.normal(size=(5, 3, 5)).astype(np.float32), full)
    two = Appearance(rng.normal(size=(5, 3, 5)).astype(np.float32), np.array([1, 1, 1, 1, 0.0]))
    mixed = one.mixed(two, share)
    expected = one.colours + share * (two.colours - one.colours)
    np.testing.assert_allclose(mixed.colours[:4], expected[:4], atol=1e-5)
    np.testing.assert_array_equal(mixed.colours[4], one.colours[4])
    # What was not seen before is taken over at once.
    np.testing.assert_allclose(two.mixed(one, share).colours[4], one.colours[4], atol=1e-5)


@given(st.floats(0, 3), st.floats(0, 12), st.floats(1, 300))
def test_a_longer_absence_weakens_what_place_and_size_say(distance, elapsed_s, area):
    here = likeness.of_place(0.0, elapsed_s, area)
    assert likeness.of_place(distance, elapsed_s, area) <= here + 1e-9
    assert here <= likeness.of_place(0.0, 0.0, area) + 1e-9
    assert likeness.of_size(1.0, elapsed_s) <= likeness.of_size(1.0, 0.0)
    assert likeness.of_size(1 + distance, elapsed_s) <= likeness.of_size(1.0, elapsed_s) + 1e-9


@pytest.mark.parametrize("place", [np.nan, np.inf, -1e30, 1e6])
def test_a_person_at_no_place_in_the_picture_has_no_colours(place):
    image = np.full((90, 120, 3), 200, np.uint8)
    points = np.full((33, 2), place, np.float32)
    nowhere = Person(np.zeros(4, np.float32), 1.0, points, np.ones(33, np.float32), None)
    looks = describe(nowhere, image, mean_light(image))
    assert not looks.seen.any()
    assert not looks.colours.any()
