"""Engines and graphs: any batch gives what the module gives, and reports say what runs."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.gpu import engine as engine_file
from pipeline.gpu.batch_sizes import Bucketed, filled
from pipeline.gpu.cuda_graphs import (
    CaptureError,
    Graphed,
    Pool,
    Replayed,
    first_line,
    seconds_a_call,
)
from pipeline.gpu.engine import EngineError, make_engine, missing
from pipeline.gpu.engine_module import halved
from pipeline.perception.blazepose import detector, landmarks
from pipeline.perception.blazepose.landmarks_torch import LandmarkNet
from pipeline.perception.blazepose.perceiver_gpu import DetectorNet, example_view
from pipeline.perception.blazepose.tflite import read_graph
from pipeline.weights import store as weights

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


class Recorded(Graphed):
    """A graph as on a GPU: a replay reads its own memory and overwrites its last result."""

    def __init__(self, size):
        super().__init__(lambda x: (2 * x,), [torch.zeros(size, 2)])
        self._inputs, self._outputs = [torch.zeros(size, 2)], (torch.empty(size, 2),)
        self._graph, self.copies = self, 0
        self._inputs[0].copy_ = self._copied

    def _copied(self, value, non_blocking):
        self.copies += 1
        self._inputs[0][:] = value

    def replay(self):
        self._outputs[0][:] = self._function(self._inputs[0])[0]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.booleans())
def test_a_batch_that_is_written_where_a_graph_reads_is_not_copied(counts, in_place):
    """Whatever batches went before: rows behind a batch are another's."""
    steps = {}
    batches = Bucketed(lambda size: steps.setdefault(size, Recorded(size)), (2, 4, 6))
    for number, count in enumerate(counts):
        values = torch.full((count, 2), float(number))
        places = batches.inputs(count)
        assert bool(places) == (count <= 6)
        if places and in_place:
            places[0].copy_(values)
            values = places[0]
        assert torch.equal(batches(values)[0], torch.full((count, 2), 2.0 * number))
    copies = sum(step.copies for step in steps.values())
    assert copies == sum((2 if count > 6 else not in_place) for count in counts)


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
    assert "not tensorrt: " in words
    assert "not inductor: " in words


def test_asking_for_a_missing_engine_names_what_to_do(monkeypatch):
    monkeypatch.setattr(engine_file.shutil, "which", lambda name: None)
    with pytest.raises(EngineError, match=r"^[^\n]*install g\+\+[^\n]*$"):
        make_engine(Small(), images(1), engine="inductor", device="cpu")
    monkeypatch.setattr(engine_file.importlib.util, "find_spec", lambda name: None)
    assert "bodystream[gpu]" in missing("inductor", torch.device("cuda"))


def test_kernels_of_its_own_need_a_gpu_and_a_module_that_has_them():
    why = missing("triton", torch.device("cpu"))
    assert why == "kernels in Triton need an NVIDIA GPU"
    with pytest.raises(EngineError, match=why):
        make_engine(Small(), images(1), engine="triton", device="cpu")
    # "auto" does not mention an engine that is none for this module.
    assert "triton" not in str(make_engine(Small(), images(1), device="cpu").report)


class WithKernels(Small):
    """A module in kernels of its own, which compute ``times`` what it does; None for no kernels."""

    def __init__(self, times: float | None) -> None:
        super().__init__()
        self.times = times

    def with_kernels(self):
        return None if self.times is None else Scaled(self)


class Scaled(nn.Module):
    def __init__(self, module: WithKernels) -> None:
        super().__init__()
        self.module, self.times = module, module.times

    def forward(self, *batch):
        return tuple(self.times * out for out in self.module(*batch))


@pytest.mark.parametrize(
    ("module", "engine", "said"),
    [
        (Small(), "eager", ()),
        (WithKernels(1.0), "triton", ()),
        (WithKernels(None), "eager", ()),
        (WithKernels(2.0), "eager", ("not triton: WithKernels in triton: results are",)),
    ],
)
def test_where_nothing_may_compile_auto_takes_kernels_of_its_own_or_eager(
    module, engine, said, monkeypatch
):
    # All engines are there.
    monkeypatch.setattr(engine_file, "missing", lambda name, device, by_name=True: None)
    torch.manual_seed(0)
    report = make_engine(module, images(1), device="cpu", compiles=False).report
    assert report.engine == engine
    assert len(report.passed_over) == len(said)
    assert all(a.startswith(b) for a, b in zip(report.passed_over, said))


