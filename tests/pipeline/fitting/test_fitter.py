"""The fit against laws: Jacobians against differences, exact data against the pose that made it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import (
    Points,
    Skeleton,
    directed_jacobian,
    forward_kinematics,
    place_points,
    point_jacobian,
    shape_jacobian,
)
from pipeline.body.load import load_body
from pipeline.body.prior import pose_prior, prior_table
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.core.camera import project, rotation_to_ray
from pipeline.core.people import Mask
from pipeline.fitting.fitter import BodyFitter, FitJob, FitMemory, Kind
from pipeline.fitting.initialise import frame_of, place_by_landmarks, pose_from_landmarks
from pipeline.fitting.observations import edge_map, observe
from pipeline.fitting.solver import (
    FRAME_DIM,
    FitConfig,
    TemporalPrior,
    inverse_right_jacobian,
    linearise,
    retract,
)
from pipeline.fitting.window_step import SHAPE_LIMIT
from tests.support.fits import K, double, seen_as_people, some_pose, windows_of_people


@pytest.fixture(scope="module")
def skeleton(body):
    return Skeleton.of(body, 64)


def test_landmarks_by_moments_are_the_meshs_own(body, skeleton):
    generator = torch.Generator().manual_seed(1)
    rotations = some_pose(generator, 3)
    betas = torch.randn(3, 10, generator=generator)
    transl = torch.randn(3, 3, generator=generator)
    pose = forward_kinematics(skeleton, rotations, transl, betas)
    points, _ = place_points(skeleton.landmarks, pose, betas)
    turns = log_so3(rotations)
    out = body.forward(betas, turns[:, 0], turns[:, 1:].flatten(1), transl)
    assert torch.allclose(points, out.landmarks_m, atol=2e-4)
    assert torch.allclose(pose.joints, out.joints_m, atol=2e-4)


def test_point_jacobians_match_differences(skeleton):
    exact: Skeleton = double(skeleton)
    generator = torch.Generator().manual_seed(2)
    rotations = some_pose(generator, 2).double()
    rotations = exp_so3(log_so3(rotations))
    betas = torch.randn(2, 10, generator=generator).double()
    transl = torch.randn(2, 3, generator=generator).double()

    def at(points: Points, r, b):
        return place_points(points, forward_kinematics(exact, r, transl, b), b)[0]

    for points in (exact.landmarks, exact.surface):
        pose = forward_kinematics(exact, rotations, transl, betas)
        _, share = place_points(points, pose, betas)
        turn = point_jacobian(points, pose, share, exact.below)
        shape = shape_jacobian(points, pose)
        h = 1e-5
        for column in range(0, 66, 5):
            delta = torch.zeros(2, 24, 3, dtype=torch.double)
            delta[:, column // 3, column % 3] = h
            forward = at(points, rotations @ exp_so3(delta), betas)
            backward = at(points, rotations @ exp_so3(-delta), betas)
            assert torch.allclose((forward - backward) / (2 * h), turn[..., column], atol=1e-5)
        for column in range(10):
            delta = torch.zeros(2, 10, dtype=torch.double)
            delta[:, column] = h
            forward, backward = (at(points, rotations, betas + s * delta) for s in (1, -1))
            assert torch.allclose((forward - backward) / (2 * h), shape[..., column], atol=1e-5)


def test_directed_jacobian_is_the_jacobian_along_a_direction(skeleton):
    generator = torch.Generator().manual_seed(14)
    rotations, betas = some_pose(generator, 2), torch.randn(2, 10, generator=generator)
    pose = forward_kinematics(skeleton, rotations, torch.randn(2, 3, generator=generator), betas)
    points = skeleton.surface
    _, share = place_points(points, pose, betas)
    direction = torch.randn(2, len(points.mass), 3, generator=generator)
    eye = torch.eye(3).expand(2, len(points.mass), 3, 3)
    turn = point_jacobian(points, pose, share, skeleton.below)
    whole = torch.cat((eye, turn, shape_jacobian(points, pose)), -1)
    wanted = (direction[..., None, :] @ whole)[..., 0, :]
    got = directed_jacobian(points, pose, share, skeleton.below, direction)
    assert torch.allclose(got, wanted, atol=1e-4)


def test_inverse_right_jacobian_matches_differences():
    generator = torch.Generator().manual_seed(3)
    phi = torch.randn(20, 3, generator=generator).double()
    phi[0] = 0
    h = 1e-5
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.double)
        step[axis] = h
        forward = log_so3(exp_so3(phi) @ exp_so3(step))
        backward = log_so3(exp_so3(phi) @ exp_so3(-step))
        slope = (forward - backward) / (2 * h)
        assert torch.allclose(slope, inverse_right_jacobian(phi)[..., axis], atol=1e-4)


def test_gradient_is_the_slope_of_the_cost(body, skeleton):
    """Landmarks, depth, prior and shape; smoothness is linearised between frames, so it is off."""
    generator = torch.Generator().manual_seed(4)
    rotations, betas = some_pose(generator, 4), torch.zeros(4, 10)
    transl = torch.tensor([0.0, 0.0, 4.0]).expand(4, 3)
    people, _ = seen_as_people(body, rotations, transl, betas, 5.0, generator)
    people = [dataclasses.replace(p, root_depth_m=4.2) for p in people]
    exact = double(skeleton)
    seen = double(observe([people], K, torch.device("cpu")))
    past = TemporalPrior(
        rotations[None, :2].double(), transl[None, :2].double(), torch.zeros(1, 2).double(),
        torch.zeros(1, 10).double(), torch.eye(10)[None].double(), torch.ones(1).double(),
        torch.zeros(1).double(),
    )  # fmt: skip
    config = FitConfig(use_mask=False, use_smoothness=False)
    away = (
        rotations[None].double()
        @ exp_so3(0.1 * torch.randn(1, 4, 24, 3, generator=generator)).double()
    )
    state = (
        exp_so3(log_so3(away)),
        transl[None].double() + 0.05,
        torch.full((1, 10), 0.3).double(),
    )
    _, _, gradient, _ = linearise(exact, seen, past, state, config)
    h = 1e-6
    size = 4 * FRAME_DIM + 10
    for column in (
        0,
        2,
        3,
        10,
        60,
        FRAME_DIM + 1,
        FRAME_DIM + 30,
        3 * FRAME_DIM + 7,
        size - 10,
        size - 1,
    ):
        step = torch.zeros(1, size).double()
        step[0, column] = h
        up = linearise(exact, seen, past, retract(state, step), config)[0]
        down = linearise(exact, seen, past, retract(state, -step), config)[0]
        slope = float((up - down) / (2 * h))
        assert 2 * float(gradient[0, column]) == pytest.approx(slope, rel=2e-3, abs=2e-3)


def test_limits_cost_nothing_inside_and_the_prior_is_symmetric():
    phi = torch.zeros(1, 22, 3)
    phi[0, 18, 1], phi[0, 19, 1] = -1.0, 1.0
    rows, _ = pose_prior(phi, prior_table())
    assert float(rows[:, 1].abs().max()) == 0.0
    phi[0, 18, 1] = 0.6
    rows, change = pose_prior(phi, prior_table())
    assert float(rows[0, 1, 18, 1]) > 1.0
    assert float(change[0, 1, 18, 1]) > 0.0
    generator = torch.Generator().manual_seed(5)
    phi = torch.randn(1, 22, 3, generator=generator)
    swap = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20]
    mirrored = phi[:, swap] * torch.tensor([1.0, -1.0, -1.0])
    assert float(pose_prior(phi, prior_table())[0].square().sum()) == pytest.approx(
        float(pose_prior(mirrored, prior_table())[0].square().sum()), rel=1e-5
    )


def test_first_pose_points_every_limb(skeleton):
    generator = torch.Generator().manual_seed(6)
    rotations, betas = some_pose(generator, 16, 0.25), torch.zeros(16, 10)
    zero = torch.zeros(16, 3)
    wanted, _ = place_points(
        skeleton.landmarks, forward_kinematics(skeleton, rotations, zero, betas), betas
    )
    guessed = pose_from_landmarks(skeleton, wanted, betas)
    eye = torch.eye(3).expand(16, 24, 3, 3)
    assert torch.allclose(guessed @ guessed.transpose(-1, -2), eye, atol=1e-4)
    got, _ = place_points(
        skeleton.landmarks, forward_kinematics(skeleton, guessed, zero, betas), betas
    )
    for a, b in ((11, 13), (13, 15), (12, 14), (14, 16), (23, 25), (25, 27), (24, 26), (26, 28)):
        want = torch.nn.functional.normalize(wanted[:, b] - wanted[:, a], dim=-1)
        have = torch.nn.functional.normalize(got[:, b] - got[:, a], dim=-1)
        assert float((want * have).sum(-1).min()) > 0.95, (a, b)


def test_frames_are_right_handed_and_orthonormal():
    generator = torch.Generator().manual_seed(7)
    frames = frame_of(
        torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator)
    )
    assert torch.allclose(
        frames.transpose(-1, -2) @ frames, torch.eye(3).expand(50, 3, 3), atol=1e-5
    )
    assert torch.allclose(torch.linalg.det(frames), torch.ones(50), atol=1e-5)


def test_place_by_landmarks_finds_the_translation():
    generator = torch.Generator().manual_seed(8)
    points = torch.randn(5, 33, 3, generator=generator)
    transl = torch.tensor([0.5, -0.2, 6.0]) + torch.randn(5, 3, generator=generator)
    moved = points + transl[:, None]
    target = moved[..., :2] / moved[..., 2:]
    assert torch.allclose(place_by_landmarks(points, target, torch.ones(5, 33)), transl, atol=1e-3)


def test_exact_landmarks_give_back_the_body(body):
    generator = torch.Generator().manual_seed(9)
    fitter = BodyFitter(
        body, FitConfig(prior_weight=0.05, use_mask=False, use_lifter=False, cold_iterations=25)
    )
    for _ in range(3):
        rotations = some_pose(generator, 1, 0.25).expand(4, -1, -1, -1)
        betas = torch.randn(1, 10, generator=generator).mul(0.7).expand(4, 10)
        transl = torch.tensor([[0.3, 0.1, 4.5]]).expand(4, 3)
        people, truth = seen_as_people(body, rotations, transl, betas)
        fitted = fitter.fit([{7: p} for p in people], K, FitMemory())
        assert [list(b.track) for b in fitted] == [[7]] * 4
        for t, bodies in enumerate(fitted):
            off = np.linalg.norm(bodies.landmarks_m[0] - truth.landmarks_m[t].numpy(), axis=-1)
            pixels = project(bodies.landmarks_m[0], K) - people[t].landmarks_px
            assert np.linalg.norm(pixels, axis=-1).mean() < 3.0
            assert off.mean() < 0.06


def test_the_shape_is_frozen_after_shape_seconds(body):
    generator = torch.Generator().manual_seed(10)
    fitter = BodyFitter(body, FitConfig(use_mask=False, use_lifter=False, shape_seconds=0.5))
    memory = FitMemory()
    rotations = some_pose(generator, 4, 0.2)
    people, _ = seen_as_people(
        body,
        rotations,
        torch.tensor([[0.0, 0.0, 4.0]]).expand(4, 3),
        torch.zeros(4, 10),
        2.0,
        generator,
    )
    shapes = [fitter.fit([{1: p} for p in people], K, memory)[0].betas[0] for _ in range(7)]
    assert np.abs(shapes[1] - shapes[0]).max() > 1e-5
    assert np.abs(shapes[6] - shapes[5]).max() < 1e-3


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10_000))
def test_landmarks_outside_the_picture_do_not_pull(body, seed):
    """A picture that ends at the hips: whatever is invented below it, the upper body stays."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    fitter = BodyFitter(body, FitConfig(use_mask=False))
    pose = some_pose(generator, 1, 0.1).expand(4, -1, -1, -1)
    place = torch.tensor([[0.0, 0.0, 3.0]]).expand(4, 3)
    people, truth = seen_as_people(body, pose, place, torch.zeros(4, 10))
    size = (int(people[0].landmarks_px[23:25, 1].max()) + 30, 1280)
    # A knee that is raised that far is in the picture.
    assume(people[0].landmarks_px[25:, 1].min() > size[0] + 0.02 * 1280)
    for person in people:
        below = person.landmarks_px[:, 1] > size[0] + 0.02 * 1280
        person.landmarks_px[below, 0] += rng.uniform(-200, 200, below.sum())
        person.world_m[below] += rng.uniform(-0.3, 0.3, (below.sum(), 3))
    job = FitJob([{1: person} for person in people], K, FitMemory(), size=size)
    last = fitter.fit_many([job])[0][-1]
    off_m = np.linalg.norm(last.landmarks_m[0] - truth.landmarks_m[-1].numpy(), axis=-1)
    across_px = project(last.landmarks_m[0], K) - project(truth.landmarks_m[-1].numpy(), K)
    assert np.linalg.norm(across_px[:13], axis=-1).max() < 25
    assert off_m[11:13].mean() < 0.25
    assert not last.joint_visibility[0, [4, 5, 7, 8, 10, 11]].any()
    assert last.joint_visibility[0, [12, 16, 17]].min() > 0.9


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10_000))
def test_no_observation_makes_a_shape_beyond_the_limit(body, seed):
    rng = np.random.default_rng(seed)
    fitter = BodyFitter(body, FitConfig(shape_weight=0.01))
    (window,) = windows_of_people(body, 1, seed)
    for frame in window:
        frame[1].landmarks_px[:] = frame[1].landmarks_px * rng.uniform(0.4, 2.0, 2)
        frame[1].world_m[:] *= rng.uniform(0.2, 4.0, (33, 3)).astype(np.float32)
    memory = FitMemory()
    for _ in range(3):
        assert np.abs(fitter.fit(window, K, memory)[-1].betas).max() <= SHAPE_LIMIT


