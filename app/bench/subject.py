"""What the rows measure: a pipeline from frames in host memory to overlays in host memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from app.bench.rows import Row, Settings
from app.bench.timers import NoTimer, Timer
from pipeline.core.frame import Window
from pipeline.core.people import Bodies
from pipeline.gpu.device import EngineOptions
from pipeline.perception.base import Perceiver
from pipeline.runtime.estimator import EstimatorOptions
from pipeline.runtime.make import make_keypoint_estimator
from pipeline.weights import store as weights
from render.overlay import make_renderer, track_color

ALPHA = 0.85


@dataclass(frozen=True, eq=False)
class Finished:
    """A window's overlays, RGB uint8 (H, W, 3) each, and the most people drawn in one of them.
    The pictures may lie in buffers that the next ``submit`` writes again."""

    pictures: Sequence[np.ndarray]
    people: int


class Pipeline(Protocol):
    """What a row drives.

    ``engine`` says in words what ran, ``weights`` whether the model's own or random numbers.
    ``at_once`` windows (of different sources) may go into one ``submit``, and ``depth`` tickets
    may be open at a time; a source's next window is submitted after its last was collected.
    """

    engine: str
    weights: Literal["real", "random"]
    at_once: int
    depth: int

    def begin(self) -> Any:
        """The state of a new source."""
        ...

    def submit(self, windows: Sequence[Window], states: Sequence[Any], timer: Timer) -> Any:
        """Start work on a window of each of several sources; a ticket for ``collect``. Stages
        are marked with ``timer``: upload, detect, landmarks (or perceive), fit, draw, download."""
        ...

    def collect(self, ticket: Any) -> list[Finished]:
        """Wait until the overlays are in host memory; one Finished a window."""
        ...

    def close(self) -> None: ...


def run(pipeline: Pipeline, window: Window, state: Any, timer: Timer) -> Finished:
    """One window, from beginning to end."""
    return pipeline.collect(pipeline.submit([window], [state], timer))[0]


def missing(row: Row, weights_folder: Path | None = None) -> str | None:
    """Why a row cannot be measured on this machine, in a few words; None if it can."""
    if row.settings.device == "cuda" and not torch.cuda.is_available():
        return "needs a CUDA GPU"
    for module, extra in row.packages:
        if importlib.util.find_spec(module) is None:
            return f"needs {module}: pip install 'bodystream[{extra}]'"
    try:
        weights.find("blazepose", weights_folder)
    except weights.WeightsError as error:
        return str(error).splitlines()[-1]
    return None


@contextmanager
def rounding(tf32: bool | None) -> Iterator[None]:
    """Allow or forbid, while the block runs, that FP32 products and convolutions on a GPU are
    rounded to TF32; None leaves it as it is."""
    if tf32 is None:
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = tf32
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


class _TimedPerceiver(Perceiver):
    """A perceiver whose two halves are stages of a timer that can be exchanged."""

    def __init__(self, perceiver: Any) -> None:
        self._perceiver = perceiver
        self.name = perceiver.name
        self.timer: Timer = NoTimer()

    def embed(self, window: Window, memory: Any) -> Any:
        with self.timer("detect"):
            return self._perceiver.embed(window, memory)

    def decode(self, embedding: Any, window: Window) -> Any:
        with self.timer("landmarks"):
            return self._perceiver.decode(embedding, window)

    def close(self) -> None:
        self._perceiver.close()


class GpuPipeline:
    """The app's own parts on the GPU, one after another in one thread and on one stream."""

    weights: Literal["real", "random"] = "real"
    at_once = 16
    depth = 1

    def __init__(self, settings: Settings) -> None:
        self._estimator = make_keypoint_estimator(
            EstimatorOptions(
                people=settings.people,
                device="cuda",
                model_folder=settings.weights_folder,
                engine=EngineOptions(settings.engine, settings.half, settings.graphs),
            )
        )
        self._renderer = make_renderer(settings.renderer)
        self.engine = "; ".join((*self._estimator.reports, f"drawn by {self._renderer.name}"))

    def begin(self) -> Any:
        return self._estimator.begin()

    def submit(
        self, windows: Sequence[Window], states: Sequence[Any], timer: Timer
    ) -> tuple[Timer, list[tuple[Any, int]]]:
        estimator, perceiver = self._estimator, self._estimator.perceiver
        with timer("upload"):
            windows = [perceiver.prepare(window) for window in windows]
        with timer("perceive"):
            perceived = estimator.perceive(windows, states)
        with timer("fit"):
            fitted = estimator.fit(perceived, states)
        with timer("draw"):
            return timer, [self._queue(window) for window in fitted]

    def collect(self, ticket: tuple[Timer, list[tuple[Any, int]]]) -> list[Finished]:
        timer, queued = ticket
        with timer("download"):
            return [Finished(drawn.pictures(), people) for drawn, people in queued]

    def close(self) -> None:
        self._estimator.close()
        self._renderer.close()

    def _queue(self, fitted: Sequence[tuple[Any, Bodies]]) -> tuple[Any, int]:
        drawn = self._renderer.queue(  # type: ignore[attr-defined]
            [frame.on_device for frame, _ in fitted],
            [bodies.vertices_m for _, bodies in fitted],
            self._estimator.body.faces,
            [colors_of(bodies) for _, bodies in fitted],
            self._estimator.intrinsics(fitted[0][0]),
            ALPHA,
        )
        return drawn, max(len(bodies) for _, bodies in fitted)


def colors_of(bodies: Bodies) -> np.ndarray:
    """Each body's colour (P, 3) in [0, 1]."""
    return np.array([track_color(int(track)) for track in bodies.track]).reshape(-1, 3)


class HostPipeline:
    """The app's own parts on the CPU, one after another in one thread. Torch has one thread, as
    the live pipeline's fit has; LiteRT has its own two."""

    weights: Literal["real", "random"] = "real"
    at_once = 1
    depth = 1

    def __init__(self, settings: Settings) -> None:
        self._estimator = make_keypoint_estimator(
            EstimatorOptions(
                people=settings.people, device="cpu", model_folder=settings.weights_folder
            )
        )
        self._perceiver = _TimedPerceiver(self._estimator.perceiver)
        self._estimator.perceiver = self._perceiver
        self._renderer = make_renderer(settings.renderer)
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.engine = f"LiteRT, torch on the CPU, {self._renderer.name}"

    def begin(self) -> Any:
        return self._estimator.begin()

    def submit(
        self, windows: Sequence[Window], states: Sequence[Any], timer: Timer
    ) -> list[Finished]:
        self._perceiver.timer = timer
        return [self._one(window, state, timer) for window, state in zip(windows, states)]

    def collect(self, ticket: list[Finished]) -> list[Finished]:
        return ticket

    def close(self) -> None:
        self._perceiver.close()
        self._renderer.close()
        torch.set_num_threads(self._threads)

    def _one(self, window: Window, state: Any, timer: Timer) -> Finished:
        perceived = self._estimator.perceive([window], [state])[0]
        with timer("fit"):
            fitted = self._estimator.fit([perceived], [state])[0]
        with timer("draw"):
            pictures = [self._draw(frame, bodies) for frame, bodies in fitted]
        return Finished(pictures, max(len(bodies) for _, bodies in fitted))

    def _draw(self, frame: Any, bodies: Bodies) -> np.ndarray:
        return self._renderer.draw(
            frame.image,
            bodies.vertices_m,
            self._estimator.body.faces,
            colors_of(bodies),
            self._estimator.intrinsics(frame),
            ALPHA,
        )
