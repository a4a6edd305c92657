"""Measure the delay from making a picture to showing it, compared with a bare loop that only
decodes and shows.

An RTSP server draws the clock into every picture. A bare loop and the app read the same stream at
the same time, and each frame's delay in the app is compared with its delay in the loop. Without
GStreamer, --via udp lets FFmpeg send the same pictures as an MPEG transport stream. Run it:

    python -m benchmarks.glass_to_glass [--seconds 15] [--device auto]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

# isort: split
import av

from app.build import is_low_latency, load, source_of
from app.config import Config, load_config
from app.outputs.base import RunInfo
from app.render_loop_low_latency import make_render_loop
from app.run_report import RunReport
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.runner import Runner
from tests.support.clock_pictures import Pictures
from tests.support.rtsp import RtspServer, clock_ms

SAMPLE = Path(__file__).parents[1] / "samples" / "pitch.mp4"
SIZE, FPS = (640, 360), 25
_WARM_S = 4.0
"""The first seconds are not measured: the detector still searches everywhere."""


def raw_pictures(folder: Path) -> Path:
    """Write the sample clip as raw I420 pictures, forwards and backwards, so that it never jumps;
    return the path."""
    with av.open(str(SAMPLE)) as container:
        pictures = [
            frame.reformat(*SIZE, format="yuv420p").to_ndarray().tobytes()
            for frame in container.decode(video=0)
        ]
    path = folder / "pictures.yuv"
    path.write_bytes(b"".join([*pictures, *pictures[-2:0:-1]]))
    return path


def send(addresses: list[str], pictures: Path) -> None:
    """Send pictures with the clock as H.264 to UDP ports, without end. Runs in its own process."""
    made = Pictures(*SIZE, str(pictures))
    # 1316 bytes: seven transport stream packets, which fit into one Ethernet frame.
    outputs = [av.open(f"{address}?pkt_size=1316", "w", format="mpegts") for address in addresses]
    streams = []
    for output in outputs:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        # A reader may join at any time and has to wait for a key frame.
        stream.codec_context.gop_size = 10
        stream.options = {"tune": "zerolatency", "preset": "ultrafast"}
        streams.append(stream)
    begun, number = time.monotonic(), 0
    while True:
        time.sleep(max(begun + number / FPS - time.monotonic(), 0.0))
        rows = np.frombuffer(made.next(), np.uint8).reshape(-1, SIZE[0])
        for output, stream in zip(outputs, streams):
            frame = av.VideoFrame.from_ndarray(rows, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        number += 1


class Shown:
    """An output that notes the time (s) of each picture, by the clock (ms) drawn into it."""

    needs_picture = True
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self.bodies: list[int] = []

    def open(self, info: RunInfo) -> None: ...

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert picture is not None
        self.at.setdefault(clock_ms(picture), time.monotonic())
        self.bodies.append(len(bodies))

    def close(self) -> None: ...


class BareLoop:
    """A loop that only decodes; it notes the time of each picture as `Shown` does."""

    def __init__(self, address: str) -> None:
        self.at: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(address,))
        self._thread.start()

    def _run(self, address: str) -> None:
        options = {"fpsprobesize": "2"}
        if address.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        with av.open(address, options=options) as container:
            stream = container.streams.video[0]
            # Frame threads would hold back a frame each.
            stream.thread_type = "SLICE"
            for frame in container.decode(stream):
                picture = frame.to_ndarray(format="rgb24")
                self.at.setdefault(clock_ms(picture), time.monotonic())
                if self._ended.is_set():
                    return

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@dataclass(frozen=True)
class Delays:
    """Delays from making a picture to showing it, in milliseconds (p50, p95, p99).

    Attributes:
        bare: The delays of the bare loop.
        app: The delays of the app.
        added: How much later the app showed the same pictures.
        shown: The share of the loop's pictures that the app showed.
        with_body: The share of these with a body.
        report: The app's own report.
    """

    bare: tuple[float, float, float]
    app: tuple[float, float, float]
    added: tuple[float, float, float]
    shown: float
    with_body: float
    report: RunReport


def measure(
    config: Config, estimator: KeypointEstimator, addresses: tuple[str, str], seconds: float
) -> Delays:
    """Run the app and the bare loop at the same time and compare them.

    Args:
        config: The app's configuration.
        estimator: The estimator.
        addresses: The address for the app, and the one for the loop; of the same stream.
        seconds: How long to measure.
    """
    config = replace(config, source=addresses[0], render=replace(config.render, hud=False))
    stop = threading.Event()
    output = Shown()
    source = source_of(config, stop)
    source.open()
    with Runner(source, estimator, opened=True, low_latency=is_low_latency(config)) as runner:
        show = make_render_loop(config, runner, [output], lambda _: None)
        worker = threading.Thread(target=show.run, args=(stop,))
        worker.start()
        time.sleep(_WARM_S)
        bare = BareLoop(addresses[1])
        time.sleep(0.5)
        begun_ms = time.monotonic() * 1e3
        time.sleep(seconds)
        # Pictures of the last second may still be on their way through the app.
        ended_ms = time.monotonic() * 1e3 - 1000.0
        time.sleep(1.0)
        bare.end()
        runner.stop()
        worker.join()
    made = [ms for ms in bare.at if begun_ms < ms < ended_ms]
    both = [ms for ms in made if ms in output.at]
    loop = np.array([1e3 * bare.at[ms] - ms for ms in both])
    app = np.array([1e3 * output.at[ms] - ms for ms in both])

    def quantiles(delays_ms: np.ndarray) -> tuple[float, float, float]:
        p50, p95, p99 = np.percentile(delays_ms, (50, 95, 99))
        return float(p50), float(p95), float(p99)

    bodies = np.array(output.bodies[len(output.bodies) // 3 :]) > 0
    return Delays(
        quantiles(loop), quantiles(app), quantiles(app - loop), len(both) / len(made),
        float(bodies.mean()), show.report(),
    )  # fmt: skip


@contextmanager
def stream(via: str, pictures: Path) -> Iterator[tuple[str, str]]:
    """Start a stream and yield its two addresses."""
    if via == "rtsp":
        size = f"{SIZE[0]}x{SIZE[1]}"
        server = RtspServer(0, "--fps", str(FPS), "--size", size, "--picture", str(pictures))
        try:
            yield server.url(), server.url()
        finally:
            server.kill()
        return
    addresses = ["udp://127.0.0.1:23571", "udp://127.0.0.1:23572"]
    sender = multiprocessing.get_context("spawn").Process(target=send, args=(addresses, pictures))
    sender.start()
    try:
        yield addresses[0], addresses[1]
    finally:
        # It sends without end.
        sender.kill()
        sender.join()


def measure_all(
    device: str, seconds: float, via: str = "rtsp", engine: str = "auto"
) -> dict[str, Delays]:
    """Measure both timings, "low-latency" and "sync", one after the other."""
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = raw_pictures(Path(folder))
        with stream(via, pictures) as addresses:
            flags = {"device": device, "engine.name": engine, "perceive.people": 1}
            estimator = load(load_config(flags=flags))
            for timing in ("low-latency", "sync"):
                config = load_config(flags={**flags, "output.timing": timing})
                out[timing] = measure(config, estimator, addresses, seconds)
            estimator.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--via", choices=("rtsp", "udp"), default="rtsp")
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    by_timing = measure_all(options.device, options.seconds, options.via, options.engine)
    print(f"{SIZE[0]}x{SIZE[1]} at {FPS} fps; ms, p50 / p95 / p99")
    for timing, delays in by_timing.items():
        rows = {"bare loop": delays.bare, f"--{timing}": delays.app, "added": delays.added}
        for name, values in rows.items():
            print(f"{name:16}", " / ".join(f"{value:.0f}" for value in values))
        print(f"shown {delays.shown:.0%}, with a body {delays.with_body:.0%}")
        report = delays.report
        stages = {name: f"{p50:.1f}/{p95:.1f}" for name, (p50, p95) in report.stages.items()}
        print("a frame:", stages)
        print(f"read {report.frames_read}, dropped {dict(report.dropped)}")
        if report.prediction is not None:
            print(report.prediction)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
