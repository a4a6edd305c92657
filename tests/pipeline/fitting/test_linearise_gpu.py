"""The solver's kernels against `solver.linearise` and `solver.gauss_newton`.

Without a GPU they run in Triton's interpreter.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Points, Skeleton, forward_kinematics
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.fitting.solver import (
    FRAME_DIM,
    FitConfig,
    linearise,
    propose_step,
    solve_window,
)
from samples.extend.ground_residual import FEET, ground_rows
from tests.support.fits import K, farthest_mm, random_problem, rotations_of, windows_of_people

kernels = pytest.importorskip("pipeline.fitting.linearise_gpu", exc_type=ImportError)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FEW = FitConfig(surface_points=96 if DEVICE == "cuda" else 5)
"""Triton's interpreter takes a twentieth of a second for each point."""


@pytest.fixture(scope="module")
def skeleton(body):
    return Skeleton.of(body.to(torch.device(DEVICE)), FEW.surface_points)


def problem(seed, people=1, frames=2, surface=0):
    """A random problem on the device."""
    observed, past, state = random_problem(seed, people, frames, surface)

    def on_device(values):
        parts = {n: getattr(values, n).to(DEVICE) for n in values.__dataclass_fields__}
        return type(values)(**parts)

    return on_device(observed), on_device(past), tuple(part.to(DEVICE) for part in state)


def linearised(skeleton, observed, past, state, config=FEW, blocks=()):
    """Cost, Hessian, gradient and mean squared residual of a state by the kernels."""
    window = kernels.WindowSystem(kernels.Linearizer(skeleton, config), observed, past, blocks)
    window.linearise(state)
    window.solve()
    block, (people, frames) = window.block, observed.present.shape
    size = frames * FRAME_DIM
    hessian = block.new_zeros(people, size + 10, size + 10)
    gradient = block.new_zeros(people, size + 10)
    for t in range(frames):
        at = slice(t * FRAME_DIM, (t + 1) * FRAME_DIM)
        hessian[:, at, at] += block[:, t, :FRAME_DIM, :FRAME_DIM]
        hessian[:, at, size:] += block[:, t, :FRAME_DIM, FRAME_DIM:79]
        hessian[:, size:, at] += block[:, t, FRAME_DIM:79, :FRAME_DIM]
        hessian[:, size:, size:] += block[:, t, FRAME_DIM:79, FRAME_DIM:79]
        gradient[:, at] += block[:, t, :FRAME_DIM, 79]
        gradient[:, size:] += block[:, t, FRAME_DIM:79, 79]
        for s in set(range(frames)) - {t}:
            other = slice(s * FRAME_DIM, (s + 1) * FRAME_DIM)
            hessian[:, at, other] += torch.diag_embed(window.coupling[:, t, s, :FRAME_DIM])
    # What is known of the shape belongs to the person, so it is in no frame's block.
    known = past.shape_information
    hessian[:, size:, size:] += known
    gradient[:, size:] += (known @ (state[2] - past.betas)[..., None])[..., 0]
    return window.control[:, 0], hessian, gradient, window.residual_mean


def agree(some, others, rtol=2e-5):
    for name, a, b in zip(("cost", "hessian", "gradient", "residual_mean"), some, others):
        assert a.shape == b.shape
        relative = float((a - b).abs().max()) / float(a.abs().max())
        assert relative < rtol, f"{name}: {relative:.1e} of its largest"


@pytest.mark.parametrize(("seed", "people", "frames"), [(1, 1, 2), (2, 2, 1), (3, 1, 4)])
def test_it_is_the_references(skeleton, seed, people, frames):
    observed, past, state = problem(seed, people, frames)
    expected = linearise(skeleton, observed, past, state, FEW)
    agree(expected, linearised(skeleton, observed, past, state))


