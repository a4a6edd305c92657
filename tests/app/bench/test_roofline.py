"""Ceilings, floors and predictions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bench import ceilings
from app.bench.roofline import RTX_4090, Floor, Work, floor, predict, predict_window
from tests.support.bench import HERE

sizes = st.floats(1.0, 1e12)

works = st.builds(
    Work, sizes, sizes, st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 2000),
    st.sampled_from(("fp16", "tf32", "fp32")),
)  # fmt: skip


@given(works, st.floats(1.0, 10.0), st.booleans())
def test_floors_are_positive_and_rise_with_the_work(need, times, graphs):
    base = floor(need, HERE, graphs)
    assert base.roofline_ms > 0
    assert base.larger_ms >= base.roofline_ms
    for name in ("operations", "memory_bytes", "up_bytes", "down_bytes", "kernels"):
        more = replace(need, **{name: math.ceil(getattr(need, name) * times)})
        assert floor(more, HERE, graphs).larger_ms >= base.larger_ms
    for name in ("fp16_tflops", "tf32_tflops", "fp32_tflops", "memory_gb_s", "up_gb_s"):
        better = replace(HERE, **{name: getattr(HERE, name) * times})
        assert floor(need, better, graphs).roofline_ms <= base.roofline_ms


def test_a_floor_by_hand():
    need = Work(7e9, 29e6, up_bytes=50e6, kernels=100, precision="fp16")
    assert floor(need, HERE, True) == Floor(0.01, 0.01, 1.0, 0.15)
    assert floor(need, HERE, True).bound == "transfer"
    assert floor(replace(need, up_bytes=0), HERE, False).bound == "launches"
    assert floor(need, replace(HERE, fp16_tflops=0), True).compute_ms == pytest.approx(0.14)


@given(works, st.floats(0.01, 1e4), st.booleans())
def test_a_machine_predicts_itself(need, measured_ms, graphs):
    here = floor(need, HERE, graphs)
    assert predict(measured_ms, here, here) == pytest.approx(measured_ms)


def test_predictions_scale_work_and_leave_launches():
    stages = {"net": 2.0, "small": 1.0, "unknown": 0.5}
    need = {
        "net": Work(700e9, kernels=10, precision="fp16"),
        "small": Work(1e6, kernels=400, precision="fp16"),
    }
    there = predict_window(4.0, stages, need, HERE, RTX_4090, True)
    assert there["net"] == pytest.approx(2.0 * 700 / 165)
    assert there["small"] == pytest.approx(1.0), "launches cost the same there"
    assert there["unknown"] == 0.5
    assert there["total"] == pytest.approx(sum(there[s] for s in stages) + 0.5)


def test_the_cpus_ceilings_are_plausible():
    here = ceilings.measure_ceilings("cpu")
    assert 1e-3 < here.fp32_tflops < 100
    assert 0.1 < here.memory_gb_s < 5000
    assert here.tflops("fp16") == here.fp32_tflops


@pytest.mark.gpu
def test_a_gpus_ceilings(cuda):
    here = ceilings.measure_ceilings("cuda")
    assert here.fp16_tflops > here.tf32_tflops > here.fp32_tflops > 1
    assert here.memory_gb_s > 100
    assert 1 < here.up_gb_s < 500
    assert 1 < here.down_gb_s < 500
    assert 0.1 < here.graph_launch_us < here.launch_us < 100
    assert here.cache_bytes >= 1 << 20
