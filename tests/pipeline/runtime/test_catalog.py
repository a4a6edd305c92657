"""Parts from outside the tree: an own perceiver with 2D keypoints works through the whole way."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.camera import project
from pipeline.perception.catalog import PERCEIVERS
from pipeline.runtime.catalog import ESTIMATORS
from pipeline.runtime.make import make_estimator
from pipeline.runtime.stream import stream
from tests.support.outside.packages import install
from tests.support.paths import SAMPLE, TRUTH


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """The entry point of a perceiver with COCO's 17 keypoints."""
    target = "tests.support.outside.coco_perceiver:CocoPerceiver"
    install(tmp_path, "bodystream.perceivers", "coco", target)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("catalog", [PERCEIVERS, ESTIMATORS])
def test_every_part_of_the_tree_can_be_imported(catalog):
    for name in catalog.parts:
        assert callable(catalog.load(name))


def test_an_unknown_name_lists_the_known_ones_and_suggests_one():
    with pytest.raises(ValueError, match="no perceiver 'blasepose'.*did you mean blazepose"):
        make_estimator(perceiver="blasepose")
    with pytest.raises(ValueError, match=r"no estimator 'x'; there are: keypoints$"):
        make_estimator("x")


def test_a_perceiver_from_outside_is_found(coco):
    assert PERCEIVERS.names() == ["blazepose", "coco"]


@pytest.mark.slow
def test_bodies_are_fitted_to_seventeen_keypoints_without_depth(coco):
    """The fit puts the body's joints on the 2D points, at a sane size, in front of the camera."""
    with np.load(TRUTH) as truth:
        true_px = truth["landmarks_px"]
    errors, heights = [], []
    with stream(str(SAMPLE), perceiver="coco") as run:
        for frame, bodies in run:
            assert len(bodies) == 1
            px = project(bodies.landmarks_m[0], run.estimator.intrinsics(frame))
            # Elbows, wrists, hips, knees and ankles: the fit knows them from the network alone.
            limbs = [13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
            errors.append(np.linalg.norm(px[limbs] - true_px[frame.id, limbs], axis=1))
            heights.append(np.ptp(bodies.vertices_m[0], axis=0).max())
            assert bodies.vertices_m[0, :, 2].min() > 0.5
    size_px = np.ptp(true_px, axis=1).max()
    assert np.median(errors) < 0.03 * size_px
    assert 1.2 < np.median(heights) < 2.4
