"""The fit as a function of tensors: it reads no value, batches do not change a person, GPU and CPU
agree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from pipeline.fitting.edges import distance_to, edge_maps
from pipeline.fitting.fitter import BUCKETS, BodyFitter, FitJob, FitMemory, example_row
from pipeline.fitting.layout import Layout
from pipeline.fitting.observations import EDGE_SIZE, UNKNOWN, _edge
from pipeline.fitting.window_step import MEMORY, WindowFit, without_pose
from tests.support.fits import K, farthest_mm, windows_of_people

CUDA = torch.cuda.is_available()


@pytest.fixture(scope="module")
def fitter(body):
    return BodyFitter(body)


def fitted(fitter, windows, memory=None):
    memory = memory or FitMemory()
    return [fitter.fit(window, K, memory) for window in windows]


@pytest.mark.parametrize(
    ("steps", "outlines", "surface"),
    [(3, False, 0), (3, True, 0), (12, False, 0), (12, True, 0), (3, True, 256)],
)
def test_no_value_is_read_on_the_host(fitter, steps, outlines, surface):
    """With fake tensors, which have shapes and no values, any branch on a value, copy to the host
    or shape that depends on values is an error. So it can be captured in a CUDA graph."""
    fit = WindowFit(
        fitter.body, fitter.skeleton, fitter.lifter, fitter.config, 4, steps, outlines,
        surface=surface,
    )  # fmt: skip
    rows = torch.from_numpy(example_row(fit)).repeat(2, 1)
    memory = fitter._new_memory.repeat(2, 1)
    fit(rows, memory)  # builds what is built once
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        result, vertices, after = fit(mode.from_tensor(rows), mode.from_tensor(memory))
    assert result.shape == (2, fit.result.size)
    assert vertices.shape == (2, 4, 2, len(fitter.body.v_template), 3)
    assert after.shape == (2, MEMORY.size)


@pytest.mark.parametrize("surface", [0, 256])
def test_nothing_comes_from_the_host(fitter, surface):
    """Traced, it makes no tensor of host values, single numbers error (those are arguments of a
    kernel): such a copy cannot be captured either."""
    fit = WindowFit(
        fitter.body, fitter.skeleton, fitter.lifter, fitter.config, 4, 3, True, surface=surface
    )
    rows = torch.from_numpy(example_row(fit))[None]
    memory = fitter._new_memory[None]
    fit(rows, memory)  # builds what is built once
    traced = make_fx(fit)(rows, memory)
    names = {str(node.target) for node in traced.graph.nodes if node.op == "call_function"}
    assert len(names) > 30
    constants = [value for name, value in vars(traced).items() if "_tensor_constant" in name]
    lifted = [
        value
        for node in traced.graph.nodes
        if "lift_fresh" in str(node.target)
        for value in [getattr(traced, str(node.args[0]))]
    ]
    assert lifted or constants
    assert [tuple(value.shape) for value in lifted if value.dim()] == []
    forbidden = ("_local_scalar_dense", "nonzero", "masked_select", "to.device")
    assert [name for name in names if any(word in name for word in forbidden)] == []


def test_people_of_several_sources_are_fitted_as_alone(body, fitter):
    """Known and new people, few and many, in one call: each as in a call of its own."""
    first, second = windows_of_people(body, 3, seed=4), windows_of_people(body, 3, 5, people=2)
    alone = fitted(fitter, first), fitted(fitter, second)
    memories = FitMemory(), FitMemory()
    fitter.fit(first[0], K, memories[0])
    later = []
    for k in range(2):
        # The first is known from the window before; the second is new at first.
        jobs = [FitJob(first[k + 1], K, memories[0]), FitJob(second[k], K, memories[1])]
        jobs.insert(1, FitJob([{}, {}, {}, {}], K, FitMemory()))
        later.append(fitter.fit_many(jobs))
    assert [len(b) for b in later[0][1]] == [0, 0, 0, 0]
    assert farthest_mm([now[0] for now in later], alone[0][1:]) < 0.5
    assert farthest_mm([now[2] for now in later], alone[1][:2]) < 0.5
    assert [list(b.track) for b in later[1][2]] == [[1, 2]] * 4


def test_a_person_out_of_sight_keeps_only_the_shape(fitter):
    memory = torch.randn(MEMORY.size)
    remaining = MEMORY.split(without_pose(memory)[None])
    before = MEMORY.split(memory[None])
    for name, value in remaining.items():
        if name in ("betas", "shape_information"):
            assert torch.equal(value, before[name])
        elif name == "rotations":
            assert torch.equal(value, torch.eye(3).expand_as(value))
        else:
            assert not value.any()


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=5), st.integers(1, 4))
def test_what_is_joined_is_split_again(shapes, count):
    layout = Layout(**{f"part{k}": tuple(shape) for k, shape in enumerate(shapes)})
    arrays = {name: torch.randn(count, *shape) for name, shape in layout.shapes.items()}
    rows = layout.join(**arrays)
    assert rows.shape == (count, layout.size)
    for name, value in layout.split(rows).items():
        assert torch.equal(value, arrays[name])
    row = layout.row(**{name: value[0].numpy() for name, value in arrays.items()})
    assert np.array_equal(row, rows[0].numpy())
    if layout.size:
        with pytest.raises(ValueError, match="part"):
            layout.join(**{name: value[..., None] for name, value in arrays.items()})


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.bool_, (9, 9)))
def test_distances_are_exact(inside):
    got = distance_to(torch.from_numpy(inside[None].astype(np.float32)))[0].numpy()
    rows, cols = np.nonzero(inside)
    y, x = np.mgrid[:9, :9]
    if len(rows):
        error = np.hypot(y[..., None] - rows, x[..., None] - cols).min(-1)
        assert np.allclose(got, error, atol=1e-4)
    else:
        assert (got >= 900).all()


def test_edges_are_opencvs_to_its_precision():
    random = np.random.default_rng(0)
    noise = random.normal(size=(EDGE_SIZE, EDGE_SIZE, 6)).astype(np.float32)
    inside = (cv2.GaussianBlur(noise, (0, 0), 6).transpose(2, 0, 1) > 0).astype(np.int8)
    inside[:, 40:, :30] = UNKNOWN
    inverse, scale = random.normal(size=(6, 2, 2)), random.uniform(0.5, 2, 6)
    expected = np.stack([_edge(a, b, c) for a, b, c in zip(inside, inverse, scale)])
    got = edge_maps(
        *(torch.from_numpy(part.astype(np.float32)) for part in (inside, inverse, scale))
    ).numpy()
    error = np.abs(got - expected)
    # OpenCV's distance is within 2 % of the exact one (Borgefors, 1986).
    assert (error[:, 0] <= 0.03 * np.abs(expected[:, 0]) + 0.12 * scale[:, None, None]).all()
    assert error[:, 1:].mean() < 0.05
    assert not got[:, :, 40:, :30].any()


def test_outlines_fit_as_edges_do(body, fitter, monkeypatch):
    """The edge maps that a GPU makes from outlines, made here on the CPU."""
    windows = windows_of_people(body, 2)
    expected = fitted(fitter, windows)
    fit = WindowFit

    def with_outlines(*args, outlines, **rest):
        return fit(*args, outlines=True, **rest)

    monkeypatch.setattr("pipeline.fitting.fitter.WindowFit", with_outlines)
    assert farthest_mm(fitted(BodyFitter(body), windows), expected) < 5.0


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [True, False])
def test_on_a_gpu_as_on_a_cpu(body, fitter, graphs):
    windows = windows_of_people(body, 4, people=3)
    other = BodyFitter(body, device="cuda", graphs=graphs)
    expected, got = fitted(fitter, windows), fitted(other, windows)
    error = [
        1e3 * np.linalg.norm(a.vertices_m - b.vertices_m, axis=-1).mean()
        for x, y in zip(got, expected)
        for a, b in zip(x, y)
    ]
    assert np.mean(error) < 1.0
    for x, y in zip(got, expected):
        for a, b in zip(x, y):
            assert list(a.track) == list(b.track)
            assert np.abs(a.score - b.score).max() < 0.02


@pytest.mark.gpu
def test_a_replay_is_the_function(body):
    """Graph and eager agree on the same rows, and a replay never waits for the device."""
    fitter = BodyFitter(body, device="cuda")
    fitter.warm_up(3)
    for (kind, size), step in fitter._steps.items():
        assert step.captured
        fit = fitter._fit(kind)
        rows = torch.from_numpy(example_row(fit)).cuda().repeat(size, 1)
        rows[:, fit.inputs.places["image"]] += 0.01 * torch.rand(
            size, 4 * 66, device="cuda", generator=torch.Generator("cuda").manual_seed(1)
        )
        memory = fitter._new_memory.repeat(size, 1)
        with torch.inference_mode():
            expected = [part.clone() for part in fit(rows, memory)]
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = step(rows, memory)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert float((got[1] - expected[1]).abs().max()) < 1e-3


@pytest.mark.gpu
def test_memory_on_the_gpu_is_flat(body):
    fitter = BodyFitter(body, device="cuda")
    windows, memory = windows_of_people(body, 2, people=3), FitMemory()
    fitted(fitter, windows * 3, memory)
    before = torch.cuda.memory_allocated()
    fitted(fitter, windows * 20, memory)
    assert torch.cuda.memory_allocated() - before < 1 << 20


@pytest.mark.gpu
def test_more_people_than_the_largest_batch(body):
    fitter = BodyFitter(body, device="cuda")
    (window,) = windows_of_people(body, 1)
    crowd = [dict.fromkeys(range(1, BUCKETS[-1] + 3), frame[1]) for frame in window]
    bodies = fitter.fit(crowd, K, FitMemory())
    assert [len(b) for b in bodies] == [BUCKETS[-1] + 2] * 4
    assert float(np.abs(bodies[0].vertices_m[-1] - bodies[0].vertices_m[0]).max()) < 1e-3
