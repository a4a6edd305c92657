"""Gravity and the floor of people whose floor is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.world.camera_pose import CameraPose
from pipeline.world.ground import Ground, estimate_ground, pose_of, up_of
from tests.support.paths import ROOT
from tests.support.walkers import Seen, scene

KINDS = ["stand", "walk", "group"]


def off_deg(ground: Ground, up: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(ground.up @ up, -1, 1))))


def sole_m(ground: Ground, joints_m: np.ndarray) -> float:
    """The median height of the lower sole over the ground."""
    height_m = ground.world.points(joints_m)[..., 2]
    soles = np.minimum(height_m[:, [7, 8]] - 0.078, height_m[:, [10, 11]] - 0.027)
    return float(np.median(soles.min(1)))


def spread_m(joints_m: np.ndarray, up: np.ndarray) -> float:
    """The median distance of the feet from their middle, along the ground."""
    feet_m = joints_m[:, [10, 11]].reshape(-1, 3)
    flat_m = feet_m - np.outer(feet_m @ up, up)
    return float(np.median(np.linalg.norm(flat_m - np.median(flat_m, 0), axis=1)))


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_without_errors_people_tell_the_floor(seed, kind):
    """What is left is the walk itself: it leans forward by 2 degrees."""
    seen, up, _ = scene(seed, kind, noise=0.0)
    ground = estimate_ground(*seen.arguments)
    off = off_deg(ground, up)
    assert off < 3
    # Of people who are metres apart, a wrong up lifts some over the ground and sinks others.
    apart_m = np.sin(np.radians(off)) * spread_m(seen.true_m, up)
    assert abs(sole_m(ground, seen.true_m)) < 0.03 + apart_m
    assert ground.up_source in ("people", "feet", "feet and people")
    assert ground.height_source == "feet"


@pytest.mark.parametrize(
    ("kind", "median_deg", "most_deg", "median_m", "most_m"),
    [("stand", 2.9, 5.8, 0.02, 0.06), ("walk", 1.3, 3.4, 0.012, 0.05),
     ("group", 1.2, 2.6, 0.02, 0.07)],
)  # fmt: skip
def test_errors_of_a_fit_move_it_little(kind, median_deg, most_deg, median_m, most_m):
    """The figures of docs/formats/poses.md, with room for another random generator."""
    off, heights, sure = [], [], []
    for seed in range(60):
        seen, up, _ = scene(7 * seed + 1, kind)
        ground = estimate_ground(*seen.arguments)
        off.append(off_deg(ground, up))
        heights.append(abs(sole_m(ground, seen.joints_m)))
        sure.append(off[-1] / ground.up_error_deg)
    print(kind, *np.quantile(off, [0.5, 0.95]), *np.quantile(heights, [0.5, 0.95]))
    assert np.median(off) < median_deg
    assert np.quantile(off, 0.95) < most_deg
    assert np.median(heights) < median_m
    assert np.quantile(heights, 0.95) < most_m
    # The stated error is no smaller than the real one: both of two numbers are in it.
    assert np.sqrt(np.mean(np.square(sure))) < 1.1


@settings(max_examples=30)
@given(st.floats(0.3, 8), st.floats(-60, 60), st.floats(-30, 30))
def test_pitch_and_height_that_are_given_fix_it(height_m, pitch_deg, roll_deg):
    seen, _, _ = scene(1, "stand")
    ground = estimate_ground(*seen.arguments, CameraPose(height_m, pitch_deg, roll_deg))
    np.testing.assert_allclose(pose_of(ground.up), (pitch_deg, roll_deg), atol=1e-6)
    assert (ground.camera_height_m, ground.source) == (height_m, "up: given; floor: given")
    world = ground.world
    # The lens's axis sinks by the pitch, and the floor is where it was said to be.
    forward = world.points(np.array([0.0, 0, 1])) - world.points(np.zeros(3))
    assert forward[2] == pytest.approx(-np.sin(np.radians(pitch_deg)))
    assert world.points(np.zeros(3)).tolist() == pytest.approx([0, 0, height_m])
    right = world.points(np.array([1.0, 0, 0])) - world.points(np.zeros(3))
    assert np.sign(right[2]) == -np.sign(np.round(np.sin(np.radians(roll_deg)), 9))


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_a_given_pitch_leaves_the_height_to_the_feet(seed):
    seen, up, height_m = scene(seed, "group", noise=0.0)
    pitch_deg, roll_deg = pose_of(up)
    ground = estimate_ground(*seen.arguments, CameraPose(None, pitch_deg, roll_deg))
    assert (ground.up_source, ground.height_source) == ("given", "feet")
    assert ground.camera_height_m == pytest.approx(height_m, abs=0.03)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_a_given_height_leaves_up_to_the_people(seed):
    seen, up, height_m = scene(seed, "group", noise=0.0)
    ground = estimate_ground(*seen.arguments, CameraPose(height_m))
    assert ground.height_source == "given"
    assert ground.camera_height_m == height_m
    assert off_deg(ground, up) < 2.5


def test_a_person_of_another_size_changes_the_height_and_not_up():
    seen, up, height_m = scene(3, "walk", noise=0.0)
    one = estimate_ground(*seen.arguments)
    other = estimate_ground(1.08 * seen.joints_m, *seen.arguments[1:])
    assert off_deg(other, one.up) < 0.5
    assert other.camera_height_m / one.camera_height_m == pytest.approx(1.08, abs=0.01)
    assert off_deg(one, up) < 2.5
    assert one.camera_height_m == pytest.approx(height_m, rel=0.1)


def changed(seen: Seen, **parts: np.ndarray) -> tuple[np.ndarray, ...]:
    names = ("joints_m", "visibility", "track", "pts_s")
    return tuple(parts.get(name, getattr(seen, name)) for name in names)


def test_what_cannot_be_known_is_level_and_says_so():
    seen, _, _ = scene(1, "walk")
    rng = np.random.default_rng(0)
    tumbled = rng.normal(size=seen.joints_m.shape) + [0, 0, 5]
    for arguments in (
        changed(seen, joints_m=tumbled),
        changed(seen, visibility=np.zeros_like(seen.visibility)),
        tuple(part[:0] for part in seen.arguments),
        changed(seen, joints_m=np.full_like(seen.joints_m, np.nan)),
        changed(seen, joints_m=np.zeros_like(seen.joints_m)),
    ):
        ground = estimate_ground(*arguments)
        assert ground.source == "up: assumed level; floor: unknown"
        assert ground.up.tolist() == [0, -1, 0]
        assert ground.world.origin_m.tolist() == [0, 0, 0]


def test_a_given_height_holds_where_up_is_not_known():
    seen, _, _ = scene(1, "walk")
    ground = estimate_ground(*(part[:0] for part in seen.arguments), CameraPose(2.5))
    assert ground.source == "up: assumed level; floor: given"
    assert ground.world.points(np.zeros(3)).tolist() == [0, 0, 2.5]


@settings(max_examples=20)
@given(st.floats(-89, 89), st.floats(-179, 179))
def test_pitch_and_roll_are_the_direction_up(pitch_deg, roll_deg):
    up = up_of(pitch_deg, roll_deg)
    assert np.linalg.norm(up) == pytest.approx(1)
    assert pose_of(up) == pytest.approx((pitch_deg, roll_deg), abs=1e-6)


def test_standing_feet_of_the_sample_clip_are_on_its_floor():
    """The truth's joints of a rendered pitcher, with the renderer's camera given."""
    with np.load(ROOT / "samples" / "pitch_truth.npz") as truth:
        plane, joints_m = truth["ground_plane"], truth["joints_m"]
        pts_s, track = truth["pts_s"], truth["person"]
    pitch_deg, roll_deg = pose_of(plane[:3])
    pose = CameraPose(None, pitch_deg, roll_deg)
    ground = estimate_ground(joints_m, np.ones(joints_m.shape[:2]), track, pts_s, pose)
    assert ground.camera_height_m == pytest.approx(plane[3], abs=0.02)
    assert abs(sole_m(ground, joints_m)) < 0.02


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(-4, 4), st.integers(0, 40))
def test_any_numbers_have_an_answer(seed, size, rows):
    """Rows of a damaged file, or of a fit that failed."""
    rng = np.random.default_rng(seed)
    joints_m = rng.normal(size=(rows, 24, 3)) * 10**size
    if rows:
        joints_m[rng.integers(rows), rng.integers(24)] = rng.choice([0.0, np.nan, np.inf])
    times_s = np.round(rng.uniform(0, 3, rows), 1)
    ground = estimate_ground(
        joints_m, rng.uniform(size=(rows, 24)) * 2, rng.integers(1, 4, rows), times_s
    )
    assert np.linalg.norm(ground.up) == pytest.approx(1)
    assert np.isfinite(ground.world.origin_m).all()