@pytest.mark.gpu
def test_a_module_without_kernels_is_refused_by_name():
    with pytest.raises(EngineError, match="Small has no kernels in Triton in this precision; use"):
        make_engine(Small(), images(1), engine="triton", buckets=(1,))


@pytest.fixture
def wrong(monkeypatch):
    """An engine called tensorrt that is there and does what the test says."""

    def works(change):
        def compiled(name, order, size, batch):
            if name != "tensorrt":
                return order.module, False, None

            def step(x):
                first, second = order.module(x)
                return change(first.clone()), second

            return step, False, None

        monkeypatch.setattr(engine_file, "_compiled", compiled)

    monkeypatch.setattr(engine_file, "missing", lambda name, *a, **k: None)
    return works


def _spoilt_at_four(values):
    return values * 1.5 if len(values) == 4 else values


@pytest.mark.parametrize("change", [lambda v: v * 0, lambda v: v / 0, lambda v: v[:, :2]])
def test_an_engine_with_other_results_is_refused(wrong, change):
    wrong(change)
    with pytest.raises(EngineError, match="of scale off, more than 0.01"):
        make_engine(Small(), images(3), engine="tensorrt", device="cpu")
    engine = make_engine(Small(), images(3), device="cpu")
    assert engine.report.engine != "tensorrt"
    assert "not tensorrt: Small in tensorrt: results are" in str(engine.report)


def test_a_tensorrt_engine_is_used_at_the_batch_sizes_at_which_it_is_right(wrong):
    """Batches of the other size are filled up to a larger one, or cut."""
    wrong(_spoilt_at_four)
    for buckets, left in (((1, 2, 4, 8), (1, 2, 8)), ((1, 2, 4), (1, 2))):
        engine = make_engine(
            Small(), images(3), engine="tensorrt", device="cpu", buckets=buckets
        )  # fmt: skip
        assert engine.report.buckets == left
        assert engine.report.mean_difference < 1e-3
        assert "without batches of 4, whose results are 4" in str(engine.report)
        for count in (1, 3, 4, 5, 9):
            with torch.inference_mode():
                wanted = Small().eval()(images(count))
            for got, expected in zip(engine(images(count)), wanted):
                assert torch.allclose(got, expected, atol=1e-6)


def test_a_tensorrt_engine_is_used_at_the_batch_sizes_at_which_it_is_close(wrong, monkeypatch):
    """Where it is at none, all that are right are used."""
    monkeypatch.setitem(engine_file.TOLERANCE, False, 0.03)

    def off(values):
        return values + 0.016 * values.square().mean().sqrt()

    for change, left in (
        (lambda values: off(values) if len(values) == 4 else values, (1,)),
        (lambda values: values * 1.5 if len(values) == 1 else off(values), (4,)),
        (off, (1, 4)),
        # Hardly further off than at the other size.
        (lambda values: off(values) if len(values) == 4 else off(values) / 2 + values / 2, (1, 4)),
    ):
        wrong(change)
        engine = make_engine(
            Small(), images(3), engine="tensorrt", device="cpu", buckets=(1, 4)
        )  # fmt: skip
        assert engine.report.buckets == left


def test_another_engine_that_is_wrong_at_one_batch_size_is_refused(monkeypatch):
    def compiled(name, order, size, batch):
        return (lambda x: tuple(map(_spoilt_at_four, order.module(x)))), False, None

    monkeypatch.setattr(engine_file, "_compiled", compiled)
    with pytest.raises(EngineError, match="Small in eager: results are"):
        make_engine(Small(), images(3), engine="eager", device="cpu", buckets=(1, 4))


def test_the_difference_is_in_parts_of_scale(wrong):
    wrong(lambda v: v + 1e-3 * v.square().mean().sqrt())
    report = make_engine(Small(), images(1), engine="tensorrt", device="cpu", buckets=(1,)).report
    assert report.mean_difference == pytest.approx(1e-3, rel=1e-2)
    assert report.largest_difference == pytest.approx(1e-3, rel=1e-2)
    assert "1.0e-03 of scale" in str(report)


def test_an_engine_runs_without_graphs_that_cannot_be_captured(monkeypatch):
    def refused(*args, **kwargs):
        raise CaptureError("operation not permitted when stream is capturing")

    monkeypatch.setattr(engine_file, "Graphed", refused)
    step, note = engine_file._replayed(len, (torch.zeros(1),), object())
    assert step is len
    assert note == "no CUDA graphs: operation not permitted when stream is capturing"


