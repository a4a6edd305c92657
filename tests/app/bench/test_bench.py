"""The benchmark: its files, percentiles, floors, streams and tables."""

from __future__ import annotations

import functools
import gzip
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import DeviceType

from app import cli
from app.bench import ceilings, command, footage, measure, profiling, readme, results, work
from app.bench.pipelines import make_pipeline
from app.bench.record import Bench
from app.bench.roofline import RTX_4090, Ceilings, Floor, Work, floor, predict, predict_window
from app.bench.rows import ROWS, Row, Settings, choose
from app.bench.streams import Sources, search
from app.bench.subject import Finished, rounding
from app.bench.timers import CudaTimer, HostTimer, NoTimer, RangeTimer
from app.cli import main
from app.config import ConfigError
from pipeline.weights import store as weights
from tests.support.paths import ROOT

PERIOD_S = footage.PERIOD_S


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakePipeline:
    """Costs known times on a clock of its own: the host ``host_s`` a submit, a device ``call_s`` a
    submit and ``window_s`` a window, one after another; holds a pipeline's users to its rules."""

    engine = "fake"
    weights = "real"

    def __init__(self, window_s, *, call_s=0.0, host_s=0.0, at_once=1, depth=1, clock=None):
        self.clock = clock or FakeClock()
        self.window_s, self.call_s, self.host_s = window_s, call_s, host_s
        self.at_once, self.depth = at_once, depth
        self.free_s, self.open, self.timers = 0.0, [], []
        self.closed = False

    def begin(self):
        return SimpleNamespace(last=-1, busy=False)

    def submit(self, windows, states, timer):
        assert 1 <= len(windows) == len(states) <= self.at_once
        assert len({id(state) for state in states}) == len(states)
        assert len(self.open) < self.depth
        for window, state in zip(windows, states):
            assert not state.busy, "a source's window before its last was collected"
            assert window.frames[0].id == state.last + 1, "windows out of order"
            state.last, state.busy = window.frames[-1].id, True
        self.timers.append(timer)
        self.clock.now_s += self.host_s
        with timer("fit"):
            self.free_s = max(self.free_s, self.clock.now_s)
            self.free_s += self.call_s + self.window_s * len(windows)
        ticket = (self.free_s, windows, states)
        self.open.append(ticket)
        return ticket

    def collect(self, ticket):
        assert ticket is self.open.pop(0)
        ready_s, windows, states = ticket
        self.clock.now_s = max(self.clock.now_s, ready_s)
        for state in states:
            state.busy = False
        return [Finished([f.image ^ 255 for f in w.frames], 1) for w in windows]

    def close(self):
        self.closed = True


def tiny_player(count=5):
    return footage.Player(np.zeros((count, 8, 8, 3), np.uint8))


def quiet(text):
    pass


# Percentiles


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_quantiles_are_order_statistics(samples):
    p50, p95 = measure.quantiles(samples)
    ordered = sorted(samples)
    place = 0.95 * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    assert p95 == pytest.approx(low + (high - low) * (place - math.floor(place)), abs=1e-6)
    assert ordered[0] <= p50 <= p95 + 1e-9 <= ordered[-1] + 2e-9
    assert measure.quantiles(samples[::-1]) == pytest.approx((p50, p95))


def test_quantiles_of_known_numbers_and_of_none():
    assert measure.quantiles(range(1, 102)) == (51, 96)
    with pytest.raises(ValueError, match="no samples"):
        measure.quantiles([])


# Rows


def test_rows_are_declared_soundly():
    ids = [row.id for row in ROWS]
    assert len(set(ids)) == len(ids)
    assert {row.against for row in ROWS} <= set(ids)
    assert {"default", "default-cpu", "default-nograph", "default-fp32"} <= set(ids)
    assert {row.people for row in ROWS if row.measure == "streams"} == {1, 4, 8}
    json.dumps([row.settings.as_json() for row in ROWS])


