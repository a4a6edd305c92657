"""Draws, writes and counts what a pipeline delivers, for one source."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from app.config import Config
from app.outputs.base import Output, OutputClosed, RunInfo
from app.run_report import Progress, RunReport
from pipeline.capture.base import Source
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.stats import Stats
from pipeline.gpu.transfer import own_stream
from pipeline.runtime.estimator import BodyEstimator
from pipeline.tracking.extrapolate import PredictionError
from render.base import Renderer
from render.overlay import draw_hud, make_renderer, track_color

_PROGRESS_S = 0.1


class Run(Protocol):
    """What delivers a source's frames with their bodies: a `pipeline.runtime.runner.Runner`, or a
    `pipeline.runtime.video_stream.VideoStream`."""

    source: Source
    estimator: BodyEstimator
    stats: Stats
    low_latency: bool

    def windows(self) -> Iterator[list[tuple[Frame, Bodies]]]: ...

    def newest(self) -> Iterator[Frame]: ...

    def stop(self) -> None: ...


def renderer_name(config: Config, estimator: BodyEstimator) -> str:
    """Which renderer draws: "auto" is the GPU's where the bodies are fitted on one."""
    if config.render.renderer != "auto":
        return config.render.renderer
    return "gpu" if estimator.device.type == "cuda" else "numba"


class RenderLoop:
    """Draws, writes and counts what the pipeline delivers."""

    def __init__(
        self,
        config: Config,
        runner: Run,
        outputs: list[Output],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._config = config
        self._runner = runner
        self._outputs = self._reported = outputs
        self._on_progress = on_progress
        self._renderer: Renderer | None = None
        self._begun_s = time.monotonic()
        self._next_progress_s = 0.0
        self._people: Counter[int] = Counter()
        self._tracks: set[int] = set()
        self._ended = "end of the source"
        self._seconds = 0.0

    def run(self, stop: threading.Event) -> None:
        """Everything until the source ends, ``stop`` is set or nobody reads an output."""
        try:
            with own_stream():
                self._show_all()
            if stop.is_set() and self._ended == "end of the source":
                self._ended = "stopped"
        except OutputClosed:
            self._ended = "an output was closed"
            self._runner.stop()
        finally:
            self._seconds = time.monotonic() - self._begun_s
            if self._renderer is not None:
                self._renderer.close()

    def _show_all(self) -> None:
        for window in self._runner.windows():
            self._several(window)

    def end_because(self, reason: str) -> None:
        self._ended = reason

    def _several(self, window: list[tuple[Frame, Bodies]]) -> None:
        """Draw and write the frames of one window."""
        if self._renderer is None:
            # Made here: an OpenGL context belongs to the thread that draws.
            self._renderer = make_renderer(renderer_name(self._config, self._runner.estimator))
            for output in self._outputs:
                output.open(self.info(window[0][0]))
        pictures: Iterator[np.ndarray | None] = iter([None] * len(window))
        if any(output.needs_picture for output in self._outputs):
            pictures = self._draw(window)
        for frame, bodies in window:
            self._one(frame, bodies, next(pictures))

    def _one(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        stats = self._runner.stats
        with stats.time("write"):
            for output in self._outputs:
                output.write(frame, bodies, picture if output.needs_picture else None)
        stats.drew(frame.captured_ns)
        self._people[len(bodies)] += 1
        self._tracks.update(bodies.track.tolist())
        self._progress(len(bodies))

    def _draw(self, window: list[tuple[Frame, Bodies]]) -> Iterator[np.ndarray]:
        """The overlays of a window's frames: one after another as they are asked for, or on a GPU
        all in one go."""
        assert self._renderer is not None
        estimator, stats = self._runner.estimator, self._runner.stats
        together = window if self._renderer.together else None
        for part in [together] if together else [[one] for one in window]:
            with stats.time("draw", frames=len(part)):
                pictures = self._renderer.draw_batch(
                    [self._image(frame) for frame, _ in part],
                    [bodies.vertices_m for _, bodies in part],
                    estimator.body.faces,
                    [self._colors(bodies) for _, bodies in part],
                    estimator.intrinsics(part[0][0]),
                    self._config.render.alpha,
                )
                if self._config.render.hud:
                    for picture, (_, bodies) in zip(pictures, part):
                        draw_hud(picture, self._words(len(bodies)))
            yield from pictures

    def _image(self, frame: Frame) -> Any:
        assert self._renderer is not None
        there = self._renderer.together and frame.on_device is not None
        return frame.on_device if there else frame.image

    @staticmethod
    def _colors(bodies: Bodies) -> np.ndarray:
        return np.array([track_color(int(track)) for track in bodies.track]).reshape(-1, 3)

    def _words(self, count: int) -> list[str]:
        stats = self._runner.stats
        people = "1 person" if count == 1 else f"{count} people"
        words = [f"{stats.live_fps():.1f} fps   {people}"]
        if self._runner.source.live:
            words.append(f"{stats.live_latency_ms():.0f} ms behind")
        return words

    def info(self, frame: Frame) -> RunInfo:
        """What holds for the whole run, by its first frame."""
        estimator = self._runner.estimator
        body = estimator.body
        return RunInfo(
            source=self._runner.source.name,
            fps=self._runner.source.info.fps,
            width=frame.size[1],
            height=frame.size[0],
            intrinsics=estimator.intrinsics(frame),
            model=body.name,
            faces=body.faces,
            gender=body.gender,
            intrinsics_of=estimator.intrinsics,
            live=self._runner.source.live,
        )

    def _progress(self, people: int) -> None:
        now = time.monotonic()
        if self._on_progress is None or now < self._next_progress_s:
            return
        self._next_progress_s = now + _PROGRESS_S
        seen = self._runner.stats.snapshot()
        self._on_progress(
            Progress(
                frames_read=seen.read,
                frames_drawn=seen.drawn,
                dropped=sum(seen.dropped.values()),
                total=self._runner.source.info.frame_count,
                seconds=now - self._begun_s,
                fps=self._runner.stats.live_fps(),
                people=people,
            )
        )

    def prediction_error(self) -> PredictionError | None:
        """How far predicted bodies were from those fitted later; None where none are predicted."""
        return None

    def report(self) -> RunReport:
        """How it went; call it once everything is closed."""
        seen = self._runner.stats.snapshot()
        counts = sorted(self._people.elements())
        with_body = sum(count for people, count in self._people.items() if people)
        stages = ("perceive", "fit", "predict", "draw", "write")
        order = [name for name in stages if name in seen.stages_ms]
        latency = seen.latency_ms
        return RunReport(
            frames_read=seen.read,
            frames_drawn=seen.drawn,
            dropped=seen.dropped,
            fps=seen.fps,
            seconds=self._seconds,
            stages={
                name: (seen.stages_ms[name].p50_ms, seen.stages_ms[name].p95_ms) for name in order
            },
            latency_ms=(latency.p50_ms, latency.p95_ms, latency.p99_ms) if latency else None,
            tracks=len(self._tracks),
            people_median=counts[len(counts) // 2] if counts else 0,
            coverage=with_body / len(counts) if counts else 0.0,
            files=tuple(path for output in self._reported for path in output.files),
            warnings=(
                *self._runner.source.warnings,
                *(line for output in self._reported for line in output.warnings),
            ),
            ended=self._ended,
            engines=self._runner.estimator.reports,
            unfitted=seen.unfitted,
            prediction=self.prediction_error(),
        )
