"""Masks by another network: each person gets the mask made from their own frame or, with reuse,
from the key frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.config import load_config
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person
from pipeline.core.skeleton import BLAZEPOSE_33, COCO_17, MHR_70
from pipeline.perception.base import Perceiver
from pipeline.perception.ultralytics_models.picture import Letterbox
from pipeline.perception.ultralytics_models.segment import MASK_SIDE, looks, region_of
from pipeline.perception.with_masks import MaskedPerceiver, motion
from pipeline.runtime.make import make_estimator
from pipeline.weights import store as weights

CPU = torch.device("cpu")


def person_at(roi, x):
    box = np.array([x, 10, x + 20, 50], np.float32)
    marks = np.tile((box[:2] + box[2:]) / 2, (33, 1)).astype(np.float32)
    world = np.zeros((33, 3), np.float32)
    return Person(box, 0.9, marks, np.ones(33, np.float32), world, roi=roi)


class Base(Perceiver):
    """Returns the people that it was given."""

    name = "base"

    def __init__(self, people):
        self.people, self.closed = people, False

    def prepare(self, window):
        return window

    def embed(self, window, memory):
        return "embedded", memory

    def decode(self, embedding, window):
        assert embedding[0] == "embedded"
        return list(self.people), "remembered"

    def close(self):
        self.closed = True


class Grey:
    """A person's mask is the level of its picture, plus a thousandth of its box's place."""

    real = True

    def __init__(self, once=False):
        self.once, self.pictures = once, []
        self._buffer = torch.zeros(8)

    def letterbox(self, height, width):
        return Letterbox.of(height, width, 100, centred=False)

    def embed(self, images):
        levels = images[:, 0, 0, 0].float()
        self.pictures.append(levels.tolist())
        # As a captured graph does: the same memory each time.
        self._buffer[: len(levels)] = levels
        return self._buffer[: len(levels)]

    def masks(self, embedding, people, picture):
        level = embedding[picture] + people[:, 0] / 1000
        return level[:, None, None].expand(-1, MASK_SIDE, MASK_SIDE)


def window_of(count=4, key=2):
    images = [np.full((60, 100, 3), 10 * (k + 1), np.uint8) for k in range(count)]
    return Window(tuple(Frame(k, "s", 0, k / 30, im) for k, im in enumerate(images)), key)


def levels_of(people):
    """For each frame, the level of each person's mask."""
    return [[round(float(p.mask.values.mean()), 3) for p in here] for here in people]


PEOPLE = [
    (person_at(1, 5),),
    (person_at(1, 6), person_at(2, 40)),
    (person_at(1, 7), person_at(2, 41)),
    (),
]


def test_every_frame_has_masks_of_its_own():
    segmenter = Grey()
    made = MaskedPerceiver(Base(PEOPLE), segmenter, CPU)
    people, memory = made.decode(made.embed(window_of(), "before"), window_of())
    assert memory == "remembered"
    assert levels_of(people) == [[10.005], [20.006, 20.04], [30.007, 30.041], []]
    assert segmenter.pictures == [[30.0], [10.0, 20.0]], "the key frame once, others together"
    for here in people:
        for person in here:
            corner = person.mask.to_image @ (-0.5, -0.5, 1)
            assert np.allclose(corner, region_of(person)[:2], atol=1e-4)


def test_the_key_frames_embedding_serves_its_neighbours():
    segmenter = Grey()
    made = MaskedPerceiver(Base(PEOPLE), segmenter, CPU, reuse=True, most_motion=1.0)
    people, _ = made.decode(made.embed(window_of(), None), window_of())
    assert levels_of(people) == [[30.005], [30.006, 30.04], [30.007, 30.041], []]
    assert segmenter.pictures == [[30.0]]


def test_an_instance_moves_with_its_person():
    people = [*PEOPLE[:3], (person_at(3, 60),)]
    segmenter = Grey(once=True)
    made = MaskedPerceiver(Base(people), segmenter, CPU, reuse=True, most_motion=1.0)
    found, _ = made.decode(made.embed(window_of(), None), window_of())
    # The third was not in the key frame, so its own frame is embedded.
    assert levels_of(found) == [[30.007], [30.007, 30.041], [30.007, 30.041], [40.06]]
    assert segmenter.pictures == [[30.0], [40.0]]


