"""Reports, and the command that evaluates a clip or a folder."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import cli
from app.config import load_config
from app.evaluate import frames_of, ranges, report
from app.evaluate.outcome import Row
from app.evaluate.replay import Timing, load_estimator, mean_focal_px, switches
from pipeline.fitting.solver import FitConfig
from tests.support.clips import numbered, write_clip
from tests.support.evaluation import SHARED
from tests.support.paths import SAMPLES


def small_report(clip: str, mesh: float, weight: float) -> report.Report:
    rows = (
        Row("person_frames", "n", "", weight),
        Row("mpjpe_mm", "MPJPE", "mm", mesh, 100.0, ratio_to="perceived"),
    )
    return report.Report(clip, "t", "render", rows, weight)


def test_all_clips_are_pooled_by_their_person_frames():
    every = report.pooled([small_report("a", 50, 30), small_report("b", 90, 10)])
    assert every.row("mpjpe_mm").mesh == pytest.approx(60)
    assert every.row("mpjpe_mm").ratio == pytest.approx(0.6)
    assert every.row("person_frames").mesh == 40
    unknown = report.pooled([small_report("a", float("nan"), 30), small_report("b", 90, 10)])
    assert unknown.row("mpjpe_mm").mesh == pytest.approx(90)


def test_tables_and_json_say_what_is_not_known(tmp_path, capsys):
    lone = small_report("a.mp4", float("nan"), 3)
    report.print_report(lone, sys.stdout)
    report.print_suite([lone, small_report("b.mp4", 42.5, 3)], sys.stdout)
    out = capsys.readouterr().out
    assert "MPJPE" in out
    assert "42.5" in out
    assert "nan" not in out
    report.write_json([lone], tmp_path / "o" / "r.json", pool=False)
    figure = json.loads((tmp_path / "o" / "r.json").read_text())["figures"]["mpjpe_mm"]
    assert figure["mesh"] is None
    assert figure["perceived"] == 100


def test_a_suite_with_a_world_has_a_second_table(capsys):
    plain = small_report("a.mp4", 42.5, 3)
    world = (
        Row("w_mpjpe_mm", "W-MPJPE", "mm", 123.0),
        Row("jitter", "jitter", "10 m/s³", 9.0, reference=3.0, ratio_to="reference"),
    )
    report.print_suite([plain], sys.stdout)
    assert "W-MPJPE" not in capsys.readouterr().out
    report.print_suite([plain, replace(plain, clip="b.mp4", rows=plain.rows + world)], sys.stdout)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()]
    assert lines[-4] == ["clip", "mm", "ratio"]
    assert lines[-3:] == [["a", "-", "-"], ["b", "123", "3"], ["all", "123", "3"]]


def test_every_switch_of_the_fit_has_a_name():
    names = switches()
    wanted = {"world", "mask", "prior", "smoothness", "warm-start", "held-shape", "depth"}
    assert wanted <= set(names)
    for field in names.values():
        assert isinstance(getattr(FitConfig(), field), bool)


def test_frames_are_told_as_ranges():
    assert ranges([3, 4, 5, 9, 11, 12]) == "3-5, 9, 11-12"
    assert ranges([]) == ""


@SHARED
@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranges_are_read_back(numbers):
    assert frames_of(ranges(sorted(numbers))) == numbers


def test_a_given_lens_wins_over_the_profile_s(monkeypatch):
    made = []
    # By its name: the package has a function that is called like the module.
    module = sys.modules["app.evaluate.replay"]
    monkeypatch.setattr(module, "make_estimator", lambda name, **settings: made.append(settings))
    lens = np.array([[900.0, 0, 310], [0, 900, 250], [0, 0, 1]])
    config = load_config(flags={"capture.fov_deg": 50.0})
    load_estimator(config, (), mean_focal_px(lens), lens)
    load_estimator(config)
    assert made[0]["intrinsics"] is lens
    assert (made[0]["focal_px"], made[0]["fov_deg"]) == (900.0, None)
    assert (made[1]["intrinsics"], made[1]["fov_deg"]) == (None, 50.0)


def test_the_speed_is_that_of_all_frames():
    timing = Timing([10.0, 40.0], [60.0, 20.0], [4, 1])
    assert timing.fps == pytest.approx(1000 * 5 / (4 * 10 + 40 + 80))
    assert np.isnan(Timing().fps)


@pytest.fixture
def evaluated(monkeypatch) -> list:
    """Replace the evaluation by a fake; return the list of its calls."""
    calls = []
    fake = types.SimpleNamespace()

    def evaluate(*args, **options):
        calls.append((args, options))
        return small_report(str(args[0]), 50.0, 10)

    fake.evaluate = evaluate
    monkeypatch.setattr("app.evaluate.suite.evaluate", fake.evaluate)
    return calls


def test_every_flag_reaches_the_evaluation(evaluated, capsys, tmp_path):
    line = (
        "evaluate c.mp4 --truth t.npz --people 2 --start 1 --seconds 2 --truth-lens --worst 3 "
        "--without mask --without world --given depth --frames 3-5,9 "
        f"--json {tmp_path}/r.json --device cpu"
    )
    assert cli.main(line.split()) == 0
    (clip, truth, config), options = evaluated[0]
    assert (clip, truth, config.perceive.people) == ("c.mp4", Path("t.npz"), 2)
    assert (config.capture.start_s, config.capture.seconds) == (1.0, 2.0)
    wanted = {"without": ("mask", "world"), "given": ("depth",), "truth_lens": True, "worst": 3}
    assert options == wanted | {"frames": {3, 4, 5, 9}}
    assert json.loads((tmp_path / "r.json").read_text())["clip"] == "c.mp4"
    assert "c.mp4 against t" in capsys.readouterr().out


def test_a_suite_evaluates_every_clip_with_its_truth(evaluated, capsys, tmp_path):
    for name in ("b.mp4", "a.mp4", "a_truth.npz", "b_truth.npz", "c_truth.npz", "d.mp4"):
        (tmp_path / name).touch()
    assert cli.main(["evaluate", "--suite", str(tmp_path)]) == 0
    assert [Path(args[0]).name for args, _ in evaluated] == ["a.mp4", "b.mp4"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["a", "b", "all"]


@pytest.mark.parametrize(
    ("line", "code", "why"),
    [
        ("c.mp4", 2, "--truth"),
        ("c.mp4 --truth t.npz --nobody", 2, "give one of"),
        ("--truth t.npz", 2, "CLIP"),
        ("c.mp4 --suite there", 2, "none with --suite"),
        ("--suite not_there", 1, "not_there"),
        ("c.mp4 --truth t.npz --fov-deg 50 --truth-lens", 2, "not allowed with"),
        ("c.mp4 --truth not_there.npz", 1, "no such file"),
        ("c.mp4 --nobody --given mask", 2, "need a truth"),
        ("c.mp4 --nobody --without wings", 2, "one of depth, held-shape"),
        ("c.mp4 --truth {sample} --given wings", 2, "one of landmarks, world"),
        ("c.mp4 --truth {sample} --people 0", 2, "--people"),
        ("c.mp4 --truth {sample} --jobs 0", 2, "--jobs"),
        ("c.mp4 --truth {sample} --frames 5-x", 2, "--frames"),
    ],
)
def test_wrong_flags_end_with_a_line(line, code, why, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = line.format(sample=SAMPLES / "pitch_truth.npz").split()
    assert cli.main(["evaluate", *words]) == code
    error = capsys.readouterr().err
    assert why in error
    assert len(error.strip().splitlines()) <= 2
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.weights
def test_the_samples_beginning_is_evaluated(tmp_path, capsys):
    clip, truth = SAMPLES / "pitch.mp4", SAMPLES / "pitch_truth.npz"
    out = tmp_path / "r.json"
    line = f"evaluate {clip} --truth {truth} --seconds 0.53 --worst 2 --json {out}"
    assert cli.main(line.split()) == 0
    data = json.loads(out.read_text())
    found = {key: figure["mesh"] for key, figure in data["figures"].items()}
    assert found["frames"] == found["person_frames"] == 16
    assert found["coverage_pct"] == 100
    assert found["tracks_each"] == 1
    assert 10 < found["mpjpe_mm"] < 150
    assert found["pa_mpjpe_mm"] < found["mpjpe_mm"]
    assert 0.6 < found["iou"] <= 1
    assert found["landmarks_px"] < 15
    assert found["fit_ms_p50"] > 0
    assert len(data["worst"]) == 2
    assert "MPJPE" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.weights
def test_the_truth_put_in_comes_out():
    """With true landmarks, depths and lens the body is where the truth is."""
    from app.evaluate import evaluate

    config = load_config(flags={"capture.seconds": 0.4})
    clip, truth = SAMPLES / "pitch.mp4", SAMPLES / "pitch_truth.npz"
    plain = evaluate(clip, truth, config)
    best = evaluate(clip, truth, config, given=("landmarks", "world"), truth_lens=True)
    assert best.row("mpjpe_mm").mesh < 0.6 * plain.row("mpjpe_mm").mesh
    assert best.row("mpjpe_mm").mesh < 40
    assert best.row("mpjpe_mm").perceived == pytest.approx(plain.row("mpjpe_mm").perceived, rel=0.2)


@pytest.mark.slow
@pytest.mark.weights
def test_a_clip_of_another_size_or_length_is_refused(tmp_path, capsys):
    clip = str(write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(6)]))
    truth = str(SAMPLES / "pitch_truth.npz")
    assert cli.main(["evaluate", clip, "--truth", truth]) == 1
    assert "1280x720 picture; c.mp4 is 160x96" in capsys.readouterr().err
    long = np.load(truth)
    np.savez(tmp_path / "t.npz", **{**long, "image_size": [96, 160]})
    assert cli.main(["evaluate", clip, "--truth", str(tmp_path / "t.npz")]) == 1
    assert "of 108 frames; c.mp4 has 6" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.weights
def test_a_clip_with_nobody_in_it_has_no_ghosts(tmp_path, capsys):
    clip = write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(6)])
    assert cli.main(["evaluate", str(clip), "--nobody", "--frames", "2-4"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["frames", "3", "-", "-", "-"] in lines
    assert ["frames", "with", "a", "body", "%", "0", "-", "-", "-"] in lines


@pytest.mark.weights
def test_a_live_feed_is_refused(capsys):
    source = "lavfi:testsrc2=size=320x240:rate=10"
    assert cli.main(["evaluate", source, "--nobody"]) == 2
    assert "live feed" in capsys.readouterr().err


def test_figures_that_exist_stay(tmp_path, monkeypatch, capsys):
    """Two clips' figures by one name: the second gets a number, and says so."""
    monkeypatch.setattr("app.evaluate.suite.evaluate", lambda *_, **__: None)
    monkeypatch.setattr("app.evaluate.suite.print_report", lambda *_: None)
    written: list[Path] = []
    monkeypatch.setattr("app.evaluate.suite.write_json", lambda _, path, pool: written.append(path))
    (tmp_path / "r.json").write_text("{}")
    words = ["evaluate", "a.mp4", "--nobody", "--json", str(tmp_path / "r.json")]
    assert cli.main(words) == 0
    assert cli.main([*words, "--overwrite"]) == 0
    assert written == [tmp_path / "r.2.json", tmp_path / "r.json"]
    assert "this run writes " in capsys.readouterr().err
