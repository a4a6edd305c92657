"""Draws the frames and bodies of one source, hands them to the outputs and counts them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from app.body_renderer import BodyRenderer
from app.config import Config, RenderConfig
from app.outputs.base import Output, OutputClosed, RunInfo
from app.run_report import LONGEST_TRACKS, Progress, RunReport
from app.track_log import TrackLog
from pipeline.capture.base import Source
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies
from pipeline.core.stats import Stats
from pipeline.core.yuv import Pixels, YuvImage
from pipeline.gpu.transfer import own_stream, upload
from pipeline.runtime.estimator import BodyEstimator, FittedWindow
from pipeline.runtime.two_passes import SecondPass
from pipeline.tracking.extrapolate import PredictionError
from render.overlay import draw_hud, hud_size

_PROGRESS_S = 0.1


class Run(Protocol):
    """Delivers a source's frames with their bodies: a `Runner` or a `VideoStream`."""

    source: Source
    estimator: BodyEstimator
    stats: Stats
    low_latency: bool

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def windows(self) -> Iterator[FittedWindow]: ...

    def newest(self) -> Iterator[Frame]: ...

    def stop(self) -> None: ...


def renderer_name(config: Config, estimator: BodyEstimator) -> str:
    """Return the renderer's name; "auto" is the GPU's where the bodies are fitted on one."""
    if config.render.renderer != "auto":
        return config.render.renderer
    return "gpu" if estimator.device.type == "cuda" else "numba"


def _add_hud(picture: Pixels, lines: list[str]) -> None:
    if isinstance(picture, np.ndarray):
        draw_hud(picture, lines)
        return
    # Only the corner with the text becomes RGB and planes again.
    corner = picture.corner(hud_size(picture.size, lines)).rgb
    draw_hud(corner, lines, picture.size)
    picture.put_corner(corner)


