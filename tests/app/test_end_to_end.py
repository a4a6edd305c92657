"""The app as a person runs it: real clips, real weights, a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from pipeline.weights import store as weights
from tests.support.paths import ROOT

SAMPLE = ROOT / "samples" / "pitch.mp4"
CLIPS = ROOT.parent / "shared" / "data" / "clips"
# The sample over and over, as a camera would: it cannot end before the signal comes.
ENDLESS = "lavfi:movie=samples/pitch.mp4:loop=0,setpts=N/30/TB"
pytestmark = [pytest.mark.slow, pytest.mark.weights]


@pytest.fixture(autouse=True)
def _weights():
    try:
        weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


def app(*arguments, timeout_s=240, **options):
    command = [sys.executable, "-m", "app", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, **options
    )


def frames_of(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def errors(done):
    """What a person reads of an error; LiteRT says a word of its own on standard error."""
    return [line for line in done.stderr.splitlines() if line and not line.startswith("INFO:")]


def test_a_clip_gives_an_overlay_and_poses(tmp_path):
    video, poses, lines = tmp_path / "o.mp4", tmp_path / "o.npz", tmp_path / "o.jsonl"
    done = app(
        "run", SAMPLE, "--seconds", 1.0, "--video", video, "--poses", poses, "--vertices",
        "--jsonl", lines, "--amass", tmp_path / "amass",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert frames_of(video) == 30
    with np.load(poses) as rows:
        count = len(rows["frame"])
        assert 29 <= count <= 33
        shapes = {
            "track": (), "score": (), "pts_s": (), "global_orient": (3,), "body_pose": (69,),
            "betas": (10,), "transl_m": (3,), "joints_m": (24, 3), "joints_px": (24, 2),
            "landmarks_m": (33, 3), "landmarks_px": (33, 2), "joint_visibility": (24,),
            "vertices_m": rows["vertices_m"].shape[1:],
        }  # fmt: skip
        for name, shape in shapes.items():
            assert rows[name].shape == (count, *shape), name
            assert np.isfinite(rows[name]).all(), name
        assert rows["image_size"].tolist() == [720, 1280]
        assert rows["faces"].max() < rows["vertices_m"].shape[1]
        truth = np.load(ROOT / "samples" / "pitch_truth.npz")
        at = rows["frame"]
        assert np.median(np.abs(rows["landmarks_px"] - truth["landmarks_px"][at])) < 8
        assert np.median(np.abs(rows["transl_m"][:, 2] - truth["joints_m"][at, 0, 2])) < 1.0
    for line in lines.read_text().splitlines():
        json.loads(line)
    (amass,) = (tmp_path / "amass").glob("*.npz")
    with np.load(amass) as track:
        assert track["poses"].shape[1:] == (72,) or track["poses"].shape[1] >= 66
        assert "mocap_framerate" in track


def test_the_overlay_lies_on_the_person(tmp_path):
    """Pixels change where the truth says the person is, and nearly nowhere else."""
    video = tmp_path / "o.mp4"
    done = app("run", SAMPLE, "--seconds", 0.4, "--video", video, "--no-hud")
    assert done.returncode == 0, done.stderr
    truth = np.load(ROOT / "samples" / "pitch_truth.npz")
    height, width = truth["mask_shape"]
    with av.open(str(video)) as drawn, av.open(str(SAMPLE)) as plain:
        pairs = zip(drawn.decode(video=0), plain.decode(video=0))
        for index, (a, b) in enumerate(pairs):
            before = b.to_ndarray(format="rgb24").astype(int)
            changed = np.abs(a.to_ndarray(format="rgb24").astype(int) - before).max(-1) > 24
            mask = np.unpackbits(truth["mask"][index])[: height * width].reshape(height, width) > 0
            overlap = (changed & mask).sum() / (changed | mask).sum()
            assert overlap > 0.6, index


def test_jsonl_on_standard_output_is_nothing_but_json():
    done = app("run", SAMPLE, "--seconds", 0.3, "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == list(range(9))
    assert len(lines[0]["bodies"]) == 1


def test_test_pictures_play_as_a_camera_and_show_nobody(tmp_path):
    source = "lavfi:testsrc2=size=320x240:rate=10"
    done = app("run", source, "--seconds", 2, "--video", tmp_path / "o.mp4", "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    assert all(not json.loads(line)["bodies"] for line in done.stdout.splitlines())
    assert frames_of(tmp_path / "o.mp4") >= 4


def test_start_and_seconds_cut_a_part_out():
    done = app("run", SAMPLE, "--start", 1.0, "--seconds", 0.2, "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == list(range(30, 36))


@pytest.mark.parametrize("name", ["missing.mp4", "folder", "text.mp4", "empty.mp4", "cut.mp4"])
def test_what_is_no_video_is_one_message_and_exit_1(tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "text.mp4":
        path.write_text("this is not a video\n" * 100)
    elif name == "empty.mp4":
        path.touch()
    elif name == "cut.mp4":
        path.write_bytes(SAMPLE.read_bytes()[:20_000])
    done = app("run", path, "--video", tmp_path / "o.mp4")
    assert done.returncode == 1
    assert 1 <= len(errors(done)) <= 3
    assert str(path) in errors(done)[0] or name in errors(done)[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "source", ["rtsp://127.0.0.1:1/x", "rtsp://user:secret@127.0.0.1:1/x", "/dev/video97"]
)
def test_a_live_source_that_is_not_there(source):
    begun = time.monotonic()
    done = app("run", source, "--retry-s", 0, "--jsonl", "-")
    assert done.returncode == 1
    assert 1 <= len(errors(done)) <= 3
    assert "secret" not in done.stderr + done.stdout
    assert time.monotonic() - begun < 60


def test_a_tiny_clip_and_a_clip_with_nobody_run_to_their_end(tmp_path):
    for size in ("16x16", "640x360"):
        path = tmp_path / f"{size}.mp4"
        width, height = map(int, size.split("x"))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for k in range(6):
                image = np.full((height, width, 3), 30 * k, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            container.mux(stream.encode())
        out = tmp_path / f"{size}_o.mp4"
        done = app("run", path, "--video", out, "--poses", tmp_path / "o.npz")
        assert done.returncode == 0, done.stderr
        assert frames_of(out) == 6
        with np.load(tmp_path / "o.npz") as rows:
            assert rows["body_pose"].shape == (0, 69)


def test_an_output_below_a_file_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("x")
    done = app("run", SAMPLE, "--video", tmp_path / "file" / "o.mp4")
    assert done.returncode in (1, 2)
    assert len(errors(done)) <= 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_was_written_before_a_signal_plays(tmp_path, number):
    video = tmp_path / "o.mp4"
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "run", ENDLESS, "--video", str(video)],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (video.exists() and video.stat().st_size > 20_000):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert b"Traceback" not in said
    with av.open(str(video)) as container:
        # Whole seconds of the video, however few frames this machine has for one.
        assert [frame.time for frame in container.decode(video=0)][-1] > 0.5


def test_a_reader_that_leaves_ends_the_run_cleanly(tmp_path):
    command = f"{sys.executable} -m app run {SAMPLE} --jsonl - --video {tmp_path}/o.mp4 | head -n 3"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert b"Traceback" not in done.stderr
    assert frames_of(tmp_path / "o.mp4") >= 3


def test_the_library_example_prints_wrists():
    done = subprocess.run(
        [sys.executable, str(ROOT / "samples" / "library.py"), str(SAMPLE)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("person 1:") > 100


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared real clips are not here")
@pytest.mark.parametrize(
    ("clip", "least"), [("taiji", 0.97), ("runner", 0.97), ("pitch_1_22", 0.97)]
)
def test_people_in_real_clips_have_bodies(clip, least):
    done = app("run", CLIPS / f"{clip}.mp4", "--seconds", 2, "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert np.mean([bool(line["bodies"]) for line in lines]) >= least
