"""Parts from outside the tree: an own perceiver with 2D keypoints works through the whole way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.body.load import load_body
from pipeline.core.camera import project
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.fitting.fitter import BodyFitter
from pipeline.perception.areas import Area, Areas
from pipeline.perception.base import Perceiver
from pipeline.perception.catalog import PERCEIVERS
from pipeline.perception.with_depth import DepthPerceiver
from pipeline.perception.with_masks import MaskedPerceiver
from pipeline.runtime.catalog import ESTIMATORS
from pipeline.runtime.keypoint_estimator import KeypointEstimator
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
    with pytest.raises(
        ValueError, match=r"no estimator 'x'; there are: keypoints, instanthmr, onnx, sam3d$"
    ):
        make_estimator("x")


def test_a_perceiver_from_outside_is_found(coco):
    assert PERCEIVERS.names() == [*PERCEIVERS.parts, "coco"]


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


def test_a_setting_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="there is no setting 'peple'; did you mean people"):
        make_estimator(peple=2)
    with pytest.raises(OSError, match="nowhere"):
        make_estimator(body="nowhere", device="cpu")


def test_what_a_perceiver_from_outside_gets_wrong_is_said_with_its_name(tmp_path, monkeypatch):
    install(tmp_path, "bodystream.perceivers", "dict", "tests.support.outside.packages:Wrong")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="perceiver dict: its entry point made a"):
        make_estimator(perceiver="dict", device="cpu")


@pytest.mark.parametrize("frames", [0, 1, 3, 5])
def test_a_perceiver_that_loses_frames_is_refused(frames):
    class Loses(Perceiver):
        name = "loses"

        def decode(self, embedding, window):
            return [()] * frames, None

    estimator = KeypointEstimator(Loses(), BodyFitter(load_body()))
    window = Window(
        tuple(Frame(k, "s", 0, k / 30, np.zeros((4, 4, 3), np.uint8)) for k in range(4))
    )
    says = f"perceiver loses: people of {frames} frames for a window of 4"
    with pytest.raises(ValueError, match=says):
        estimator.perceive([window], [estimator.begin()])


class _Crowd(Perceiver):
    """A perceiver that knows nothing of areas: people side by side, and some that it leaves out."""

    def decode(self, embedding, window):
        people = tuple(self._person(x) for x in (50.0, 150.0, 250.0))
        return [people for _ in window.frames], {"out": 3}

    def unfollowed(self, memory):
        return memory["out"]

    @staticmethod
    def _person(x):
        points = np.stack([np.full(33, x), np.linspace(20, 80, 33)], 1).astype(np.float32)
        box = np.array([x - 10, 20, x + 10, 80], np.float32)
        return Person(box, 0.9, points, np.ones(33, np.float32), np.zeros((33, 3), np.float32))


def _crowd_window():
    return Window(
        tuple(Frame(k, "s", 0, k / 30, np.zeros((100, 300, 3), np.uint8)) for k in range(4))
    )


def test_areas_hold_for_every_perceiver():
    areas = Areas((Area(100, 0, 200, 100),), (Area(0.8, 0, 0.2, 1),))
    estimator = KeypointEstimator(_Crowd(), BodyFitter(load_body()), areas=areas)
    (detected,) = estimator.perceive([_crowd_window()], [estimator.begin()])
    for people in detected.people:
        assert [person.landmarks_px[0, 0] for person in people.values()] == [150.0]
    # One track, since no other was begun.
    assert {track for people in detected.people for track in people} == {1}


def test_the_number_of_people_not_followed_comes_with_the_window():
    estimator = KeypointEstimator(_Crowd(), BodyFitter(load_body()))
    (detected,) = estimator.perceive([_crowd_window()], [estimator.begin()])
    assert detected.unfollowed == 3
    assert Perceiver().unfollowed(None) == 0


def test_a_network_over_a_perceiver_passes_the_number_on():
    cpu = torch.device("cpu")
    for over in (MaskedPerceiver(_Crowd(), None, cpu), DepthPerceiver(_Crowd(), None, cpu)):
        assert over.unfollowed({"out": 2}) == 2
