"""Memory of images that is used again: never while an image or a view of it is there."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.image_pool import ImagePool

SHAPES = st.sampled_from([(4, 6, 3), (6, 4, 3), (8, 8, 3)])
STEPS = st.lists(st.tuples(SHAPES, st.integers(0, 7), st.booleans()), max_size=60)


@given(STEPS)
def test_no_two_images_that_are_there_share_memory(steps):
    pool, kept = ImagePool(), {}
    for number, (shape, place, view) in enumerate(steps):
        image = pool(shape)
        assert image.shape == shape
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.flags.writeable
        image[:] = number
        # What stays may be a view, as a crop of a frame is.
        kept[place] = (image[1:, ::2] if view else image, number)
        del image
        assert all((each == value).all() for each, value in kept.values())


def test_memory_is_used_again_only_after_the_last_view():
    pool = ImagePool()
    image = pool((32, 32, 3))
    address, view = image.ctypes.data, image[4:8]
    del image
    assert pool((32, 32, 3)).ctypes.data != address
    del view
    assert address in {each.ctypes.data for each in [pool((32, 32, 3)) for _ in range(3)]}


def test_little_memory_waits():
    pool = ImagePool()
    images = [pool((32, 32, 3)) for _ in range(50)]
    images.clear()
    assert len(pool._free) <= 4
    pool((16, 16, 3))
    assert len(pool._free) <= 1
