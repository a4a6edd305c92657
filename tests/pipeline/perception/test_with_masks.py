"""Masks by another network: every person of every frame gets the mask made of their own picture,
or, where the key frame's is reused, of that one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.config import load_config
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person
from pipeline.perception.base import Perceiver
from pipeline.perception.ultralytics_models.picture import Letterbox
from pipeline.perception.ultralytics_models.segment import MASK_SIDE, region_of
from pipeline.perception.with_masks import MaskedPerceiver, motion
from pipeline.runtime.make import make_estimator
from pipeline.weights import store as weights

CPU = torch.device("cpu")


def someone(roi, x):
    box = np.array([x, 10, x + 20, 50], np.float32)
    marks = np.tile((box[:2] + box[2:]) / 2, (33, 1)).astype(np.float32)
    world = np.zeros((33, 3), np.float32)
    return Person(box, 0.9, marks, np.ones(33, np.float32), world, roi=roi)


class Base(Perceiver):
    """Finds whom it is told to find."""

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
    """A person's mask is the level of the picture it was made from, less where their box is."""

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

    def masks(self, found, seen, picture):
        level = found[picture] + seen[:, 0] / 1000
        return level[:, None, None].expand(-1, MASK_SIDE, MASK_SIDE)


def window_of(count=4, key=2):
    images = [np.full((60, 100, 3), 10 * (k + 1), np.uint8) for k in range(count)]
    return Window(tuple(Frame(k, "s", 0, k / 30, im) for k, im in enumerate(images)), key)


def levels_of(people):
    """Of each frame, each person's mask's level, without and with where their box is."""
    return [[round(float(p.mask.values.mean()), 3) for p in here] for here in people]


PEOPLE = [(someone(1, 5),), (someone(1, 6), someone(2, 40)), (someone(1, 7), someone(2, 41)), ()]


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


def test_an_instance_goes_along_with_its_person():
    people = [*PEOPLE[:3], (someone(3, 60),)]
    segmenter = Grey(once=True)
    made = MaskedPerceiver(Base(people), segmenter, CPU, reuse=True, most_motion=1.0)
    found, _ = made.decode(made.embed(window_of(), None), window_of())
    # The third was not in the key frame, so their own is looked at.
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
def test_reuse_is_refused_to_whoever_moves(once):
    """The first moves by a fortieth of their height in a frame, the second stands."""
    people = [(someone(1, 5 + t), someone(2, 40)) for t in range(4)]
    segmenter = Grey(once)
    made = MaskedPerceiver(Base(people), segmenter, CPU, reuse=True, most_motion=0.03)
    found, _ = made.decode(made.embed(window_of(), None), window_of())
    first, second = zip(*levels_of(found))
    assert [round(level) for level in first] == [10, 30, 30, 30]
    assert [round(level) for level in second] == [30] * 4
    assert segmenter.pictures == [[30.0], [10.0]]
    assert (made.reused, made.refused) == (5, 1)


def test_motion_is_of_what_is_seen():
    before, after = someone(1, 5), someone(1, 5)
    after.landmarks_px[15] += (0, 8)
    assert motion(before, after) == pytest.approx(8 / 40)
    after.visibility[15] = 0.1
    assert motion(before, after) == 0.0
    after.visibility[:] = 0.1
    assert motion(before, after) == np.inf


def test_who_is_not_found_keeps_the_mask_they_had():
    class Blind(Grey):
        def masks(self, found, seen, picture):
            return torch.zeros(len(seen), MASK_SIDE, MASK_SIDE)

    own = Mask(np.ones((4, 4), np.float32), np.eye(2, 3, dtype=np.float32))
    base = Base([(replace(someone(1, 5), mask=own),)])
    made = MaskedPerceiver(base, Blind(), CPU)
    (((person,),), _) = made.decode(made.embed(window_of(1, 0), None), window_of(1, 0))
    assert person.mask is own


def test_nobody_costs_nothing():
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
def test_weights_that_are_not_there_are_asked_for(tmp_path):
    weights.find("blazepose")
    if all(state.path for state in weights.status("fastsam-s")):
        pytest.skip("FastSAM's weights are here")
    with pytest.raises(weights.WeightsError, match="weights fetch fastsam-s"):
        make_estimator(device="cpu", masks="fastsam-s")
