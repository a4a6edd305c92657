"""Which feet stand: against walks whose steps are known, and laws of time, space and the floor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.core.skeleton import JOINT_NAMES
from pipeline.world.ground import Ground, up_of
from pipeline.world.standing import standing
from tests.support.walkers import FPS, see, walk

SEEDS = st.integers(0, 10_000)
INTERVAL_S = 1 / FPS
FEET = [JOINT_NAMES.index(f"{side}_{part}") for part in ("ankle", "foot") for side in
        ("left", "right")]  # fmt: skip
LEVEL = np.array([0.0, -1.0, 0.0])


def ground(up=LEVEL, source="people", error_deg=1.0):
    return Ground(np.asarray(up), 1.5, source, "feet", error_deg, 0.05)


def known(points_m):
    return np.ones(points_m.shape[:2], bool)


def a_walk(seed, noise_m=0.0, frames=150, height_m=1.5):
    """Ankles and toes (T, 4, 3) of a walker before a level camera, and which of them are planted:
    those that rest exactly.

    The walk is at most 60 degrees from straight across the view: along it, one camera hardly sees
    a swing.
    """
    rng = np.random.default_rng(seed)
    heading = rng.choice([0, np.pi]) + np.radians(rng.uniform(-60, 60))
    start_m = np.array([rng.uniform(-2, 2), rng.uniform(9, 12)])
    joints_m = walk(frames, rng.uniform(0.8, 1.5), heading, start_m)
    true_m = see([joints_m], LEVEL, height_m, 0.0, seed).true_m[:, FEET]
    moved = np.linalg.norm(np.diff(true_m, axis=0), axis=-1) < 1e-9
    still = np.zeros(true_m.shape[:2], bool)
    still[1:-1] = moved[1:] & moved[:-1]
    # Noise of a fit: smooth along the ray, where a picture says little, and small across it.
    ray = true_m / np.linalg.norm(true_m, axis=-1, keepdims=True)
    along = np.cumsum(rng.normal(0, 0.2, len(true_m)))[:, None, None]
    points_m = true_m + noise_m * (rng.normal(size=true_m.shape) + 3 * np.tanh(along) * ray)
    return points_m, still, true_m


def a_rest(frames=40, drift_m=0.0, parts=4):
    """Feet in one place each before the camera, which drift to the right over all frames."""
    places = np.array([[-0.1, 0.9, 4], [0.1, 0.9, 4], [-0.1, 0.92, 3.85], [0.1, 0.92, 3.85]])
    points_m = np.tile(places[:parts], (frames, 1, 1))
    points_m[..., 0] += np.linspace(0, drift_m, frames)[:, None]
    return points_m


def turns_of(seed):
    return Rotation.random(random_state=seed).as_matrix()


def rests_of(stands, place_m):
    """The runs (first, last) of one part that stands in one place."""
    change = np.flatnonzero(
        np.concatenate(([True], (stands[1:] != stands[:-1]) | (place_m[1:] != place_m[:-1]).any(1)))
    )
    ends = [*change[1:], len(stands)]
    return [(a, b) for a, b in zip(change, ends) if stands[a]]


@settings(max_examples=25)
@given(seed=SEEDS, noise_m=st.sampled_from([0.0, 0.002, 0.004]))
def test_planted_feet_are_found_and_swinging_ones_are_not(seed, noise_m):
    points_m, still, true_m = a_walk(seed, noise_m)
    found = standing(points_m, known(points_m), INTERVAL_S)
    # The first and the last frames of a step are slow too, so they count for neither.
    speed = np.linalg.norm(np.gradient(true_m, INTERVAL_S, axis=0), axis=-1)
    swings = speed > 1.0
    assert found.stands[still].mean() > (0.9 if noise_m else 0.97)
    assert found.stands[swings].mean() < 0.01
    assert still[found.stands].mean() > 0.75
    apart_m = np.linalg.norm(found.place_m - true_m, axis=-1)[found.stands & still]
    assert np.median(apart_m) < 0.001 + 4 * noise_m
    assert np.quantile(apart_m, 0.95) < 0.03 + 4 * noise_m


@settings(max_examples=25)
@given(seed=SEEDS)
def test_a_rest_has_one_place_that_is_the_median_of_its_points(seed):
    points_m, _, _ = a_walk(seed, 0.002)
    found = standing(points_m, known(points_m), INTERVAL_S)
    assert found.stands.any()
    assert not found.place_m[~found.stands].any()
    for part in range(4):
        for first, last in rests_of(found.stands[:, part], found.place_m[:, part]):
            assert last - first >= 4
            mean_m = np.median(points_m[first:last, part], 0)
            np.testing.assert_allclose(found.place_m[first, part], mean_m, atol=1e-12)


@settings(max_examples=25)
@given(seed=SEEDS)
def test_time_reversed_the_same_feet_stand_in_the_same_places(seed):
    points_m, _, _ = a_walk(seed, 0.002)
    found = standing(points_m, known(points_m), INTERVAL_S)
    back = standing(points_m[::-1], known(points_m), INTERVAL_S)
    assert np.array_equal(back.stands[::-1], found.stands)
    np.testing.assert_allclose(back.place_m[::-1], found.place_m, atol=1e-9)


@settings(max_examples=25)
@given(seed=SEEDS, floor=st.booleans(), square=st.booleans())
def test_a_turned_camera_turns_the_places_and_nothing_else(seed, floor, square):
    """Up is given, so the camera's own axes do not matter; exactly so where they only change
    places and signs, since a median is one along each axis."""
    points_m, _, _ = a_walk(seed, 0.002)
    turn = turns_of(seed)
    if square:
        turn = np.eye(3)[np.random.default_rng(seed).permutation(3)] * np.sign(turn[0])
    source = "people" if floor else "assumed level"
    found = standing(points_m, known(points_m), INTERVAL_S, ground(source=source))
    turned = standing(points_m @ turn.T, known(points_m), INTERVAL_S, ground(turn @ LEVEL, source))
    apart_m = np.linalg.norm(turned.place_m - found.place_m @ turn.T, axis=-1)
    if square:
        assert np.array_equal(turned.stands, found.stands)
        assert apart_m.max() < 1e-9
    else:
        assert (turned.stands != found.stands).mean() < 0.02
        assert np.median(apart_m[turned.stands & found.stands]) < 0.012


@settings(max_examples=25)
@given(seed=SEEDS, scale=st.floats(0.93, 1.07))
def test_a_person_of_a_wrong_size_stands_as_well(seed, scale):
    """One camera cannot tell a size, and a fit's is off by some per cent."""
    points_m, still, _ = a_walk(seed)
    found = standing(scale * points_m, known(points_m), INTERVAL_S)
    usual = standing(points_m, known(points_m), INTERVAL_S)
    assert found.stands[still].mean() > 0.97
    assert (found.stands != usual.stands).mean() < 0.08
    # Where neither an end of the rest nor its middle moved, the place is scaled.
    both = found.stands & usual.stands & still
    apart_m = np.linalg.norm(found.place_m - scale * usual.place_m, axis=-1)[both]
    assert np.median(apart_m) < 0.002


