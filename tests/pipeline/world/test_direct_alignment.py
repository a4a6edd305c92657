"""Direct alignment against the truth of made-up scenes without corners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.world.background_points import Shrunk, are_enough, find_points
from pipeline.world.direct_alignment import DirectKey
from pipeline.world.pyramid import Pyramid
from pipeline.world.rotation_zoom import View, moved, transfer
from tests.support.panorama import Scene, angle_deg, hall, posts, texture, turn

SIZE = 360, 640
HALLS = [Scene(seed, SIZE, draw=hall) for seed in range(2)]
SHRUNK = Shrunk(SIZE)
LENS = SHRUNK.intrinsics(HALLS[0].intrinsics)
NONE = np.zeros((0, 4))
seeds = st.integers(0, 2**31)
angles = st.floats(-0.5, 0.5)


def pyramid(image: np.ndarray, seed: int, boxes_px: np.ndarray = NONE, sigma=3.0) -> Pyramid:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return Pyramid(SHRUNK.grey(np.clip(image + noise, 0, 255).astype(np.uint8)), boxes_px)


@settings(max_examples=25)
@given(
    st.integers(0, 1), st.floats(-25, 25), angles, angles, angles, st.floats(0.985, 1.015),
    st.floats(0.6, 1.1), st.floats(-20, 20), seeds,
)  # fmt: skip
def test_a_turn_and_a_zoom_are_found(which, pan, right, up, roll, zoom, gain, offset, seed):
    """From half a degree away on each axis, which is 12 pixels, in another light."""
    scene, first, second = HALLS[which], turn(pan), turn(pan + right, up, roll)
    assert not are_enough(find_points(SHRUNK.grey(scene.picture(first)), NONE))
    start = View(first, 1.0)
    key = DirectKey(pyramid(scene.picture(first), seed), start, LENS)
    assert key.determined
    found = key.align(pyramid(gain * scene.picture(second, zoom) + offset, seed + 1), start)
    assert found is not None
    assert found.good
    assert found.unsure == 0
    assert angle_deg(found.view.rotation, second) <= 0.05
    assert abs(found.view.zoom / zoom - 1) <= 0.003
    assert np.allclose(found.view.rotation.T @ found.view.rotation, np.eye(3), atol=1e-9)


@settings(max_examples=10)
@given(st.floats(-8, 8), st.floats(-3, 3), st.floats(-10, 10), st.floats(0.8, 1.25), seeds)
def test_a_far_view_is_refined_from_a_near_guess(pan, tilt, roll, zoom, seed):
    """The key frame looks elsewhere; the guess is a few pixels off."""
    scene, start = HALLS[0], View(np.eye(3), 1.0)
    key = DirectKey(pyramid(scene.picture(np.eye(3)), seed), start, LENS)
    true = View(turn(pan, tilt, roll), zoom)
    step = np.random.default_rng(seed).uniform(-0.004, 0.004, 4)
    found = key.align(pyramid(scene.picture(true.rotation, zoom), seed + 1), moved(true, step))
    assert found is not None
    assert found.good
    assert angle_deg(found.view.rotation, true.rotation) <= 0.1
    assert abs(found.view.zoom / zoom - 1) <= 0.005


@settings(max_examples=10)
@given(st.floats(0, 0.4), angles, seeds)
def test_a_body_in_a_box_moves_nothing(share, right, seed):
    """Up to 40 per cent of the width is a body of strong texture that moves the other way."""
    scene, wide = HALLS[1], int(share * SIZE[1])
    pictures, boxes = [], []
    for place, angle in ((200, 0.0), (180 - int(40 * right), right)):
        image = scene.picture(turn(angle)).copy()
        if wide:
            image[:, place : place + wide] = texture(3)[: SIZE[0], 1000 : 1000 + wide]
        pictures.append(image)
        boxes.append(np.array([[place - 30, 0, place + wide + 30, SIZE[0]]], float))
    start = View(np.eye(3), 1.0)
    key = DirectKey(pyramid(pictures[0], seed, boxes[0]), start, LENS)
    found = key.align(pyramid(pictures[1], seed + 1, boxes[1]), start)
    assert found is not None
    assert found.good
    assert angle_deg(found.view.rotation, turn(right)) <= 0.1


@settings(max_examples=10)
@given(st.floats(-25, 25), st.floats(-25, 25), seeds)
def test_another_scene_is_not_taken_for_this_one(pan, other_pan, seed):
    start = View(np.eye(3), 1.0)
    key = DirectKey(pyramid(HALLS[0].picture(turn(pan)), seed), start, LENS)
    other = pyramid(Scene(1, SIZE).picture(turn(other_pan)), seed)
    found = key.align(other, start)
    assert found is None or not found.good


@pytest.mark.parametrize("sigma", [0.0, 2.0, 5.0])
def test_noise_determines_nothing(sigma):
    wall = np.full(SIZE, 120.0)
    start = View(np.eye(3), 1.0)
    key = DirectKey(pyramid(wall, 0, sigma=sigma), start, LENS)
    assert not key.determined
    found = key.align(pyramid(wall, 1, sigma=sigma), start)
    assert found is None or not found.good


def test_posts_leave_the_tilt_open_and_keep_the_guess_of_it():
    """Through a long lens a post looks the same from all heights."""
    scene = Scene(0, SIZE, 15.0, draw=posts)
    lens = SHRUNK.intrinsics(scene.intrinsics)
    start, true = View(turn(2.0), 1.0), turn(2.1)
    key = DirectKey(pyramid(scene.picture(start.rotation), 0), start, lens)
    assert not key.determined
    found = key.align(pyramid(scene.picture(true), 1), start)
    assert found is not None
    assert found.unsure >= 1
    middle = LENS[:2, 2][None]
    there, wanted = (
        transfer(middle, lens @ view.T @ start.rotation @ np.linalg.inv(lens))
        for view in (found.view.rotation, true)
    )
    assert abs(there - wanted)[0, 0] <= 0.5
    assert abs(there - middle)[0, 1] <= 1.0


def test_pixels_that_agree_say_so():
    picture, start = pyramid(HALLS[0].picture(np.eye(3)), 0), View(np.eye(3), 1.0)
    key = DirectKey(picture, start, LENS)
    assert key.median_off_px(picture, start) < 0.05
    assert key.median_off_px(picture, View(turn(0.2), 1.0)) > 0.5
