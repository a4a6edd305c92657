"""The residuals of feet that stand: their slope, their weights, and that they hold a body."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Skeleton, forward_kinematics, place_points
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.core.skeleton import BLAZEPOSE_33
from pipeline.fitting.feet import FEET, SIGMA_M, feet_block
from pipeline.fitting.observations import observe
from pipeline.fitting.solver import BETAS, FRAME_DIM, FitConfig, Observations
from pipeline.fitting.track_solver import ShapePrior, TrackPoses, solve_track
from tests.support.fits import K, double, seen_as_people, some_pose

SEEDS = st.integers(0, 10_000)
H = 1e-6


@pytest.fixture(scope="module")
def skeleton(body):
    return Skeleton.of(body, 64)


@pytest.fixture(scope="module")
def exact(skeleton):
    return double(skeleton)


def a_state(seed, frames=3):
    """Rotations, translations and shapes of bodies in double precision."""
    generator = torch.Generator().manual_seed(seed)
    rotations = exp_so3(log_so3(some_pose(generator, frames)).double())
    transl = torch.randn(frames, 3, generator=generator).double() + torch.tensor([0, 0, 4.0])
    return rotations, transl, torch.randn(frames, BETAS, generator=generator).double()


def feet_of(skeleton, rotations, transl, betas):
    pose = forward_kinematics(skeleton, rotations, transl, betas)
    return place_points(skeleton.landmarks, pose, betas)[0][:, list(FEET)]


def rows_at(skeleton, place_m, stands, rotations, transl, betas):
    pose = forward_kinematics(skeleton, rotations, transl, betas)
    return feet_block(skeleton, place_m, stands)(pose, betas, None)


def moved(state, column, by):
    """A state whose unknown, as the solver counts them, is changed in every frame."""
    rotations, transl, betas = (part.clone() for part in state)
    if column < 3:
        transl[:, column] += by
    elif column < FRAME_DIM:
        delta = torch.zeros(len(transl), 24, 3, dtype=torch.double)
        delta[:, (column - 3) // 3, column % 3] = by
        rotations = rotations @ exp_so3(delta)
    else:
        betas[:, column - FRAME_DIM] += by
    return rotations, transl, betas


def test_the_parts_are_heels_and_toes():
    names = [BLAZEPOSE_33.names[k] for k in FEET]
    assert names == ["left_heel", "right_heel", "left_foot_index", "right_foot_index"]


@settings(max_examples=4)
@given(seed=SEEDS, away_m=st.sampled_from([0.01, 0.1, 0.4]))
def test_the_jacobian_and_the_slope_match_differences(exact, seed, away_m):
    state = a_state(seed)
    generator = torch.Generator().manual_seed(seed)
    feet = feet_of(exact, *state)
    place_m = feet + away_m * torch.randn(feet.shape, generator=generator).double()
    stands = (torch.rand(feet.shape[:2], generator=generator) > 0.3).double()
    stands[0, 0] = 1
    rows, jacobian, _ = rows_at(exact, place_m, stands, *state)
    apart = (feet - place_m) / SIGMA_M
    # Each row is the distance times a weight; the weight is held, as in every Gauss-Newton step.
    weight = (rows.view_as(apart) / apart)[stands > 0]
    assert ((weight > 0) & (weight <= 1)).all()
    whole = (rows.view_as(apart) / apart).nan_to_num(0.0).flatten(1)
    slope = 2 * (jacobian.mT @ rows[..., None])[..., 0]
    for column in range(FRAME_DIM + BETAS):
        up, down = (moved(state, column, by) for by in (H, -H))
        change = (feet_of(exact, *up) - feet_of(exact, *down)).flatten(1) / (2 * H)
        torch.testing.assert_close(
            jacobian[..., column], whole * change / SIGMA_M, atol=1e-4, rtol=1e-5
        )
        costs = [rows_at(exact, place_m, stands, *where)[2] for where in (up, down)]
        torch.testing.assert_close(
            slope[:, column], (costs[0] - costs[1]) / (2 * H), atol=2e-3, rtol=1e-4
        )


@settings(max_examples=10)
@given(seed=SEEDS)
def test_a_part_that_does_not_stand_counts_for_nothing_wherever_its_place_is(exact, seed):
    state = a_state(seed)
    feet = feet_of(exact, *state)
    stands = torch.zeros(feet.shape[:2], dtype=torch.double)
    for part in rows_at(exact, torch.zeros_like(feet), stands, *state):
        assert not part.any()
    stands[:, 2] = 1
    one = rows_at(exact, feet + 0.1, stands, *state)
    place_m = feet + 0.1
    place_m[:, [0, 1, 3]] = 1e3
    for part, other in zip(rows_at(exact, place_m, stands, *state), one):
        torch.testing.assert_close(part, other)
        assert part.any()


def test_at_the_place_nothing_pulls(exact):
    state = a_state(3)
    feet = feet_of(exact, *state)
    rows, _, cost = rows_at(exact, feet, torch.ones(feet.shape[:2]).double(), *state)
    assert float(rows.abs().max()) < 1e-9
    assert float(cost.abs().max()) < 1e-9


def test_a_place_that_is_far_off_pulls_less_than_one_nearby(exact):
    """A wrong place must not tear a leg off."""
    state = a_state(4)
    feet = feet_of(exact, *state)
    stands = torch.ones(feet.shape[:2]).double()
    pulls = []
    for away_m in (0.03, 0.06, 1.0, 5.0):
        rows, jacobian, _ = rows_at(exact, feet + away_m, stands, *state)
        pulls.append(float((jacobian.mT @ rows[..., None]).norm()))
    assert pulls[1] > pulls[0] > pulls[3]
    assert pulls[1] > pulls[2] > pulls[3]


@pytest.fixture(scope="module")
def a_stand(body):
    """A person in twelve frames who is seen to sway as a whole by 4 cm, and the poses."""
    generator = torch.Generator().manual_seed(7)
    rotations = some_pose(generator, 1, 0.15).expand(12, -1, -1, -1).clone()
    sway_m = 0.04 * torch.linspace(0, 6.3, 12).sin()
    transl = torch.tensor([0.0, 0.1, 4.0]).repeat(12, 1)
    transl[:, 0] += sway_m
    people, _ = seen_as_people(body, rotations, transl, torch.zeros(12, BETAS))
    config = FitConfig(use_mask=False, use_lifter=False)
    seen = observe([people], K, torch.device("cpu"), config)
    seen = Observations(*(getattr(seen, name)[0] for name in seen.__dataclass_fields__))
    return seen, TrackPoses(rotations, transl, torch.zeros(BETAS)), config


def fitted(skeleton, a_stand, blocks):
    seen, poses, config = a_stand
    sigma = torch.full((10, 23, 3), 0.06)
    fixed = ShapePrior(poses.betas, 1e6 * torch.eye(BETAS))
    found, _, _ = solve_track(skeleton, seen, poses, fixed, sigma, config, 8, None, blocks)
    return feet_of(skeleton, found.rotations, found.transl_m, found.betas.expand(12, BETAS))


def test_a_fit_is_drawn_to_the_places_and_only_by_the_parts_that_stand(skeleton, a_stand):
    poses = a_stand[1]
    feet = feet_of(skeleton, poses.rotations, poses.transl_m, poses.betas.expand(12, BETAS))
    place_m = feet.median(0).values.expand_as(feet)
    stands = torch.zeros(feet.shape[:2])
    free = fitted(skeleton, a_stand, ())
    none = fitted(skeleton, a_stand, [feet_block(skeleton, place_m, stands)])
    torch.testing.assert_close(none, free, atol=1e-4, rtol=0)
    stands[:, [0, 2]] = 1
    held = fitted(skeleton, a_stand, [feet_block(skeleton, place_m, stands)])
    off_m, before_m = ((f - place_m)[:, [0, 2]].norm(dim=-1).mean() for f in (held, free))
    assert float(off_m) < 0.5 * float(before_m)