class RenderLoop:
    """Draws each window's frames when its bodies are there, and writes them to the outputs.

    It belongs to the thread that calls `run`; `report` and `end_because` are for after it, or for
    another thread that ends it.

    Args:
        config: How to draw.
        runner: Delivers the windows.
        outputs: The outputs that get frames and bodies.
        on_progress: Called about ten times a second with the progress of the run; None for never.
    """

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
        self._renderer: BodyRenderer | None = None
        self._drawn_as = self._wanted = config.render
        self._begun_s = time.monotonic()
        self._next_progress_s = 0.0
        self._people: Counter[int] = Counter()
        self._tracks = TrackLog()
        self._ended = "end of the source"
        self._seconds = 0.0

    def run(self, stop: threading.Event) -> None:
        """Draw and write until the source ends, ``stop`` is set or an output's reader leaves.

        Raises:
            SourceError: The source is lost.
            OutputError: An output cannot be written.
        """
        try:
            with own_stream():
                self._draw_all()
            # A reason that was given earlier, such as a closed window, is more exact.
            if stop.is_set() and self._ended == "end of the source":
                self._ended = "stopped"
        except OutputClosed:
            self._ended = "an output was closed"
            # Ends the capture too; without this, frames would be read that nothing takes.
            self._runner.stop()
        finally:
            self._seconds = time.monotonic() - self._begun_s
            if self._renderer is not None:
                # In this thread, to which an OpenGL context belongs.
                self._renderer.close()

    def _draw_all(self) -> None:
        people = 0
        for window in self._runner.windows():
            self._draw_window(window)
            people = len(window[-1][1])
        self._next_progress_s = 0.0  # Else the bar of a complete run stops before its end.
        self._progress(people)

    def draw_as(self, settings: RenderConfig) -> None:
        """Draw with other settings from the next window on. From any thread."""
        self._wanted = settings

    def end_because(self, reason: str) -> None:
        """Set the reason for the end that the report gives."""
        self._ended = reason

    def _draw_window(self, window: FittedWindow) -> None:
        """Draw and write the frames of one window."""
        if self._renderer is None:
            self._make_renderer()
            for output in self._outputs:
                output.open(self.info(window[0][0]))
        elif self._drawn_as is not self._wanted:
            self._renderer.close()
            self._make_renderer()
        # A run with `--poses` alone, for example, draws nothing.
        pictures: Iterator[Pixels | None] = iter([None] * len(window))
        if any(output.needs_picture for output in self._outputs):
            pictures = self._draw(window)
        for frame, bodies in window:
            self._write(frame, bodies, next(pictures))

    def _make_renderer(self) -> None:
        """Make the renderer, in the thread that draws: an OpenGL context belongs to it."""
        estimator, self._drawn_as = self._runner.estimator, self._wanted
        name = renderer_name(self._config, estimator)
        self._renderer = BodyRenderer(name, self._drawn_as, estimator.body)

    def _write(self, frame: Frame, bodies: Bodies, picture: Pixels | None) -> None:
        stats = self._runner.stats
        with stats.time("write"):
            for output in self._outputs:
                output.write(frame, bodies, picture if output.needs_picture else None)
        # After the outputs: latency is from capture to the last of them.
        stats.drew(frame.captured_ns)
        self._people[len(bodies)] += 1
        self._tracks.add(frame.pts_s, bodies.track.tolist())
        self._progress(len(bodies))

    def _draw(self, window: FittedWindow) -> Iterator[Pixels]:
        """Yield the overlays of a window's frames.

        A CPU draws each when it is asked for, so that the first is written while the next is not
        yet drawn; a GPU draws all at once.
        """
        assert self._renderer is not None
        estimator, stats = self._runner.estimator, self._runner.stats
        together = window if self._renderer.together else None
        for part in [together] if together else [[one] for one in window]:
            with stats.time("draw", frames=len(part)):
                draw = self._renderer.draw_planes if self._as_planes() else self._renderer.draw
                pictures: Sequence[Pixels] = draw(
                    [self._image(frame) for frame, _ in part],
                    [bodies for _, bodies in part],
                    estimator.intrinsics(part[0][0]),
                )
                if self._has_hud():
                    for picture, (_, bodies) in zip(pictures, part):
                        _add_hud(picture, self._hud_lines(len(bodies)))
            yield from pictures

    def _as_planes(self) -> bool:
        """Whether pictures are planes: RGB for all where one output needs it, which would else
        convert each by itself."""
        assert self._renderer is not None
        with_picture = (output for output in self._outputs if output.needs_picture)
        return self._renderer.draws_planes and all(
            getattr(output, "takes_planes", False) for output in with_picture
        )

    def _image(self, frame: Frame) -> Any:
        assert self._renderer is not None
        if not self._renderer.together:
            return frame.image
        # A GPU's renderer takes the frame from its memory, so that it is not copied twice.
        if frame.on_device is None and isinstance(frame.pixels, YuvImage):
            frame = upload(Window((frame,)), self._runner.estimator.device).key_frame
        return frame.image if frame.on_device is None else frame.on_device

    def _has_hud(self) -> bool:
        hud = self._config.render.hud
        return self._runner.source.live if hud is None else hud

    def _hud_lines(self, count: int) -> list[str]:
        stats = self._runner.stats
        people = "1 person" if count == 1 else f"{count} people"
        lines = [f"{stats.live_fps():.1f} fps   {people}"]
        if self._runner.source.live:
            lines.append(f"{stats.live_latency_ms():.0f} ms behind")
        return lines

    def info(self, frame: Frame) -> RunInfo:
        """Return the facts of the whole run, by its first frame."""
        estimator, body = self._runner.estimator, self._runner.estimator.body
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
            camera_pose=self._config.capture.camera_pose,
            turn_of=estimator.turn_of if isinstance(estimator, SecondPass) else None,
        )

    def _progress(self, people: int) -> None:
        now = time.monotonic()
        # Ten times a second: a snapshot computes quantiles, which takes milliseconds.
        if self._on_progress is None or now < self._next_progress_s:
            return
        self._next_progress_s = now + _PROGRESS_S
        counted = self._runner.stats.snapshot()
        self._on_progress(
            Progress(
                frames_read=counted.read,
                frames_drawn=counted.drawn,
                dropped=sum(counted.dropped.values()),
                total=self._runner.source.info.frame_count,
                seconds=now - self._begun_s,
                fps=self._runner.stats.live_fps(),
                people=people,
            )
        )

    def prediction_error(self) -> PredictionError | None:
        """Return how far predicted bodies were from those fitted later; None: none were
        predicted."""
        return None

    def report(self) -> RunReport:
        """Return the result of the run; call it once everything is closed."""
        counted = self._runner.stats.snapshot()
        # A counter and not a list: a live source may run for weeks.
        counts = sorted(self._people.elements())
        stages = ("perceive", "fit", "predict", "draw", "write")  # from capture to output
        order = [name for name in stages if name in counted.stages_ms]
        latency = counted.latency_ms
        return RunReport(
            frames_read=counted.read,
            frames_drawn=counted.drawn,
            dropped=counted.dropped,
            fps=counted.fps,
            seconds=self._seconds,
            stages={
                name: (counted.stages_ms[name].p50_ms, counted.stages_ms[name].p95_ms)
                for name in order
            },
            latency_ms=(latency.p50_ms, latency.p95_ms, latency.p99_ms) if latency else None,
            tracks=len(self._tracks),
            people_median=counts[len(counts) // 2] if counts else 0,
            longest_tracks=self._tracks.longest(LONGEST_TRACKS),
            most_unfollowed=counted.most_unfollowed,
            frames_unfollowed=counted.frames_unfollowed,
            files=tuple(path for output in self._reported for path in output.files),
            warnings=(
                *self._runner.source.warnings,
                *self._runner.warnings,
                *(line for output in self._reported for line in output.warnings),
            ),
            ended=self._ended,
            engines=self._runner.estimator.reports,
            unfitted=counted.unfitted,
            prediction=self.prediction_error(),
        )
