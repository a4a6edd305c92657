"""Engines and graphs: any batch gives what the module gives, and what runs is told truly."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline import engine_tensorrt
from pipeline.engine import EngineError, halved, make_engine, missing
from pipeline.graphs import Bucketed, Graphed, filled

GPU = pytest.mark.gpu


class Small(nn.Module):
    """Two outputs of different shapes."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.out = nn.Linear(5, 4)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        return self.out(y.mean((2, 3))), y


def images(count, seed=1, device="cpu"):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(device)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 23), st.sets(st.integers(1, 9), min_size=1, max_size=3))
def test_any_batch_goes_through_a_few_sizes(count, sizes):
    """Row by row what the function gives, with results as tuples and dicts, and memory reused."""
    seen = set()

    def make(size):
        memory = torch.empty(size, 2)

        def run(a, b):
            seen.add(len(a))
            memory.copy_(a[:, :2] * b)
            return {"product": memory, "both": (a + 1, b)}

        return run

    a, b = torch.randn(count, 3), torch.randn(count, 1)
    out = Bucketed(make, tuple(sizes))(a, b)
    assert torch.equal(out["product"], a[:, :2] * b)
    assert torch.equal(out["both"][0], a + 1)
    assert torch.equal(out["both"][1], b)
    assert seen <= sizes


def test_batches_are_filled_with_what_is_safe():
    batch = torch.randn(2, 3)
    assert torch.equal(filled(batch, 4), batch[[0, 1, 0, 0]])
    with pytest.raises(ValueError, match="empty"):
        filled(batch[:0], 4)
    with pytest.raises(ValueError, match="1 or more"):
        Bucketed(lambda size: lambda x: x, (0, 2))


def test_on_a_cpu_a_graphed_function_is_the_function():
    step = Graphed(lambda x, y: (x + y, x), [torch.zeros(2), torch.zeros(2)])
    assert not step.captured
    total, same = step(torch.ones(2), torch.ones(2))
    assert total.tolist() == [2, 2]
    assert same.tolist() == [1, 1]


def test_eager_gives_what_the_module_gives():
    module = Small().eval()
    engine = make_engine(module, images(1), engine="eager", device="cpu", buckets=(1, 4))
    assert (engine.report.engine, engine.report.half, engine.report.graphs) == (
        "eager", False, False,
    )  # fmt: skip
    with torch.inference_mode():
        for count in (1, 3, 4, 9):
            for got, wanted in zip(engine(images(count)), module(images(count))):
                assert torch.allclose(got, wanted, atol=1e-6)


def test_auto_says_what_it_passed_over():
    report = make_engine(Small(), images(1), device="cpu").report
    assert report.engine == "eager"
    words = str(report)
    assert "eager, single precision, no CUDA graphs, on the CPU" in words
    assert "not tensorrt: torch-tensorrt is not installed; pip install" in words
    assert "not inductor: " in words


@pytest.mark.parametrize("name", ["tensorrt", "inductor"])
def test_asking_for_a_missing_engine_names_what_to_do(name):
    assert missing(name, torch.device("cpu"))
    with pytest.raises(EngineError) as caught:
        make_engine(Small(), images(1), engine=name, device="cpu")
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="choose auto, tensorrt, inductor, eager"):
        make_engine(Small(), images(1), engine="onnx", device="cpu")


def test_a_module_halves_itself_its_own_way():
    class Own(Small):
        def halve(self):
            self.conv.half()
            return self

        def forward(self, x):
            y = self.conv(x.to(self.conv.weight.dtype)).float()
            return (self.out(y.mean((2, 3))),)

    module = Own().eval()
    other = halved(module)
    assert other.conv.weight.dtype == torch.float16
    assert other.out.weight.dtype == module.conv.weight.dtype == torch.float32
    plain = halved(Small())
    assert {p.dtype for p in plain.parameters()} == {torch.float16}
    assert plain(images(2))[0].shape == (2, 4)


# torch-tensorrt, played by a double that follows its documentation.