def test_a_still_picture_converges(body):
    (window,) = windows_of_people(body, 1)
    still = [window[0]] * 4
    fitter, memory = BodyFitter(body), FitMemory()
    frames = [bodies for _ in range(9) for bodies in fitter.fit(still, K, memory)]
    joints_m = np.stack([bodies.joints_m[0] for bodies in frames])
    steps_m = np.linalg.norm(np.diff(joints_m, axis=0), axis=-1).max(1)
    assert steps_m[20:].max() < 0.001
    # The shape is settled, and limbs keep their length.
    shapes = np.stack([bodies.betas[0] for bodies in frames[20:]])
    assert np.ptp(shapes, axis=0).max() < 1e-3


def test_people_of_a_batch_are_independent(body):
    """Fitting two people at once gives what fitting each alone gives."""
    generator = torch.Generator().manual_seed(11)
    fitter = BodyFitter(body, FitConfig(use_mask=False, use_lifter=False))
    place = (
        torch.tensor([[-1.0, 0.0, 5.0]]).expand(4, 3),
        torch.tensor([[1.0, 0.0, 4.0]]).expand(4, 3),
    )
    a, _ = seen_as_people(body, some_pose(generator, 4, 0.1), place[0], torch.zeros(4, 10))
    b, _ = seen_as_people(body, some_pose(generator, 4, 0.1), place[1], torch.zeros(4, 10))
    both = fitter.fit([{1: x, 2: y} for x, y in zip(a, b)], K, FitMemory())
    alone = fitter.fit([{2: y} for y in b], K, FitMemory())
    for t in range(4):
        assert np.abs(both[t].vertices_m[1] - alone[t].vertices_m[0]).max() < 2e-3


