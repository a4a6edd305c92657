"""Measure what a frame of the 3D view costs in a browser, for several numbers of people.

Recordings with made-up motion are opened in a headless Chromium that draws WebGL on the CPU. The
columns are the scripting time of a frame, the frames a second that the software GL draws, and the
bytes of a live message. The time is all that the page does from the frame's numbers to the last
call of WebGL, where every person's shape changes with every frame, which is the most work: the mean
of the CPU's time by the browser's own count, and p50 and p95 of the clock's, in which other
programs take their part. Run it:

    python -m benchmarks.view_scripting [--people 1 4 8] [--frames 120] [--size 1280x800]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from app.exports.recording import Recording, make_recording
from app.serve.connection import listen
from app.serve.running import running
from app.serve.viewing import create_view
from app.view.frames import frame_message, recording_file
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from tests.support.browser import Page, opened
from tests.support.view import FPS, posed_arrays

_MEASURE = """
new Promise((done) => {
  const { view3d: view } = document.getElementById("view"), times = [], begun = performance.now();
  view.timeline.toggle(false);
  const step = () => {
    const start = performance.now();
    view.timeline.go(times.length / %(fps)s);
    view.stage.render();
    times.push(performance.now() - start);
    if (times.length < %(frames)d) { requestAnimationFrame(step); return; }
    done(JSON.stringify({ times, seconds: (performance.now() - begun) / 1000 }));
  };
  requestAnimationFrame(step);
})
"""


@contextmanager
def shown(recording: Recording, size: tuple[int, int]) -> Iterator[Page]:
    """Open a recording's page in a browser."""
    listening = listen("127.0.0.1", 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(create_view(recording_file(recording)), listening) as (url, _),
        opened(Path(folder), webgl=True) as page,
    ):
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0], height=size[1], deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        page.go(url)
        page.wait_for("document.getElementById('view')?.view3d?.frame.tracks.length > 0")
        yield page


def message_bytes(count: int) -> int:
    """Return the bytes of a live frame's message."""
    bodies = Bodies.none(3)
    bodies = bodies.with_values(
        **{
            name: np.zeros((count, *getattr(bodies, name).shape[1:]), getattr(bodies, name).dtype)
            for name in ("track", "global_orient", "body_pose", "betas", "joints_m")
        }
    )
    return len(frame_message(Frame(0, "", 0, 0.0, np.zeros((1, 1, 3), np.uint8)), bodies))


def scripting_s(page: Page) -> float:
    """Return the CPU time that the page's scripts have taken so far, in seconds."""
    metrics = page.call("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "ScriptDuration")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--people", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--size", default="1280x800")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    print("| people | CPU, ms | p50, ms | p95, ms | frames a second | bytes a message | a person |")
    print("| --: | --: | --: | --: | --: | --: | --: |")
    for count in given.people:
        everyone = {track: list(range(given.frames)) for track in range(1, count + 1)}
        recording = make_recording(posed_arrays(everyone))
        with shown(recording, (width, height)) as page:
            script = _MEASURE % {"fps": FPS, "frames": given.frames}
            page.call("Performance.enable", timeDomain="threadTicks")
            before_s = scripting_s(page)
            found = json.loads(page.run(script))
            cpu_ms = 1000 * (scripting_s(page) - before_s) / given.frames
        p50, p95 = np.percentile(found["times"], [50, 95])
        size = message_bytes(count)
        rate = given.frames / found["seconds"]
        print(
            f"| {count} | {cpu_ms:.2f} | {p50:.2f} | {p95:.2f} | {rate:.0f} | {size} | "
            f"{size / count:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
