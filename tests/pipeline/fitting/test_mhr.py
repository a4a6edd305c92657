"""SMPL bodies out of MHR's: the skin's residual, the start, and what is reported of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Skeleton, forward_kinematics
from pipeline.body.mhr_surface import surface_table
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.fitting.fitter import BodyFitter, FitJob, FitMemory
from pipeline.fitting.initialise import local_rotations
from pipeline.fitting.solver import FitConfig, surface_rows
from tests.support.fits import (
    K,
    double,
    random_problem,
    rotations_of,
    seen_as_people,
    some_pose,
)
from tests.support.mhr import published_bodies


@pytest.fixture(scope="module")
def skeleton(body):
    return Skeleton.of(body, 16)


@pytest.fixture(scope="module")
def fitter(body):
    return BodyFitter(body)


@pytest.fixture(scope="module")
def exact_fitter(body):
    return BodyFitter(body, FitConfig(surface_model_m=1e-3, model_sigma_m=1e-3))


@pytest.fixture(scope="module")
def published():
    return published_bodies()


def apart_mm(some, others):
    """The mean distance of points (K, 3) in metres, both about their middles."""
    difference = (some - some.mean(0)) - (others - others.mean(0))
    return 1e3 * float(np.linalg.norm(difference, axis=1).mean())


@pytest.mark.parametrize("frames", [1, 4])
def test_published_bodies_keep_their_skin(fitter, published, frames):
    """Over the points of the fit, and over as many between them that the fit did not see."""
    fitted, unseen = [], []
    for k, person in enumerate(published.people):
        last = fitter.fit([{1: person}] * frames, published.intrinsics, FitMemory())[-1]
        fitted.append(1e3 * float(last.surface_error_m[0]))
        unseen.append(apart_mm(last.vertices_m[0, published.check_vertices], published.check_m[k]))
    print(f"{frames} frames, mm: {np.round(fitted, 1)}; unseen points {np.round(unseen, 1)}")
    assert np.mean(fitted) < 10
    assert np.mean(unseen) < 10
    # Not by a part of the body that is given up.
    assert max(fitted + unseen) < 12


def test_the_skin_tells_what_landmarks_do_not(fitter, published):
    """Without it the same bodies are twice as far off."""
    for k, person in enumerate(published.people):
        bare = replace(person, surface_m=None, start_rotations=None)
        last = fitter.fit([{1: bare}], published.intrinsics, FitMemory())[-1]
        assert last.surface_error_m is None
        assert apart_mm(last.vertices_m[0, published.check_vertices], published.check_m[k]) > 18


def test_the_start_is_near(published, body):
    """The joints' own rotations, before any step of the fit: nearer than those of landmarks."""
    unmoved = BodyFitter(body, FitConfig(iterations=0, cold_iterations=0))
    errors = []
    for person in published.people:
        pair = [person, replace(person, start_rotations=None)]
        fitted = [unmoved.fit([{1: each}], published.intrinsics, FitMemory())[0] for each in pair]
        errors.append([1e3 * float(bodies.surface_error_m[0]) for bodies in fitted])
    start, landmarks = np.mean(errors, 0)
    print(f"before any step: {start:.1f} mm from joints, {landmarks:.1f} mm from landmarks")
    assert start < 30 < landmarks


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_local_rotations_make_the_world_ones(skeleton, seed):
    world = rotations_of(torch.Generator().manual_seed(seed), 2, 24)
    local = local_rotations(world)
    none = torch.zeros(2, 3), torch.zeros(2, 10)
    again = forward_kinematics(skeleton, local, *none).rotations
    torch.testing.assert_close(again[:, :22], world[:, :22], rtol=0, atol=1e-5)
    # The fit does not turn hands, so they rest.
    assert torch.equal(local[:, 22:], torch.eye(3).expand(2, 2, 3, 3))


