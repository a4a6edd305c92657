"""Measure what the scheduler itself costs with many sources: CPU time a window, by thread.

The sources send one picture at 30 Hz and the estimator answers at once, so that all that is left is
the way of frames, windows and results. Run it:

    python -m benchmarks.scheduler_overhead --sources 64
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.capture.base import SourceDefaults, SourceInfo
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.runtime.estimator import DetectedWindow, FittedWindow
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream

FPS = 30.0


class Still(SourceDefaults):
    """A live source of the same picture."""

    live = True

    def __init__(self, name: str, image: np.ndarray) -> None:
        self.name = name
        self.warnings: list[str] = []
        height, width = image.shape[:2]
        self.info = SourceInfo(name, True, width, height, FPS, None, "raw")
        self._image, self._closed = image, threading.Event()

    def open(self) -> None:
        pass

    def frames(self) -> Iterator[Frame]:
        begun_s = time.monotonic()
        for k in range(1 << 60):
            if self._closed.wait(max(0.0, begun_s + k / FPS - time.monotonic())):
                return
            yield Frame(k, self.name, time.monotonic_ns(), k / FPS, self._image)

    def close(self) -> None:
        self._closed.set()


class Instant:
    """An estimator that detects no one, at once."""

    def begin(self) -> Any:
        return None

    def perceive(self, windows: Sequence[Window], states: Sequence[Any]) -> list[DetectedWindow]:
        return [DetectedWindow(window, ({},) * len(window.frames)) for window in windows]

    def fit(self, detected: Sequence[DetectedWindow], states: Sequence[Any]) -> list[FittedWindow]:
        return [[(frame, None) for frame in one.window.frames] for one in detected]  # type: ignore[misc]


def cpu_s(thread: threading.Thread) -> float:
    """Return the CPU time of a thread so far, in seconds."""
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def measure(sources: int, size: tuple[int, int], seconds: float) -> dict[str, float]:
    """Return microseconds of CPU time a window, by the thread's work, and the latency.

    Args:
        sources: How many sources.
        size: The (width, height) of their picture.
        seconds: How long to measure, after as long without.
    """
    image = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    waits_ms: list[float] = []
    windows = 0

    def read(stream: VideoStream) -> None:
        nonlocal windows
        for fitted in stream.windows():
            windows += 1
            waits_ms.append((time.monotonic_ns() - fitted[-1][0].captured_ns) / 1e6)

    with StreamScheduler(Instant()) as scheduler:  # type: ignore[arg-type]
        streams = [scheduler.add(f"s{k}", Still(f"s{k}", image)) for k in range(sources)]
        readers = [threading.Thread(target=read, args=(stream,)) for stream in streams]
        for reader in readers:
            reader.start()
        time.sleep(seconds)
        names = ("perceive", "fit", "capture")
        kinds = {
            name: [t for t in threading.enumerate() if t.name.startswith(name)] for name in names
        }
        kinds["read"] = readers
        before = {name: sum(map(cpu_s, threads)) for name, threads in kinds.items()}
        windows_before = windows
        waits_ms.clear()
        time.sleep(seconds)
        after = {name: sum(map(cpu_s, threads)) for name, threads in kinds.items()}
        count = max(windows - windows_before, 1)
        latency = np.percentile(waits_ms or [0.0], (50, 95))
        dropped = sum(sum(stream.stats.snapshot().dropped.values()) for stream in streams)
    for reader in readers:
        reader.join()
    spent = {name: 1e6 * (after[name] - before[name]) / count for name in kinds}
    wanted = sources * FPS / WINDOW_FRAMES * seconds
    return {
        **spent, "windows, %": 100 * count / wanted, "last frame to reader p50, ms": latency[0],
        "p95, ms": latency[1], "dropped frames": dropped,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sources", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080))
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    for sources in args.sources:
        figures = measure(sources, tuple(args.size), args.seconds)
        print(f"{sources} sources: CPU time a window, us: ", end="")
        print(", ".join(f"{name} {value:.1f}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
