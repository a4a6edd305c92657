"""Crops: coordinates go both ways, and what is cut is what lies there."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.perception.crops import IMAGENET_MEAN, IMAGENET_STD, Crop, normalised

boxes = st.tuples(
    st.floats(-200, 600), st.floats(-200, 600), st.floats(5, 500), st.floats(5, 500)
).map(lambda b: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]]))
sizes = st.sampled_from([(224, 224), (192, 256), (288, 384), (64, 48)])


@given(boxes, sizes, st.floats(1.0, 2.0))
def test_a_crop_holds_the_grown_box_in_its_middle_and_no_more(box, size, growth):
    crop = Crop.around(box, growth, *size)
    low, high = crop.in_image(np.array([[-0.5, -0.5], [size[0] - 0.5, size[1] - 0.5]]))
    assert np.allclose((low + high) / 2, (box[:2] + box[2:]) / 2)
    share = (high - low) / (box[2:] - box[:2])
    assert np.isclose(share.min(), growth)


@given(boxes, sizes, st.lists(st.floats(-50, 400), min_size=2, max_size=2))
def test_points_go_to_the_picture_and_back(box, size, point):
    crop = Crop.around(box, 1.25, *size)
    to_image = crop.to_image
    there = crop.in_image(np.array(point))
    back = np.linalg.solve(to_image[:, :2], there - to_image[:, 2])
    assert np.allclose(back, point, atol=1e-6)


@given(st.floats(60, 240), st.floats(60, 140), st.floats(40, 100))
def test_the_crop_shows_what_lies_at_its_points(x, y, side):
    """In a picture whose red grows to the right and its green downwards."""
    rows, columns = np.mgrid[:200, :300]
    image = np.stack((columns * 255 / 299, rows * 255 / 199, 0 * rows), -1).astype(np.uint8)
    crop = Crop.around(np.array([x - side, y - side, x + side, y + side]) / 1.0, 1.0, 48, 48)
    view = crop.cut(image)
    places = np.array([(10, 10), (40, 12), (24, 30)])
    for (u, v), (px, py) in zip(places, crop.in_image(places)):
        if 0 <= px <= 299 and 0 <= py <= 199:
            expected = (px * 255 / 299, py * 255 / 199)
            assert np.abs(view[v, u, :2] - expected).max() < 2.5


def test_beyond_the_picture_it_is_black():
    view = Crop.around(np.array([-40, -40, 40, 40]), 1.0, 32, 32).cut(
        np.full((100, 100, 3), 255, np.uint8)
    )
    assert view[2, 2].max() == 0
    assert view[-2, -2].min() == 255


def test_a_batch_is_normalised_as_imagenet():
    random = np.random.default_rng(0)
    crops = [random.integers(0, 256, (6, 4, 3), np.uint8) for _ in range(3)]
    batch = normalised(crops)
    assert batch.shape == (3, 3, 6, 4)
    expected = (crops[1][2, 3] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert np.allclose(batch[1, :, 2, 3], expected, atol=1e-5)
