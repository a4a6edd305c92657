"""Areas: one rule of inside and outside, whatever unit they are written in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.perception.areas import EVERYWHERE, Area, Areas, parse_area

sides = st.integers(16, 4000)
sizes = st.tuples(sides, sides)
parts = st.tuples(st.floats(0, 1), st.floats(0, 1))


def point(part, size):
    """A point of the picture, from its left upper corner (0, 0) to its right lower one (1, 1)."""
    return part[0] * (size[1] - 1), part[1] * (size[0] - 1)


@st.composite
def areas(draw):
    part = st.floats(0, 1)
    side = st.floats(0.01, 1)
    return Area(draw(part), draw(part), draw(side), draw(side))


@given(parts, sizes)
def test_without_areas_everyone_is_kept(part, size):
    assert EVERYWHERE.keeps(*point(part, size), size)


@given(st.lists(areas(), max_size=4), st.lists(areas(), max_size=4), parts, sizes)
def test_a_person_is_kept_inside_a_region_and_outside_of_what_is_ignored(
    regions, ignored, part, size
):
    where = point(part, size)
    kept = Areas(tuple(regions), tuple(ignored)).keeps(*where, size)
    in_region = not regions or any(a.contains(*where, size) for a in regions)
    assert kept == (in_region and not any(a.contains(*where, size) for a in ignored))


@given(areas(), parts, sizes)
def test_a_region_and_the_same_one_ignored_divide_the_picture(area, part, size):
    where = point(part, size)
    assert Areas((area,)).keeps(*where, size) != Areas((), (area,)).keeps(*where, size)


@given(st.floats(0.05, 0.95), parts, sizes)
def test_areas_side_by_side_leave_no_gap_and_do_not_overlap(cut, part, size):
    where = point(part, size)
    left, right = Area(0, 0, cut, 1), Area(cut, 0, 1, 1)
    assert left.contains(*where, size) != right.contains(*where, size)


@given(areas(), parts, st.tuples(st.integers(200, 2000), st.integers(200, 2000)))
def test_pixels_and_parts_mean_the_same(area, part, size):
    height, width = size
    # Whole pixels away from the edge, where a rounding decides.
    x0, y0 = round(area.x * width), round(area.y * height)
    w, h = max(round(area.width * width), 2), max(round(area.height * height), 2)
    in_pixels = Area(x0, y0, w, h)
    in_parts = Area(x0 / width, y0 / height, min(w / width, 1.0), min(h / height, 1.0))
    where = tuple(round(v) for v in point(part, size))
    assert in_pixels.contains(*where, size) == in_parts.contains(*where, size)


@given(st.floats(-5000, 9000), st.floats(-5000, 9000), sizes)
def test_hips_outside_of_the_picture_count_as_at_its_edge(x, y, size):
    assert Areas((Area(0, 0, 1, 1),)).keeps(x, y, size)
    edge = min(max(x, 0), size[1] - 1), min(max(y, 0), size[0] - 1)
    below = Areas((), (Area(0, 0.5, 1, 0.5),))
    assert below.keeps(x, y, size) == below.keeps(*edge, size)


@given(st.tuples(*[st.integers(1, 9000)] * 4))
def test_what_is_written_is_what_is_meant(numbers):
    area = parse_area(", ".join(map(str, numbers)))
    assert (area.x, area.y, area.width, area.height) == numbers
    assert area.in_parts == (max(numbers) <= 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "X,Y,W,H in pixels"),
        ("0,0,1", "X,Y,W,H in pixels"),
        ("0,0,1,1,1", "X,Y,W,H in pixels"),
        ("0,0,left,1", "X,Y,W,H in pixels"),
        ("-1,0,5,5", "X,Y,W,H in pixels"),
        ("0,0,1e3,5", "X,Y,W,H in pixels"),
        ("0,0,nan,5", "X,Y,W,H in pixels"),
        ("0;0;5;5", "X,Y,W,H in pixels"),
        ("0,0,٣,5", "X,Y,W,H in pixels"),
        ("0,0,0,5", "a width and a height above 0, not 0,0,0,5"),
        ("0,0,640,0.5", "all four in pixels, or all four at most 1, not 0,0,640,0.5"),
    ],
)
def test_what_is_no_area_is_refused_in_one_line(text, wanted):
    with pytest.raises(ValueError, match=f"^{wanted}") as error:
        parse_area(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1])
def test_programs_cannot_make_an_area_of_no_numbers(bad):
    with pytest.raises(ValueError, match="numbers from 0 on"):
        Area(bad, 0, 1, 1)


@given(st.integers(0, 600), st.integers(0, 300), st.integers(1, 640), st.integers(1, 360))
def test_a_part_reaches_a_region_where_it_has_a_pixel_of_it(x, y, width, height):
    size, region = (360, 640), Area(100, 50, 200, 100)
    parts = Area(100 / 640, 50 / 360, 200 / 640, 100 / 360)
    shared = any(
        region.contains(a, b, size)
        for a in {x, x + width - 1, *(c for c in (100, 299) if x <= c < x + width)}
        for b in {y, y + height - 1, *(c for c in (50, 149) if y <= c < y + height)}
    )
    for each in (region, parts):
        assert Areas(regions=(each,)).reaches((x, y, width, height), size) == shared
    assert Areas(ignored=(region,)).reaches((x, y, width, height), size)
