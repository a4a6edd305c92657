"""SAM 3D Body on key frames, with BlazePose's landmarks between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.core.skeleton import BLAZEPOSE_33, LANDMARK_NAMES, MHR_70
from pipeline.perception.base import Perceiver, PerceiverOptions
from pipeline.perception.crop_tracking import seen_box
from pipeline.perception.sam3d_keyframe import (
    MOST_MOTION,
    NEIGHBOURS,
    PROMPTS,
    KeyFramePeople,
    prompts_of,
)
from pipeline.perception.sam3d_people import Sam3dPeople
from pipeline.perception.with_masks import motion
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.prompt_encoder import NO_PROMPT
from pipeline.sam3d.rig import Rig
from tests.pipeline.sam3d.golden_rule import TINY
from tests.support.sam3d_release import upright_network

HEIGHT = 180.0


@pytest.fixture(scope="module")
def network():
    weights, tensors = upright_network()
    made = Sam3dBody(TINY)
    made.load_state_dict(weights)
    return made.prepare(Rig(tensors))


def person(roi, shift=0.0):
    random = np.random.default_rng(roi)
    points = random.uniform((60, 20), (140, 20 + HEIGHT), (33, 2)).astype(np.float32)
    points[:2] = [[60, 20], [140, 20 + HEIGHT]]
    points[15, 0] += shift
    box = np.array([60, 20, 140, 20 + HEIGHT], np.float32)
    return Person(box, 0.9, points, np.ones(33, np.float32), np.zeros((33, 3), np.float32), roi=roi)


class Script(Perceiver):
    """Returns what it is given, window by window; its memory counts the windows."""

    name = "script"

    def __init__(self, *windows):
        self.windows = windows

    def embed(self, window, memory):
        return memory or 0

    def decode(self, embedding, window):
        return self.windows[embedding % len(self.windows)], embedding + 1


class Counting(Sam3dPeople):
    def __init__(self, network):
        super().__init__(Sam3dEngine(network), PerceiverOptions().intrinsics_of)
        self.alone, self.keyed = [], []

    def measure(self, queries):
        self.alone += queries
        return super().measure(queries)

    def measure_with_neighbours(self, queries, points_px, labels):
        self.keyed.append((queries, points_px, labels))
        return super().measure_with_neighbours(queries, points_px, labels)


@pytest.fixture
def counting(network):
    return Counting(network)


def window(number=0, key=2, reset=False):
    random = np.random.default_rng(number)
    images = random.integers(0, 255, (4, 240, 320, 3), np.uint8)
    frames = tuple(
        Frame(4 * number + k, "s", 0, (4 * number + k) / 30, image)
        for k, image in enumerate(images)
    )
    return replace(Window(frames, key), reset=reset)


def is_mhr(each):
    return each.keypoints is MHR_70 and each.mhr is not None


def test_still_people_are_decoded_from_the_key_frame(counting):
    people = [(person(1),), (person(1, 1.0),), (person(1),), (person(1, 2.0),)]
    made = KeyFramePeople(Script(people), counting, "prompts")
    ((found, _),) = made.perceive_many([window()], [None])
    assert [len(here) for here in found] == [1, 1, 1, 1]
    assert all(is_mhr(here[0]) for here in found)
    assert all(here[0].roi == 1 and here[0].score == np.float32(0.9) for here in found)
    assert not counting.alone
    assert (made.reused, made.refused) == (3, 0)
    ((queries, points, labels),) = counting.keyed
    assert points.shape == (1, NEIGHBOURS, PROMPTS, 2)
    assert [query.frame.id for query in queries] == [2]
    # The wrist that moved is the first prompt of the neighbour in which it did.
    assert MHR_70.names[labels[0, 1, 0]] == "left_wrist"
    np.testing.assert_array_equal(points[0, 1, 0], people[1][0].landmarks_px[15])


def test_a_neighbour_that_moved_far_is_measured_in_its_own_frame(counting):
    far = MOST_MOTION * HEIGHT * 1.1
    people = [(person(1, far),), (person(1),), (person(1),), (person(1), person(2))]
    made = KeyFramePeople(Script(people), counting, "prompts")
    ((found, _),) = made.perceive_many([window()], [None])
    assert all(is_mhr(each) for here in found for each in here)
    # The one who moved, and the one who is not in the key frame.
    assert [query.frame.id for query in counting.alone] == [0, 3]
    assert (made.reused, made.refused) == (2, 2)


def test_prompted_neighbours_are_the_engines(counting):
    people = [(person(1, 1.0),), (person(1),), (person(1),), (person(1),)]
    made = KeyFramePeople(Script(people), counting, "prompts")
    ((found, _),) = made.perceive_many([window()], [None])
    ((queries, points, labels),) = counting.keyed
    expected = counting.measure_with_neighbours(queries, points, labels)[0]
    for t, row in ((0, 1), (1, 2), (2, 0), (3, 3)):
        np.testing.assert_allclose(found[t][0].world_m, expected[row].world_m, atol=1e-6)


def test_landmarks_fill_the_frames_between(counting):
    people = [(person(1),), (person(1, 9.0),), (person(1),), (person(1),)]
    made = KeyFramePeople(Script(people), counting, "landmarks", every=2)
    memory, measured = None, []
    for number in range(4):
        ((found, memory),) = made.perceive_many([window(number)], [memory])
        measured.append([is_mhr(here[0]) for here in found])
        # What the key frame corrected is in all the others, so all of them are metric.
        assert all(here[0].world_sigma_m > 0 for here in found)
        assert found[1][0].keypoints is BLAZEPOSE_33
    assert measured == [[False, False, key, False] for key in (True, False, True, False)]
    # A cut ends what is remembered: the next key frame is measured.
    ((found, _),) = made.perceive_many([window(4, reset=True)], [replace(memory, since=1)])
    assert is_mhr(found[2][0])


def test_a_person_without_a_key_frame_keeps_blazeposes_landmarks(counting):
    people = [(person(1),), (person(1),), (), (person(1),)]
    made = KeyFramePeople(Script(people), counting, "landmarks")
    ((found, memory),) = made.perceive_many([window()], [None])
    assert found[0][0] is people[0][0]
    assert not memory.corrections


def test_windows_of_several_sources_share_a_batch_and_do_not_mix(counting):
    one = [(person(1),)] * 4
    both = KeyFramePeople(Script(one), counting, "prompts")
    windows = [window(0), window(1, key=1)]
    together = both.perceive_many(windows, [None, None])
    assert len(counting.keyed) == 1
    for each, (found, _) in zip(windows, together):
        ((alone, _),) = both.perceive_many([each], [None])
        for a, b in zip(found, alone):
            np.testing.assert_allclose(a[0].world_m, b[0].world_m, atol=2e-5)


@pytest.mark.parametrize("reuse", ["prompts", "landmarks"])
def test_windows_without_people_ask_nothing(counting, reuse):
    made = KeyFramePeople(Script([(), (), (), ()]), counting, reuse)
    ((found, _),) = made.perceive_many([window()], [None])
    assert found == [(), (), (), ()]
    assert not counting.alone
    assert not counting.keyed


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 32), unique=True, max_size=10), st.integers(0, 1000))
def test_prompts_are_the_limbs_that_moved_farthest_about_the_hips(hidden, seed):
    random = np.random.default_rng(seed)
    before = person(1)
    moved = before.landmarks_px + random.normal(0, 5, (33, 2)).astype(np.float32)
    visibility = np.ones(33, np.float32)
    visibility[hidden] = 0.2
    after = replace(before, landmarks_px=moved, visibility=visibility)
    points, labels = prompts_of(before, after)
    hips = [23, 24]
    far = np.linalg.norm(
        (moved - moved[hips].mean(0)) - (before.landmarks_px - before.landmarks_px[hips].mean(0)),
        axis=1,
    )
    limbs = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
    seen = [k for k in limbs if k not in hidden]
    expected = sorted(seen, key=lambda k: -far[k])[:PROMPTS]
    asked = [
        k for k in range(33) for point in points[labels != NO_PROMPT] if (moved[k] == point).all()
    ]
    assert sorted(asked) == sorted(expected)
    names = [MHR_70.names[label] for label in labels if label != NO_PROMPT]
    assert sorted(names) == sorted(LANDMARK_NAMES[k] for k in expected)


def test_a_person_who_enters_is_measured_at_once(counting):
    alone = [(person(1),)] * 4
    both = [(person(1), person(2))] * 4
    made = KeyFramePeople(Script(alone, both, both), counting, "landmarks", every=4)
    memory, asked = None, []
    for number in range(3):
        before = len(counting.alone)
        ((found, memory),) = made.perceive_many([window(number)], [memory])
        asked.append(len(counting.alone) - before)
        assert all(each.world_sigma_m is not None for here in found for each in here)
    assert asked == [1, 1, 0]


def test_the_crops_are_those_of_people_who_are_followed(counting):
    made = KeyFramePeople(Script([(person(1),)] * 4), counting, "landmarks")
    made.perceive_many([window()], [None])
    expected = seen_box(person(1), (240, 320))
    np.testing.assert_array_equal(counting.alone[0].box, expected)


def test_a_box_that_shows_nothing_is_not_asked_for(counting):
    tiny = replace(person(1), box_px=np.array([50.0, 50, 50, 50], np.float32))
    for reuse in ("prompts", "landmarks"):
        made = KeyFramePeople(Script([(tiny,)] * 4), counting, reuse)
        ((found, _),) = made.perceive_many([window()], [None])
        assert [here[0] is tiny for here in found] == [True] * 4
    assert not counting.alone
    assert not counting.keyed


def test_a_window_of_one_frame_has_no_neighbours(counting):
    made = KeyFramePeople(Script([(person(1),)]), counting, "prompts")
    short = replace(window(), frames=window().frames[:1], key=0)
    ((found, _),) = made.perceive_many([short], [None])
    assert is_mhr(found[0][0])
    assert len(counting.alone) == 1
    assert not counting.keyed


def test_masks_may_be_reused_between_people_of_different_networks(counting):
    made = KeyFramePeople(Script([(person(1),)] * 4), counting, "landmarks")
    ((found, _),) = made.perceive_many([window()], [None])
    assert np.isfinite(motion(found[0][0], found[2][0]))
