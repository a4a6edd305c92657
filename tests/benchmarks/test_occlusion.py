"""The measurement of people over one another, with people that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.occlusion import Cutout, closeness, composite, overlapping
from pipeline.core.people import Person

POSE = np.random.default_rng(1).uniform(0, 60, (33, 2))


@pytest.mark.parametrize(("apart", "overlap"), [(0, True), (30, True), (59, False), (80, False)])
def test_boxes_overlap_up_to_their_width(apart, overlap):
    pair = np.stack((POSE, POSE + (apart, 0)))[None]
    assert overlapping(pair).tolist() == [overlap]


def test_a_body_is_close_to_its_own_person_only():
    truth = np.stack((POSE, POSE + (200, 0)))
    bodies = [
        Person(np.zeros(4), 1.0, points.astype(np.float32), np.ones(33), None) for points in truth
    ]
    assert np.array_equal(closeness(bodies, truth, np.full(2, 20.0)), np.eye(2))


def test_a_composite_shows_the_front_person_where_its_landmarks_are():
    """White squares cross black pictures, and their middle is where the hips are."""
    picture = np.zeros((240, 320, 3), np.uint8)
    square = np.zeros((240, 320), np.float32)
    square[60:120, 60:120] = 1
    bright = np.where(square[..., None] > 0, np.uint8(255), picture)
    landmarks = (POSE - POSE[[23, 24]].mean(0) + 89.5)[None]
    front = Cutout([bright], landmarks, [square])
    back = Cutout([picture], landmarks + (60, 30), [square])
    scene = composite("squares", back, front, np.random.default_rng(2))
    assert (scene.hidden == 0).all()
    for image, (_, points) in zip(scene.images[::7], scene.landmarks_px[::7]):
        rows, cols = np.nonzero(image[..., 0] > 127)
        # Where the square is cut off by the border, its middle is not its own.
        if cols.min() > 0 and cols.max() < 319 and rows.min() > 0 and rows.max() < 239:
            middle = points[[23, 24]].mean(0)
            assert np.abs(middle - (cols.mean(), rows.mean())).max() < 1
