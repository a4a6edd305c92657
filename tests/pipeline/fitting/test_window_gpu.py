"""A window's steps before and after the solver in Triton against torch's; without a GPU, in
Triton's interpreter."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Skeleton
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.fitting.lifter import LandmarkHistory, Lifter
from pipeline.fitting.solver import FitConfig, Observations, Solution, TemporalPrior
from pipeline.fitting.window_step import MEMORY, WindowFit
from tests.support.fits import K, random_rows, rotations_of, windows_of_people

gpu = pytest.importorskip("pipeline.fitting.window_gpu", exc_type=ImportError)
from tests.support.launches import launches  # noqa: E402  needs Triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HISTORY = {"rays": "rays", "visible": "visible", "world_m": "world_m", "sighted": "known"}
"""The arrays of the memory that hold the landmark history, and their names in it."""
SEEDS = st.integers(0, 2**31 - 1)


@pytest.fixture(scope="module")
def body_here(body):
    return body.to(torch.device(DEVICE))


@pytest.fixture(scope="module")
def skeleton(body_here):
    return Skeleton.of(body_here, 5)


@pytest.fixture(scope="module")
def lifter():
    return Lifter.load(DEVICE)


@pytest.fixture(scope="module")
def few(body_here):
    """The body with every 20th vertex: the interpreter is slow."""
    rows = {name: getattr(body_here, name)[::20] for name in ("v_template", "shapedirs", "weights")}
    regressor = body_here.landmark_regressor[:, ::20] + 0.1
    mannequin = body_here.mannequin[::20]
    return replace(body_here, name="few", landmark_regressor=regressor, mannequin=mannequin, **rows)


@pytest.fixture(scope="module")
def make(few, skeleton, lifter):
    """Makes a `WindowFit`, and its steps in Triton."""

    def made(frames, outlines=False, surface=0, body=few, **config):
        chosen = FitConfig(**config)
        parts = gpu.WindowKernels(body, skeleton, lifter, chosen)
        window = WindowFit(body, skeleton, lifter, chosen, frames, 3, outlines, surface=surface)
        return window, parts

    return made


def problem(window, seed, people):
    return tuple(part.to(DEVICE) for part in random_rows(window, seed, people))


def close(name, expected, got, part=2e-5):
    assert expected.shape == got.shape, name
    if not expected.numel():
        return
    assert torch.equal(expected.isnan(), got.isnan()), name
    error = float((expected - got).nan_to_num().abs().max())
    assert error <= part * max(float(expected.nan_to_num().abs().max()), 1e-3), f"{name}: {error}"


def check_preparation(window, parts, seed, people):
    rows, memory = problem(window, seed, people)
    observed, past, history, guess = window._prepare(rows, memory)
    # Memory on a GPU comes uninitialised.
    after = torch.full_like(memory, torch.nan)
    got, got_past, got_guess = parts.prepare(window.inputs, rows, memory, after)
    for field in fields(Observations):
        close(field.name, getattr(observed, field.name), getattr(got, field.name))
    for field in fields(TemporalPrior):
        close(field.name, getattr(past, field.name), getattr(got_past, field.name))
    for name, kept in HISTORY.items():
        close(name, getattr(history, kept), MEMORY.split(after)[name])
    close("rotations", guess[0], got_guess[0])
    close("translations", guess[1], got_guess[1])


@settings(deadline=None, max_examples=5)
@given(SEEDS, st.integers(1, 4), st.integers(1, 2), st.sampled_from([0, 7]))
def test_windows_are_prepared_as_by_torch(make, seed, frames, people, surface):
    check_preparation(*make(frames, surface=surface), seed, people)


@pytest.mark.parametrize(
    "switch", ["use_lifter", "use_depth", "use_warm_start", "use_prior", "use_world"]
)
def test_a_step_switched_off_is_off(make, switch):
    check_preparation(*make(2, **{switch: False}), 5, 1)


@settings(deadline=None, max_examples=2)
@given(SEEDS)
def test_edges_are_torchs(make, seed):
    check_preparation(*make(1, outlines=True, use_lifter=False), seed, 1)


def test_a_window_of_a_crowd_is_prepared_as_by_torch(make):
    check_preparation(*make(1, surface=7, use_lifter=False), 11, 12)


@settings(deadline=None, max_examples=3)
@given(SEEDS, st.integers(1, 4))
def test_the_network_is_the_lifters(lifter, seed, frames):
    """The layers alone, which are computed of numbers in half precision."""
    from pipeline.fitting.lifter_gpu import LifterKernel

    g = torch.Generator().manual_seed(seed)
    memory = (0.3 * torch.randn(1, MEMORY.size, generator=g)).to(DEVICE)
    stored = MEMORY.split(memory)
    stored["sighted"].copy_((torch.rand(1, 16, generator=g) > 0.4).float())
    stored["sighted"][:, -1] = 1.0
    history = LandmarkHistory(*(stored[name] for name in HISTORY))
    interval = torch.tensor([1.3], device=DEVICE)
    answers = LifterKernel(lifter)(history, MEMORY.size, interval, 1, frames)
    both = history.with_mirrored(lifter.order)
    lifted, spread = lifter._network(both, interval.repeat(2), frames)
    got = both.world_m[:, -frames:] + 0.2 * answers[0, ..., :3]
    got = got - 0.5 * (got[..., 23:24, :] + got[..., 24:25, :])
    close("landmarks", lifted, got, 3e-6)
    close("spread", spread, 2**0.5 * (answers[0, ..., 3:] - 2.5).exp(), 1e-5)


def test_the_archives_weights_are_half_precision(lifter):
    for weights in lifter.weights.values():
        assert torch.equal(weights, weights.half().float())


def solved(seed, people, frames):
    """A random solution on the device."""
    g = torch.Generator().manual_seed(seed)
    ahead = torch.tensor([0.0, 0.0, 4.0])
    values = Solution(
        rotations=rotations_of(g, people, frames, 24, most=0.8),
        transl_m=torch.randn(people, frames, 3, generator=g) + ahead,
        betas=3 * torch.randn(people, 10, generator=g),
        cost=torch.rand(people, generator=g),
        residual_mean=torch.rand(people, frames, generator=g),
        shape_information=torch.randn(people, 10, 10, generator=g),
    )
    return Solution(*(getattr(values, f.name).to(DEVICE) for f in fields(Solution)))


def check_finish(window, parts, seed, people):
    rows, memory = problem(window, seed, people)
    observed, past, history, _ = window._prepare(rows, memory)
    solution = solved(seed, people, window.frames)
    stored = MEMORY.split(memory)
    result, meshes, after = window._finish(observed, past, solution, history, stored)
    got_after = torch.full_like(memory, torch.nan)
    for name in HISTORY:
        MEMORY.split(got_after)[name].copy_(MEMORY.split(after)[name])
    layouts = window.inputs, window.result
    got, got_meshes = parts.finish(layouts, rows, memory, got_after, observed, solution)
    close("meshes", meshes, got_meshes, 1e-6)
    for layout, some, others in ((window.result, result, got), (MEMORY, after, got_after)):
        for name, part in layout.split(some).items():
            close(name, part, layout.split(others)[name])


@settings(deadline=None, max_examples=4)
@given(SEEDS, st.integers(1, 4), st.booleans())
def test_windows_are_finished_as_by_torch(make, seed, frames, hold_shape):
    check_finish(*make(frames, hold_shape=hold_shape), seed, 1)


def test_the_skins_error_is_torchs(make, body_here, skeleton):
    check_finish(*make(1, surface=len(skeleton.skin.mass), body=body_here), 3, 2)


def test_pose_blend_shapes_move_vertices(make, few):
    g = torch.Generator().manual_seed(0)
    shapes = 0.01 * torch.randn(*few.v_template.shape, 207, generator=g)
    posed = replace(few, posedirs=shapes.to(DEVICE), mannequin=None)
    check_finish(*make(2, body=posed), 4, 1)


def mean_error_mm(some, others):
    pairs = [pair for x, y in zip(some, others) for pair in zip(x, y)]
    return np.mean(
        [1e3 * np.linalg.norm(a.vertices_m - b.vertices_m, axis=-1).mean() for a, b in pairs]
    )


def test_people_are_fitted_the_same(body):
    """A new person and then a known one; the solver between the steps is torch's in both."""
    windows, out = [window[:1] for window in windows_of_people(body, 2)], []
    for own in (False, True):
        fitter = BodyFitter(body)
        if own:
            fitter._parts = gpu.WindowKernels(
                fitter.body, fitter.skeleton, fitter.lifter, fitter.config
            )
        memory = FitMemory()
        out.append([fitter.fit(window, K, memory) for window in windows])
    assert mean_error_mm(*out) < 0.05


def test_launches_are_few(make):
    """All that is launched before and after the solver; torch's own takes hundreds."""
    window, parts = make(1, outlines=True)
    rows, memory = problem(window, 1, 1)
    after = torch.empty_like(memory)
    solution = solved(1, 1, 1)
    with launches() as counted:
        observed, _, _ = parts.prepare(window.inputs, rows, memory, after)
        layouts = window.inputs, window.result
        parts.finish(layouts, rows, memory, after, observed, solution)
    assert 6 < counted.total() <= 12, counted
    with launches() as reference:
        observed, past, history, _ = window._prepare(rows, memory)
        window._finish(observed, past, solution, history, MEMORY.split(memory))
    assert reference.total() > 500


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("people", [1, 3, 12])
def test_it_fits_the_same(body, people, graphs):
    windows, out = windows_of_people(body, 3, people=people), []
    for own in (False, True):
        fitter = BodyFitter(body, device="cuda", graphs=graphs)
        if not own:
            # The solver's kernels in both, so that only the steps around it differ.
            fitter._parts = None
        memory = FitMemory()
        out.append([fitter.fit(window, K, memory) for window in windows])
    assert mean_error_mm(*out) < 0.05
