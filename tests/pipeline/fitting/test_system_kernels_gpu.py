"""Elimination and acceptance of the solver's kernels, on made-up systems.

Without a GPU they run in Triton's interpreter.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.body.kinematics import Skeleton
from pipeline.fitting.solver import BETAS, FRAME_DIM, FitConfig, _damped, _shape_information
from tests.support.fits import random_problem

kernels = pytest.importorskip("pipeline.fitting.linearise_gpu", exc_type=ImportError)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = FitConfig(surface_points=5)
BORDER = slice(FRAME_DIM, FRAME_DIM + BETAS)


@pytest.fixture(scope="module")
def linearizer(body):
    skeleton = Skeleton.of(body.to(torch.device(DEVICE)), CONFIG.surface_points)
    return kernels.Linearizer(skeleton, CONFIG)


def made_up(linearizer, seed, people, frames, damping=1e-3, scaled=1.0):
    """A window with a random positive definite system; and the system as one matrix.

    ``scaled`` is the ratio of the largest unknown's unit to the smallest one's.
    """
    g = torch.Generator().manual_seed(seed)
    observed, past, state = random_problem(seed, people, frames)
    parts = (type(x)(*(v.to(DEVICE) for v in vars(x).values())) for x in (observed, past))
    window = kernels.WindowSystem(linearizer, *parts)
    rows = torch.randn(people, frames, 120, 80, generator=g)
    unit = scaled ** torch.linspace(-0.5, 0.5, 80)
    rows = rows * unit
    block = rows.transpose(-1, -2) @ rows
    # Second differences over the window, of weights that differ from unknown to unknown.
    eye = torch.eye(frames + 2)
    difference = (eye[2:] - 2 * eye[1:-1] + eye[:-2])[:, 2:]
    weight = 50 * torch.rand(people, frames, FRAME_DIM, generator=g)
    weight = weight * unit[:FRAME_DIM].square()
    smooth = torch.einsum("pad,as,at->pstd", weight, difference, difference)
    inner = torch.diagonal(block[..., :FRAME_DIM, :FRAME_DIM], dim1=2, dim2=3)
    inner += torch.diagonal(smooth, dim1=1, dim2=2).transpose(1, 2)
    window.block.copy_(block)
    window.coupling.zero_()
    window.coupling[..., :FRAME_DIM] = smooth.to(DEVICE)
    for part, value in zip(window.best, state):
        part.copy_(value)
    window.control.copy_(torch.tensor([1.0, damping, 0.0, 0.0]))
    return window, *whole(window, linearizer)


def whole(window, linearizer):
    """The Hessian (P, D, D) and gradient (P, D) of a window in double precision."""
    block, coupling = window.block.double(), window.coupling.double()
    past = {name: value.double() for name, value in window.past.items()}
    people, frames = block.shape[:2]
    size = frames * FRAME_DIM
    hessian = block.new_zeros(people, size + BETAS, size + BETAS)
    gradient = block.new_zeros(people, size + BETAS)
    for t in range(frames):
        at = slice(t * FRAME_DIM, (t + 1) * FRAME_DIM)
        hessian[:, at, at] = block[:, t, :FRAME_DIM, :FRAME_DIM]
        hessian[:, at, size:] = block[:, t, :FRAME_DIM, BORDER]
        hessian[:, size:, size:] += block[:, t, BORDER, BORDER]
        gradient[:, at], gradient[:, size:] = (
            block[:, t, :FRAME_DIM, 79],
            gradient[:, size:] + block[:, t, BORDER, 79],
        )
        for s in set(range(frames)) - {t}:
            other = slice(s * FRAME_DIM, (s + 1) * FRAME_DIM)
            hessian[:, at, other] = torch.diag_embed(coupling[:, t, s, :FRAME_DIM])
    hessian[:, size:, :size] = hessian[:, :size, size:].transpose(1, 2)
    hessian[:, size:, size:] += past["shape_information"]
    offset = window.best[2].double() - past["betas"]
    gradient[:, size:] += (past["shape_information"] @ offset[..., None])[..., 0]
    return hessian, gradient


@settings(deadline=None, max_examples=4)
@given(
    st.integers(0, 2**31 - 1), st.sampled_from([1, 2]), st.integers(1, 4),
    st.sampled_from([1e-6, 1e-3, 1e2]), st.sampled_from([1.0, 1e4]),
)  # fmt: skip
@example(0, 1, 4, 1e-6, 1e4)
@example(0, 12, 1, 1e-3, 1.0)
def test_a_step_solves_the_damped_system(linearizer, seed, people, frames, damping, scaled):
    window, hessian, gradient = made_up(linearizer, seed, people, frames, damping, scaled)
    window.solve()
    matrix = _damped(hessian, torch.full((people,), damping, device=DEVICE).double())
    expected = torch.linalg.solve(matrix, gradient[..., None])[..., 0]
    # In units in which the diagonal is 1; there single precision keeps five digits.
    unit = torch.diagonal(matrix, dim1=1, dim2=2).sqrt()
    error = ((window.step.double() - expected) * unit).abs().amax(1)
    assert bool((error < 1e-4 * (expected * unit).abs().amax(1)).all())
    assert bool((window.control[:, 3] == 0).all())


@settings(deadline=None, max_examples=3)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 2]), st.integers(1, 4))
@example(0, 1, 4)
def test_the_information_about_the_shape_is_the_references(linearizer, seed, people, frames):
    window, hessian, _ = made_up(linearizer, seed, people, frames)

    class Past:
        shape_information = window.past["shape_information"].double()

    expected = _shape_information(hessian, Past)
    got = window.solution().shape_information.double()
    assert float((got - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_nothing_is_computed_about_a_shape_that_is_frozen(linearizer, frames):
    window, _, _ = made_up(linearizer, 3, 3, frames)
    others = window.solution().shape_information[::2].clone()
    # Each person's flag is part of a longer row, as in the observations.
    row = torch.zeros(3, 5, device=DEVICE)
    row[1, 2] = 1.0
    window._frozen = row[:, 2], row.stride(0)
    window.control[:, 2] = 1.0
    window._work.fill_(torch.nan)
    for candidate in window.candidate:
        candidate.fill_(8.0)
    solution = window.solution()
    assert bool((solution.shape_information[1] == 0).all())
    torch.testing.assert_close(solution.shape_information[::2], others)
    # The candidate is kept all the same.
    assert all(bool((best == 8.0).all()) for best in window.best)


@settings(deadline=None, max_examples=4)
@given(
    st.integers(1, 4), st.integers(0, 3), st.integers(0, FRAME_DIM - 1),
    st.sampled_from([-1e3, float("nan"), float("inf")]),
)  # fmt: skip
def test_a_matrix_without_a_factor_is_a_failed_step_of_one_person(
    linearizer, frames, frame, unknown, value
):
    window, _, _ = made_up(linearizer, 5, 3, frames)
    window.block[1, frame % frames, unknown, unknown] = value
    window.solve()
    assert window.control[:, 3].tolist()[::2] == [0.0, 0.0]
    assert float(window.control[1, 3]) > 0
    assert bool(window.step[::2].isfinite().all())
    window.solve(final=True)
    assert bool((window.solution().shape_information[1] == 0).all())


def test_a_candidate_is_kept_where_it_costs_no_more(linearizer):
    """Of each person alone: cheaper, dearer, cheaper after a failed step, and the first guess."""
    costs = torch.tensor([1e9, -1.0, 1e9, torch.nan])
    observed, past, state = random_problem(7, 4, 1)
    parts = (type(x)(*(v.to(DEVICE) for v in vars(x).values())) for x in (observed, past))
    window = kernels.WindowSystem(linearizer, *parts)
    for part in vars(window).values():
        if isinstance(part, torch.Tensor) and part is not window.control:
            part.fill_(2.0)
    window.control[:, 0] = costs
    window.control[2, 3] = 1.0
    for best, candidate in zip(window.best, window.candidate):
        best.fill_(7.0)
        candidate.fill_(8.0)
    window.decide()
    assert window.control[:, 2].tolist() == [1.0, 0.0, 0.0, 1.0]
    damping = torch.tensor([0.3e-3, 1e-2, 1e-2, 1e-3])
    torch.testing.assert_close(window.control[:, 1].cpu(), damping)
    replaced = (window.block != 2.0).flatten(1).any(1)
    assert replaced.tolist() == [True, False, False, True]
    window.solve()
    for part in window.best:
        assert part.flatten(1)[:, 0].tolist() == [8.0, 7.0, 7.0, 8.0]


def test_a_step_takes_ten_launches(linearizer, monkeypatch):
    observed, past, (rotations, transl_m, _) = random_problem(9, 1, 4)
    parts = [type(x)(*(v.to(DEVICE) for v in vars(x).values())) for x in (observed, past)]
    launches = []

    class Counted:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            launches.append(self.kernel)
            return lambda *args, **kwargs: None

    for module, names in (
        (kernels.kernels, ("pose", "points", "motion")),
        (kernels.system_kernels, ("system", "eliminate", "take", "solve")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, Counted(name))
    counts = []
    for steps in (2, 3):
        launches.clear()
        linearizer.solve(*parts, rotations.to(DEVICE), transl_m.to(DEVICE), steps)
        counts.append(len(launches))
    # The first guess and what the window tells about the shape are ten too.
    assert counts == [30, 40]
