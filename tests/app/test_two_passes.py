"""`run` over a clip in two passes: which runs do so, what they write and what they leave."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import bodystream
from app import build, render_loop, two_passes
from app.config import CaptureConfig, Config, FitConfig, OutputConfig
from app.outputs.base import OutputError
from app.two_passes import Until, takes_two_passes
from pipeline.body.load import load_body
from pipeline.capture.errors import SourceError
from pipeline.fitting import solver
from pipeline.fitting.fitter import BodyFitter
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.two_passes import SecondPass
from pipeline.weights import store as weights
from tests.support.clips import numbered, write_clip
from tests.support.disks import FullDisk
from tests.support.fakes import NoPeople, StubSource
from tests.support.paths import SAMPLE, TRUTH
from tests.support.perceivers import ByFrame

FRAMES = 22
LIMBS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]


@pytest.fixture(scope="module")
def fitter():
    return BodyFitter(load_body(), solver.FitConfig(use_lifter=False))


@pytest.fixture
def clip(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    return write_clip(folder / "a.mp4", [numbered(k) for k in range(FRAMES)], fps=30)


@pytest.fixture
def run(fitter, tmp_path, monkeypatch):
    """Runs a clip with a made-up perceiver; returns report, rows of ``--poses``, progress."""
    monkeypatch.setattr(two_passes, "_PROGRESS_S", 0.0)
    monkeypatch.setattr(render_loop, "_PROGRESS_S", 0.0)
    out = tmp_path / "out"
    out.mkdir()

    def run(source, perceiver=None, stop=None, one_pass=False, part=None, **output):
        estimator = KeypointEstimator(perceiver or ByFrame(), fitter)
        monkeypatch.setattr(build, "load", lambda *_: estimator)
        poses = out / "p.npz"
        config = Config(
            source=str(source), output=OutputConfig(poses=poses, **output),
            capture=part or CaptureConfig(), fit=FitConfig(one_pass=one_pass),
        )  # fmt: skip
        said = []
        report = build.run(config, on_progress=said.append, stop=stop or threading.Event())
        with np.load(poses) as rows:
            return report, dict(rows), said

    run.out = out
    return run


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


# Which runs take two passes


def decides(source="clip.mp4", *, live=False, estimator=None, one_pass=False, **output):
    output.setdefault("poses", Path("p.npz"))
    config = Config(
        source=str(source), output=OutputConfig(**output), fit=FitConfig(one_pass=one_pass)
    )
    estimator = estimator or KeypointEstimator(ByFrame(), SimpleNamespace(body=None, device=None))
    return takes_two_passes(config, StubSource(live=live), estimator)


def test_clips_and_folders_of_pictures_that_go_to_files_take_two(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"")
    assert decides(clip)
    assert decides(tmp_path)
    assert decides(clip, poses=None, video=tmp_path / "o.mp4", jsonl=tmp_path / "o.jsonl")
    assert decides(clip, poses=None, bvh=tmp_path / "bvh")


def test_what_is_seen_while_it_runs_takes_one(tmp_path):
    clip, pipe, link = tmp_path / "clip.mp4", tmp_path / "pipe", tmp_path / "link"
    clip.write_bytes(b"")
    os.mkfifo(pipe)
    link.symlink_to("/dev/stdout")
    for path in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", pipe, link, "/dev/null"):
        assert not decides(clip, jsonl=Path(path)), path
    assert not decides(clip, window=True)
    assert not decides(clip, timing="low-latency")
    assert not decides(clip, one_pass=True)
    assert not decides(clip, live=True)


def test_sources_that_are_not_files_take_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source in ("-", "lavfi:testsrc2", "rtsp://a/b", "0", "http://a/b.mp4", pipe, "/dev/video0",
                   tmp_path / "gone.mp4"):  # fmt: skip
        assert not decides(source), source


def test_estimators_that_report_bodies_take_one(tmp_path):
    skin = ByFrame()
    skin.has_skin = True
    estimator = KeypointEstimator(skin, SimpleNamespace(body=None, device=None))
    assert not decides(tmp_path, estimator=estimator)
    assert not decides(tmp_path, estimator=NoPeople())


# What they write


def test_two_passes_have_the_frames_and_tracks_of_one(run, clip):
    report, rows, _ = run(clip, ByFrame(2))
    _, plain, _ = run(clip, ByFrame(2), one_pass=True, existing="overwrite")
    for name in ("frame", "track", "pts_s", "score"):
        np.testing.assert_array_equal(rows[name], plain[name])
    assert rows["frame"].tolist() == sorted([*range(FRAMES)] * 2)
    for track in (1, 2):
        assert len(np.unique(rows["betas"][rows["track"] == track], axis=0)) == 1
    assert report.frames_read == report.frames_drawn == FRAMES
    assert not report.dropped
    assert report.tracks == 2
    assert {"perceive", "fit", "refit"} <= report.stages.keys()
    assert report.ended == "end of the source"
    assert left_in(run.out) == ["p.npz"]


def test_progress_goes_through_its_stages(run, clip):
    _, _, said = run(clip, ByFrame(2))
    stages = list(dict.fromkeys(now.stage for now in said))
    assert stages == [
        "first of two passes",
        *(f"fitting track {k} of 2 again, {turn} of 2" for turn in (1, 2) for k in (1, 2)),
        "",
    ]
    first = [now for now in said if now.stage == stages[0]]
    assert [now.frames_drawn for now in first] == list(range(1, FRAMES + 1))
    assert all(now.total == FRAMES and now.people == 2 for now in first)
    assert said[-1].frames_drawn == said[-1].total == FRAMES
    seconds = [now.seconds for now in said if now.stage]
    assert seconds == sorted(seconds)


def test_a_folder_of_pictures_is_a_clip(run, tmp_path):
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(6):
        cv2.imwrite(str(folder / f"{k:03}.png"), numbered(k))
    report, rows, said = run(folder)
    assert rows["frame"].tolist() == list(range(6))
    assert said[0].stage == "first of two passes"
    assert report.frames_drawn == 6


def test_what_the_source_says_of_damage_is_said(run, tmp_path):
    """The first pass alone reads the clip to its end."""
    pictures = [numbered(k) for k in range(40)]
    options = {"movflags": "faststart"}
    whole = write_clip(tmp_path / "whole.mp4", pictures, fps=30, container_options=options)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    report, rows, _ = run(cut)
    assert 0 < len(set(rows["frame"].tolist())) < 40
    (line,) = [each for each in report.warnings if "cut.mp4" in each]
    assert "is cut short: " in line
    assert " of 40 frames are there" in line


def test_a_part_of_a_clip(run, clip):
    _, rows, _ = run(clip, part=CaptureConfig(start_s=0.2, seconds=0.3))
    assert rows["frame"].tolist() == list(range(6, 15))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_clip_of_a_few_frames(run, tmp_path, count):
    clip = write_clip(tmp_path / "b.mp4", [numbered(k) for k in range(count)], fps=30)
    report, rows, _ = run(clip)
    assert rows["frame"].tolist() == list(range(count))
    assert report.frames_read == report.frames_drawn == count


def test_a_clip_without_people(run, clip):
    report, rows, _ = run(clip, ByFrame(0))
    assert rows["body_pose"].shape == (0, 69)
    assert report.frames_drawn == FRAMES
    assert left_in(run.out) == ["p.npz"]


def test_a_clip_of_variable_rate_keeps_its_times(run, tmp_path):
    times_ms = np.cumsum([0, *([20, 50, 30, 33] * 4)]).tolist()
    pictures = [numbered(k) for k in range(len(times_ms))]
    clip = write_clip(tmp_path / "v.mp4", pictures, pts_ms=times_ms)
    _, rows, _ = run(clip)
    np.testing.assert_allclose(rows["pts_s"], np.array(times_ms) / 1000, atol=1e-3)


def test_a_cut_begins_new_tracks(run, tmp_path):
    rng = np.random.default_rng(2)
    scenes = [
        np.kron(rng.integers(30, 220, (9, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        for _ in range(2)
    ]
    pictures = [scenes[k // 12] for k in range(24)]
    clip = write_clip(tmp_path / "c.mp4", pictures, fps=30, options={"crf": "10"})
    _, rows, _ = run(clip)
    _, plain, _ = run(clip, one_pass=True, existing="overwrite")
    np.testing.assert_array_equal(rows["track"], plain["track"])
    assert rows["track"].tolist() == [1] * 12 + [2] * 12


def test_all_outputs_get_the_bodies_of_the_second_pass(run, clip):
    import json

    lines = run.out / "o.jsonl"
    _, rows, _ = run(clip, jsonl=lines, video=run.out / "o.mp4")
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    places = [body["transl_m"] for line in told for body in line["bodies"]]
    np.testing.assert_allclose(places, rows["transl_m"], atol=1e-3)
    assert left_in(run.out) == ["o.jsonl", "o.mp4", "p.npz"]


# What ends them


def test_a_stop_in_the_first_pass_writes_what_was_seen(run, clip):
    stop = threading.Event()
    perceiver = ByFrame(at=lambda number: stop.set() if number == 8 else None)
    report, rows, _ = run(clip, perceiver, stop)
    count = len(rows["frame"])
    assert rows["frame"].tolist() == list(range(count))
    # What was read already is fitted too: the rings are short.
    assert 1 <= count <= FRAMES
    assert report.frames_read == report.frames_drawn == count
    assert report.ended == "stopped"
    assert left_in(run.out) == ["p.npz"]


def test_a_clip_that_is_replaced_between_the_passes_is_an_error(run, clip):
    """The bodies would be drawn over other pictures."""

    def replaced(number):
        if number == FRAMES - 1:
            write_clip(clip, [numbered(k) for k in range(FRAMES // 2)], fps=30)

    with pytest.raises(SourceError, match="changed while it was fitted"):
        run(clip, ByFrame(at=replaced))


def test_a_window_that_cannot_be_fitted_has_no_bodies(run, clip, monkeypatch):
    """The others keep theirs; the reader of the first pass takes the window as given up."""
    plain = BodyFitter.fit_many

    def failing(self, jobs):
        out = plain(self, jobs)
        return [
            [replace(b, transl_m=b.transl_m * np.nan) if failing.count == 2 else b for b in bodies]
            for bodies in out
        ]

    failing.count = 0

    def counted(self, jobs):
        failing.count += 1
        return failing(self, jobs)

    monkeypatch.setattr(BodyFitter, "fit_many", counted)
    _, rows, _ = run(clip)
    found = np.unique(rows["frame"])
    assert set(range(FRAMES)) - set(found.tolist()) == {4, 5, 6, 7}
    assert np.isfinite(rows["joints_m"]).all()


def test_a_stop_in_the_second_pass_ends_it(run, clip, monkeypatch):
    stop = threading.Event()
    plain = SecondPass.fit

    def fit(self, detected, states):
        if detected[0].window.frames[-1].id >= 7:
            stop.set()
        return plain(self, detected, states)

    monkeypatch.setattr(SecondPass, "fit", fit)
    report, rows, _ = run(clip, stop=stop)
    assert report.ended == "stopped"
    assert rows["frame"].tolist() == list(range(len(rows["frame"])))
    assert left_in(run.out) == ["p.npz"]


def broken(number):
    if number >= 8:
        raise ValueError("perception broke")


def test_an_error_in_the_first_pass_leaves_no_file(run, clip):
    with pytest.raises(ValueError, match="perception broke"):
        run(clip, ByFrame(at=broken))
    assert left_in(run.out) == []


def test_an_error_in_the_second_pass_leaves_whole_files(run, clip, monkeypatch):
    plain = SecondPass._bodies

    def bodies(self, frame):
        if frame.id >= 8:
            raise ValueError("the second pass broke")
        return plain(self, frame)

    monkeypatch.setattr(SecondPass, "_bodies", bodies)
    with pytest.raises(ValueError, match="the second pass broke"):
        run(clip)
    assert left_in(run.out) == ["p.npz"]
    with np.load(run.out / "p.npz") as rows:
        assert rows["frame"].tolist() == list(range(8))


def test_one_window_that_fails_is_a_warning_and_has_no_bodies(run, clip):
    def once(number):
        if number == 9:
            raise ValueError("one bad window")

    report, rows, _ = run(clip, ByFrame(at=once))
    assert report.frames_drawn == FRAMES
    assert any("one bad window" in line for line in report.warnings)
    gone = set(range(FRAMES)) - set(rows["frame"].tolist())
    assert 9 in gone
    assert len(gone) <= 4


def test_a_full_disk_is_one_line_that_says_what_to_do(run, clip, monkeypatch):
    class Full(two_passes.TrackStore):
        def __init__(self, folder):
            super().__init__(folder)
            self._file.close()
            self._file = io.BufferedWriter(FullDisk(10_000))

    monkeypatch.setattr(two_passes, "TrackStore", Full)
    with pytest.raises(OutputError, match="No space left on device; --one-pass") as raised:
        run(clip)
    assert str(run.out) in str(raised.value)
    assert "--one-pass" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert left_in(run.out) == []


def test_a_clip_that_is_gone_for_the_second_pass_is_the_source_s_error(run, clip):
    perceiver = ByFrame(at=lambda number: clip.unlink() if number == 20 else None)
    with pytest.raises(SourceError, match=r"a\.mp4"):
        run(clip, perceiver)
    assert left_in(run.out) == []


# `Until`


@pytest.mark.parametrize(("last", "count"), [(0, 1), (6, 7), (19, 20), (30, 20), (-1, 0)])
def test_until_is_a_source_up_to_a_frame(last, count):
    source = StubSource(20)
    until = Until(source, last)
    until.open()
    assert [frame.id for frame in until.frames()] == list(range(count))
    assert (until.name, until.live, until.info) == (source.name, source.live, source.info)
    until.close()
    assert source.closed.is_set()


def test_until_reads_nothing_behind_its_last_frame():
    """A pass that was stopped at a picture that cannot be read is still written."""
    assert len(list(Until(StubSource(20, fails_at=8), 7).frames())) == 8


def test_until_ends_at_a_number_that_is_not_there():
    class Even(StubSource):
        def frames(self):
            return (frame for frame in super().frames() if frame.id % 2 == 0)

    assert [frame.id for frame in Until(Even(20), 7).frames()] == [0, 2, 4, 6]


# The sample


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The sample's first 39 frames, in two passes and in one, as rows of ``--poses``."""
    try:
        weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error).splitlines()[0])
    folder, found = tmp_path_factory.mktemp("sample"), []
    for one_pass in (False, True):
        poses = folder / f"{one_pass}.npz"
        bodystream.run(SAMPLE, seconds=1.3, poses=poses, one_pass=one_pass, progress=False)
        with np.load(poses) as rows:
            found.append(dict(rows))
    return found


def limbs_of(points_m):
    hips = points_m[:, [23, 24]].mean(1, keepdims=True)
    return (points_m - hips)[:, LIMBS]


@pytest.mark.slow
@pytest.mark.weights
def test_the_sample_has_the_same_frames_and_tracks(both):
    ours, plain = both
    assert ours.keys() == plain.keys()
    for name in ("frame", "track", "pts_s"):
        np.testing.assert_array_equal(ours[name], plain[name])
    for name, column in ours.items():
        assert column.shape == plain[name].shape, name


@pytest.mark.slow
@pytest.mark.weights
def test_the_second_pass_is_nearer_to_the_truth_and_steadier(both):
    with np.load(TRUTH) as arrays:
        true_m = limbs_of(arrays["landmarks_m"])
    errors_m, jitter_m = [], []
    for rows in both:
        found_m, at = limbs_of(rows["landmarks_m"]), rows["frame"]
        errors_m.append(np.linalg.norm(found_m - true_m[at], axis=-1).mean())
        jitter_m.append(np.linalg.norm(np.diff(found_m, 2, axis=0), axis=-1).mean())
    assert errors_m[0] <= errors_m[1]
    assert jitter_m[0] < 0.8 * jitter_m[1]