def test_errors_become_one_line():
    assert first_line(RuntimeError("backend raised:\n\nno compiler\nmore")) == (
        "backend raised: no compiler"
    )
    assert first_line(RuntimeError("\none\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"


def test_images_may_lie_channels_last():
    engine = make_engine(
        Small(), images(1), engine="eager", device="cpu", buckets=(2,), channels_last=True
    )
    assert engine.report.channels_last
    assert "channels last" in str(engine.report)
    with torch.inference_mode():
        for got, wanted in zip(engine(images(2)), Small().eval()(images(2))):
            assert torch.allclose(got, wanted, atol=1e-6)


def test_a_module_may_take_several_batches():
    class Two(nn.Module):
        def forward(self, a, b):
            return a * b

    engine = make_engine(Two(), (torch.rand(2, 3), torch.rand(2, 1)), device="cpu", buckets=(2,))
    a, b = torch.rand(3, 3), torch.rand(3, 1)
    assert torch.equal(engine(a, b)[0], a * b)


def test_a_call_is_timed():
    calls = []
    assert 0 < seconds_a_call(calls.append, [torch.zeros(1)], calls=5, rounds=2) < 1
    assert len(calls) == 11


@pytest.mark.slow
def test_inductor_compiles_once_a_size_and_never_later():
    why = missing("inductor", torch.device("cpu"))
    if why is not None:
        pytest.skip(why)
    engine = make_engine(Small(), images(3), engine="inductor", device="cpu", buckets=(1, 4))
    assert engine.report.engine == "inductor"
    torch.compiler.set_stance("fail_on_recompile")
    try:
        for count in (1, 2, 4, 5):
            batch = images(count, seed=count).requires_grad_()
            ways = (batch, batch.to(memory_format=torch.channels_last), batch.flip(3).flip(3))
            with torch.inference_mode():
                wanted = Small().eval()(batch)
            for way in ways:
                for got, expected in zip(engine(way), wanted):
                    assert torch.allclose(got, expected, atol=1e-5)
    finally:
        torch.compiler.set_stance("default")


@pytest.mark.weights
def test_half_precision_is_half_precision():
    """BlazePose's networks, halved, differ from themselves in single, and little."""
    try:
        files = weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error))
    for net, name, side, low in (
        (DetectorNet, "pose_detection.tflite", detector.INPUT, -1.0),
        (LandmarkNet, "pose_landmark_full.tflite", landmarks.INPUT, 0.0),
    ):
        module, view = net(read_graph(files[name])).eval(), example_view(side, low)
        with torch.inference_mode():
            wanted, got = module(view), halved(module)(view)
        apart = float((got - wanted).abs().mean() / wanted.square().mean().sqrt())
        assert 1e-6 < apart < 1e-2


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        make_engine(Small(), images(1), device="cpu", buckets=())
    with pytest.raises(ValueError, match="choose auto, triton, tensorrt, inductor, eager"):
        make_engine(Small(), images(1), engine="onnx", device="cpu")


def test_a_module_halves_itself_its_own_way():
    class Own(Small):
        def halve(self):
            self.conv.half()
            return self

        def forward(self, x):
            y = self.conv(x.to(self.conv.weight.dtype)).float()
            return (self.out(y.mean((2, 3))),)

    other = halved(Own().eval())
    assert other.conv.weight.dtype == torch.float16
    assert other.out.weight.dtype == torch.float32
    plain = halved(Small())
    assert {p.dtype for p in plain.parameters()} == {torch.float16}
    assert plain(images(2))[0].shape == (2, 4)


# On a GPU.


@GPU
@pytest.mark.parametrize("name", ["eager", "inductor"])
@pytest.mark.parametrize("half", [False, True])
def test_an_engine_on_the_gpu_is_the_module(name, half):
    engine = make_engine(Small().eval(), images(1), engine=name, half=half, buckets=(1, 4))
    assert (engine.report.engine, engine.report.half, engine.report.graphs) == (name, half, True)
    for count in (1, 2, 4, 7):
        batch = images(count, seed=count)
        with torch.inference_mode():
            wanted = Small().eval()(batch)
        for way in (batch.cuda(), batch.pin_memory(), batch.cuda().flip(3).flip(3)):
            for got, expected in zip(engine(way), wanted):
                assert got.dtype == torch.float32
                assert torch.allclose(got.cpu(), expected, atol=2e-2 if half else 2e-3)


