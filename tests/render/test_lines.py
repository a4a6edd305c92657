"""Skeletons and wireframes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.renderers import mannequin, scene
from render.lines import SkeletonRenderer, WireframeRenderer
from render.rasterize_cpu import visibility

LENS = np.array([[100.0, 0, 80], [0, 100.0, 60], [0, 0, 1]])
JOINTS = np.array([[[-0.5, 0, 2], [0, 0, 2], [0.5, 0, 2], [0.5, 0.4, 2]]], np.float32)
BONES = np.array([[0, 1], [1, 2], [2, 3]])
GREEN = np.array([[0.0, 1.0, 0.0]])


def gray() -> np.ndarray:
    return np.full((120, 160, 3), 100, np.uint8)


def test_bones_run_from_joint_to_joint_over_a_dark_outline():
    drawn = SkeletonRenderer().draw(gray(), JOINTS, BONES, GREEN, LENS, 1.0)
    assert drawn[60, 60:100, 1].min() > 200
    assert (drawn[60, 60:100, 0] < 60).all()
    assert drawn[52:59, 70].max(axis=-1).min() < 30
    assert (drawn[:40] == 100).all()
    half = SkeletonRenderer().draw(gray(), JOINTS, BONES, GREEN, LENS, 0.5)
    assert half[60, 70, 0] == pytest.approx(50, abs=1)


def test_a_hidden_joint_has_no_bones():
    opacity = np.array([[1, 1, 0.3, 1]], np.float32)
    drawn = SkeletonRenderer().draw(gray(), JOINTS, BONES, GREEN, LENS, 1.0, opacity)
    assert drawn[60, 70, 1] > 200
    assert (drawn[:, 92:] == 100).all()


def test_joints_behind_the_camera_and_far_outside_are_left_out():
    joints = JOINTS.copy()
    joints[0, 0] = [0, 0, -1]
    joints[0, 3] = [1e9, 0, 1]
    drawn = SkeletonRenderer().draw(gray(), joints, BONES, GREEN, LENS, 1.0)
    assert drawn[60, 90, 1] > 200
    assert (drawn[:, :70] == 100).all()


def test_no_people_change_nothing():
    for renderer in (SkeletonRenderer(), WireframeRenderer()):
        none = renderer.draw(gray(), JOINTS[:0], BONES if renderer.name == "skeleton"
                             else np.array([[0, 1, 2]]), GREEN[:0], LENS)  # fmt: skip
        assert np.array_equal(none, gray())


def test_a_wireframe_lies_on_its_shape_and_hidden_people_have_none():
    vertices, faces = mannequin(8, 7)
    image, bodies, colors, lens = scene(vertices, 1, 240, 320)
    image[:] = 100
    drawn = WireframeRenderer().draw(image, bodies, faces, colors, lens, 1.0)
    on = (drawn != image).any(axis=-1)
    body = visibility(bodies, faces, lens, (240, 320))[0] >= 0
    assert on[body].mean() > 0.1
    from scipy.ndimage import binary_dilation

    assert not on[~binary_dilation(body, iterations=3)].any()
    behind = np.concatenate([bodies, bodies + np.array([0, 0, 1], np.float32)])
    behind[1, :, :2] *= (behind[0, :, 2:] + 1) / behind[0, :, 2:] * 0.3
    red_green = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    drawn = WireframeRenderer().draw(image, behind, faces, red_green, lens, 1.0)
    trunk = body & (visibility(behind[1:], faces, lens, (240, 320))[0] >= 0)
    covered = binary_dilation(~body, iterations=3)
    assert not ((drawn[..., 1] > 150) & trunk & ~covered).any()


def test_faded_vertices_have_no_edges():
    vertices, faces = mannequin(8, 7)
    image, bodies, colors, lens = scene(vertices, 1, 240, 320)
    clear = np.zeros(bodies.shape[:2], np.float32)
    drawn = WireframeRenderer().draw(image, bodies, faces, colors, lens, 1.0, clear)
    assert np.array_equal(drawn, image)
