"""`joint_visibility`: what is out of the picture or hidden is marked as such."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.camera import project
from pipeline.core.people import Person
from pipeline.core.skeleton import JOINT_NAMES, LANDMARKS
from pipeline.fitting.visibility import LANDMARK_SHARES, inside_picture, joint_visibility

SIZE = (480, 640)
LENS = np.array([[800.0, 0, 319.5], [0, 800.0, 239.5], [0, 0, 1]])


def person(visibility: np.ndarray) -> Person:
    points = np.zeros((LANDMARKS, 2), np.float32)
    return Person(np.zeros(4, np.float32), 1.0, points, visibility.astype(np.float32), None)


@given(st.integers(0, 10_000))
def test_it_is_between_the_least_and_the_most_visible_landmark(seed):
    rng = np.random.default_rng(seed)
    seen = person(rng.uniform(size=LANDMARKS))
    joints_m = rng.uniform(-0.1, 0.1, (24, 3)) + [0, 0, 4]
    got = joint_visibility(seen, joints_m, LENS, SIZE)
    assert got.shape == (24,)
    assert got.dtype == np.float32
    assert seen.visibility.min() - 1e-6 <= got.min()
    assert got.max() <= seen.visibility.max() + 1e-6


@given(st.integers(0, 10_000))
def test_a_joint_outside_the_picture_is_unseen_however_sure_the_perceiver_is(seed):
    rng = np.random.default_rng(seed)
    joints_m = rng.uniform(-4, 4, (24, 3)) + [0, 0, 5]
    got = joint_visibility(person(np.ones(LANDMARKS)), joints_m, LENS, SIZE)
    x, y = project(joints_m, LENS).T
    outside = (x < 0) | (y < 0) | (x > 639) | (y > 479)
    assert not got[outside].any()
    assert np.all(got[~outside] > 0)


def test_an_arm_that_the_perceiver_does_not_see_is_unseen():
    visibility = np.ones(LANDMARKS)
    visibility[[13, 15, 17, 19, 21]] = 0.0
    got = joint_visibility(person(visibility), np.full((24, 3), [0, 0, 4.0]), LENS, SIZE)
    unseen = {name for name, value in zip(JOINT_NAMES, got) if value < 0.5}
    assert unseen == {"left_elbow", "left_wrist", "left_hand"}


def test_each_joint_is_a_mean_of_landmarks():
    assert LANDMARK_SHARES.shape == (24, 33)
    assert LANDMARK_SHARES.sum(1) == pytest.approx(1.0)


def test_without_a_size_every_joint_is_inside():
    joints_m = np.full((24, 3), [100.0, 0, 4])
    assert (joint_visibility(person(np.ones(LANDMARKS)), joints_m, LENS, None) > 0.999).all()


def test_it_rises_from_the_edge_inward():
    across = np.linspace(-20, 320, 60)
    values = inside_picture(np.stack((across, np.full(60, 240.0)), -1), SIZE)
    assert np.all(np.diff(values) >= 0)
    assert values[0] == 0
    assert values[-1] == 1
