"""`run A B C`: a fault of one source, drawing or writing too, is that source's alone."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from app import body_renderer, multi_run
from app.config import Config, OutputConfig
from app.multi_run import run_many
from app.outputs.base import OutputError
from app.outputs.jsonl import JsonlOutput
from tests.support.fakes import StubSource
from tests.support.faults import KINDS, FaultyNobody, FaultyRenderer

FRAMES = 24


class Output(JsonlOutput):
    """JSON lines that fail in one call."""

    def __init__(self, path, call, error) -> None:
        super().__init__(path)
        self._call, self._error_of = call, error

    def open(self, info):
        self._fail("open")
        super().open(info)

    def write(self, frame, bodies, picture):
        if frame.id >= 9:  # with low latency a frame may be left out
            self._fail("write")
        super().write(frame, bodies, picture)

    def close(self):
        super().close()
        self._fail("close")

    def _fail(self, call):
        if call == self._call:
            raise self._error_of


STAGES = ["source", "perceive", "fit", "lens", "draw", "renderer's end", "open", "write", "close"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(stage, error, low_latency=False):
        monkeypatch.setattr(multi_run, "load", lambda *_: FaultyNobody(stage, error))
        monkeypatch.setattr(body_renderer, "make_renderer", lambda _: FaultyRenderer(stage, error))

        def source_of(config, stop):
            at = 9 if config.source == "bad" and stage == "source" else None
            return StubSource(FRAMES, name=config.source, fails_at=at, error=error,
                              live=low_latency, pause_s=0.01 if low_latency else 0.0)  # fmt: skip

        def make_outputs(config):
            call = stage if config.source == "bad" else ""
            output = Output(config.output.jsonl, call, error)
            output.needs_picture = True
            return [output]

        monkeypatch.setattr(multi_run, "source_of", source_of)
        monkeypatch.setattr(multi_run, "make_outputs", make_outputs)
        timing = "low-latency" if low_latency else OutputConfig().timing
        configs = {
            name: replace(
                Config(),
                source=name,
                output=OutputConfig(jsonl=tmp_path / f"{name}.jsonl", timing=timing),
            )
            for name in ("first", "bad", "last")
        }
        results = run_many(configs, on_progress=lambda _: None, stop=threading.Event())
        return {result.name: result for result in results}

    return run


@pytest.mark.parametrize("error", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_one_fault_is_one_sources(run, tmp_path, stage, error):
    results = run(stage, error)
    for name in ("first", "last"):
        assert results[name].error is None
        assert results[name].report.ended == "end of the source"
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line)["frame"] for line in lines] == list(range(FRAMES))
    bad = results["bad"]
    if stage == "source" and str(error) == "closed":
        return  # A ring that is closed stops a source, which is no fault.
    assert bad.error
    assert bad.error.startswith("bad: ")
    assert "\n" not in bad.error
    assert bad.report.ended == "an error"


def test_an_output_that_cannot_be_written_names_itself(run):
    results = run("write", OutputError("/mnt/full/out.mp4: cannot be written: disk full"))
    assert results["bad"].error == "/mnt/full/out.mp4: cannot be written: disk full"


@pytest.mark.parametrize("stage", ["source", "perceive", "fit", "lens", "draw", "write"])
def test_with_low_latency_too(run, stage):
    results = run(stage, ValueError("bad pixels"), low_latency=True)
    assert "bad pixels" in results["bad"].error
    for name in ("first", "last"):
        assert results[name].error is None
        assert results[name].report.ended == "end of the source"
        assert results[name].report.frames_drawn > 0
