"""A whole track's solver against the windows' dense one, and against laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Skeleton
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.fitting import track_solver
from pipeline.fitting.observations import observe
from pipeline.fitting.solver import (
    BETAS,
    FRAME_DIM,
    FitConfig,
    Observations,
    TemporalPrior,
    linearise,
)
from pipeline.fitting.track_solver import ShapePrior, TrackPoses, accelerations, solve_track
from tests.support.fits import K, seen_as_people, some_pose

SEEDS = st.integers(0, 10_000)
# Masks are the windows' own rows; they only cost time here.
PLAIN = FitConfig(use_mask=False)


@pytest.fixture(scope="module")
def skeleton(body):
    return Skeleton.of(body, 64)


def swaying(body, frames, seed, noise_px=0.0):
    """A person who moves smoothly, as seen, and the true poses."""
    generator = torch.Generator().manual_seed(seed)
    pose = some_pose(generator, 1)[0]
    axis = 0.3 * torch.randn(24, 3, generator=generator)
    axis[22:] = 0
    phase = torch.linspace(0, 2, frames)[:, None, None].sin()
    rotations = pose @ exp_so3(phase * axis)
    transl = torch.tensor([0.1, 0.2, 4.0]) + torch.linspace(0, 0.4, frames)[:, None]
    betas = 0.7 * torch.randn(BETAS, generator=generator)
    people, _ = seen_as_people(
        body, rotations, transl, betas.expand(frames, BETAS), noise_px, generator
    )
    return people, TrackPoses(rotations, transl, betas)


def observed(people):
    both = observe([people], K, torch.device("cpu"), PLAIN)
    return Observations(*(getattr(both, name)[0] for name in both.__dataclass_fields__))


def usual(frames):
    sigma = torch.full((frames - 2, 23, 3), PLAIN.turn_accel_rad)
    sigma[:, 0, :2], sigma[:, 0, 2] = PLAIN.root_accel_m, PLAIN.root_depth_accel_m
    return sigma


def prior(weight=20.0):
    return ShapePrior(torch.zeros(BETAS), weight * torch.eye(BETAS))


def nudged(poses, seed, size=0.1):
    generator = torch.Generator().manual_seed(seed)
    turns = size * torch.randn(len(poses.transl_m), 24, 3, generator=generator)
    turns[:, 22:] = 0
    shift = size * torch.randn(poses.transl_m.shape, generator=generator)
    return replace(
        poses,
        rotations=poses.rotations @ exp_so3(turns),
        transl_m=poses.transl_m + shift,
        betas=torch.zeros(BETAS),
    )


@settings(max_examples=8)
@given(seed=SEEDS, frames=st.integers(3, 7), damping=st.sampled_from([1e-3, 0.1, 10.0]))
def test_a_step_is_the_dense_systems(body, skeleton, seed, frames, damping):
    """The windows' solver assembles the whole matrix; both must take the same step."""
    people, true = swaying(body, frames, seed)
    guess, seen = nudged(true, seed), observed(people)
    # Breaks of the motion are judged otherwise there, without a view of the whole track.
    config = replace(PLAIN, smooth_robust=1e4)
    system = track_solver._linearise(skeleton, seen, guess, prior(), usual(frames), 4.0, config)
    step, step_shape = track_solver._solve(system, damping)
    none = TemporalPrior(
        rotations=torch.eye(3).expand(1, 2, 24, 3, 3),
        transl_m=torch.zeros(1, 2, 3),
        known=torch.zeros(1, 2),
        betas=torch.zeros(1, BETAS),
        shape_information=prior().information[None],
        interval_30hz=torch.ones(1),
        shape_frozen=torch.zeros(1),
    )
    window = observe([people], K, torch.device("cpu"), PLAIN)
    state = (guess.rotations[None], guess.transl_m[None], guess.betas[None])
    cost, hessian, gradient, _ = linearise(skeleton, window, none, state, config)
    assert system.cost == pytest.approx(float(cost), rel=1e-4)
    dense = hessian[0].double().numpy()
    dense[np.diag_indices(len(dense))] *= 1 + damping
    dense[np.diag_indices(len(dense))] += 1e-6
    expected = np.linalg.solve(dense, gradient[0].double().numpy())
    both = np.concatenate((step.reshape(-1), step_shape))
    assert len(both) == frames * FRAME_DIM + BETAS
    assert np.abs(both - expected).max() < 1e-3 * max(np.abs(expected).max(), 1)