@pytest.fixture
def tensorrt(monkeypatch):
    """A torch_tensorrt whose engines are the exported programs; counts what it built."""
    module = types.ModuleType("torch_tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("torch_tensorrt", None)
    module.built = []

    def build(exported, arg_inputs, use_explicit_typing, **settings):
        assert use_explicit_typing
        module.built.append(tuple(arg_inputs[0].shape))
        return exported.module()

    def save(engine, path, arg_inputs):
        torch.export.save(torch.export.export(engine, tuple(arg_inputs)), path)

    module.dynamo = types.SimpleNamespace(compile=build)
    module.save, module.load = save, torch.export.load
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    return module


def test_tensorrt_engines_are_kept_and_found_again(tensorrt, tmp_path):
    module, batch = Small().eval(), images(2)
    built, from_cache = engine_tensorrt.load_or_build(module, batch, tmp_path)
    assert (from_cache, tensorrt.built) == (False, [(2, 3, 8, 8)])
    again, from_cache = engine_tensorrt.load_or_build(module, batch, tmp_path)
    assert (from_cache, len(tensorrt.built)) == (True, 1)
    with torch.no_grad():
        assert torch.equal(again(batch)[0], built(batch)[0])
    (facts,) = tmp_path.glob("*.json")
    assert json.loads(facts.read_text())["input"] == ["torch.float32", 2, 3, 8, 8]
    assert not list(tmp_path.glob(".building-*"))


def test_a_tensorrt_engine_fits_weights_shape_and_versions(tensorrt, tmp_path, monkeypatch):
    def built_now(module, batch):
        before = len(tensorrt.built)
        engine_tensorrt.load_or_build(module, batch, tmp_path)
        return len(tensorrt.built) - before

    assert built_now(Small(0), images(2)) == 1
    assert built_now(Small(0), images(2, seed=9)) == 0
    assert built_now(Small(1), images(2)) == 1
    assert built_now(Small(0), images(3)) == 1
    assert built_now(nn.Sequential(Small(0)), images(2)) == 1
    monkeypatch.setattr(engine_tensorrt, "_version", lambda package: "99")
    assert built_now(Small(0), images(2)) == 1


def test_a_broken_tensorrt_file_is_built_again(tensorrt, tmp_path, capsys):
    engine_tensorrt.load_or_build(Small(), images(2), tmp_path)
    (kept,) = tmp_path.glob("*.ep")
    whole = kept.read_bytes()
    for content in (b"", b"no engine", whole[: len(whole) // 2]):
        kept.write_bytes(content)
        _, from_cache = engine_tensorrt.load_or_build(Small(), images(2), tmp_path)
        assert not from_cache
        assert "built again" in capsys.readouterr().out
    assert engine_tensorrt.load_or_build(Small(), images(2), tmp_path)[1]


def test_a_build_that_fails_leaves_nothing_behind(tensorrt, tmp_path):
    def failing(*args, **kwargs):
        raise RuntimeError("the disk is full")

    tensorrt.save = failing
    with pytest.raises(RuntimeError, match="disk"):
        engine_tensorrt.load_or_build(Small(), images(2), tmp_path)
    assert not list(tmp_path.glob("*.ep")) + list(tmp_path.glob(".building-*"))


# On a GPU.


@GPU
@pytest.mark.parametrize("name", ["eager", "inductor"])
@pytest.mark.parametrize("half", [False, True])
def test_an_engine_on_the_gpu_is_the_module(name, half):
    module = Small().eval()
    engine = make_engine(module, images(1), engine=name, half=half, buckets=(1, 4))
    assert (engine.report.engine, engine.report.half, engine.report.graphs) == (name, half, True)
    module = module.cpu()
    for count in (1, 2, 4, 7):
        batch = images(count, seed=count)
        with torch.inference_mode():
            for got, wanted in zip(engine(batch.cuda()), module(batch)):
                assert got.dtype == torch.float32
                assert torch.allclose(got.cpu(), wanted, atol=2e-2 if half else 1e-3)


@GPU
def test_a_replay_does_not_wait():
    engine = make_engine(Small(), images(1), engine="eager", buckets=(4,))
    batch = images(4, device="cuda")
    engine(batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@GPU
def test_a_graph_takes_page_locked_input_and_reuses_its_memory():
    step = Graphed(lambda x: {"twice": x * 2}, [torch.zeros(3, device="cuda")])
    assert step.captured
    first = step(torch.ones(3).pin_memory())["twice"]
    assert first.tolist() == [2, 2, 2]
    second = step(torch.full((3,), 5.0, device="cuda"))["twice"]
    assert second.data_ptr() == first.data_ptr()
    assert first.tolist() == [10, 10, 10]


@GPU
@pytest.mark.tensorrt
def test_tensorrt_is_the_module(tmp_path):
    module = Small().eval()
    for expected in (False, True):
        engine = make_engine(module, images(1), engine="tensorrt", buckets=(1, 4), cache=tmp_path)
        assert (engine.report.engine, engine.report.from_cache) == ("tensorrt", expected)
        with torch.inference_mode():
            for got, wanted in zip(engine(images(3).cuda()), module.cpu()(images(3))):
                assert torch.allclose(got.cpu(), wanted, atol=2e-2)