def with_few_of_the_skin(skeleton, count=7):
    """The skeleton with a few points of the skin: the interpreter is slow."""
    few = Points(*(getattr(skeleton.skin, f.name)[:count] for f in fields(Points)))
    return replace(skeleton, skin=few)


@pytest.mark.parametrize(("seed", "people", "frames"), [(5, 1, 3), (6, 2, 1)])
def test_the_skin_of_an_mhr_body_is_the_references(skeleton, seed, people, frames):
    skeleton = with_few_of_the_skin(skeleton)
    observed, past, state = problem(seed, people, frames, surface=7)
    expected = linearise(skeleton, observed, past, state, FEW)
    agree(expected, linearised(skeleton, observed, past, state))
    without = replace(observed, surface_weight=torch.zeros_like(observed.surface_weight))
    assert float((linearise(skeleton, without, past, state, FEW)[0] - expected[0]).abs().min()) > 1


@pytest.mark.parametrize(
    "part", ["use_world", "use_mask", "use_prior", "use_smoothness", "use_depth"]
)
def test_a_part_switched_off_is_off(skeleton, part):
    config = replace(FEW, **{part: False})
    observed, past, state = problem(3, 1, 1)
    expected = linearise(skeleton, observed, past, state, config)
    agree(expected, linearised(skeleton, observed, past, state, config))


def extra_blocks(skeleton):
    """A floor and a row that is linear in the shape, by name: functions and their rows."""

    def floor(pose, shapes, observed):
        floor_y_m = torch.full_like(shapes[:, 0], -0.2)
        return ground_rows(skeleton, pose, shapes, floor_y_m, 0.05, 3.0)

    def line(pose, shapes, observed):
        jacobian = torch.arange(79.0, device=shapes.device).cos() * torch.ones_like(shapes[:, :1])
        values = (0.7 + shapes @ torch.arange(10.0, device=shapes.device))[:, None]
        return values, jacobian[:, None], values.square().sum(1)

    return {"floor": (floor, len(FEET)), "line": (line, 1)}


@pytest.mark.parametrize("names", [("floor",), ("floor", "line")])
def test_blocks_of_residuals_can_be_added(skeleton, names):
    observed, past, state = problem(8, 2, 2)
    functions = [extra_blocks(skeleton)[name] for name in names]
    expected = linearise(
        skeleton, observed, past, state, FEW, blocks=[function for function, _ in functions]
    )
    blocks = [kernels.TorchRows(partial(f, observed=observed), rows) for f, rows in functions]
    agree(expected, linearised(skeleton, observed, past, state, blocks=blocks))
    plain = linearise(skeleton, observed, past, state, FEW)
    assert float((plain[0] - expected[0]).abs().min()) > 0.1


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**31 - 1))
def test_kinematics_are_the_references(skeleton, seed):
    g = torch.Generator().manual_seed(seed)
    turns, transl = rotations_of(g, 3, 24).to(DEVICE), torch.randn(3, 3, generator=g).to(DEVICE)
    betas = torch.randn(3, 10, generator=g).to(DEVICE)
    expected = forward_kinematics(skeleton, turns, transl, betas)
    got = kernels.Linearizer(skeleton, FEW).forward_kinematics(turns, transl, betas)
    for name in ("rotations", "joints", "joints_betas"):
        a, b = getattr(expected, name), getattr(got, name)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1e-6, 0.3, 3.0, 100.0]))
def test_a_step_is_the_references(skeleton, seed, length):
    g = torch.Generator().manual_seed(seed)
    state = (rotations_of(g, 1, 2, 24), torch.randn(1, 2, 3, generator=g), torch.zeros(1, 10))
    step = length * torch.randn(1, 2 * 69 + 10, generator=g)
    step[0, 7], step[0, -3] = torch.nan, torch.inf
    state, step = tuple(part.to(DEVICE) for part in state), step.to(DEVICE)
    moved = tuple(torch.empty_like(part) for part in state)
    bodies = kernels.Linearizer(skeleton, FEW).posed(state, 2, 2, step, moved)
    for a, b in zip(propose_step(state, step), moved):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)
    shapes = moved[2].repeat_interleave(2, 0)
    expected = forward_kinematics(skeleton, moved[0][0], moved[1][0], shapes)
    torch.testing.assert_close(bodies.pose().joints, expected.joints, rtol=1e-5, atol=1e-5)


