"""`Mask.at`: the pixels of a mask where its map puts them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.people import Mask


@given(st.integers(0, 2**32 - 1))
def test_a_mask_is_read_where_its_pixels_lie_in_the_image(seed):
    random = np.random.default_rng(seed)
    values = random.random((5, 9)).astype(np.float32)
    angle, scale = random.uniform(-3, 3), random.uniform(0.5, 9)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corner = random.uniform(-500, 500, 2)
    mask = Mask(values, np.c_[turn, corner].astype(np.float32))
    row, column = np.mgrid[-2:7, -2:11]
    # Less than half a pixel off each centre, so that it stays the nearest.
    places = np.stack((column, row), -1) + random.uniform(-0.45, 0.45, (9, 13, 2))
    expected = np.zeros((9, 13), np.float32)
    expected[2:7, 2:11] = values
    assert np.array_equal(mask.at(places @ turn.T + corner), expected)
