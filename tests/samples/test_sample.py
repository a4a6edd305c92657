"""The sample and its truth agree with each other and with a fresh render; so do other clips."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from pipeline.core.camera import project
from pipeline.core.skeleton import PARENTS
from tests.support.paths import SAMPLES

SMALL = (96, 160)
KINDS = ("pitch", "throw_left", "walk", "run", "wave", "jump", "jacks", "squat", "kick", "stretch",
         "bend", "box")  # fmt: skip
ON_THE_FLOOR = {"floor", "seated"}
"""Motions of a suite of their own (`make_pitch.py --floor`), whose people do not stand."""
ON_THEIR_WAY = ("path", "lunges")
"""Motions of the suites with a world (`--walks`, `--moving`)."""


@pytest.fixture(scope="module")
def truth():
    with np.load(SAMPLES / "pitch_truth.npz") as arrays:
        return dict(arrays)


def mask_of(truth, row):
    height, width = truth["mask_shape"]
    return np.unpackbits(truth["mask"][row])[: height * width].reshape(height, width) > 0


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# What is shipped


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


def test_the_release_is_an_instant_between_frames(truth):
    at = float(truth["release_s"]) * float(truth["fps"])
    assert round(at) == int(truth["release_frame"])
    (joints,) = truth["release_joints_m"]
    about = truth["joints_m"][[int(np.floor(at)), int(np.ceil(at))]]
    assert np.abs(about - joints).max(axis=(1, 2)).min() < 0.2


def test_the_mask_holds_the_joints_and_the_surface(truth, maker):
    surface = maker.vertices_of(truth)
    faces = maker.faces_of(truth, 0)
    assert surface.shape[0] == len(truth["frame"])
    assert faces.max() < surface.shape[1]
    used = np.unique(faces)
    height, width = truth["mask_shape"]
    for row in range(0, len(surface), 10):
        mask = mask_of(truth, row)
        assert np.array_equal(mask, maker.mask_of(truth, row))
        at = np.rint(truth["joints_px"][row]).astype(int)
        assert mask[at[:, 1], at[:, 0]].mean() > 0.95
        pixels = np.rint(project(surface[row, used], truth["intrinsics"])).astype(int)
        assert ((pixels >= 0) & (pixels < (width, height))).all()
        # Vertices on the rim fall beside the mask's outermost pixels.
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        # The ball hides some of a hand.
        ball = truth["ball_m"][row]
        radius = 0.045 * truth["intrinsics"][0, 0] / ball[2]
        apart = np.linalg.norm(pixels - project(ball[None], truth["intrinsics"]), axis=1)
        clear = pixels[~(apart < radius)]
        assert wide[clear[:, 1], clear[:, 0]].mean() > 0.995
        ys, xs = np.nonzero(mask)
        assert np.abs(pixels.min(0) - [xs.min(), ys.min()]).max() <= 2
        assert np.abs(pixels.max(0) - [xs.max(), ys.max()]).max() <= 2


def test_depth_is_the_surfaces(truth):
    for row in range(0, len(truth["frame"]), 25):
        depth = truth["depth_m"][row].astype(float)
        there = depth > 0
        step = int(truth["depth_step"])
        assert np.array_equal(there, mask_of(truth, row)[::step, ::step])
        assert abs(np.median(depth[there]) - truth["root_depth_m"][row]) < 0.35


def test_the_ball_leaves_the_hand_when_it_is_fastest(truth):
    hand, release = truth["joints_m"][:, 21], int(truth["release_frame"])
    speed = np.linalg.norm(np.diff(hand, axis=0), axis=1) * float(truth["fps"])
    assert abs(int(speed.argmax()) - release) <= 2
    assert 10 < speed.max() < 30
    away = np.linalg.norm(truth["ball_m"] - hand, axis=1)
    assert away[:release].max() < 0.3
    assert away[release + 2] > 1.0
    assert str(truth["hand"]) == "right"
    assert 1.5 < float(truth["stature_m"][0]) < 2.0


def test_the_floor_lies_under_the_feet(truth):
    feet = truth["joints_m"][:, [10, 11]] @ truth["ground_plane"][:3] + truth["ground_plane"][3]
    assert feet.min() > 0
    assert feet.min(1).max() < 0.08


# What is made afresh


@pytest.mark.slow
def test_a_fresh_render_gives_the_same_truth_and_picture(truth, maker):
    clip = maker.Clip("pitch", int(truth["seed"]), 1, tuple(truth["image_size"]))
    instant, bodies = clip.instant(57 / clip.fps)
    (again,), depth = maker.truth.frame_truth(clip.scene, bodies, instant)
    assert np.abs(again["joints_m"] - truth["joints_m"][57]).max() < 1e-4
    assert (np.unpackbits(again["mask"]) ^ np.unpackbits(truth["mask"][57])).mean() < 1e-4
    assert np.abs(depth - truth["depth_m"][57]).max() < 0.01
    shown = frames_of(SAMPLES / "pitch.mp4")[57]
    assert np.abs(clip.picture(57).astype(int) - shown).mean() < 6


def ahead_of_line(joints, hip, knee, ankle):
    """How far the knee lies ahead, as the hips face, of the line from hip to ankle, metres."""
    a, b, c = joints[:, hip], joints[:, knee], joints[:, ankle]
    along = (c - a) / np.linalg.norm(c - a, axis=-1, keepdims=True)
    off = (b - a) - ((b - a) * along).sum(-1, keepdims=True) * along
    facing = np.cross(joints[:, 1] - joints[:, 2], [0.0, 1.0, 0.0])
    return (off * facing).sum(-1) / np.linalg.norm(facing, axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS + ON_THEIR_WAY)
def test_every_motion_is_a_bodys(kind, maker):
    """Knees bend forward, soles stay on or above the ground, nobody leaves the picture, landmarks
    that show lie in the mask, bones keep their length."""
    assert {*KINDS, *ON_THE_FLOOR, *ON_THEIR_WAY} == set(maker.MOTIONS)
    clip = maker.Clip(kind, (KINDS + ON_THEIR_WAY).index(kind) + 40, 1, SMALL, 30.0, 1.8)
    joints, soles = [], []
    for time_s in np.linspace(0, clip.seconds, 19):
        instant, (body,) = clip.instant(time_s)
        joints.append(body.joints())
        soles.append(instant.people[0][:, 1].min())
        if len(joints) % 6 == 1:
            (row,), _ = maker.truth.frame_truth(clip.scene, [body], instant)
            mask = np.unpackbits(row["mask"])[: SMALL[0] * SMALL[1]].reshape(SMALL)
            assert not (mask[[0, -1]].any())
            assert not (mask[:, [0, -1]].any())
            wide = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0
            at = np.rint(row["landmarks_px"]).astype(int)[row["landmarks_visible"]]
            assert len(at) > 8
            assert wide[at[:, 1], at[:, 0]].all()
    joints = np.array(joints)
    assert min(soles) > -0.05
    assert kind in ("jump", "jacks", "run") or max(soles) < 0.05
    for leg in ((1, 4, 7), (2, 5, 8)):
        assert ahead_of_line(joints, *leg).min() > -0.01
    for joint in (4, 5, 7, 8, 18, 19, 20, 21):
        length = np.linalg.norm(joints[:, joint] - joints[:, PARENTS[joint]], axis=-1)
        assert length.std() < 0.03 * length.mean(), joint


@pytest.mark.slow
def test_a_left_hander_throws_with_the_left(maker):
    clip = maker.Clip("throw_left", 3, 1, SMALL)
    hands = np.array([b.joints()[[20, 21]] for t in range(clip.frames) for b in clip.posed(t / 30)])
    speed = np.linalg.norm(np.diff(hands, axis=0), axis=-1) * 30
    assert abs(int(speed[:, 0].argmax()) - clip.release_frame) <= 2
    assert speed[:, 0].max() > 2 * speed[:, 1].max()


@pytest.mark.slow
def test_a_seed_is_one_clip_and_people_share_it(maker, tmp_path):
    first = maker.Clip("walk", 7, 2, SMALL, 30.0, 0.2)
    assert np.array_equal(first.picture(2), maker.Clip("walk", 7, 2, SMALL, 30.0, 0.2).picture(2))
    assert not np.array_equal(first.picture(2), maker.Clip("walk", 8, 2, SMALL, 30.0).picture(2))
    maker.render(first, tmp_path, "two")
    assert len(frames_of(tmp_path / "two.mp4")) == first.frames == 6
    with np.load(tmp_path / "two_truth.npz") as arrays:
        made = dict(arrays)
    assert made["frame"].tolist() == np.repeat(range(6), 2).tolist()
    assert made["person"].tolist() == [0, 1] * 6
    for person in (0, 1):
        vertices = maker.vertices_of(made, person)[2]
        drawn = first.camera.see(first.instant(2 / 30)[0].people[person])
        assert np.abs(vertices - drawn).max() < 1e-4
    both = [maker.mask_of(made, row) for row in (4, 5)]
    assert both[0].any()
    assert both[1].any()
    assert not (both[0] & both[1]).any()
    assert str(made["hand"]) == ""
    assert int(made["release_frame"]) == -1


def test_a_suite_has_all_motions_and_three_groups(maker):
    plans, others = maker.suite(1000, 20), maker.suite(2000, 20)
    assert plans == maker.suite(1000, 20)
    assert {plan.kind for plan in plans} == set(KINDS)
    assert sum(maker.MOTIONS[plan.kind].throws for plan in plans) == 5
    assert sorted(plan.people for plan in plans) == [1] * 17 + [2, 2, 3]
    assert all(48 <= plan.frames <= 60 for plan in plans + others)
    assert not {plan.seed for plan in plans} & {plan.seed for plan in others}
    assert len({plan.name for plan in plans}) == 20


@pytest.mark.parametrize("size", ["640", "641x480", "ax3", "2x2"])
def test_a_bad_size_is_one_line(size, maker, tmp_path, capsys):
    assert maker.main(["--out", str(tmp_path), "--size", size]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_floor_act_is_upside_down_and_its_onlookers_sit(maker):
    clip = maker.Clip("floor", 3, people=3, size=SMALL, seconds=4.0)
    assert clip.kinds == ["floor", "seated", "seated"]
    upright = []
    for time in np.arange(0.0, 4.0, 0.1):
        mover, *onlookers = (body.joints() for body in clip.posed(time))
        upright.append(mover[15, 1] > mover[0, 1])
        assert all(0.0 < joints[0, 1] < 0.4 < joints[15, 1] for joints in onlookers)
    assert 0.1 < np.mean(upright) < 0.9
