"""The benchmark's command: with a fake pipeline, and with the real ones."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from app import cli
from app.bench import command, profiling, readme
from app.bench.record import Bench
from app.bench.roofline import Work
from app.bench.rows import Row, Settings
from app.bench.timers import HostTimer
from app.cli import main
from tests.support.bench import HERE, MACHINE, FakePipeline, blazepose_files


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rows", "default-cpu,nonsense"], "there is no row 'nonsense'"),
        (["--rows", "sam3d-vit"], "did you mean sam3d-vith?"),
        (["--upstream", "nowhere"], "nowhere is no folder"),
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


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """``run(*flags)`` measures rows of fake pipelines; ``run.made`` lists their settings."""
    rows = (
        Row("one", "first", Settings("cpu")),
        Row("two", "second", Settings("cpu", half=False), against=("one",)),
        Row("held", "streams", Settings("cpu"), "streams"),
        Row("gpu", "on a GPU", Settings(half=False), against=("one",)),
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
    monkeypatch.setattr(command, "missing", lambda row, *folders: None)
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
    monkeypatch.setattr(
        command, "missing", lambda row, *_: "no abacus" if row.id == "two" else None
    )
    assert bench("--rows", "one,two") == 1
    assert [row["id"] for row in json.loads(bench.path.read_text())["rows"]] == ["one"]
    assert "not measured here: no abacus" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.weights
def test_the_cpus_row_is_measured(tmp_path, capsys):
    blazepose_files()
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


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("name", ["default", "default-nograph", "default-fp32"])
def test_the_gpus_rows_are_measured(cuda, tmp_path, name):
    blazepose_files()
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