def test_absent_frames_get_no_body_and_windows_may_be_short(body):
    generator = torch.Generator().manual_seed(12)
    fitter = BodyFitter(body, FitConfig(use_mask=False, use_lifter=False))
    people, _ = seen_as_people(
        body, some_pose(generator, 1).expand(3, -1, -1, -1),
        torch.tensor([[0.0, 0.0, 4.0]]).expand(3, 3), torch.zeros(3, 10),
    )  # fmt: skip
    memory = FitMemory()
    fitted = fitter.fit([{}, {1: people[0]}, {}], K, memory)
    assert [len(b) for b in fitted] == [0, 1, 0]
    assert [len(b) for b in fitter.fit([{1: people[0]}], K, memory)] == [1]
    assert [len(b) for b in fitter.fit([{}, {}], K, memory)] == [0, 0]
    assert fitter.no_bodies().vertices_m.shape == (0, len(body.v_template), 3)


def test_depth_pulls_the_root(body):
    generator = torch.Generator().manual_seed(13)
    people, _ = seen_as_people(
        body, some_pose(generator, 1).expand(4, -1, -1, -1),
        torch.tensor([[0.0, 0.0, 4.0]]).expand(4, 3), torch.zeros(4, 10),
    )  # fmt: skip
    far = [dataclasses.replace(p, root_depth_m=4.1) for p in people]
    fitter = BodyFitter(body, FitConfig(use_mask=False, use_lifter=False, depth_sigma=0.01))
    plain = fitter.fit([{1: p} for p in people], K, FitMemory())[0].joints_m[0, 0, 2]
    pulled = fitter.fit([{1: p} for p in far], K, FitMemory())[0].joints_m[0, 0, 2]
    assert abs(pulled - 4.1) < 0.7 * abs(plain - 4.1)


