"""Clips with a world: feet that stand do not slide, and the background turns as the camera does."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from app.evaluate import evaluate_poses
from app.evaluate.truth import load_truth
from pipeline.core.camera import project
from tests.support.evaluation import recorded

SMALL, MIDDLE = (96, 160), (270, 480)
WALKS = ("path", "lunges")


@pytest.fixture(scope="module")
def walkers(maker):
    """The two motions, six seconds each, before a still camera."""
    return {kind: maker.WorldClip(kind, 3, 1, SMALL, 30.0, 6.0) for kind in WALKS}


@pytest.fixture(scope="module")
def pan(maker):
    """A walk before a camera that pans, zooms and shakes."""
    clip = maker.WorldClip("path", 2001, 1, MIDDLE, 30.0, 4.0, moving=True)
    # Without noise and blur of the motion, so that the background can be measured.
    clip.setup = replace(clip.setup, shutter=1e-3)
    return clip


@pytest.mark.slow
@pytest.mark.parametrize("kind", WALKS)
def test_feet_stand_or_step_and_never_slide(kind, walkers):
    clip = walkers[kind]
    times = np.arange(0, clip.seconds - 0.1, 1 / 30)
    contact = np.array([clip.contact(time)[0] for time in times])
    bodies = [clip.posed(time)[0] for time in times]
    balls = np.array([body.joints()[[10, 11]] for body in bodies])
    soles = [clip.instant(time)[0].people[0][:, 1].min() for time in times[::6]]
    # Walkers and lungers always have a foot on the ground, and none of it is in the ground.
    assert contact.any(1).mean() > 0.97
    assert min(soles) > -0.02
    assert max(soles) < 0.02
    both = contact[1:] & contact[:-1]
    slide = np.linalg.norm(np.diff(balls, axis=0), axis=-1)[both]
    assert np.median(slide) < 5e-4
    assert np.percentile(slide, 95) < 5e-3
    # Each foot stands and moves.
    assert (contact.mean(0) > 0.5).all()
    assert (contact.mean(0) < 0.97).all()


@pytest.mark.slow
def test_a_walker_gets_somewhere_and_stands_still_for_a_while(walkers):
    clip = walkers["path"]
    joints = np.array([clip.posed(t)[0].joints() for t in np.arange(0, clip.seconds, 1 / 30)])
    way = np.linalg.norm(np.diff(joints[:, 0][:, [0, 2]], axis=0), axis=1)
    assert way.sum() > 2
    assert 0.8 < np.percentile(way, 95) * 30 < 2.2
    limbs = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(1)
    assert (limbs < 0.002).mean() > 0.15


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_still_camera_is_tilted_and_sees_everyone(seed, maker):
    clip = maker.WorldClip("path", seed, 2, SMALL, 30.0, 5.0)
    camera = clip.camera
    pitch = -np.degrees(np.arcsin(camera.rotation[2, 1]))
    roll = np.degrees(np.arcsin(camera.rotation[0, 1] / np.cos(np.radians(pitch))))
    assert -5 <= pitch <= 35
    assert abs(roll) <= 4
    assert 0.8 <= camera.place_m[1] <= 4
    for time in np.linspace(0, clip.seconds, 12):
        one, two = (body.joints() for body in clip.posed(time))
        assert np.linalg.norm(one[0] - two[0]) > 0.5
        pixels = camera.project(camera.see(np.concatenate((one, two))))
        assert ((pixels > 0) & (pixels < SMALL[::-1])).all()


@pytest.mark.slow
def test_the_background_moves_as_the_cameras_rotation_has_it(pan):
    """Corners of one frame's background, found again in another's by optical flow, lie where the
    true rotations and zooms put them."""
    errors, moves = [], []
    for a, b in ((0, 4), (20, 23), (50, 55), (100, 103)):
        views = [pan._developed(pan.scene_at(f).backdrop.radiance, np.random.default_rng(f))
                 for f in (a, b)]  # fmt: skip
        grey = [cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in views]
        found = cv2.goodFeaturesToTrack(grey[0], 200, 0.01, 6)
        there, good, _ = cv2.calcOpticalFlowPyrLK(*grey, found, None, winSize=(21, 21))
        back, _, _ = cv2.calcOpticalFlowPyrLK(*grey[::-1], there, None, winSize=(21, 21))
        kept = (good[:, 0] > 0) & (np.linalg.norm(back - found, axis=-1)[:, 0] < 0.3)
        assert kept.sum() > 40
        one, two = pan.camera_at(a / 30), pan.camera_at(b / 30)
        rays = np.column_stack((found[kept, 0], np.ones(kept.sum())))
        world = rays @ np.linalg.inv(one.intrinsics).T @ one.rotation
        wanted = project(world @ two.rotation.T, two.intrinsics)
        errors.append(np.linalg.norm(there[kept, 0] - wanted, axis=1))
        moves.append(np.linalg.norm(wanted - found[kept, 0], axis=1))
    assert np.median(np.concatenate(moves)) > 1
    assert max(np.median(error) for error in errors) < 0.15


@pytest.mark.slow
def test_the_camera_turns_zooms_and_shakes_in_its_place(maker):
    shakes, zooms = [], []
    for seed in (2001, 2002, 2003):
        clip = maker.WorldClip("lunges", seed, 1, SMALL, 30.0, 4.0, moving=True)
        cameras = [clip.camera_at(t) for t in np.arange(0, 4, 1 / 30)]
        assert np.ptp([camera.place_m for camera in cameras], axis=0).max() < 1e-9
        zoom = np.array([camera.intrinsics[0, 0] for camera in cameras])
        zoom /= zoom[0]
        assert zoom.min() >= 1
        assert zoom.max() <= 1.8
        zooms.append(zoom.max())
        shake = np.array([clip._shake(t) for t in np.arange(0, 200, 0.01)])
        shakes.append(shake.std(0))
        turned = [np.degrees(np.arccos(np.clip(c.rotation[2] @ cameras[0].rotation[2], -1, 1)))
                  for c in cameras]  # fmt: skip
        assert max(turned) > 1
        for time, camera in zip(np.arange(0, 4, 1 / 30), cameras):
            pixels = camera.project(camera.see(clip.posed(time)[0].joints()))
            assert ((pixels > 0) & (pixels < SMALL[::-1])).all()
    assert max(zooms) > 1.1
    assert np.min(np.array(shakes)[:, :2]) > 0.08
    assert np.max(shakes) < 0.55


@pytest.mark.slow
def test_a_written_truth_has_its_world_and_perfect_bodies_have_no_error(maker, tmp_path):
    clip = maker.WorldClip("path", 5, 2, SMALL, 30.0, 0.3, moving=True)
    maker.render(clip, tmp_path, "walk")
    truth = load_truth(tmp_path / "walk_truth.npz")
    with np.load(tmp_path / "walk_truth.npz") as arrays:
        made = dict(arrays)
    assert made["camera_rotation"].shape == (clip.frames, 3, 3)
    assert "camera_translation_m" not in made
    assert made["camera_zoom"][0] == 1
    world_m = truth.camera.to_world(truth.joints_m, truth.frame)
    for row, (frame, person) in enumerate(zip(truth.frame, truth.person)):
        x, y, z = clip.posed(frame / 30)[person].joints().T
        assert np.abs(world_m[row] - np.stack((x, -z, y), -1)).max() < 1e-4
        assert (truth.foot_contact[row] == clip.contact(frame / 30)[person]).all()
        lens = made["intrinsics"] * [
            [made["camera_zoom"][frame]],
            [made["camera_zoom"][frame]],
            [1],
        ]
        lens[:2, 2] = made["intrinsics"][:2, 2]
        assert np.abs(project(made["joints_m"][row], lens) - made["joints_px"][row]).max() < 0.01
        plane = made["ground_plane"][frame]
        up = truth.camera.up(truth.frame[row : row + 1])[0]
        assert np.abs(plane[:3] - up).max() < 1e-6
        assert (
            np.abs(made["joints_m"][row] @ plane[:3] + plane[3] - world_m[row, :, 2]).max() < 1e-4
        )
    first = truth.person == 0
    file = recorded(
        tmp_path / "r.npz", {1: list(truth.landmarks_m[first])},
        landmarks_px=truth.landmarks_px[first].astype(np.float32), image_size=np.array(SMALL),
    )  # fmt: skip
    report = evaluate_poses(file, truth)
    assert report.row("w_mpjpe_mm").mesh < 0.1
    assert report.row("foot_height_cm").mesh < 0.01


def test_the_suites_with_a_world_have_all_their_kinds(maker):
    walks, moving = maker.walks(2000, 8), maker.moving(2000, 8)
    assert walks == maker.walks(2000, 8)
    assert {plan.kind for plan in walks} == set(WALKS)
    assert {plan.kind for plan in moving} == {*WALKS, "pitch", "throw_left"}
    assert {plan.people for plan in walks} == {1, 2, 3}
    assert len({plan.name for plan in moving}) == 8