def test_a_start_saves_steps(fitter, published):
    """A new person with one takes the steps of a known person, a new one without it more."""
    for person, steps in (
        (published.people[0], fitter.config.iterations),
        (replace(published.people[0], start_rotations=None), fitter.config.cold_iterations),
    ):
        job = FitJob([{1: person}], published.intrinsics, FitMemory())
        assert fitter._kind_of(job).steps == steps


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31 - 1))
def test_a_body_of_the_model_itself_comes_back(body, exact_fitter, seed):
    """Its shape too, and so its height, where the residuals are as sure as they are right."""
    generator = torch.Generator().manual_seed(seed)
    rotations = some_pose(generator, 1).expand(4, -1, -1, -1)
    betas = torch.randn(1, 10, generator=generator).clamp(-2, 2).expand(4, 10)
    people, out = seen_as_people(body, rotations, torch.tensor([[0.2, 0.1, 5.0]] * 4), betas)
    skin = out.vertices_m[:, surface_table(body).body_vertices].numpy()
    nowhere = torch.zeros(4, 3)
    world = forward_kinematics(exact_fitter.skeleton, rotations, nowhere, betas).rotations
    seen = [
        replace(
            person,
            world_m=landmarks - landmarks[[23, 24]].mean(0),
            world_sigma_m=0.001,
            surface_m=surface_m,
            surface_sigma_m=0.001,
            start_rotations=start,
        )
        for person, landmarks, surface_m, start in zip(
            people, out.landmarks_m.numpy(), skin, world.numpy()
        )
    ]
    fitted = exact_fitter.fit([{1: person} for person in seen], K, FitMemory())
    for bodies, vertices in zip(fitted, out.vertices_m.numpy()):
        assert float(bodies.surface_error_m[0]) < 5e-4
        # Vertices between the points of the fit as well, and the translation.
        assert float(np.linalg.norm(bodies.vertices_m[0] - vertices, axis=1).mean()) < 2e-3


def test_rows_match_differences(skeleton):
    exact = double(skeleton)
    observed, _, (rotations, transl_m, betas) = double_problem(31, skeleton)

    def rows(turns, betas):
        pose = forward_kinematics(exact, turns, transl_m, betas)
        return surface_rows(exact.skin, pose, betas, observed, exact.below)

    value, jacobian, cost = rows(rotations, betas)
    torch.testing.assert_close(cost, value.square().sum(1))
    assert float(jacobian[..., :3].abs().max()) == 0
    step = 1e-6
    for column in range(0, 76, 5):
        turn = torch.zeros(*rotations.shape[:2], 3, dtype=torch.double)
        shape = torch.zeros_like(betas)
        if column < 66:
            turn[:, column // 3, column % 3] = step
        else:
            shape[:, column - 66] = step
        ahead, behind = (rows(rotations @ exp_so3(s * turn), betas + s * shape) for s in (1, -1))
        slope = (ahead[0] - behind[0]) / (2 * step)
        torch.testing.assert_close(slope, jacobian[..., 3 + column], rtol=1e-5, atol=1e-4)


def double_problem(seed, skeleton):
    """One frame of two people, flat, in double precision."""
    points = len(skeleton.skin.mass)
    observed, past, state = random_problem(seed, 2, 1, points)
    flat = {n: getattr(observed, n).flatten(0, 1).double() for n in observed.__dataclass_fields__}
    rotations, transl_m, betas = (part.double() for part in state)
    # Rounded matrices are no rotations to double precision.
    rotations = exp_so3(log_so3(rotations.flatten(0, 1)))
    return type(observed)(**flat), past, (rotations, transl_m.flatten(0, 1), betas)


def test_people_with_and_without_a_skin_share_a_window(fitter, published):
    """Neither changes what the other gets, and the error is that of the one who has a skin."""
    # Without starts, for those save steps, of which a window has as many for all.
    one, other = (replace(person, start_rotations=None) for person in published.people[:2])
    bare = replace(other, surface_m=None)
    together = fitter.fit([{1: one, 2: bare}], published.intrinsics, FitMemory())[0]
    alone = [
        fitter.fit([{1: person}], published.intrinsics, FitMemory())[0] for person in (one, bare)
    ]
    for row, bodies in enumerate(alone):
        np.testing.assert_allclose(together.vertices_m[row], bodies.vertices_m[0], atol=2e-4)
    assert together.surface_error_m[0] == pytest.approx(alone[0].surface_error_m[0], abs=1e-5)
    assert np.isnan(together.surface_error_m[1])


def test_without_a_skin_nothing_changes(fitter, published):
    """The rows are those of landmarks alone, so are graphs and numbers."""
    bare = replace(published.people[0], surface_m=None)
    job = FitJob([{1: bare}], published.intrinsics, FitMemory())
    assert fitter._kind_of(job).surface == 0
    fit = fitter._fit(fitter._kind_of(job))
    assert not any("surface" in name or "start" in name for name in fit.inputs.shapes)
    assert "surface_error_m" not in fit.result.shapes


def test_a_skin_of_another_table_is_refused(fitter, published):
    wrong = replace(published.people[0], surface_m=published.people[0].surface_m[:-1])
    with pytest.raises(ValueError, match="shape"):
        fitter.fit([{1: wrong}], published.intrinsics, FitMemory())