@GPU
@pytest.mark.parametrize("graphs", [False, True])
def test_inductor_on_the_gpu_compiles_nothing_later(graphs):
    engine = make_engine(
        Small(), images(1), engine="inductor", half=False, buckets=(1, 4), graphs=graphs
    )
    torch.compiler.set_stance("fail_on_recompile")
    try:
        for count in (1, 3, 6):
            assert engine(images(count, device="cuda").requires_grad_())[0].shape == (count, 4)
    finally:
        torch.compiler.set_stance("default")


@GPU
@pytest.mark.parametrize("channels_last", [False, True, None])
def test_images_lie_either_way_on_the_gpu(channels_last):
    engine = make_engine(
        Small(), images(1), engine="eager", half=False, buckets=(4,), channels_last=channels_last
    )
    assert channels_last is None or engine.report.channels_last == channels_last
    with torch.inference_mode():
        wanted = Small().eval()(images(4))
    for got, expected in zip(engine(images(4).cuda()), wanted):
        assert torch.allclose(got.cpu(), expected, atol=2e-3)


@GPU
def test_a_replay_does_not_wait():
    engine = make_engine(Small(), images(1), engine="eager", buckets=(4,))
    batch, pinned = images(4, device="cuda"), images(4).pin_memory()
    few = batch[:3]
    engine(batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for way in (batch, pinned, few):
            engine(way)
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
    with pytest.raises(ValueError, match="captured for"):
        step(torch.zeros(1, device="cuda"))


@GPU
def test_a_forgotten_graph_does_not_end_a_capture():
    """A graph in a cycle is freed when Python collects garbage, which it may do at any time."""
    x = torch.ones(3, device="cuda")

    def littering(x):
        cycle = [Graphed(torch.neg, [x], enabled=False)]
        cycle.append(cycle)
        return x * 2

    gc.collect()
    gc.disable()
    forgotten = [Graphed(lambda x: x + 1, [x])]
    forgotten.append(forgotten)
    del forgotten
    before = gc.get_threshold()
    # From here on every new object collects the garbage of all others.
    gc.set_threshold(1, 1, 1)
    gc.enable()
    try:
        step = Graphed(littering, [x], warmups=0)
    finally:
        gc.set_threshold(*before)
    assert step.captured
    assert step(x).tolist() == [2.0] * 3


@GPU
def test_each_kind_of_arguments_is_captured_when_it_comes():
    calls = []
    step = Replayed(lambda x: (calls.append(len(x)), x * 2)[1], most=2)
    for n in (1, 3, 1, 3, 5, 1):
        x = torch.arange(n, dtype=torch.float32, device="cuda")
        assert step(x).tolist() == (2 * x).tolist()
    # Warm-ups and the capture; then replays, which do not call it; five elements found no room.
    assert set(calls[:-1]) == {1, 3}
    assert calls[-1] == 5
    assert len(calls) == 2 * 4 + 1


def test_on_a_cpu_it_is_called_as_it_is():
    step = Replayed(lambda x, y: (x + y, x))
    for n in (1, 2):
        x = torch.ones(n)
        assert step(x, x)[1] is x


@GPU
def test_a_function_that_cannot_be_captured_leaves_no_trace():
    before = torch.cuda.current_stream()
    with pytest.raises(CaptureError, match="captur"):
        Graphed(lambda x: x * x.sum().item(), [torch.ones(3, device="cuda")])
    assert torch.cuda.current_stream() == before
    step = Graphed(lambda x: x + 1, [torch.ones(3, device="cuda")])
    assert step(torch.zeros(3, device="cuda")).tolist() == [1, 1, 1]


class Stubborn(Small):
    """Asks the GPU for a value on the way."""

    def forward(self, x):
        out, y = super().forward(x)
        return (out + 1 if float(y.sum()) > -1 else out), y


@GPU
def test_an_engine_whose_graphs_do_not_hold_runs_without():
    engine = make_engine(Stubborn(), images(1), engine="eager", half=False, buckets=(1, 4))
    assert not engine.report.graphs
    assert "no CUDA graphs: " in str(engine.report)
    with torch.inference_mode():
        wanted = Stubborn().eval()(images(3))
    assert torch.allclose(engine(images(3).cuda())[0].cpu(), wanted[0], atol=2e-3)


@GPU
def test_graphs_in_one_pool_are_replayed_in_any_order():
    pool = Pool("cuda")
    matrices = {size: torch.randn(size, size, device="cuda") for size in (64, 256, 16)}
    steps = {
        size: Graphed(lambda x, m=m: (x @ m).relu() @ m, [torch.zeros_like(m)], pool=pool)
        for size, m in matrices.items()
    }
    for size in (16, 256, 64, 256, 16, 64, 64):
        m = matrices[size]
        x = torch.randn_like(m)
        assert torch.allclose(steps[size](x), (x @ m).relu() @ m, rtol=1e-3, atol=1e-2)


@GPU
def test_two_threads_each_with_an_engine():
    """Each makes its own while the other makes or uses its, on streams of their own."""
    failures, seeding = [], threading.Lock()

    def made(seed):
        with seeding:
            return Small(seed)

    def work(seed):
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for turn in range(3):
                    engine = make_engine(
                        made(seed), images(1), engine="eager", half=False, buckets=(1, 4, 8)
                    )
                    module = made(seed).eval().cuda()
                    for count in (3, 8, 1, 11):
                        batch = images(count, seed=100 * seed + 10 * turn + count).cuda()
                        with torch.inference_mode():
                            wanted = module(batch)
                        for _ in range(50):
                            got = engine(batch)
                        for a, b in zip(got, wanted):
                            assert torch.allclose(a, b, atol=2e-3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures


@GPU
@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("name", ["eager", "triton", "inductor"])
def test_blazepose_is_replayed_in_half_precision(name):
    files = weights.find("blazepose")
    for net, file, side, low in (
        (DetectorNet, "pose_detection.tflite", detector.INPUT, -1.0),
        (LandmarkNet, "pose_landmark_full.tflite", landmarks.INPUT, 0.0),
    ):
        module = net(read_graph(files[file]))
        report = make_engine(module, example_view(side, low), engine=name, buckets=(1, 4)).report
        print(report)
        assert (report.graphs, report.half) == (True, True)
        assert 1e-6 < report.mean_difference < 1e-2


@GPU
@pytest.mark.tensorrt
def test_tensorrt_is_the_module(tmp_path):
    for expected in (False, True):
        engine = make_engine(Small(), images(1), engine="tensorrt", buckets=(1, 4), cache=tmp_path)
        assert (engine.report.engine, engine.report.from_cache) == ("tensorrt", expected)
        assert engine.report.notes == ()
        with torch.inference_mode():
            for got, wanted in zip(engine(images(3).cuda()), Small().eval()(images(3))):
                assert torch.allclose(got.cpu(), wanted, atol=2e-2)


@GPU
@pytest.mark.tensorrt
@pytest.mark.weights
@pytest.mark.slow
def test_tensorrt_runs_blazepose(tmp_path):
    files = weights.find("blazepose")
    for net, file, side, low in (
        (DetectorNet, "pose_detection.tflite", detector.INPUT, -1.0),
        (LandmarkNet, "pose_landmark_full.tflite", landmarks.INPUT, 0.0),
    ):
        module = net(read_graph(files[file]))
        report = make_engine(
            module, example_view(side, low), engine="tensorrt", buckets=(4,), cache=tmp_path
        ).report
        assert (report.engine, report.graphs, report.half) == ("tensorrt", True, True)


@GPU
def test_a_batch_that_is_written_in_place_is_not_copied():
    """Also one that is smaller than the size it was captured for, or larger than all."""
    engine = make_engine(Small(), images(1), engine="eager", half=False, buckets=(2, 4))
    whole = Small().eval().cuda()
    for count in (1, 2, 3, 4):
        (place,) = engine.inputs(count)
        with torch.inference_mode():
            # As a perceiver writes: a graph's inputs were made in this mode.
            place.copy_(images(count, seed=count))
            wanted = whole(images(count, seed=count).cuda())
        for got, expected in zip(engine(place), wanted):
            assert len(got) == count
            assert torch.allclose(got, expected, atol=2e-3)
    assert not engine.inputs(5)
    assert len(engine(images(5).cuda())[0]) == 5


def test_an_engine_without_graphs_has_no_place_for_a_batch():
    engine = make_engine(Small(), images(1), device="cpu", buckets=(1, 4))
    assert [tuple(engine.inputs(count)) for count in (0, 1, 3, 5)] == [()] * 4
