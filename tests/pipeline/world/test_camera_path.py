"""What is kept of a camera's motion: each frame's own, the nearest before between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.core.camera import default_intrinsics
from pipeline.runtime.two_passes import zoomed
from pipeline.world.camera_path import CameraPath

SIZE = (180, 320)
K = default_intrinsics(*SIZE)
NO_BOXES = np.zeros((0, 4))


def picture(shift=0):
    random = np.random.default_rng(0)
    wide = cv2.resize(random.integers(0, 255, (45, 120, 3), np.uint8), (480, 180))
    return np.ascontiguousarray(wide[:, 80 + shift : 400 + shift])


def test_a_still_camera_does_not_move():
    path = CameraPath()
    for k in range(5):
        assert path.add(k, picture(), SIZE, NO_BOXES, K, cut=k == 0) == 1.0
    assert not path.moves
    frames = np.arange(5)
    np.testing.assert_array_equal(path.rotations(frames), np.broadcast_to(np.eye(3), (5, 3, 3)))
    assert path.zoom(frames).tolist() == [1.0] * 5
    assert path.warning == ""


def test_a_turn_is_kept_by_its_frame():
    path = CameraPath()
    for k in range(8):
        path.add(10 + 2 * k, picture(3 * k), SIZE, NO_BOXES, K, cut=k == 0)
    assert path.moves
    angle = np.linalg.norm(path.rotvec(np.array([24])), axis=1)
    assert np.degrees(angle[0]) == pytest.approx(np.degrees(np.arctan(21 / K[0, 0])), rel=0.1)
    # Between two frames the camera looks where it looked last, before the first as in it.
    np.testing.assert_array_equal(path.rotvec(np.array([17])), path.rotvec(np.array([16])))
    np.testing.assert_array_equal(path.rotvec(np.array([3])), path.rotvec(np.array([10])))
    assert len(set(path.references(np.arange(10, 25)).tolist())) == 1


def test_a_cut_and_another_size_begin_again():
    path = CameraPath()
    for k in range(4):
        path.add(k, picture(), SIZE, NO_BOXES, K, cut=k in (0, 2))
    small = cv2.resize(picture(), (240, 136))
    path.add(4, small, (136, 240), NO_BOXES, default_intrinsics(136, 240), cut=False)
    references = path.references(np.arange(5)).tolist()
    assert references[0] == references[1] != references[2] == references[3] != references[4]


def test_a_tiny_picture_tells_nothing():
    path = CameraPath()
    tiny = np.zeros((32, 32, 3), np.uint8)
    for k in range(3):
        assert path.add(k, tiny, (32, 32), NO_BOXES, default_intrinsics(32, 32), cut=False) == 1.0
    assert not path.moves


def test_nothing_that_was_added_is_no_motion():
    path = CameraPath()
    assert path.zoom(np.arange(3)).tolist() == [1.0] * 3
    assert path.references(np.arange(3)).tolist() == [0, 0, 0]
    assert not path.rotvec(np.arange(3)).any()


def test_a_lens_is_zoomed_about_its_middle():
    assert zoomed(K, 1.0) is K
    longer = zoomed(K, 1.5)
    np.testing.assert_allclose(longer[[0, 1], [0, 1]], 1.5 * K[[0, 1], [0, 1]])
    np.testing.assert_array_equal(longer[:, 2], K[:, 2])