def test_edge_map_measures_distance_to_the_contour():
    """A disc: its signed distance is known everywhere, under any turn and scale of its region."""
    y, x = np.mgrid[:256, :256]
    disc = (np.hypot(x - 127.5, y - 127.5) < 60).astype(np.float32)
    angle, scale = 0.6, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre_px = np.array([700.0, 300.0])
    to_image = np.concatenate((turn, (centre_px - turn @ [127.5, 127.5])[:, None]), 1)
    edge, to_grid = edge_map(
        Mask(disc, to_image.astype(np.float32)), np.array([1100.0] * 2), K[:2, 2]
    )
    for radius_px in (70.0, 102.0, 130.0):
        for direction in np.linspace(0, 6, 7):
            step = np.array([np.cos(direction), np.sin(direction)])
            point = (centre_px + radius_px * step - K[:2, 2]) / 1100.0
            grid = to_grid @ np.append(point, 1.0)
            sampled = torch.nn.functional.grid_sample(
                torch.from_numpy(edge)[None],
                torch.tensor(grid, dtype=torch.float32)[None, None, None],
                align_corners=True,
            ).flatten().numpy()  # fmt: skip
            assert sampled[0] * 1100 == pytest.approx(radius_px - 60 * scale, abs=4.0)
            if radius_px > 90:
                assert sampled[1:] @ step > 0.8


