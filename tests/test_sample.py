"""The sample clip and its truth agree with each other, and with a fresh render."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.people import PARENTS, project

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="module")
def truth():
    with np.load(SAMPLES / "pitch_truth.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def maker():
    pytest.importorskip("pyrender")
    spec = importlib.util.spec_from_file_location("make_pitch", SAMPLES / "make_pitch.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_pitch"] = module
    spec.loader.exec_module(module)
    return module


def mask_of(truth, index):
    height, width = truth["mask_shape"]
    return np.unpackbits(truth["mask"][index])[: height * width].reshape(height, width) > 0


def test_the_clip_has_a_truth_for_every_frame(truth):
    with av.open(str(SAMPLES / "pitch.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == len(truth["frame"]) == len(truth["joints_m"])
    assert (frames[0].height, frames[0].width) == tuple(truth["image_size"])
    assert float(frames[-1].time) == pytest.approx(truth["pts_s"][-1], abs=1e-3)


def test_points_project_to_their_pixels(truth):
    for kind in ("joints", "landmarks"):
        pixels = project(truth[f"{kind}_m"], truth["intrinsics"])
        assert np.abs(pixels - truth[f"{kind}_px"]).max() < 0.01


def test_bones_keep_their_length_and_the_planted_foot_its_place(truth):
    joints = truth["joints_m"]
    for joint in (4, 5, 7, 8, 18, 19, 20, 21):
        length = np.linalg.norm(joints[:, joint] - joints[:, PARENTS[joint]], axis=-1)
        assert length.std() < 0.02 * length.mean(), joint
    assert np.abs(joints[:45, 8] - joints[0, 8]).max() < 0.05


def test_the_mask_holds_the_joints_and_the_surface(truth):
    surface = np.cumsum(truth["vertices_steps_mm"], axis=0, dtype=np.int32) / 1000
    surface = surface + truth["root_m"][:, None]
    height, width = truth["mask_shape"]
    for index in range(0, len(surface), 10):
        mask = mask_of(truth, index)
        at = np.rint(truth["joints_px"][index]).astype(int)
        assert mask[at[:, 1], at[:, 0]].mean() > 0.95
        pixels = np.rint(project(surface[index], truth["intrinsics"])).astype(int)
        inside = ((pixels >= 0) & (pixels < (width, height))).all(1)
        # Vertices on the rim fall beside the mask's outermost pixels.
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert wide[pixels[inside, 1], pixels[inside, 0]].mean() > 0.995
        ys, xs = np.nonzero(mask)
        assert np.abs(pixels[inside].min(0) - [xs.min(), ys.min()]).max() <= 2
        assert np.abs(pixels[inside].max(0) - [xs.max(), ys.max()]).max() <= 2


def test_depth_is_the_surfaces(truth):
    for index in range(0, len(truth["frame"]), 25):
        depth = truth["depth_m"][index].astype(float)
        there = depth > 0
        assert np.array_equal(there, mask_of(truth, index)[::8, ::8])
        assert abs(np.median(depth[there]) - truth["root_m"][index, 2]) < 0.35


def test_the_ball_leaves_the_hand_when_it_is_fastest(truth):
    hand = truth["joints_m"][:, 21]
    speed = np.linalg.norm(np.diff(hand, axis=0), axis=1) * float(truth["fps"])
    assert abs(int(speed.argmax()) - int(truth["release_frame"])) <= 2
    assert 10 < speed.max() < 30
    assert str(truth["hand"]) == "right"
    assert 1.5 < float(truth["stature_m"]) < 2.0


@pytest.mark.slow
def test_a_fresh_render_gives_the_same_truth_and_picture(truth, maker):
    pytest.importorskip("anny")
    clip = maker.Clip(int(truth["seed"]), tuple(truth["image_size"]), 30, False)
    painter = maker.Painter(clip.field)
    again = maker.truth_of(clip, painter, 57)
    assert np.abs(again["joints_m"] - truth["joints_m"][57]).max() < 1e-4
    fresh = np.unpackbits(again["mask"])[: mask_of(truth, 57).size].reshape(truth["mask_shape"]) > 0
    assert (fresh ^ mask_of(truth, 57)).mean() < 1e-4
    picture = clip.picture(painter, 57).astype(int)
    painter.close()
    with av.open(str(SAMPLES / "pitch.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert np.abs(picture - frames[57]).mean() < 6


@pytest.mark.slow
def test_a_left_hander_is_the_mirror_of_a_right_hander(maker):
    pytest.importorskip("anny")
    right = maker.Clip(0, (90, 160), 30, False)
    left = maker.Clip(0, (90, 160), 30, True)
    a, b = right.instant(1.9), left.instant(1.9)
    assert np.allclose(a[1][21] * [-1, 1, 1], b[1][20])
    assert np.allclose(a[2][15] * [-1, 1, 1], b[2][16])
    assert np.allclose(a[2][[9, 31]] * [-1, 1, 1], b[2][[10, 32]])
