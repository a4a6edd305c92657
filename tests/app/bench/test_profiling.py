"""Profiles: kernels by stage, a trace and a table."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from app.bench import profiling
from tests.support.bench import TorchPipeline, tiny_player


def event(device, name, start, end):
    span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    ours = name.startswith(("stage:", "Torch-Compiled"))
    return SimpleNamespace(device_type=device, name=name, time_range=span, is_user_annotation=ours)


def test_kernels_belong_to_the_stage_they_began_in():
    cpu, gpu = DeviceType.CPU, DeviceType.CUDA
    events = []
    for k in range(profiling._WINDOWS):
        events += [event(cpu, "stage:fit", 100 * k, 100 * k + 40)]
        events += [event(gpu, "stage:fit", 100 * k, 100 * k + 40)]
        events += [event(gpu, "gemm", 100 * k + 5 * n, 100 * k + 5 * n + 90) for n in range(4)]
        events += [event(cpu, "stage:draw", 100 * k + 50, 100 * k + 60)]
        events += [event(gpu, "splat", 100 * k + 55, 100 * k + 58)]
        events += [event(gpu, "Torch-Compiled Region: 0/0", 100 * k + 1, 100 * k + 30)]
        events += [event(gpu, "Context Sync", 100 * k + 1, 100 * k + 30)]
        events += [event(gpu, "stray", 100 * k + 70, 100 * k + 71)]
    assert profiling.count_by_stage(events) == {"fit": 4, "draw": 1}
    names = [cost.name for cost in profiling._costs(events, "cuda")]
    assert names == ["gemm", "splat", "stray"], "the dearest first, ranges' shadows left out"


def test_a_profile_is_a_trace_and_a_table(tmp_path):
    player = tiny_player()
    top, files = profiling.write_profile(TorchPipeline("cpu"), player, "cpu", tmp_path, "x", 1)
    with gzip.open(files[0], "rt") as file:
        names = {e.get("name") for e in json.load(file)["traceEvents"]}
    assert {"stage:fit", "aten::mm"} <= names
    lines = files[1].read_text().splitlines()
    assert len(lines) == 2 + len(top) <= 12
    products = next(cost for cost in top if cost.name == "aten::mm")
    assert products.calls == 5
    assert sum(cost.share for cost in top) <= 1 + 1e-9


def _graph_of(pipeline):
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            pipeline.a @ pipeline.a
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pipeline.out = [pipeline.a @ pipeline.a for _ in range(5)]
    return graph


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_kernels_are_counted_by_stage_also_in_a_graph(cuda, graphs):
    pipeline = TorchPipeline("cuda")
    if graphs:
        pipeline.graph = _graph_of(pipeline)
    counts = profiling.count_kernels(pipeline, tiny_player(), warm=2)
    assert counts["upload"] == 1
    # A product may be split and its parts added up.
    assert 5 <= counts["fit"] <= 15


@pytest.mark.gpu
def test_a_gpu_profile_names_kernels(cuda, tmp_path):
    top, files = profiling.write_profile(
        TorchPipeline("cuda"), tiny_player(), "cuda", tmp_path, "x", 1
    )
    assert top
    assert all(cost.ms > 0 for cost in top)
    assert all(file.stat().st_size > 0 for file in files)