def smoothness(path, distance_m):
    """The pull (T, 3) of smoothness on a path, and its cost."""
    count = len(path)
    turns = torch.eye(3).expand(count, 24, 3, 3).double()
    poses = TrackPoses(turns, path, torch.zeros(BETAS).double())
    band, pull = np.zeros((141, count, FRAME_DIM)), np.zeros((count, FRAME_DIM))
    still = torch.zeros(3).double()
    cost = track_solver._add_smoothness(
        band, pull, poses, still, usual(count).double(), distance_m, PLAIN, None
    )
    return pull[:, :3], cost


@settings(max_examples=20)
@given(seed=SEEDS, depth_m=st.floats(1.0, 40.0), size_m=st.sampled_from([0.01, 0.1, 2.0]))
def test_smoothness_pulls_down_its_cost(seed, depth_m, size_m):
    generator = torch.Generator().manual_seed(seed)
    path = size_m * torch.randn(6, 3, generator=generator).double()
    path[:, 2] += depth_m
    pull, _ = smoothness(path, depth_m)
    for place in ((0, 2), (2, 0), (3, 2), (5, 1)):
        ends = []
        for step in (1e-6, -1e-6):
            moved = path.clone()
            moved[place] += step
            ends.append(smoothness(moved, depth_m)[1])
        slope = (ends[0] - ends[1]) / 2e-6
        assert 2 * pull[place] == pytest.approx(slope, rel=1e-2, abs=1e-3 * abs(pull).max())


@pytest.mark.parametrize("depth_m", [4.0, 10.0, 30.0])
def test_an_error_of_the_size_is_smoothed_at_any_distance_and_a_break_is_left(depth_m):
    def share(jump_m):
        """The pull on a frame that is off, as a part of what it would be without a limit."""
        path = torch.tensor([0.0, 0.0, depth_m]).repeat(7, 1).double()
        path[3, 2] += jump_m
        # Of the accelerations before, at and behind the jump: 1 + 4 + 1 parts.
        return smoothness(path, depth_m)[0][3, 2] / (6 * jump_m / PLAIN.root_depth_accel_m**2)

    # As of a person of eighty pixels who is seen two pixels larger.
    assert share(depth_m / 40) > 0.25
    assert share(depth_m / 2) < 0.005


@settings(max_examples=6)
@given(seed=SEEDS)
def test_no_step_makes_it_worse(body, skeleton, seed):
    people, true = swaying(body, 12, seed, noise_px=2.0)
    seen, guess = observed(people), nudged(true, seed, 0.5)

    def cost(poses):
        return track_solver._linearise(
            skeleton, seen, poses, prior(), usual(12), 4.0, PLAIN
        ).cost  # fmt: skip

    costs = [cost(guess)]
    for steps in (1, 3, 8):
        poses, _, _ = solve_track(skeleton, seen, guess, prior(), usual(12), PLAIN, steps)
        costs.append(cost(poses))
    assert all(b <= a * (1 + 1e-6) for a, b in zip(costs, costs[1:]))
    assert costs[-1] < 0.7 * costs[0]


@settings(max_examples=5)
@given(seed=SEEDS)
def test_time_has_no_direction(body, skeleton, seed):
    """A clip that is played backwards has the same poses."""
    people, true = swaying(body, 14, seed, noise_px=2.0)
    guess = nudged(true, seed, 0.05)
    back = replace(guess, rotations=guess.rotations.flip(0), transl_m=guess.transl_m.flip(0))
    one, _, _ = solve_track(skeleton, observed(people), guess, prior(), usual(14), PLAIN, 10)
    other, _, _ = solve_track(skeleton, observed(people[::-1]), back, prior(), usual(14), PLAIN, 10)
    apart = log_so3(one.rotations.transpose(-1, -2) @ other.rotations.flip(0))
    # Two solutions of a robust problem, each as far as ten steps go.
    assert float(apart.norm(dim=-1).mean()) < 0.01
    assert float((one.transl_m - other.transl_m.flip(0)).norm(dim=-1).mean()) < 0.01


@settings(max_examples=5)
@given(seed=SEEDS)
def test_a_gap_is_bridged_as_the_motion_goes_on(body, skeleton, seed):
    people, true = swaying(body, 20, seed)
    gap = slice(8, 12)
    seen = [None if 8 <= k < 12 else person for k, person in enumerate(people)]
    # Off by what smoothness may still take for the motion: a robust one leaves a jump alone.
    bump = torch.zeros(20, 3)
    bump[gap] = 0.02
    guess = replace(true, transl_m=true.transl_m + bump)
    fixed = ShapePrior(true.betas, 1e6 * torch.eye(BETAS))
    free = replace(PLAIN, use_prior=False)
    paths = [
        # The pose prior, which acts in a gap alone, is another law.
        solve_track(skeleton, observed(each), guess, fixed, usual(20), free, 20)[0].transl_m
        for each in (seen, people)
    ]
    off_m = (paths[0] - paths[1])[gap].norm(dim=-1)
    assert float(off_m.max()) < 0.4 * float(bump.norm(dim=-1).max())


