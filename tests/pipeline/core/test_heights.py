"""Given heights: what is read, what is refused, and which track gets which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.heights import HIGHEST_M, LOWEST_M, Heights, join_heights, parse_heights

HEIGHTS = st.dictionaries(
    st.integers(0, 999), st.integers(30, 260).map(lambda cm: cm / 100), min_size=1, max_size=8
)


@given(HEIGHTS, st.data())
def test_what_is_written_is_what_is_read(wanted, data):
    words = [f"{track}={height:g}" for track, height in wanted.items()]
    cut = data.draw(st.integers(0, len(words)))
    texts = [",".join(part) for part in (words[:cut], words[cut:]) if part]
    assert join_heights(texts) == wanted
    heights = Heights(1.5, wanted)
    assert all(heights.of(track) == height for track, height in wanted.items())
    assert heights.of(1000) == 1.5
    assert Heights(None, wanted).of(1000) is None


@pytest.mark.parametrize(
    "text",
    ["", "1", "1=", "=1.8", "a=1.8", "1=1.8m", "1:1.8", "1=1.8,", "-1=1.8", "1=nan", "1=1=1"],
)
def test_other_texts_are_refused_with_the_form(text):
    with pytest.raises(ValueError, match="ID=METRES, such as 3=1.83") as raised:
        parse_heights(text)
    assert "\n" not in str(raised.value)


@given(st.floats(0, 400).filter(lambda h: not LOWEST_M <= round(h, 3) <= HIGHEST_M))
def test_no_person_is_that_tall(height_m):
    with pytest.raises(ValueError, match=r"^0\.3 to 2\.6 metres, not 7="):
        parse_heights(f"7={height_m:.3f}")


def test_a_track_has_one_height():
    with pytest.raises(ValueError, match="track 2 comes twice"):
        join_heights(["1=1.7,2=1.8", "2=1.9"])


@given(st.sets(st.integers(0, 50), max_size=6), st.sets(st.integers(0, 50), max_size=6))
def test_an_id_without_a_track_is_named_with_those_that_there_are(asked, there):
    lines = Heights(by_track_m=dict.fromkeys(asked, 1.8)).unknown(there)
    assert bool(lines) == bool(asked - there)
    for line in lines:
        before, _, after = line.partition(": no such track; ")
        assert before.endswith(" " + ", ".join(map(str, sorted(asked - there))))
        assert after.endswith(", ".join(map(str, sorted(there))) if there else "no tracks")


def test_nothing_given_is_false():
    assert not Heights()
    assert Heights(1.8)
    assert Heights(by_track_m={1: 1.8})
