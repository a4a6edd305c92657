"""A perceiver from outside the tree, with 17 2D keypoints, in `run`, `events` and `serve`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import httpx
import pytest

from tests.support.outside.packages import install
from tests.support.paths import ROOT, SAMPLE

pytestmark = pytest.mark.slow
RELEASE = 60


@pytest.fixture
def environment(tmp_path):
    """Where a package with the perceiver is installed."""
    target = "tests.support.outside.coco_perceiver:CocoPerceiver"
    return install(tmp_path, "bodystream.perceivers", "coco", target)


def start(environment, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bodystream", *words, "--perceiver", "coco", "--device", "cpu"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_run_writes_a_body_in_every_frame(environment):
    out, err = start(environment, "run", str(SAMPLE), "--jsonl", "-", "--quiet").communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 108, err
    assert {len(line["bodies"]) for line in lines} == {1}
    assert {line["bodies"][0]["track"] for line in lines} == {1}


def test_events_finds_the_throw(environment):
    out, err = start(environment, "events", str(SAMPLE)).communicate()
    (event,) = [json.loads(line) for line in out.splitlines()]
    assert abs(event["release_frame"] - RELEASE) <= 1, err
    assert event["hand"] == "right"
    assert len(event["bodies"]) == 4


def test_serve_shows_the_person(environment, tmp_path):
    pytest.importorskip("uvicorn")
    process = start(environment, "serve", "0", f"a={SAMPLE}", "--folder", str(tmp_path / "r"))
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        seen, deadline = 0, time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            seen = sum(each["people"] for each in httpx.get(f"{found[0]}/api/sources").json())
            time.sleep(0.1)
        assert seen == 1
    finally:
        process.terminate()
        process.communicate(timeout=30)
