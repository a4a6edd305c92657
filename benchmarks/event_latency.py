"""Measure the latency of events: from the capture of a release's frame to the finished report.

The sample clip plays at its own rate again and again, as a live source that drops frames that come
too fast. The report of every throw (measures, bodies, pictures) is timed, and the frames that were
drawn meanwhile are counted, with event detection and without. Run it:

    python -m benchmarks.event_latency
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from app.body_renderer import BodyRenderer
from app.build import load
from app.config import Config, load_config
from app.outputs.base import RunInfo
from app.render_loop import RenderLoop, renderer_name
from app.reports.dispatcher import EventDispatcher, info_of_event
from pipeline.capture.base import SourceDefaults, SourceInfo
from pipeline.capture.open import open_source
from pipeline.core.frame import Frame
from pipeline.events.detect import Detector
from pipeline.events.motion import load_motion
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.runner import Runner

SAMPLE = Path(__file__).parents[1] / "samples" / "pitch.mp4"
RELEASE = 60
_FIRST = 3
"""The first passes are not counted: in them a GPU captures its graphs."""


class RepeatedClip(SourceDefaults):
    """A live source that plays a clip's pictures at ``fps``, ``times`` times."""

    live = True

    def __init__(self, images: list[np.ndarray], fps: float, times: int) -> None:
        self.name, self.warnings = "again", []
        self._images, self._fps, self._times = images, fps, times
        self._closed = threading.Event()
        height, width = images[0].shape[:2]
        self.info = SourceInfo(self.name, True, width, height, fps, None, "raw")

    def open(self) -> None: ...

    def close(self) -> None:
        self._closed.set()

    def frames(self) -> Iterator[Frame]:
        begun, count = time.monotonic(), len(self._images)
        for number in range(count * self._times):
            wait = begun + number / self._fps - time.monotonic()
            if wait > 0 and self._closed.wait(wait):
                return
            image = self._images[number % count].copy()
            # The clip jumps back here, so the tracks must not go on.
            broken = number > 0 and number % count == 0
            yield Frame(
                number, self.name, time.monotonic_ns(), number / self._fps, image, broken
            )  # fmt: skip


class CountingOutput:
    """An output that discards its pictures and counts the ones from a given frame on."""

    needs_picture = True
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(self, first: int) -> None:
        self._first, self.written = first, 0

    def open(self, info: RunInfo) -> None: ...

    def write(self, frame: Frame, *_: object) -> None:
        self.written += frame.id >= self._first

    def close(self) -> None: ...


def measure(
    config: Config,
    estimator: KeypointEstimator,
    images: list[np.ndarray],
    throws: int,
    fps: float,
    watched: bool,
) -> dict:
    """Return the latencies of the reports (ms), their errors in frames, the share of frames that
    were drawn and the times of the stages, all without the first passes."""
    source, records = RepeatedClip(images, fps, throws + _FIRST), []
    watch = Detector(load_motion()) if watched else None
    with Runner(source, estimator, opened=True, watch=watch) as runner:
        dispatcher = None
        if watched:
            dispatcher = EventDispatcher(
                runner, lambda event: info_of_event("again", runner, event), [records.append],
                partial(
                    BodyRenderer, renderer_name(config, estimator), config.render, estimator.body
                ),
            ).start()  # fmt: skip
        output = CountingOutput(_FIRST * len(images))
        show = RenderLoop(config, runner, [output], lambda _: None)
        show.run(threading.Event())
        # Before the dispatcher, which waits for the run's last event.
        runner.close()
        if dispatcher is not None:
            dispatcher.close()
    report = show.report()
    counted = [record.data for record in records]
    counted = [data for data in counted if data["release_frame"] >= _FIRST * len(images)]
    return {
        "latency_ms": [data["latency_ms"] for data in counted],
        "errors": [data["release_frame"] % len(images) - RELEASE for data in counted],
        "drawn": output.written / (throws * len(images)),
        "stages": {
            name: (stage.p50_ms, stage.p95_ms)
            for name, stage in runner.stats.snapshot().stages_ms.items()
        },
        "latency": report.latency_ms,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--throws", type=int, default=12)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    source = open_source(str(SAMPLE))
    source.open()
    images = [frame.image for frame in source.frames()]
    source.close()
    flags = {"device": args.device, "engine.name": args.engine, "perceive.people": 1}
    config = load_config(flags=flags)
    estimator = load(config)
    estimator.warm_up(config.perceive.people, events=True)
    # Without detection too: the difference in drawn frames is its cost.
    for watched in (True, False):
        found = measure(config, estimator, images, args.throws, args.fps, watched)
        words = f"{100 * found['drawn']:.1f} % of the frames drawn"
        if watched:
            p50, p95 = np.percentile(found["latency_ms"], (50, 95))
            print(
                f"{len(found['latency_ms'])} of {args.throws} throws reported, "
                f"{sum(abs(error) <= 1 for error in found['errors'])} within a frame; "
                f"to the report {p50:.0f} ms (p95 {p95:.0f}); {words}"
            )
            print("   ms:", [round(latency_ms) for latency_ms in found["latency_ms"]])
            print("   frames from the truth:", found["errors"])
        else:
            print(f"without event detection: {words}")
        stages = {name: f"{a:.1f}/{b:.1f}" for name, (a, b) in found["stages"].items()}
        print("   a frame, ms:", stages)
    estimator.close()


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