def test_accelerations_of_a_steady_turn_are_zero():
    turn = exp_so3(torch.arange(9.0)[:, None, None] * torch.tensor([0.1, 0.05, -0.02]))
    poses = TrackPoses(
        turn.expand(9, 24, 3, 3), torch.arange(9.0)[:, None].expand(9, 3), torch.zeros(BETAS)
    )
    assert float(accelerations(poses, torch.zeros(3)).abs().max()) < 1e-5


@settings(max_examples=4)
@given(seed=SEEDS)
def test_the_shape_that_frames_show_adds_up(body, skeleton, seed):
    """What two halves of a track show, joined, is near what the whole shows."""
    people, true = swaying(body, 20, seed, noise_px=1.0)
    half = []
    for part in (slice(0, 10), slice(10, 20)):
        guess = TrackPoses(true.rotations[part], true.transl_m[part], torch.zeros(BETAS))
        half.append(
            solve_track(skeleton, observed(people[part]), guess, prior(), usual(10), PLAIN, 8)[1]
        )
    guess = replace(true, betas=torch.zeros(BETAS))
    poses, whole, _ = solve_track(skeleton, observed(people), guess, prior(), usual(20), PLAIN, 8)
    information = prior().information.double() + half[0].information + half[1].information
    pull = sum(each.information @ each.betas for each in half)
    joined = torch.linalg.solve(information, pull).float()
    assert float((joined - poses.betas).norm()) < 0.35 * max(1.0, float(poses.betas.norm()))
    assert torch.linalg.eigvalsh(whole.information).min() > -1e-6


@settings(max_examples=4)
@given(seed=SEEDS)
def test_a_camera_that_turns_changes_nothing_in_the_world(body, skeleton, seed):
    """The same people, seen by a camera that turns about its centre: the same path in the world."""
    generator = torch.Generator().manual_seed(seed)
    people, true = swaying(body, 16, seed, noise_px=2.0)
    pan = torch.cumsum(0.02 * torch.randn(16, 1, generator=generator), 0)
    turn = exp_so3(pan * torch.tensor([0.3, 1.0, 0.1]))
    back = turn.transpose(-1, -2)
    pelvis_m = skeleton.bones[0, :, 0] + skeleton.bones[0, :, 1:] @ true.betas
    fixed = ShapePrior(true.betas, 1e6 * torch.eye(BETAS))
    seen = observed(people)
    rays = torch.cat((seen.image, torch.ones(16, 33, 1)), -1) @ turn
    turned = replace(
        seen, image=rays[..., :2] / rays[..., 2:], view=back @ seen.view,
        image_spread=seen.image_spread,
    )  # fmt: skip
    moved = replace(
        true,
        rotations=torch.cat(((back @ true.rotations[:, 0])[:, None], true.rotations[:, 1:]), 1),
        transl_m=(back @ (true.transl_m + pelvis_m)[..., None])[..., 0] - pelvis_m,
    )
    free = replace(PLAIN, use_prior=False)
    one, _, _ = solve_track(skeleton, seen, true, fixed, usual(16), free, 12)
    other, _, _ = solve_track(
        skeleton, turned, moved, fixed, usual(16), free, 12, turn=turn
    )  # fmt: skip
    places = (turn @ (other.transl_m + pelvis_m)[..., None])[..., 0] - pelvis_m
    roots = turn @ other.rotations[:, 0]
    # Not exactly: an error in the picture weighs a little otherwise away from its middle.
    assert float((places - one.transl_m).norm(dim=-1).max()) < 0.03
    apart = log_so3(one.rotations[:, 0].transpose(-1, -2) @ roots)
    assert float(apart.norm(dim=-1).max()) < 0.03
    # Without the camera's turns its shaking is taken for the person's.
    blind, _, _ = solve_track(skeleton, turned, moved, fixed, usual(16), free, 12)
    shaken = (turn @ (blind.transl_m + pelvis_m)[..., None])[..., 0] - pelvis_m
    far = float((shaken - one.transl_m).norm(dim=-1).max())
    assert far > float((places - one.transl_m).norm(dim=-1).max())