@pytest.mark.parametrize("reuse", [False, True])
def test_several_sources_together_as_one_by_one(reuse):
    segmenter = Grey()
    made = MaskedPerceiver(Base(PEOPLE), segmenter, CPU, reuse=reuse)
    windows = [window_of(), window_of(key=1)]
    alone = [made.decode(made.embed(w, None), w) for w in windows]
    together = made.perceive_many(windows, [None, None])
    for (a, _), (b, _) in zip(alone, together):
        assert levels_of(a) == levels_of(b)


@pytest.mark.parametrize("once", [False, True])
def test_reuse_is_refused_where_people_move(once):
    """The first moves by a fortieth of its height in a frame, the second stands still."""
    people = [(person_at(1, 5 + t), person_at(2, 40)) for t in range(4)]
    segmenter = Grey(once)
    made = MaskedPerceiver(Base(people), segmenter, CPU, reuse=True, most_motion=0.03)
    found, _ = made.decode(made.embed(window_of(), None), window_of())
    first, second = zip(*levels_of(found))
    assert [round(level) for level in first] == [10, 30, 30, 30]
    assert [round(level) for level in second] == [30] * 4
    assert segmenter.pictures == [[30.0], [10.0]]
    assert (made.reused, made.refused) == (5, 1)


def test_motion_is_of_visible_landmarks():
    before, after = person_at(1, 5), person_at(1, 5)
    after.landmarks_px[15] += (0, 8)
    assert motion(before, after) == pytest.approx(8 / 40)
    after.visibility[15] = 0.1
    assert motion(before, after) == 0.0
    after.visibility[:] = 0.1
    assert motion(before, after) == np.inf


def test_a_person_without_a_new_mask_keeps_its_own():
    class Blind(Grey):
        def masks(self, embedding, people, picture):
            return torch.zeros(len(people), MASK_SIDE, MASK_SIDE)

    own = Mask(np.ones((4, 4), np.float32), np.eye(2, 3, dtype=np.float32))
    base = Base([(replace(person_at(1, 5), mask=own),)])
    made = MaskedPerceiver(base, Blind(), CPU)
    (((person,),), _) = made.decode(made.embed(window_of(1, 0), None), window_of(1, 0))
    assert person.mask is own


def test_frames_without_people_cost_nothing():
    segmenter = Grey()
    base = Base([(), (), (), ()])
    base.perceive_many = lambda windows, memories: [base.decode(("embedded",), w) for w in windows]
    made = MaskedPerceiver(base, segmenter, CPU)
    ((people, _),) = made.perceive_many([window_of()], [None])
    assert people == [(), (), (), ()]
    assert segmenter.pictures == []
    made.close()
    assert base.closed


def test_profiles_choose_it():
    plan = load_config("rtx4090").perceive
    assert (plan.masks, plan.reuse) == ("fastsam-x", True)
    assert load_config("baseline").perceive.masks == "sam-h"
    assert load_config("default").perceive.masks == "own"


@pytest.mark.weights
def test_missing_weights_are_named(tmp_path):
    weights.find("blazepose")
    if all(state.path for state in weights.status("fastsam-s")):
        pytest.skip("FastSAM's weights are here")
    with pytest.raises(weights.WeightsError, match="weights fetch fastsam-s"):
        make_estimator(device="cpu", masks="fastsam-s")


@pytest.mark.parametrize("keypoints", [COCO_17, MHR_70, BLAZEPOSE_33], ids=lambda k: k.name)
def test_the_place_of_the_hips_is_that_of_the_persons_own_set(keypoints):
    points = np.zeros((len(keypoints), 2), np.float32)
    points[list(keypoints.hips)] = [(30, 40), (50, 44)]
    box = np.array([20, 10, 60, 90], np.float32)
    person = Person(box, 1.0, points, np.ones(len(points)), None, keypoints=keypoints)
    square = Letterbox.of(100, 100, 100, centred=True)
    middle = 2 * (np.array([40, 42]) + 0.5) / 100 - 1
    assert np.allclose(looks([person], square, square)[0, 8:], middle)
