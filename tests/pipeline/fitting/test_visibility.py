"""`joint_visibility`: what is out of the picture or hidden is marked as such."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.camera import project
from pipeline.core.mask_lookup import parts_of, value_at
from pipeline.core.people import Mask, Person
from pipeline.core.skeleton import BLAZEPOSE_33, JOINT_NAMES, LANDMARKS
from pipeline.fitting.visibility import (
    CALIBRATION,
    LANDMARK_SHARES,
    depth_inside,
    hidden_parts,
    invented_landmarks,
    joint_visibility,
    picture_sizes,
    seen_landmarks,
)

SIZE = (480, 640)
LENS = np.array([[800.0, 0, 319.5], [0, 800.0, 239.5], [0, 0, 1]])


def visible_joints(
    seen: Person, joints_m: np.ndarray, size: tuple[int, int] | None = SIZE
) -> tuple[np.ndarray, float]:
    sizes = picture_sizes([size])
    right, mean = joint_visibility(seen_landmarks([seen], sizes), joints_m[None], LENS[None], sizes)
    return right[0], float(mean[0])


def invented(seen: Person, size: tuple[int, int] | None = SIZE) -> np.ndarray:
    return invented_landmarks([seen], picture_sizes([size]))[0]


def person(visibility: np.ndarray) -> Person:
    points = np.zeros((LANDMARKS, 2), np.float32)
    return Person(np.zeros(4, np.float32), 1.0, points, visibility.astype(np.float32), None)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, LANDMARKS - 1))
def test_a_landmark_that_is_seen_better_lowers_no_joint(seed, which):
    rng = np.random.default_rng(seed)
    visibility = rng.uniform(0, 0.8, LANDMARKS)
    joints_m = rng.uniform(-0.1, 0.1, (24, 3)) + [0, 0, 4]
    before, mean_before = visible_joints(person(visibility), joints_m)
    visibility[which] += 0.2
    after, mean_after = visible_joints(person(visibility), joints_m)
    assert after.shape == (24,)
    assert after.dtype == np.float32
    assert np.all((after >= 0) & (after <= 1))
    assert np.all(after >= before - 1e-6)
    assert mean_after >= mean_before - 1e-6


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_the_mean_is_that_of_the_joints_in_the_picture(seed):
    rng = np.random.default_rng(seed)
    joints_m = rng.uniform(-4, 4, (24, 3)) + [0, 0, 5]
    every = person(np.ones(LANDMARKS))
    got, mean = visible_joints(every, joints_m)
    best = CALIBRATION[1][-1]
    assert mean == pytest.approx(best if got.any() else 0.0, abs=1e-5)


def test_a_hand_invented_beside_an_elbow_out_of_the_picture_is_no_landmark():
    visibility = np.full(LANDMARKS, 0.9)
    points = np.full((LANDMARKS, 2), 200.0, np.float32)
    wrist, elbow = BLAZEPOSE_33.indices("left_wrist", "left_elbow")
    visibility[wrist] = 0.1
    shown = replace(person(visibility), landmarks_px=points)
    assert not invented(shown, SIZE).any()
    points[elbow] = [320, 900]
    got = invented(shown, SIZE)
    assert got[[wrist, elbow]] == pytest.approx(1.0)
    assert got.sum() == pytest.approx(2.0)


LEG = BLAZEPOSE_33.indices("left_knee", "left_ankle", "left_heel", "left_foot_index")


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.0, 0.15), st.sampled_from([SIZE, None]))
def test_a_doubted_limb_is_invented_as_far_as_the_mask_does_not_show_it(shown, visible, size):
    visibility = np.ones(LANDMARKS, np.float32)
    visibility[LEG] = visible
    points = np.full((LANDMARKS, 2), (320.0, 120.0), np.float32)
    points[LEG] = [(320, 200), (320, 280), (320, 300), (325, 305)]
    # Down to the hip the mask shows the body; below, as much as is drawn.
    values = np.ones((64, 64), np.float32)
    values[32:] = shown
    mask = Mask(values, np.array([[5, 0, 160], [0, 5, -40]], np.float32))
    behind = replace(person(visibility), landmarks_px=points, mask=mask)
    got = invented(behind, size)
    assert got[LEG] == pytest.approx(np.clip((0.5 - shown) / 0.4, 0, 1), abs=1e-5)
    assert not np.delete(got, LEG).any()
    # A limb that the perceiver sees is where it says, and without a mask nothing is known.
    sure = replace(behind, visibility=np.ones(LANDMARKS, np.float32))
    assert not invented(sure, size).any()
    assert not invented(replace(behind, mask=None), size).any()


@settings(deadline=None)
@given(st.floats(20, 300), st.floats(20, 300))
def test_a_mask_says_nothing_outside_the_picture(left, top):
    to_image = np.array([[5, 0, 640 - left], [0, 5, 480 - top]], np.float32)
    mask = Mask(np.ones((128, 128), np.float32), to_image)
    shown, sizes = replace(person(np.ones(LANDMARKS)), mask=mask), picture_sizes([SIZE])
    unknown = hidden_parts([shown], 64, sizes, seen_landmarks([shown], sizes))[0]
    y, x = np.mgrid[:64, :64]
    outside = (640 - left + 10 * x + 2.5 > 639) | (480 - top + 10 * y + 2.5 > 479)
    assert (unknown == outside).all()


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_joint_outside_the_picture_is_unseen_however_sure_the_perceiver_is(seed):
    rng = np.random.default_rng(seed)
    joints_m = rng.uniform(-4, 4, (24, 3)) + [0, 0, 5]
    got, _ = visible_joints(person(np.ones(LANDMARKS)), joints_m)
    x, y = project(joints_m, LENS).T
    outside = (x < 0) | (y < 0) | (x > 639) | (y > 479)
    assert not got[outside].any()
    assert np.all(got[~outside] > 0)


def test_an_arm_that_the_perceiver_does_not_see_is_unseen():
    visibility = np.ones(LANDMARKS)
    visibility[[13, 15, 17, 19, 21]] = 0.0
    got, _ = visible_joints(person(visibility), np.full((24, 3), [0, 0, 4.0]))
    unseen = {name for name, value in zip(JOINT_NAMES, got) if value < 0.5}
    assert unseen == {"left_elbow", "left_wrist", "left_hand"}


def test_each_joint_is_a_mean_of_landmarks():
    assert LANDMARK_SHARES.shape == (24, 33)
    assert LANDMARK_SHARES.sum(1) == pytest.approx(1.0)


def test_without_a_size_every_joint_is_inside():
    joints_m = np.full((24, 3), [100.0, 0, 4])
    got, _ = visible_joints(person(np.ones(LANDMARKS)), joints_m, None)
    assert got == pytest.approx(CALIBRATION[1][-1])


@settings(deadline=None)
@given(st.floats(-400, 1000, width=32), st.floats(-400, 900, width=32))
def test_the_depth_inside_is_positive_in_the_picture_alone(x, y):
    inside = 0 < x < 639 and 0 < y < 479
    assert (depth_inside(x, y, *SIZE) > 0) == inside


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_people_are_measured_together_as_each_alone(seed):
    """People of several pictures, some without a mask or an edge, some half outside."""
    random = np.random.default_rng(seed)
    sizes = picture_sizes([SIZE, None, (200, 300), SIZE])
    people = [
        replace(
            person(random.uniform(0, 1, LANDMARKS)),
            landmarks_px=random.uniform(-100, 700, (LANDMARKS, 2)).astype(np.float32),
            mask=Mask(
                random.uniform(0, 1, (32, 32)).astype(np.float32),
                np.array([[9, 1, random.uniform(-90, 400)], [-1, 9, 40]], np.float32),
            ),
        )
        for _ in sizes
    ]
    seen = seen_landmarks(people, sizes)
    hidden = hidden_parts(people, 64, sizes, seen)
    people.append(replace(people[0], mask=None))
    every = seen_landmarks(people, sizes[[0, 1, 2, 3, 0]])
    for k in range(4):
        alone = seen_landmarks([people[k]], sizes[k : k + 1])
        assert (alone[0] == seen[k]).all()
        assert (every[k] == seen[k]).all()
        assert (hidden_parts([people[k]], 64, sizes[k : k + 1], alone)[0] == hidden[k]).all()


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_the_compiled_look_into_a_mask_is_the_masks_own(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 40, 2))
    turn, scale = rng.uniform(-np.pi, np.pi), rng.uniform(0.2, 9)
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    to_image = np.array([[c, -s, 3], [s, c, -5]]) + rng.normal(0, 0.05, (2, 3))
    mask = Mask(rng.random(size).astype(np.float32), to_image.astype(np.float32))
    points = np.concatenate((rng.uniform(-99, 99, (40, 2)), [[np.nan, 0], [0, np.inf]]))
    inside = mask.to_image[:, :2] @ rng.uniform(-1, 1, (2, 40)) * max(size) + to_image[:, 2:]
    for x, y in [*points, *inside.T]:
        expected = mask.at(np.array([x, y])) if np.isfinite(x + y) else 0.0
        assert value_at(*parts_of(mask), x, y) == expected
