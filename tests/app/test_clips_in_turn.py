"""`run A B C` with clips that go to files: one after the other, in two passes each."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

from app import build, multi_run, render_loop, two_passes
from app.clips_in_turn import Turns
from app.config import CaptureConfig, Config, FitConfig, OutputConfig
from app.multi_run import run_many
from pipeline.body.load import load_body
from pipeline.core.problem import Notice
from pipeline.fitting import solver
from pipeline.fitting.fitter import BodyFitter
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from tests.support.clips import numbered, write_clip
from tests.support.fakes import NoPeople
from tests.support.perceivers import ByFrame

FRAMES = (22, 13, 30)
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def fitter():
    return BodyFitter(load_body(), solver.FitConfig(use_lifter=False))


@pytest.fixture
def clips(tmp_path):
    pictures = [[numbered(k) for k in range(count)] for count in FRAMES]
    return {
        name: str(write_clip(tmp_path / f"{name}.mp4", each, fps=30))
        for name, each in zip(NAMES, pictures)
    }


@pytest.fixture
def run(fitter, tmp_path, monkeypatch):
    """Runs sources with a made-up perceiver; returns results, rows by name, progress, notices."""
    monkeypatch.setattr(two_passes, "_PROGRESS_S", 0.0)
    monkeypatch.setattr(render_loop, "_PROGRESS_S", 0.0)

    def config_of(name, source, folder, changes):
        changes = {"fit": FitConfig(), "capture": CaptureConfig(), **changes}
        output = OutputConfig(poses=folder / f"{name}.npz")
        return Config(source=source, output=output, **changes)

    def run(sources, perceiver=None, stop=None, estimator=None, folder="out", **changes):
        estimator = estimator or KeypointEstimator(perceiver or ByFrame(), fitter)
        for module in (build, multi_run):
            monkeypatch.setattr(module, "load", lambda *_: estimator)
        out = tmp_path / folder
        out.mkdir()
        configs = {name: config_of(name, each, out, changes) for name, each in sources.items()}
        said, ended = [], []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", Notice)
            results = run_many(
                configs,
                on_progress=said.append,
                stop=stop or threading.Event(),
                on_result=ended.append,
            )
        assert ended == [one for one in results if one.report.ended != "not begun"]
        rows = {path.stem: dict(np.load(path)) for path in out.glob("*.npz")}
        return results, rows, said, [str(one.message) for one in caught]

    run.alone = lambda name, source: run({name: source}, folder=f"alone-{name}")
    return run


def test_each_clip_is_as_if_it_were_run_alone(run, clips):
    results, rows, _, notices = run(clips)
    assert [one.name for one in results] == list(NAMES)
    assert [one.report.frames_drawn for one in results] == list(FRAMES)
    assert not notices
    for name, source in clips.items():
        (alone,), own, _, _ = run.alone(name, source)
        assert "refit" in alone.report.stages
        assert own[name].keys() == rows[name].keys()
        for column, values in own[name].items():
            # Bit by bit: a clip has no part in the next one.
            np.testing.assert_array_equal(rows[name][column], values, column)


def test_progress_counts_the_clips(run, clips):
    _, _, said, _ = run(clips)
    assert {one.clips for one in said} == {3}
    done = [one.clips_done for one in said]
    assert done == sorted(done)
    assert set(done) == {0, 1, 2}
    assert {one.stage for one in said} > {"", "first of two passes"}


def test_one_that_fails_costs_the_others_nothing(run, clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    sources = {"gone": str(tmp_path / "gone.mp4"), "broken": str(broken), **clips}
    results, rows, _, _ = run(sources)
    by_name = {one.name: one for one in results}
    assert by_name["gone"].report.ended == "not found"
    assert "gone.mp4: no such file" in by_name["gone"].error
    assert "broken.mp4" in by_name["broken"].error
    assert all(by_name[name].error is None for name in NAMES)
    assert rows.keys() == set(NAMES)


@pytest.mark.parametrize("error", [ValueError("bad pixels"), type("Odd", (BaseException,), {})()])
def test_a_fault_of_the_estimator_is_that_clip_s(run, clips, error):
    frames = [0]

    def fail_once(number):
        frames[0] += 1
        if frames[0] > FRAMES[0] and number == 0:
            frames[0] = -1000
            raise error

    results, rows, _, _ = run(clips, ByFrame(at=fail_once))
    assert [one.name for one in results] == list(NAMES)
    assert [len(rows[name]["frame"]) for name in ("a", "c")] == [FRAMES[0], FRAMES[2]]
    assert [bool(one.error or one.report.warnings) for one in results] == [False, True, False]


def test_an_estimator_that_cannot_go_on_runs_no_other_clip(run, clips, fitter):
    class Broken(KeypointEstimator):
        def perceive(self, windows, states):
            if self.is_broken:
                raise RuntimeError("an illegal memory access")
            return super().perceive(windows, states)

        is_broken = False

    def break_it(number):
        estimator.is_broken |= number == 0

    estimator = Broken(ByFrame(at=break_it), fitter)
    results, _, _, _ = run(clips, estimator=estimator)
    line = "the estimator has failed, on a blank picture too: "
    assert all(f"{one.name}: {line}" in one.error for one in results)
    assert "an illegal memory access" in results[0].error


def test_a_clip_that_is_run_may_come_again():
    stop = threading.Event()
    turns = Turns({name: Config(source=name) for name in "ab"}, stop)
    assert turns.next()[0] == "a"
    name, config = turns.next()
    assert turns.next() is None
    turns.ended("a")
    assert not turns.is_over
    turns.again(name, config)
    assert not turns.is_over
    assert turns.next() == (name, config)
    turns.ended("b")
    assert turns.is_over
    turns.again(name, config)
    stop.set()
    assert turns.is_over
    assert turns.next() is None


def test_a_stop_ends_the_clip_and_begins_no_other(run, clips):
    stop = threading.Event()
    perceiver = ByFrame(at=lambda number: stop.set() if number == 8 else None)
    (first, *others), rows, _, _ = run(clips, perceiver, stop)
    assert first.report.ended == "stopped"
    assert first.report.frames_drawn == len(rows["a"]["frame"])
    for one in others:
        assert one.error is None
        assert one.report.ended == "not begun"
    assert rows.keys() == {"a"}


@pytest.mark.parametrize(
    ("more", "changes", "said"),
    [
        ({"test": "lavfi:testsrc2=size=64x48:duration=0.2"}, {}, ["clips beside live sources"]),
        ({}, {"fit": FitConfig(one_pass=True)}, []),
        ({}, {"fit": FitConfig(one_pass=True, height_m=1.8)}, ["--height and --heights act in"]),
        ({}, {"capture": CaptureConfig(pace="live")}, []),
    ],
)
def test_what_cannot_wait_is_run_side_by_side(run, clips, more, changes, said):
    results, _, progress, notices = run({**clips, **more}, **changes)
    assert all(one.error is None for one in results)
    assert all("refit" not in one.report.stages for one in results)
    assert {one.clips for one in progress} == {0}
    assert len(notices) == len(said)
    assert all(words in notice for words, notice in zip(said, notices))


def test_estimators_that_report_bodies_run_clips_side_by_side(run, clips):
    results, _, progress, notices = run(clips, estimator=NoPeople())
    assert all(one.error is None for one in results)
    assert {one.clips for one in progress} == {0}
    assert not notices
