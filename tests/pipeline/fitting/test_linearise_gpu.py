"""The solver's kernels against `solver.linearise`; without a GPU, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Points, Skeleton, forward_kinematics
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.fitting.solver import FitConfig, linearise, propose_step
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


def agree(some, others, rtol=2e-5):
    for name, a, b in zip(("cost", "hessian", "gradient", "residual_mean"), some, others):
        assert a.shape == b.shape
        relative = float((a - b).abs().max()) / float(a.abs().max())
        assert relative < rtol, f"{name}: {relative:.1e} of its largest"


@pytest.mark.parametrize(("seed", "people", "frames"), [(1, 1, 2), (2, 2, 1)])
def test_it_is_the_references(skeleton, seed, people, frames):
    observed, past, state = problem(seed, people, frames)
    got = kernels.Linearizer(skeleton, FEW).bind(observed, past)(state)
    agree(linearise(skeleton, observed, past, state, FEW), got)


def with_few_of_the_skin(skeleton, count=7):
    """The skeleton with a few points of the skin: the interpreter is slow."""
    few = Points(*(getattr(skeleton.skin, f.name)[:count] for f in fields(Points)))
    return replace(skeleton, skin=few)


@pytest.mark.parametrize(("seed", "people", "frames"), [(5, 1, 4), (6, 2, 1)])
def test_the_skin_of_an_mhr_body_is_the_references(skeleton, seed, people, frames):
    skeleton = with_few_of_the_skin(skeleton)
    observed, past, state = problem(seed, people, frames, surface=7)
    expected = linearise(skeleton, observed, past, state, FEW)
    agree(expected, kernels.Linearizer(skeleton, FEW).bind(observed, past)(state))
    without = replace(observed, surface_weight=torch.zeros_like(observed.surface_weight))
    assert float((linearise(skeleton, without, past, state, FEW)[0] - expected[0]).abs().min()) > 1


@pytest.mark.parametrize(
    "part", ["use_world", "use_mask", "use_prior", "use_smoothness", "use_depth"]
)
def test_a_part_switched_off_is_off(skeleton, part):
    config = replace(FEW, **{part: False})
    observed, past, state = problem(3, 1, 1)
    got = kernels.Linearizer(skeleton, config).bind(observed, past)(state)
    agree(linearise(skeleton, observed, past, state, config), got)


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
def test_a_step_is_the_references(seed, length):
    g = torch.Generator().manual_seed(seed)
    state = (rotations_of(g, 1, 2, 24), torch.randn(1, 2, 3, generator=g), torch.zeros(1, 10))
    step = length * torch.randn(1, 2 * 69 + 10, generator=g)
    step[0, 7] = torch.nan
    state, step = tuple(part.to(DEVICE) for part in state), step.to(DEVICE)
    for a, b in zip(propose_step(state, step), kernels.Linearizer.propose_step(state, step)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


def test_all_turns_have_their_logarithm(skeleton):
    """Checked through the prior's gradient: rotations by nothing, by little, and by nearly half a
    turn, where the logarithm is badly conditioned."""
    axes = torch.nn.functional.normalize(torch.tensor([[1.0, 2, 3], [-1, 0, 0], [0, 1e-3, -1]]))
    angles = torch.tensor([0.0, 1e-6, 1e-3, 0.5, 2.0, 3.1, 3.1415])
    turns = exp_so3((axes[:, None] * angles[:, None]).flatten(0, 1))[:21].to(DEVICE)
    observed, past, state = problem(4, 1, 1)
    state[0][0, 0, 1:22] = turns
    assert float(log_so3(turns).norm(dim=-1).max()) > 3.14
    got = kernels.Linearizer(skeleton, FEW).bind(observed, past)(state)
    agree(linearise(skeleton, observed, past, state, FEW), got)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_it_fits_the_same(body, graphs):
    for people in (1, 3):
        windows, out = windows_of_people(body, 3, people=people), []
        for own in (False, True):
            fitter = BodyFitter(body, device="cuda", graphs=graphs, kernels=own)
            memory = FitMemory()
            out.append([fitter.fit(window, K, memory) for window in windows])
        assert farthest_mm(*out) < 2.0
