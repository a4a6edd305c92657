"""Smaller copies of a picture: where their pixels are, and what the boxes leave."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.world.pyramid import Pyramid

NONE = np.zeros((0, 4))


@given(st.floats(60, 580), st.floats(60, 300))
def test_a_spot_is_where_its_place_halved_is(x, y):
    rows, columns = np.mgrid[:360, :640]
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 200.0)
    for number, image in enumerate(Pyramid((200 * spot).astype(np.uint8), NONE).levels):
        height, width = image.shape
        total = image.sum()
        at = (image.sum(0) @ np.arange(width)) / total, (image.sum(1) @ np.arange(height)) / total
        assert np.allclose(np.array(at) * 2 ** (number + 1), (x, y), atol=0.5)


def test_boxes_are_left_out_with_the_picture_beside_them():
    pyramid = Pyramid(np.zeros((360, 640), np.uint8), np.array([[100.0, 50.0, 200.0, 300.0]]))
    for number in range(3):
        free, part = pyramid.masked(number), 2 ** (number + 1)
        assert free.shape == pyramid.levels[number].shape
        assert not free[40 // part : 310 // part, 90 // part : 210 // part].any()
        assert free[:, : 70 // part].all()
        assert free[:, 230 // part :].all()


def test_a_tiny_picture_has_one_copy():
    assert len(Pyramid(np.zeros((64, 64), np.uint8), NONE).levels) == 1
