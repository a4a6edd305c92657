"""The commands with SAM 3D Body, from files as a release has them, on the sample."""

from __future__ import annotations

import json
import time
from contextlib import closing

import numpy as np
import pytest

from app import cli
from pipeline.body.load import load_body
from pipeline.runtime.make import make_estimator
from pipeline.sam3d import checkpoint
from pipeline.sam3d.config import CONFIGS
from tests.pipeline.sam3d.golden_rule import TINY
from tests.support.paths import SAMPLE, TRUTH
from tests.support.sam3d_release import upright_network, write_release

pytestmark = [pytest.mark.weights, pytest.mark.slow]
FRAMES = 12


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release"), *upright_network())


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """The loader as it is, for networks of small widths; what it converts is not kept."""
    monkeypatch.setitem(CONFIGS, "dinov3", TINY)
    monkeypatch.setattr(checkpoint, "cache_folder", lambda: tmp_path / "cache")


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def sam3d(command, source, release, *words):
    seconds = FRAMES / 30 - 0.01
    return (
        command, source, "--estimator", "sam3d", "--model", release, "--device", "cpu",
        "--seconds", seconds, *words,
    )  # fmt: skip


def test_bodies_are_fitted_drawn_and_written(release, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("bodies.npz", "mhr.npz", "out.mp4")}
    code, out, err = run(
        capsys, *sam3d("run", SAMPLE, release, "--poses", files["bodies.npz"]),
        "--mhr", files["mhr.npz"], "--mhr-vertices", "--video", files["out.mp4"], "--draw", "mhr",
        "--people", "1",
    )  # fmt: skip
    assert code == 0, err
    assert "SAM 3D Body (DINOv3)" in out
    assert files["out.mp4"].stat().st_size > 1000
    with np.load(files["mhr.npz"]) as mhr, np.load(files["bodies.npz"]) as bodies:
        assert len(mhr["frame"]) >= FRAMES - 2
        np.testing.assert_array_equal(mhr["frame"], bodies["frame"])
        np.testing.assert_array_equal(mhr["track"], bodies["track"])
        assert np.isfinite(mhr["parameters"]).all()
        assert mhr["vertices_m"].shape[1:] == (18439, 3)
        # The network always sees the free body at rest, upright, so that is what is fitted: from
        # keypoints, skin and start, through all conventions of axes and units.
        joints_m = load_body().joint_template.numpy() @ np.diag([1, -1, -1])
        fitted_m = bodies["joints_m"] - bodies["joints_m"][:, :1]
        off_m = np.linalg.norm(fitted_m - (joints_m - joints_m[0]), axis=-1)
        assert off_m.max() < 0.002
        # And it is where the network saw it in the picture, but for the smoothing: the crops of a
        # network that sees nothing keep every motion.
        nose_px = bodies["landmarks_px"][:, 0]
        assert np.median(np.linalg.norm(nose_px - mhr["keypoints_px"][:, 0], axis=-1)) < 6


def test_evaluate_and_events_take_it(release, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    code, _, err = run(
        capsys, *sam3d("evaluate", SAMPLE, release, "--truth", TRUTH, "--json", figures)
    )
    assert code == 0, err
    assert json.loads(figures.read_text())["figures"]["coverage_pct"]["mesh"] > 50
    lines = tmp_path / "events.jsonl"
    code, _, err = run(capsys, *sam3d("events", SAMPLE, release, "--jsonl", lines))
    assert code == 0, err


@pytest.mark.parametrize("lacking", ["GPU", "release"])
def test_where_it_cannot_run_bodies_come_from_keypoints(
    release, tmp_path, capsys, monkeypatch, lacking
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("pipeline.sam3d.release.cache_folder", lambda: tmp_path)
    words = {"GPU": ["--model", release], "release": ["--device", "cpu"]}[lacking]
    says = {"GPU": "no GPU", "release": "weights fetch sam3d-dinov3"}[lacking]
    code, _, err = run(
        capsys, "run", SAMPLE, "--estimator", "sam3d", *words, "--seconds", "0.1",
        "--poses", tmp_path / "p.npz", "--mhr", tmp_path / "m.npz", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    (first, last) = err.splitlines()
    assert first.startswith("warning: ")
    assert says in first
    assert "BlazePose's keypoints instead" in first
    assert "only --estimator sam3d and instanthmr report MHR bodies" in last
    with np.load(tmp_path / "p.npz") as bodies, np.load(tmp_path / "m.npz") as mhr:
        assert len(bodies["frame"]) == 3
        assert len(mhr["frame"]) == 0


def test_what_is_wrong_is_one_line(release, tmp_path, capsys):
    for words, says in (
        (["--estimator", "sam3d", "--device", "cpu", "--model", tmp_path], "model.ckpt is missing"),
        (["--mhr-vertices"], "--mhr-vertices: needs --mhr"),
        (["--draw", "mhr"], "or instanthmr with the MHR rig"),
        (["--draw", "mhr", "--low-latency"], "low-latency"),
    ):
        code, _, err = run(capsys, "run", SAMPLE, *words, "--jsonl", tmp_path / "o.jsonl")
        assert code in (1, 2)
        assert says in err
        assert len(err.strip().splitlines()) == 1


def test_sources_that_are_served_have_bodies(release, tmp_path):
    pytest.importorskip("fastapi")
    from tests.support.serving import serving

    estimator = make_estimator("sam3d", model=release, device="cpu", people=1)
    with closing(estimator), serving(estimator, tmp_path) as served:
        assert served.hub.add(str(SAMPLE), "a", trusted=True) == "a"
        lines, until_s = [], time.monotonic() + 60
        while not any(json.loads(line)["bodies"] for _, line in lines):
            assert time.monotonic() < until_s
            lines = served.hub.bodies("a", lines[-1][0] if lines else 0, 1.0)


def test_settings_that_contradict_each_other_are_refused_at_once(capsys):
    words = ("--estimator", "sam3d", "--sam3d-hands", "--sam3d-reuse", "prompts")
    code, _, err = run(capsys, "run", SAMPLE, *words)
    assert code == 2
    assert "--sam3d-hands: not with --sam3d-reuse prompts; leave one out" in err


def test_settings_that_no_estimator_reads_are_said(tmp_path, capsys):
    words = ("--device", "cpu", "--seconds", 0.2, "--poses", tmp_path / "p.npz")
    code, _, err = run(capsys, "run", SAMPLE, *words, "--sam3d-every", 2, "--model", tmp_path)
    assert code == 0, err
    assert "warning: settings of SAM 3D Body are read with --estimator sam3d alone" in err
    assert "warning: --sam3d-every is read with --sam3d-reuse landmarks alone" in err
    assert "warning: --model is not read by BlazePose" in err