def test_rotation_to_ray_takes_the_axis_there():
    generator = np.random.default_rng(0)
    for ray in generator.normal(0, 0.6, (20, 2)):
        rotation = rotation_to_ray(ray)
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
        assert np.allclose(rotation[:, 2] * np.hypot(1, np.linalg.norm(ray)), [*ray, 1], atol=1e-5)


def test_observing_no_person_is_an_error():
    with pytest.raises(ValueError, match="no person"):
        observe([[None, None]], K, torch.device("cpu"))


def test_a_batch_that_fails_leaves_every_memory_as_it_was(body, monkeypatch):
    """It may be tried again, and a window must not follow on itself."""
    fitter = BodyFitter(body, FitConfig(iterations=1, cold_iterations=1))
    first, second = windows_of_people(body, 2)
    memories = [FitMemory(), FitMemory()]
    for memory in memories:
        fitter.fit(first, K, memory)
    before = [dict(memory.tracks) for memory in memories]
    jobs = [FitJob(second, K, memories[0]), FitJob(second[:2], K, memories[1])]
    solve, calls = fitter._solve, []

    def fails_at_the_second_kind(*kind):
        calls.append(kind)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return solve(*kind)

    monkeypatch.setattr(fitter, "_solve", fails_at_the_second_kind)
    with pytest.raises(RuntimeError):
        fitter.fit_many(jobs)
    assert [memory.tracks for memory in memories] == before
    fitter.fit_many(jobs)
    assert all(memory.tracks != old for memory, old in zip(memories, before))


def test_windows_that_nothing_was_compiled_for_are_fitted_by_torch_on_a_gpu(monkeypatch):
    """Ours take half a minute to compile; a feed that stutters must not wait for them."""
    fitter = BodyFitter(load_body(), kernels=False)
    fitter._kernels = fitter._parts = ours = object()
    # A window's fit computes nothing when it is made, so no GPU is needed.
    monkeypatch.setattr(fitter, "device", torch.device("cuda"))

    def parts_of(frames):
        fit = fitter._fit(Kind(frames, 3))
        assert fit.outlines
        assert (fit._kernels is None) == (fit._parts is None)
        return fit._parts

    assert [parts_of(frames) for frames in (4, 3, 2)] == [ours, None, None]
    fitter.warm_up(1, frames=1)
    assert parts_of(1) is ours
