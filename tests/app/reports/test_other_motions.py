"""A motion from outside the tree, a tennis serve, in `events` and in `serve --events`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import pytest

from tests.support.motions.installed import SERVE, installed
from tests.support.paths import ROOT

pytestmark = [pytest.mark.weights, pytest.mark.slow]

FASTEST = 58
"""The frame of the sample in which the wrist is fastest: its pitcher moves as one who serves."""
MEASURES = {"contact_height", "elbow_flexion", "trunk_tilt", "wrist_speed"}


def app(*arguments: str, site: Path | None = None) -> tuple[list[str], dict]:
    paths = [str(ROOT), *([] if site is None else [str(site)])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "app", *arguments, "--people", "1", "--device", "cpu"]
    return command, {"cwd": ROOT, "env": environment, "text": True}


def run(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    command, how = app("events", "samples/pitch.mp4", *arguments, site=site)
    return subprocess.run(command, capture_output=True, timeout=200, **how)


def check(event: dict, fastest: int = FASTEST) -> None:
    """What a serve's JSON object says, in the layout of all events."""
    assert event["schema"] == "bodystream.event/1"
    assert event["motion"] == "tennis_serve"
    assert event["hand"] == "right"
    at = event["event_frame"]
    assert abs(at - fastest) <= 2
    assert event["frames"] == [at - 2, at - 1, at, at + 1]
    assert set(event["measures"]) == MEASURES
    for each in event["measures"].values():
        assert (each["value"], each["low"], each["high"]) == (None, None, None)
        assert each["fitted"] is not None
        assert each["unit"]
        assert each["definition"]


def test_a_serve_by_its_folder(tmp_path):
    done = run("--motion", str(SERVE), "--report", str(tmp_path / "page"), "--strip",
               str(tmp_path / "strips"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    check(json.loads(line))
    page = (tmp_path / "page" / "index.html").read_text("utf-8")
    page = re.sub('base64,[^"]*', "", page)
    assert not re.search("throw|release|ball", page, re.IGNORECASE)
    assert "1 serve from 1 source" in page
    assert "Contact" in page
    (strip,) = (tmp_path / "strips").iterdir()
    assert cv2.imread(str(strip)) is not None


def test_a_serve_by_an_entry_point(tmp_path):
    site = installed(tmp_path)
    done = run("--motion", "court_serve", site=site)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    check(json.loads(line))
    done = run("--motion", "cuort_serve", site=site)
    assert done.returncode == 2
    assert (
        "--motion: there is no motion 'cuort_serve'; there are: court_serve, throw" in done.stderr
    )
    assert "; did you mean court_serve?" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def slowed(path: Path, first: int, last: int) -> Path:
    """Frames ``first`` to ``last`` of the sample at a quarter of its speed: `serve` shows a clip as
    fast as it was taken, and a slow machine leaves out none of these."""
    source = cv2.VideoCapture(str(ROOT / "samples" / "pitch.mp4"))
    size = tuple(int(source.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, 4))
    file = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 7.5, size)
    for number in range(last + 1):
        _, image = source.read()
        if number >= first:
            file.write(image)
    file.release()
    return path


def test_a_serve_is_served(tmp_path):
    site = installed(tmp_path / "site")
    toml = site / "court" / "serve" / "motion.toml"
    # A quarter of the speed; encoded again, the blurred wrist is seen a little lower.
    text = toml.read_text().replace("peak_least = 12.0", "peak_least = 3.0\nback_s = 2.8")
    toml.write_text(text.replace("least = 0.1", "least = -0.3"))
    clip = slowed(tmp_path / "slow.mp4", 35, 75)
    command, how = app(
        "serve", "0", f"a={clip}", "--events", "--motion", "court_serve",
        "--folder", str(tmp_path / "recordings"), site=site,
    )  # fmt: skip
    server = subprocess.Popen(command, stderr=subprocess.PIPE, **how)
    try:
        assert server.stderr is not None
        address = next(
            found[0]
            for line in server.stderr
            if (found := re.search(r"http://127\.0\.0\.1:\d+", line))
        )
        end_s = time.monotonic() + 60
        events: list[dict] = []
        while not events:
            assert time.monotonic() < end_s
            time.sleep(0.3)
            with urllib.request.urlopen(f"{address}/api/sources/a/events", timeout=20) as answer:
                events = json.load(answer)
        check(events[0], FASTEST - 35)
        with urllib.request.urlopen(f"{address}/api/sources/a/events/0/strip") as answer:
            assert answer.read()[:2] == b"\xff\xd8"
    finally:
        server.terminate()
        server.wait(30)
