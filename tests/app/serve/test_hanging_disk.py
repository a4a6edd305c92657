"""`serve` in a process of its own, on a disk whose calls hang one after another: whichever it is,
the status and the pictures come, and ending is bounded."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.waiting import until

pytest.importorskip("uvicorn")
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        COMPILER is None or not sys.platform.startswith("linux"), reason="needs a C compiler"
    ),
]
CALLS = (
    "open", "write", "seek", "stat", "list", "read", "close", "truncate unlink",
    "rename fsync space mkdir",
)  # fmt: skip
HOLDS_A_FILE = ("open", "write", "seek", "stat", "close")
HOLDS_THE_LIST = ("stat", "list")
HANGS_S = float(os.environ.get("BODYSTREAM_TEST_HANGS_S", "1"))
"""How long each call hangs."""
SOON_S = 0.5
"""The median answer while the disk hangs: a busy machine is slow now and then, a disk always."""
LISTED_S = 6.0
DELETED_S = 13.0
BOUNDED_S = 10.0
SERVE = """
import sys
import app.serve.command
from tests.support.fakes import NoPeople
app.serve.command.load = lambda config: NoPeople()
from app.cli import main
sys.exit(main())
"""


@dataclass
class Disk:
    """The disk of a process of `serve`, and what the process answers."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    hang: Path

    def hangs(self, call: str) -> None:
        # Renamed, because the process must not read half a word.
        self.hang.with_suffix(".new").write_text(call)
        self.hang.with_suffix(".new").rename(self.hang)

    def ask(self, path: str, method: str = "GET", **more) -> tuple[httpx.Response, float]:
        """Return an answer, and how many seconds it took."""
        begun_s = time.monotonic()
        answer = httpx.request(method, self.url + path, timeout=30, **more)
        return answer, time.monotonic() - begun_s

    def record(self, name: str, on: bool) -> float:
        answer, took_s = self.ask(f"/api/sources/{name}/recording", "PUT", json={"on": on})
        assert answer.status_code == 200
        return took_s

    def sources(self) -> dict[str, dict]:
        return {view["name"]: view for view in self.ask("/api/sources")[0].json()}


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    assert COMPILER is not None
    shim, folder, hang = tmp_path / "shim.so", tmp_path / "recordings", tmp_path / "hang"
    source = ROOT / "tests" / "support" / "hanging_disk.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    sources = [f"{name}=lavfi:testsrc2=size=160x96:rate=25" for name in ("one", "two")]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", "0", *sources, "--folder", str(folder)],
        cwd=ROOT, text=True, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(shim),
             "HANG_FILE": str(hang), "HANG_FOLDER": str(folder)},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.match(r"http://\S+(?=/)", line)
        assert found, line
        disk = Disk(process, found[0], folder, hang)
        until(lambda: all(view["drawn"] > 5 for view in disk.sources().values()), 30)
        yield disk
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def watched(disk: Disk, seconds: float) -> None:
    """Watch the status, the page and the pictures for a while, and list the files meanwhile."""
    before, begun_s = disk.sources(), time.monotonic()
    times_s: dict[str, list[float]] = defaultdict(list)
    while time.monotonic() - begun_s < seconds or len(times_s["/"]) < 3:
        for path in ("/healthz", "/api/sources", "/metrics", "/", "/page/page.js"):
            answer, took_s = disk.ask(path)
            assert answer.status_code == 200, (path, answer.text)
            times_s[path].append(took_s)
        for path in ("/api/files", "/api/recordings"):
            answer, took_s = disk.ask(path)
            assert answer.status_code in (200, 503)
            assert took_s < LISTED_S
        picture_s = time.monotonic()
        with httpx.stream("GET", f"{disk.url}/video/one") as pictures:
            assert next(pictures.iter_raw())
        times_s["picture"].append(time.monotonic() - picture_s)
    assert all(median(times) < SOON_S for times in times_s.values()), times_s
    took_s = time.monotonic() - begun_s
    for name, view in disk.sources().items():
        drawn = view["drawn"] - before[name]["drawn"]
        # Figures are a quarter of a second old, and a window waits for its four frames.
        assert drawn > 0.5 * 25 * (took_s - 0.5), (name, drawn, took_s)


def test_whichever_call_hangs_the_status_and_the_pictures_come(disk):
    for call in CALLS:
        # Recording when the disk begins to hang, and begun while it hangs.
        disk.record("one", True)
        time.sleep(0.3)
        disk.hangs(call)
        disk.record("two", True)
        watched(disk, HANGS_S)
        assert disk.record("two", False) < BOUNDED_S
        cause = disk.sources()["two"]["recording_cause"]
        assert cause == ("no answer" if call in HOLDS_A_FILE else ""), call
        assert disk.ask("/api/files")[0].status_code == (503 if call in HOLDS_THE_LIST else 200)
        disk.record("two", True)
        answer, took_s = disk.ask("/api/recordings/none", "DELETE")
        assert answer.status_code == (503 if call in HOLDS_THE_LIST else 404), call
        assert took_s < DELETED_S
        watched(disk, 0.0)
        disk.hangs("")
        until(lambda: disk.ask("/api/files")[0].status_code == 200)
        for name in ("one", "two"):
            assert disk.record(name, False) < BOUNDED_S
    # The disk is well again: so are the recordings.
    disk.record("one", True)
    time.sleep(1.0)
    assert disk.ask("/healthz")[0].text == "ok"
    disk.record("one", False)
    assert not disk.sources()["one"]["recording_missing"]
    answer, _ = disk.ask("/api/files/" + disk.ask("/api/files")[0].json()[0]["name"])
    assert answer.content


@pytest.mark.parametrize("call", ["open", "write", "close"])
def test_ending_on_a_disk_that_hangs_is_bounded_and_says_what_may_be_lost(disk, call):
    for name in ("one", "two"):
        disk.record(name, True)
    time.sleep(0.3)
    disk.hangs(call)
    disk.record("two", False)
    disk.record("two", True)
    time.sleep(0.3)
    answer, took_s = disk.ask("/api/sources/two", "DELETE")
    assert answer.status_code == 204
    assert took_s < BOUNDED_S
    assert set(disk.sources()) == {"one"}
    begun_s = time.monotonic()
    disk.process.send_signal(signal.SIGTERM)
    assert disk.process.stderr is not None
    err = disk.process.stderr.read()
    assert disk.process.wait(20) == 143
    assert time.monotonic() - begun_s < BOUNDED_S
    words = ".mp4: may be incomplete: the disk or the encoder does not answer"
    assert all(line.startswith("warning: ") and line.endswith(words) for line in err.splitlines())
    # What was opened before is finished, where only opening hangs.
    assert ("/one_" in err) == (call != "open"), err
    assert "/two_" in err