def test_all_turns_have_their_logarithm(skeleton):
    """Checked through the prior's gradient: rotations by nothing, by little, and by nearly half a
    turn, where the logarithm is badly conditioned."""
    axes = torch.nn.functional.normalize(torch.tensor([[1.0, 2, 3], [-1, 0, 0], [0, 1e-3, -1]]))
    angles = torch.tensor([0.0, 1e-6, 1e-3, 0.5, 2.0, 3.1, 3.1415])
    turns = exp_so3((axes[:, None] * angles[:, None]).flatten(0, 1))[:21].to(DEVICE)
    observed, past, state = problem(4, 1, 1)
    state[0][0, 0, 1:22] = turns
    assert float(log_so3(turns).norm(dim=-1).max()) > 3.14
    expected = linearise(skeleton, observed, past, state, FEW)
    agree(expected, linearised(skeleton, observed, past, state))


@pytest.mark.slow
@pytest.mark.parametrize(("people", "frames", "steps"), [(2, 1, 3), (1, 4, 1)])
def test_a_window_is_solved_as_by_the_reference(skeleton, people, frames, steps):
    observed, past, (rotations, transl_m, _) = problem(11, people, frames)
    expected = solve_window(skeleton, observed, past, rotations, transl_m, FEW, steps)
    got = kernels.Linearizer(skeleton, FEW).solve(observed, past, rotations, transl_m, steps)
    assert float((expected.transl_m - transl_m).abs().max()) > 0.05
    for name, tolerance in (("rotations", 2e-3), ("transl_m", 2e-3), ("betas", 5e-3)):
        a, b = getattr(expected, name), getattr(got, name)
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
    for name in ("cost", "residual_mean", "shape_information"):
        a, b = getattr(expected, name), getattr(got, name)
        assert float((a - b).abs().max()) < 2e-3 * float(a.abs().max()), name


def test_a_window_without_a_finite_cost_keeps_its_first_guess(skeleton):
    observed, past, (rotations, transl_m, _) = problem(12, 2, 1)
    broken = observed.image.clone()
    broken[0] = torch.nan
    observed = replace(observed, image=broken)
    expected = solve_window(skeleton, observed, past, rotations, transl_m, FEW, 1)
    got = kernels.Linearizer(skeleton, FEW).solve(observed, past, rotations, transl_m, 1)
    for solution in (expected, got):
        assert bool(solution.cost[0].isnan())
        torch.testing.assert_close(solution.rotations[0], rotations[0])
        torch.testing.assert_close(solution.transl_m[0], transl_m[0])
        assert bool((solution.shape_information[0] == 0).all())
    torch.testing.assert_close(expected.cost[1], got.cost[1], rtol=1e-3, atol=0.0)


def test_too_many_frames_are_an_error(skeleton):
    observed, past, _ = problem(1, 1, 4)
    five = type(observed)(*(torch.cat((getattr(observed, f.name),) * 2, 1)[:, :5]
                            for f in fields(observed)))  # fmt: skip
    with pytest.raises(ValueError, match="4 frames at most"):
        kernels.WindowSystem(kernels.Linearizer(skeleton, FEW), five, past)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_it_fits_the_same(body, graphs):
    for people in (1, 3, 12):
        windows, out = windows_of_people(body, 3, people=people), []
        for own in (False, True):
            fitter = BodyFitter(body, device="cuda", graphs=graphs, kernels=own)
            memory = FitMemory()
            out.append([fitter.fit(window, K, memory) for window in windows])
        assert farthest_mm(*out) < 2.0