def test_rows_are_chosen_in_the_tables_order():
    assert [r.id for r in choose("default-cpu, default")] == ["default", "default-cpu"]
    assert choose(None) == list(ROWS)
    with pytest.raises(ConfigError, match="name one or more"):
        choose(" , ")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rows", "default-cpu,nonsense"], "there is no row 'nonsense'"),
        (["--size", "1920"], "--size"),
        (["--size", "2x2"], "--size"),
        (["--windows", "0"], "--windows"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_2(flags, words, capsys, tmp_path):
    assert main(["bench", "--out", str(tmp_path), *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_list_says_why_a_row_cannot_run(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if " default " in line)
    assert "needs a CUDA GPU" in line


# Files


def record(row_id, ms=10.0, **more):
    base = {
        "id": row_id, "name": row_id, "total_ms_p50": ms, "total_ms_p95": 2 * ms,
        "stages_ms": {"fit": ms / 2, "draw": ms / 4}, "speedup": None, "weights": "real",
        "plan_ms": None, "speedup_over": "default-cpu", "people": 1, "size": "64x64",
        "clip": "sample", "engine": "fake",
    }  # fmt: skip
    return {**base, **more}


MACHINE = {
    "gpu": None, "driver": None, "cuda": None, "torch": "2", "triton": None, "python": "3",
    "cpu": "abacus", "cores": 2, "memory_gb": 4.0, "ceilings": {},
}  # fmt: skip
ORDER = [row.id for row in ROWS]


def merged(*records, document=None, machine=MACHINE):
    document = document or {"hardware": {}, "command": "", "rows": []}
    for one in records:
        document = results.merge(document, one, machine, "bench", ORDER)
    return document


def test_merge_replaces_a_row_keeps_others_and_orders():
    document = merged(record("default-cpu", 100.0), record("default", 20.0), record("later"))
    document = merged(record("default", 10.0), document=document)
    assert [row["id"] for row in document["rows"]] == ["default", "default-cpu", "later"]
    assert tuple(document) == results.KEYS
    assert [row["speedup"] for row in document["rows"]] == [10.0, 1.0, 10.0]


def test_speed_up_is_of_like_with_like():
    document = merged(record("default-cpu", size="32x32"), record("default"))
    assert [row["speedup"] for row in document["rows"]] == [None, 1.0]
    document = merged(record("default"))
    assert document["rows"][0]["speedup"] is None
    document = merged(record("default-cpu"), record("streams-p1", streams=3))
    assert document["rows"][1]["speedup"] is None


def test_a_row_kept_from_another_torch_says_so():
    document = merged(record("default-cpu"))
    document = merged(record("default"), document=document, machine={**MACHINE, "torch": "3"})
    default, cpu = document["rows"]
    assert "measured_on" not in default
    assert cpu["measured_on"] == {"torch": "2"}
    document = merged(record("default"), document=document, machine={**MACHINE, "torch": "4"})
    assert document["rows"][1]["measured_on"] == {"torch": "2"}
    document = merged(record("default-cpu"), document=document, machine={**MACHINE, "torch": "4"})
    assert "measured_on" not in document["rows"][1]


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "x.json"
    results.write(path, merged(record("default")))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write(path, merged(record("default", math.nan)))
    assert path.read_bytes() == before

    def no_replace(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(OSError, match="disk is full"):
        results.write(path, merged(record("later")))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"rows": []}', '{"hardware":{},"command":"","rows":[1]}']
)
def test_another_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a benchmark file") as error:
        results.read(path)
    assert "\n" not in str(error.value)


def test_code_hash_sees_code_that_runs_and_no_other(tmp_path):
    for name in ("pipeline/a.py", "pipeline/capture/b.py", "render/c.py", "app/bench/view.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    plan = ("plan", "plan_nets", "plan_people")
    for name in ("subject", "measure", "streams", "footage", "timers", "pipelines", *plan):
        (tmp_path / f"app/bench/{name}.py").write_text("1")
    first = results.code_hash(tmp_path)
    (tmp_path / "pipeline/capture/b.py").write_text("2")
    (tmp_path / "app/bench/view.py").write_text("2")
    assert results.code_hash(tmp_path) == first
    (tmp_path / "render/c.py").write_text("2")
    assert results.code_hash(tmp_path) != first


# The command, with a fake pipeline


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """``run(*flags)`` measures rows of fake pipelines; ``run.made`` lists their settings."""
    rows = (
        Row("one", "first", Settings("cpu")),
        Row("two", "second", Settings("cpu", half=False), against="one"),
        Row("held", "streams", Settings("cpu"), "streams"),
        Row("gpu", "on a GPU", Settings(half=False), against="one"),
        Row("trt", "other engine", Settings("cpu", engine="tensorrt")),
    )
    made: list[Settings] = []
    pipelines: list[FakePipeline] = []
    stop: dict[str, BaseException] = {}

    def make(wanted):
        made.append(wanted)
        if stop and wanted.half is False:
            raise stop["by"]
        pipeline = FakePipeline(0.01)
        pipelines.append(pipeline)
        return pipeline

    fast = functools.partial(
        Bench, make=make, ceilings_of=lambda device: HERE, hardware=dict(MACHINE)
    )
    monkeypatch.setattr(command, "Bench", fast)
    monkeypatch.setattr(command, "missing", lambda row, folder: None)
    monkeypatch.setattr("app.bench.record.stage_work", lambda *_: {"fit": Work(1e9)})
    monkeypatch.setattr("app.bench.record.weights.find", lambda *_: {})

    def run(*flags):
        names = ["bench", "--size", "64x64", "--windows", "3", "--warm", "1"]
        call = cli.parse([*names, "--out", str(tmp_path), *flags])
        return command.run_command(call.options, rows)

    run.made, run.stop, run.path = made, stop, tmp_path / "cpu-abacus.json"
    run.pipelines = pipelines
    return run


def test_a_records_shape(bench, capsys):
    assert bench("--rows", "one,held", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(bench.path.read_text())
    assert list(document) == ["hardware", "command", "rows"]
    one, held = document["rows"]
    assert set(MACHINE) <= set(document["hardware"])
    wanted = ("id", "name", "total_ms_p50", "total_ms_p95", "stages_ms", "speedup", "weights")
    for row in (one, held):
        assert list(row)[: len(wanted) + 1] == [*wanted, "plan_ms"]
        assert row["weights"] == "real"
    assert set(one["stages_ms"]) == {"fit"}
    assert one["floors_ms"]["fit"] == pytest.approx(1e9 / 50e9, rel=1e-3)
    assert "predicted_rtx4090_ms" not in one, "a prediction only from a GPU's row"
    assert held["streams"] >= 1
    assert {p["streams"] for p in held["curve"]} >= {1, held["streams"]}
    assert held["stages_ms"] == {}


def test_a_gpus_record_has_launches_and_a_prediction(bench, monkeypatch):
    monkeypatch.setattr("app.bench.record.timer_for", lambda device: HostTimer())
    monkeypatch.setattr(profiling, "count_kernels", lambda *_: {"fit": 200})
    assert bench("--rows", "one,gpu") == 0
    one, gpu = json.loads(bench.path.read_text())["rows"]
    assert gpu["kernels"] == {"fit": 200}
    assert gpu["launch_floors_ms"] == {"fit": 0.3}, "200 kernels of 1.5 us in a graph"
    assert gpu["bound"] == {"fit": "launches"}
    # Bound by launches, so the prediction is what was measured.
    assert gpu["predicted_rtx4090_stages_ms"] == gpu["stages_ms"]
    assert gpu["predicted_rtx4090_ms"] >= gpu["total_ms_p50"] * 0.99
    assert gpu["speedup"] == pytest.approx(one["total_ms_p50"] / gpu["total_ms_p50"], abs=0.01)
    assert all(pipeline.closed for pipeline in bench.pipelines)


def test_without_a_profiler_the_times_stand_and_say_so(bench, monkeypatch, capsys):
    def no_profiler(*_):
        raise RuntimeError("no CUPTI\nand more")

    monkeypatch.setattr("app.bench.record.timer_for", lambda device: HostTimer())
    monkeypatch.setattr(profiling, "count_kernels", no_profiler)
    assert bench("--rows", "gpu") == 0
    (gpu,) = json.loads(bench.path.read_text())["rows"]
    assert gpu["total_ms_p50"] > 0
    assert gpu["launch_floors_ms"] == {}
    assert gpu["notes"][0] == "kernels not counted: no CUPTI"
    assert "gpu: kernels not counted: no CUPTI" in capsys.readouterr().out


def test_finished_rows_are_kept_unless_again(bench, capsys):
    assert bench("--rows", "one,two") == 0
    assert len(bench.made) == 2
    before = bench.path.read_text()
    assert bench("--rows", "one,two") == 0
    assert len(bench.made) == 2, "nothing was measured again"
    assert bench.path.read_text() == before
    assert bench("--rows", "one", "--windows", "4") == 0
    assert len(bench.made) == 3, "other settings are another measurement"
    assert bench("--rows", "two", "--again") == 0
    assert len(bench.made) == 4
    assert [row["id"] for row in json.loads(bench.path.read_text())["rows"]] == ["one", "two"]


def test_an_interrupted_run_keeps_what_was_finished(bench):
    bench.stop["by"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench("--rows", "one,two,held")
    assert [row["id"] for row in json.loads(bench.path.read_text())["rows"]] == ["one"]
    bench.stop.clear()
    assert bench("--rows", "one,two,held") == 0
    assert len(bench.made) == 4, "one was not measured again"


def test_a_failing_row_costs_the_others_nothing(bench, capsys):
    bench.stop["by"] = RuntimeError("out of memory\nand a page of addresses")
    assert bench("--rows", "one,two,held") == 1
    assert [row["id"] for row in json.loads(bench.path.read_text())["rows"]] == ["one", "held"]
    error = capsys.readouterr().err
    assert "two: failed: RuntimeError: out of memory" in error
    assert "addresses" not in error


def test_another_engines_time_is_never_filled_in(bench, capsys):
    assert bench("--rows", "trt") == 1
    assert not bench.path.exists()
    assert "asked for tensorrt, but this ran: fake" in capsys.readouterr().err


def test_what_cannot_be_measured_is_named_and_not_filled(bench, capsys, monkeypatch):
    monkeypatch.setattr(command, "missing", lambda row, _: "no abacus" if row.id == "two" else None)
    assert bench("--rows", "one,two") == 1
    assert [row["id"] for row in json.loads(bench.path.read_text())["rows"]] == ["one"]
    assert "not measured here: no abacus" in capsys.readouterr().out


# Latency


def test_latency_leaves_out_warm_windows_and_stage_timers():
    clock = FakeClock()
    pipeline = FakePipeline(0.02, host_s=0.005, clock=clock)
    stage_timer = HostTimer(clock)
    taken = measure.measure_latency(
        pipeline, tiny_player(), warm=2, windows=3, stage_timer=stage_timer, tick=quiet,
        clock_s=clock,
    )  # fmt: skip
    assert taken.total_ms == pytest.approx([25.0] * 3)
    assert len(pipeline.timers) == 2 + 3 + 3
    assert all(isinstance(timer, NoTimer) for timer in pipeline.timers[:5])
    assert all(timer is stage_timer for timer in pipeline.timers[5:])
    assert len(taken.stages_ms["fit"]) == 3
    assert taken.covered_px == 4 * 64, "every pixel of the fake's pictures changes"


def test_a_stage_entered_twice_counts_whole():
    clock = FakeClock()
    timer = HostTimer(clock)
    for spent in (0.25, 0.5):
        with timer("draw"):
            clock.now_s += spent
    with timer("fit"):
        clock.now_s += 1.0
    assert timer.finish() == {"draw": 750.0, "fit": 1000.0}
    assert timer.finish() == {}


# Streams


def streams_of(pipeline, periods=12):
    sources = Sources(pipeline, tiny_player(), 2, pipeline.clock)
    return search(sources, periods, quiet)


def expected_streams(cost_s: float, periods: int, most: int = 600) -> int:
    """Windows served one after another (Lindley's recursion), for every number of streams."""
    held = 0
    for streams in range(1, most):
        end, taken = 0.0, []
        for k in range(periods):
            for _ in range(streams):
                end = max(end, k * PERIOD_S) + cost_s
                taken.append(end - k * PERIOD_S)
        if np.quantile(taken, 0.95) >= PERIOD_S:
            return held
        held = streams
    return held


@settings(max_examples=25, deadline=None)
@given(st.floats(0.003, 0.2))
def test_the_search_finds_how_many_streams_hold(cost_s):
    margins = {expected_streams(cost_s * f, 12) for f in (1 - 1e-9, 1 + 1e-9)}
    assert streams_of(FakePipeline(cost_s)).streams in margins


def test_the_curve_rises_and_has_the_answer():
    curve = streams_of(FakePipeline(0.004))
    assert curve.streams == expected_streams(0.004, 12) == 33
    numbers = [probe.streams for probe in curve.probes]
    assert numbers == sorted(set(numbers))
    assert {33, 34} <= set(numbers), "the last that holds and the first that does not"
    times = [probe.p95_ms for probe in curve.probes]
    assert times == sorted(times)
    assert curve.best.streams == 33
    assert curve.best.holds


def test_windows_of_several_sources_go_together():
    single = streams_of(FakePipeline(0.001, call_s=0.01)).streams
    together = streams_of(FakePipeline(0.001, call_s=0.01, at_once=8)).streams
    assert (single, together) == (12, 56), "seven full groups of 18 ms in 133 ms"


def test_work_in_flight_hides_the_hosts_share():
    waits = streams_of(FakePipeline(0.004, host_s=0.004)).streams
    overlaps = streams_of(FakePipeline(0.004, host_s=0.004, depth=2)).streams
    assert waits == 16
    assert 30 <= overlaps <= 33


def test_a_slow_beginning_is_no_part_of_a_probe():
    """What a number of streams must prepare once, an engine's shapes say, is not measured."""

    class SlowFirst(FakePipeline):
        groups: set[int] = set()

        def submit(self, windows, states, timer):
            if len(windows) not in self.groups:
                self.groups = self.groups | {len(windows)}
                self.clock.now_s += 30.0
            return super().submit(windows, states, timer)

    curve = streams_of(SlowFirst(0.001, call_s=0.01, at_once=8))
    assert curve.streams == 56


def test_a_hiccup_does_not_decide_but_overload_does_early():
    class Hiccup(FakePipeline):
        after = 0

        def collect(self, ticket):
            self.after += 1
            if self.after == 200:
                self.clock.now_s += 0.2
            return super().collect(ticket)

    fake = Hiccup(0.004)
    probe = Sources(fake, tiny_player(), 2, fake.clock).probe(10, 60)
    assert probe.holds
    fake = FakePipeline(0.02)
    probe = Sources(fake, tiny_player(), 0, fake.clock).probe(40, 100)
    assert probe.cut_short
    assert not probe.holds
    assert len(fake.timers) < 40 * 20, "given up long before the end"


def test_none_held_is_nought_and_the_limit_is_kept():
    curve = streams_of(FakePipeline(0.5))
    assert curve.streams == 0
    assert not curve.best.holds
    sources = Sources(fake := FakePipeline(1e-6), tiny_player(), 1, fake.clock)
    assert search(sources, 3, quiet, most=5).streams == 5
    with pytest.raises(ValueError, match="at least one"):
        search(sources, 3, quiet, most=0)


# Floors

HERE = Ceilings(700.0, 400.0, 50.0, 2900.0, 50.0, 50.0, launch_us=5.0, graph_launch_us=1.5)
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


def test_operations_are_counted_and_the_factorisation_is_too():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert work.count_operations(lambda: a @ b) == 2 * 3 * 5 * 7
    eye = torch.eye(30).expand(4, 30, 30)
    assert work.count_operations(lambda: torch.linalg.cholesky_ex(eye)) == 4 * 30**3 // 3
    right = torch.ones(4, 30, 2)
    lower = torch.linalg.solve_triangular
    assert work.count_operations(lambda: lower(eye, right, upper=False)) == 4 * 30**2 * 2

    @torch.inference_mode()
    def inside():
        return a @ b

    assert work.count_operations(inside) == 2 * 3 * 5 * 7, "inference mode hides nothing"


def test_the_fits_work_grows_with_people():
    one, two = (work.fit_work((640, 360), people) for people in (1, 2))
    assert one.operations > 3 * 286**3 / 3, "three factorisations at least"
    assert two.operations == pytest.approx(2 * one.operations, rel=0.05)
    assert one.memory_bytes < two.memory_bytes < 2 * one.memory_bytes


def test_drawings_work_grows_with_what_is_covered():
    assert work.draw_work(1, 100).memory_bytes < work.draw_work(1, 1000).memory_bytes
    assert work.draw_work(1, 100).memory_bytes < work.draw_work(2, 100).memory_bytes


def test_the_cpus_ceilings_are_plausible():
    here = ceilings.measure_ceilings("cpu")
    assert 1e-3 < here.fp32_tflops < 100
    assert 0.1 < here.memory_gb_s < 5000
    assert here.tflops("fp16") == here.fp32_tflops


# Frames


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_forth_and_back_never_jumps(index, count):
    here, after = (footage.forth_and_back(k, count) for k in (index, index + 1))
    assert 0 <= here < count
    assert abs(after - here) == (count > 1)


def test_all_frames_are_played():
    assert {footage.forth_and_back(k, 7) for k in range(12)} == set(range(7))


def test_letterbox_keeps_the_shape_and_centres():
    out = footage.letterbox(np.full((50, 100, 3), 200, np.uint8), (64, 64))
    assert out.shape == (64, 64, 3)
    assert (out[16:48] == 200).all()
    assert not out[:16].any()
    assert not out[48:].any()


@pytest.mark.parametrize("people", [2, 4, 8, 9])
def test_several_people_are_so_many_cells(people):
    image = np.random.default_rng(0).integers(1, 256, (720, 1280, 3), dtype=np.uint8)
    out = footage.several(image, (1920, 1080), people)
    assert out.shape == (1080, 1920, 3)
    places = []
    for y in range(0, 1080):
        places += [(y, x) for x in np.flatnonzero((out[y, :, :] == out[0, 0]).all(-1))]
    cells = [(y, x) for y, x in places if (out[y : y + 20, x : x + 20] == out[:20, :20]).all()]
    assert len(cells) == people


def test_the_samples_frames_and_their_windows():
    frames = footage.load_frames(None, (320, 240), 1, 6)
    assert frames.shape == (6, 240, 320, 3)
    player = footage.Player(frames)
    first, second = player.window(0, 0), player.window(0, 1)
    assert [f.id for w in (first, second) for f in w.frames] == list(range(8))
    assert (first.frames[3].image == frames[3]).all()
    assert (second.frames[2].image == frames[4]).all(), "back again after the last"
    other = player.window(1, 0)
    assert other.frames[0].source != first.frames[0].source
    assert (other.frames[0].image != first.frames[0].image).any()
    with pytest.raises(FileNotFoundError):
        footage.load_frames(Path("no such clip.mp4"), (320, 240), 1, 6)


# Profiles


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


class TorchPipeline(FakePipeline):
    """Does real products on a device, in a graph if it is given one."""

    def __init__(self, device, graph=None):
        super().__init__(0.0)
        self.a = torch.ones(64, 64, device=device)
        self.graph = graph

    def submit(self, windows, states, timer):
        with timer("upload"):
            self.a.fill_(1.0)
        with timer("fit"):
            if self.graph is not None:
                self.graph.replay()
            else:
                for _ in range(5):
                    self.a @ self.a
        return super().submit(windows, states, NoTimer())


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


# README


def test_the_readmes_tables_are_the_files(tmp_path):
    page, folder = tmp_path / "README.md", tmp_path / "bench"
    page.write_text(f"# Title\n\n{readme.BEGIN}\nold\n{readme.END}\n\nthe end\n")
    assert readme.update(page, folder)
    assert "Nothing has been measured yet" in page.read_text()
    cpu = record("default-cpu", 100.0, floors_ms={"fit": 5.0}, efficiency={"fit": 0.1})
    gpu = record("default", 8.0, predicted_rtx4090_ms=12.3, kernels={"fit": 7})
    held = record("streams-p4", 120.0, streams=21, people=4)
    results.write(folder / "b.json", merged(cpu, gpu, held))
    results.write(folder / "a.json", merged(cpu, machine={**MACHINE, "cpu": "slide rule"}))
    assert readme.update(page, folder)
    text = page.read_text()
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{readme.END}\n\nthe end\n")
    assert "old" not in text
    assert text.index("slide rule") < text.index("abacus"), "by file name"
    assert "| `default` | default | 8 | 16 | 4 | 2 | 12.5x |  | 12.3 |" in text
    assert "| `streams-p4` | 4 | 64x64 | 21 | 120 | 240 |" in text
    assert "RTX 4090, *predicted*" in text
    assert "Not measured on this machine: `baseline`, " in text
    assert "`default-nograph`" in text
    assert not readme.update(page, folder), "the same files give the same text"


def test_a_readme_without_the_marks_is_left_alone(tmp_path):
    page = tmp_path / "README.md"
    for text in ("nothing", f"{readme.END} {readme.BEGIN}", f"{readme.BEGIN} {readme.BEGIN}"):
        page.write_text(text)
        with pytest.raises(ValueError, match="has no place for the table"):
            readme.update(page, tmp_path / "bench")
        assert page.read_text() == text


def test_the_page_of_the_results_is_up_to_date(tmp_path):
    page = tmp_path / "h100.md"
    page.write_text((ROOT / "docs" / "results" / "h100.md").read_text())
    assert not readme.update(page, ROOT / "docs" / "bench"), "run `bodystream bench --readme`"


# For real


def _weights():
    try:
        return weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error))


@pytest.mark.weights
def test_networks_work_is_counted_without_running_them():
    files = _weights()
    detector, marks = (
        work.network_work(files[f"pose_{name}.tflite"], side, batch, "fp16", 50 << 20)
        for name, side, batch in (("detection", 224, 1), ("landmark_full", 256, 4))
    )
    assert 5e8 < detector.operations < 2e9
    assert 2e9 < marks.operations < 5e9
    single = work.network_work(files["pose_landmark_full.tflite"], 256, 1, "fp32", 50 << 20)
    assert marks.operations == 4 * single.operations
    assert single.memory_bytes > files["pose_landmark_full.tflite"].stat().st_size, "fp32 weights"
    spilled = work.network_work(files["pose_landmark_full.tflite"], 256, 1, "fp32", 1 << 10)
    assert spilled.memory_bytes > 2 * single.memory_bytes


@pytest.mark.slow
@pytest.mark.weights
def test_the_cpus_row_is_measured(tmp_path, capsys):
    _weights()
    readme_path = tmp_path / "README.md"
    readme_path.write_text(f"{readme.BEGIN}\n{readme.END}\n")
    flags = ["--rows", "default-cpu", "--windows", "2", "--warm", "1", "--size", "640x360"]
    out = ["--out", str(tmp_path), "--readme", str(readme_path)]
    assert main(["bench", *flags, *out, "--profile"]) == 0
    (path,) = tmp_path.glob("*.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert row["people_drawn"] == 1
    assert list(row["stages_ms"]) == ["detect", "landmarks", "fit", "draw"]
    assert 0 < sum(row["stages_ms"].values()) < 3 * row["total_ms_p95"]
    assert set(row["floors_ms"]) == set(row["stages_ms"])
    assert len(list(tmp_path.glob("*.trace.json.gz"))) == 1
    assert "`default-cpu`" in readme_path.read_text()
    assert "default-cpu" in capsys.readouterr().out


@pytest.fixture
def cuda():
    """Fails where a GPU is promised and there is none."""
    if not torch.cuda.is_available():
        if os.environ.get("BODYSTREAM_GPU") == "1":
            pytest.fail("BODYSTREAM_GPU=1 promises a GPU, and torch sees none")
        pytest.skip("needs a CUDA GPU")


@pytest.mark.gpu
def test_a_gpus_ceilings(cuda):
    here = ceilings.measure_ceilings("cuda")
    assert here.fp16_tflops > here.tf32_tflops > here.fp32_tflops > 1
    assert here.memory_gb_s > 100
    assert 1 < here.up_gb_s < 500
    assert 1 < here.down_gb_s < 500
    assert 0.1 < here.graph_launch_us < here.launch_us < 100
    assert here.cache_bytes >= 1 << 20


@pytest.mark.gpu
def test_cuda_events_time_a_stage(cuda):
    timer = CudaTimer()
    a = torch.ones(4096, 4096, device="cuda")
    for repeats in (1, 1, 8):
        with timer("little" if repeats == 1 else "much"):
            for _ in range(repeats):
                a @ a
        taken = timer.finish()
    with timer("little"):
        a @ a
    little = timer.finish()["little"]
    assert taken["much"] > 3 * little > 0
    assert timer.finish() == {}


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


@pytest.mark.gpu
def test_memory_is_the_rows_own(cuda):
    kept = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    del kept
    measure.reset_memory()
    before = measure.memory_mb()
    kept = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    assert 256 <= measure.memory_mb() - before < 300
    del kept


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("name", ["default", "default-nograph", "default-fp32"])
def test_the_gpus_rows_are_measured(cuda, tmp_path, name):
    _weights()
    flags = ["--rows", name, "--windows", "5", "--warm", "6", "--out", str(tmp_path)]
    assert main(["bench", *flags]) == 0
    (path,) = tmp_path.glob("*.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert row["people_drawn"] == 1
    assert {"fit", "draw", "download"} <= set(row["stages_ms"])
    assert sum(row["stages_ms"].values()) > 0.5 * row["total_ms_p50"]
    assert row["kernels"]
    assert row["predicted_rtx4090_ms"] > 0
    assert row["gpu_memory_mb"] > 0


def test_without_a_gpu_its_pipeline_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="GPU|CUDA"):
        make_pipeline(Settings())


def test_rounding_is_put_back():
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    for wanted in (True, False):
        with rounding(wanted):
            assert products.allow_tf32 is convolutions.allow_tf32 is wanted
        assert (products.allow_tf32, convolutions.allow_tf32) == before
    with rounding(None):
        assert (products.allow_tf32, convolutions.allow_tf32) == before


def test_range_timer_waits_only_for_a_gpu():
    with RangeTimer("cpu")("fit"):
        pass
    assert RangeTimer("cpu").finish() == {}
