"""Records are replaced as by the standard library."""

from __future__ import annotations

from dataclasses import astuple, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.records import replaced
from pipeline.perception.blazepose.roi import Roi

NUMBERS = ("x", "y", "side", "angle", "score", "side_votes", "turn")


@given(st.dictionaries(st.sampled_from(NUMBERS), st.floats(allow_nan=False)))
def test_a_copy_is_that_of_the_standard_library(values):
    roi = Roi(1.0, 2.0, 3.0, 0.4, 0.5, 6, 1, None, 2.0, 7, 1, True, time_s=8.0, turn=9.0, rest=10)
    before = astuple(roi)
    assert astuple(replaced(roi, **values)) == astuple(replace(roi, **values))
    assert astuple(roi) == before


def test_values_are_the_same_objects_and_checks_are_run():
    frame = Frame(3, "clip", 0, 0.1, np.zeros((4, 6, 3), np.uint8))
    copy = replaced(frame, on_device="there")
    names = [field.name for field in fields(Frame)]
    other = [name for name in names if getattr(copy, name) is not getattr(frame, name)]
    assert other == ["on_device"]
    with pytest.raises(ValueError, match="a frame's id is 0 or more"):
        replaced(frame, id=-1)
    with pytest.raises(KeyError, match="colour"):
        replaced(frame, colour=1)
    with pytest.raises(TypeError, match=r"Bodies\.mhr is not taken by position"):
        replaced(Bodies.none(10), track=np.ones(1))