@settings(max_examples=25)
@given(seed=SEEDS)
def test_a_distance_that_wavers_moves_no_foot(seed):
    """Along its ray a body of a fit comes and goes by some per cent."""
    points_m, still, _ = a_walk(seed)
    factor = 1 + 0.04 * np.sin(np.arange(len(points_m)) / 3 + seed)
    found = standing(factor[:, None, None] * points_m, known(points_m), INTERVAL_S)
    assert found.stands[still].mean() > 0.95


@settings(max_examples=20)
@given(fps=st.sampled_from([15.0, 24.0, 25.0, 50.0, 60.0, 120.0]), seed=SEEDS)
def test_the_frame_rate_does_not_decide(fps, seed):
    """A foot that rests for half a second, then goes one step in a third, and so on."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(4 * fps)) / fps
    part = time_s % 0.9
    step = np.floor(time_s / 0.9) + np.clip((part - 0.5) / 0.4, 0, 1)
    points_m = a_rest(len(time_s), parts=1)
    points_m[:, 0, 0] += 0.7 * (step - 2) + rng.normal(0, 0.001, len(step))
    found = standing(points_m, known(points_m), 1 / fps)
    # Away from the ends of rests by the span over which a speed is measured.
    rests, swings = (part > 0.08) & (part < 0.42), (part > 0.58) & (part < 0.82)
    assert found.stands[rests].all()
    assert not found.stands[swings].any()


@settings(max_examples=25)
@given(frequency=st.floats(1.3, 3.0), size_m=st.floats(0.15, 0.6))
def test_the_turning_point_of_a_swing_is_no_rest(frequency, size_m):
    """A leg that swings to and fro is slow for a moment at each end."""
    points_m = a_rest(90)
    time_s = np.arange(90) * INTERVAL_S
    points_m[:, [0, 2], 0] += size_m * np.sin(2 * np.pi * frequency * time_s)[:, None]
    found = standing(points_m, known(points_m), INTERVAL_S)
    # The time for which a swing is slower than a foot that goes.
    slow_s = (
        2 * np.arcsin(min(0.45 / (2 * np.pi * frequency * size_m), 1)) / (2 * np.pi * frequency)
    )
    if slow_s < 0.1:
        assert not found.stands[:, [0, 2]].any()
    assert found.stands[:, [1, 3]].all()


def test_feet_that_shuffle_get_a_place_for_each_part_of_the_way():
    """Half a metre in five seconds is slower than any step, yet no rest."""
    points_m = a_rest(150, drift_m=0.5)
    found = standing(points_m, known(points_m), INTERVAL_S)
    assert found.stands.all()
    for part in range(4):
        rests = rests_of(found.stands[:, part], found.place_m[:, part])
        assert len(rests) >= 5
        off_m = np.linalg.norm(found.place_m[:, part] - points_m[:, part], axis=-1)
        assert off_m.max() < 0.06


def test_a_small_step_splits_a_rest_where_it_is():
    points_m = a_rest(60)
    points_m[31:, :, 0] += 0.06
    found = standing(points_m, known(points_m), INTERVAL_S)
    for part in range(4):
        places = found.place_m[found.stands[:, part], part]
        assert len(np.unique(places, axis=0)) == 2
        off_m = np.abs(found.place_m[:, part] - points_m[:, part]).max(-1)
        assert off_m[found.stands[:, part]].max() < 0.001


def test_still_noise_is_one_rest():
    rng = np.random.default_rng(5)
    points_m = a_rest(90) + rng.normal(0, 0.002, (90, 4, 3))
    found = standing(points_m, known(points_m), INTERVAL_S)
    assert found.stands.mean() > 0.97
    for part in range(4):
        assert len(rests_of(found.stands[:, part], found.place_m[:, part])) <= 2


@settings(max_examples=25)
@given(seed=SEEDS)
def test_a_part_that_is_not_seen_never_stands(seed):
    points_m, _, _ = a_walk(seed)
    seen = np.random.default_rng(seed).random(points_m.shape[:2]) > 0.1
    found = standing(points_m, seen, INTERVAL_S)
    assert not found.stands[~seen].any()
    assert not standing(points_m, np.zeros_like(seen), INTERVAL_S).stands.any()


def test_a_foot_that_is_held_up_does_not_stand():
    points_m = a_rest()
    points_m[:, [0, 2], 1] -= 0.2
    found = standing(points_m, known(points_m), INTERVAL_S)
    assert not found.stands[:, [0, 2]].any()
    assert found.stands[:, [1, 3]].all()
    # The direction up decides: in a camera that is rolled so far both are at one height.
    up = np.array([0.5**0.5, -(0.5**0.5), 0.0])
    aside = standing(points_m, known(points_m), INTERVAL_S, ground(up, "assumed level"))
    assert aside.stands.all()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_moment_is_no_rest(frames):
    points_m = a_rest(frames)
    assert not standing(points_m, known(points_m), INTERVAL_S).stands.any()


@settings(max_examples=40)
@given(seed=SEEDS, pitch_deg=st.floats(-20, 40), error_deg=st.floats(0.05, 6))
def test_the_floor_moves_places_along_their_rays_and_not_far(seed, pitch_deg, error_deg):
    """By at most 8 per cent of their distance."""
    points_m, _, _ = a_walk(seed)
    up = up_of(pitch_deg, 0)
    turn = Rotation.align_vectors([up], [LEVEL])[0].as_matrix()
    rng = np.random.default_rng(seed)
    # Distances as a fit errs in them: a step each.
    factor = 1 + rng.normal(0, 0.08, (len(points_m) // 15 + 1)).repeat(15)[: len(points_m)]
    points_m = (points_m * factor[:, None, None]) @ turn.T
    free = standing(points_m, known(points_m), INTERVAL_S, ground(up, "assumed level", np.nan))
    held = standing(points_m, known(points_m), INTERVAL_S, ground(up, "people", error_deg))
    assert np.array_equal(held.stands, free.stands)
    if error_deg > 3.5:
        np.testing.assert_array_equal(held.place_m, free.place_m)
    before_m, after_m = free.place_m[free.stands], held.place_m[free.stands]
    factors = (before_m * after_m).sum(1) / (before_m**2).sum(1)
    assert np.abs(factors - 1).max(initial=0) < 0.08 + 1e-9
    np.testing.assert_allclose(after_m, factors[:, None] * before_m, atol=1e-9)


def on_the_floor(seed):
    """Spreads of the heights and errors of places without the floor and with it, of a walker seen
    from above whose distance is wrong by up to 4 per cent, now so and then so."""
    points_m, still, true_m = a_walk(seed, height_m=3.0)
    factor = 1 + 0.04 * np.tanh(np.random.default_rng(seed).normal(0, 1, 10)).repeat(15)
    wrong_m = points_m * factor[: len(points_m), None, None]
    free = standing(wrong_m, known(wrong_m), INTERVAL_S)
    held = standing(wrong_m, known(wrong_m), INTERVAL_S, ground(error_deg=0.2))
    spread_m = [(one.place_m[one.stands] @ LEVEL).std() for one in (free, held)]
    both = held.stands & still
    errors_m = [np.linalg.norm(one.place_m - true_m, axis=-1)[both].mean() for one in (free, held)]
    return spread_m, errors_m


@settings(max_examples=25)
@given(seed=SEEDS)
def test_places_come_nearer_to_one_floor(seed):
    """From above, a wrong distance is a wrong height."""
    (before_m, after_m), _ = on_the_floor(seed)
    assert after_m < 0.9 * before_m


def test_the_floor_brings_places_nearer_to_the_truth():
    """Over many walks: the floor is the median of one walk's places, so that may be off."""
    before_m, after_m = np.mean([on_the_floor(seed)[1] for seed in range(30)], 0)
    assert after_m < 0.9 * before_m
