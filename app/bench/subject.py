"""The pipelines that the rows measure, from frames in host memory to overlays in host memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

import numpy as np
import torch

from app.bench import upstream_imports
from app.bench.networks import WRITERS
from app.bench.random_sam3d import random_sam3d
from app.bench.rows import Row, Settings
from app.bench.timers import NoTimer, Timer
from app.body_renderer import colors_of, drawn_mesh, meshes_for_gpu
from pipeline.core.frame import Window
from pipeline.core.people import Bodies, Person
from pipeline.core.yuv import Pixels
from pipeline.gpu.device import EngineOptions
from pipeline.gpu.transfer import PlanesCopy
from pipeline.perception.base import Perceiver, PerceiverOptions
from pipeline.perception.crops import CropNetwork, CropQuery
from pipeline.perception.sam3d import perceiver_of
from pipeline.perception.top_down import TopDown
from pipeline.runtime.estimator import EstimatorOptions, FittedWindow
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.make import make_keypoint_estimator
from pipeline.weights import store as weights
from render.base import Scene
from render.overlay import make_renderer

ALPHA = 0.85


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished window.

    Attributes:
        pictures: Its overlays. They may be in buffers that the next ``submit`` overwrites.
        people: The most people drawn in one of them.
    """

    pictures: Sequence[Pixels]
    people: int


class Pipeline(Protocol):
    """A pipeline that a row measures. A source's next window is submitted only after its last one
    was collected.

    Attributes:
        engine: What runs, in words.
        weights: Whether the networks have their real weights or random ones.
        at_once: How many windows of different sources may go into one ``submit``.
        depth: How many tickets may be open at a time.
    """

    engine: str
    weights: Literal["real", "random"]
    at_once: int
    depth: int

    def warm_up(self, sources: int) -> None:
        """Make ready for whatever that many sources bring at once, as `serve` does: what is
        captured while they play makes all of them wait."""
        ...

    def begin(self) -> Any:
        """Return the state of a new source."""
        ...

    def submit(self, windows: Sequence[Window], states: Sequence[Any], timer: Timer) -> Any:
        """Start work on one window of each of several sources.

        Args:
            windows: The windows.
            states: The state of each window's source; it is changed.
            timer: Marks the stages: upload, detect, landmarks (or perceive), fit, draw, download.

        Returns:
            A ticket for ``collect``.
        """
        ...

    def collect(self, ticket: Any) -> list[Finished]:
        """Wait until the overlays are in host memory, and return one result for each window."""
        ...

    def close(self) -> None:
        """Release what the pipeline holds."""
        ...


def run(pipeline: Pipeline, window: Window, state: Any, timer: Timer) -> Finished:
    """Run one window from beginning to end."""
    return pipeline.collect(pipeline.submit([window], [state], timer))[0]


def missing(
    row: Row, weights_folder: Path | None = None, upstream_folder: Path | None = None
) -> str | None:
    """Return why a row cannot be measured on this machine, in a few words; None if it can.

    Args:
        row: The row.
        weights_folder: A folder that is searched for weights first.
        upstream_folder: A clone of the original SAM 3D Body.
    """
    # The quick checks first; finding weights may compute a file's hash.
    if row.settings.device == "cuda" and not torch.cuda.is_available():
        return "needs a CUDA GPU"
    if row.gpus > torch.cuda.device_count():
        return f"needs {row.gpus} GPUs"
    for module, extra in row.packages:
        if importlib.util.find_spec(module) is None:
            return f"needs {module}: pip install 'bodystream[{extra}]'"
    if row.settings.upstream:
        backbone = row.settings.network.removeprefix("sam3d-")
        reason = upstream_imports.missing(upstream_folder, backbone)
        if reason is not None:
            return reason
    try:
        weights.find("blazepose", weights_folder)
    except weights.WeightsError as error:
        return str(error).splitlines()[-1]
    return None


@contextmanager
def rounding(tf32: bool | None) -> Iterator[None]:
    """Allow or forbid rounding FP32 products and convolutions to TF32 on a GPU, within a ``with``
    block; None changes nothing."""
    if tf32 is None:
        yield
        return
    # Two switches: torch keeps products and convolutions apart.
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = tf32
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


class _TimedPerceiver(Perceiver):
    """A perceiver that marks its two halves as stages of ``timer``, which can be replaced."""

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


def weights_of(settings: Settings) -> Literal["real", "random"]:
    """Return which weights a row's networks have."""
    return "random" if settings.network else "real"


def make_estimator(settings: Settings) -> KeypointEstimator:
    """Return the estimator of a row: the app's own, or one whose network has random weights.

    Raises:
        WeightsError: A network's weights are missing.
        RuntimeError: The engine is not available.
    """
    options = EstimatorOptions(
        people=settings.people,
        device=settings.device,
        model_folder=settings.weights_folder,
        engine=EngineOptions(settings.engine, settings.half, settings.graphs, fp8=settings.fp8),
        sam3d=settings.sam3d,
    )
    if not settings.network:
        return make_keypoint_estimator(options)
    if settings.network.startswith("sam3d"):
        return make_keypoint_estimator(options, _random_sam3d(settings))
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"random-{settings.network}.onnx"
        WRITERS[settings.network](file)
        return make_keypoint_estimator(replace(options, perceiver=settings.network, model=file))


def _random_sam3d(settings: Settings) -> Callable[[PerceiverOptions], Perceiver]:
    """Makes a perceiver of SAM 3D Body with random weights."""

    def make(options: PerceiverOptions) -> Perceiver:
        network = random_sam3d(settings.network.removeprefix("sam3d-"), options.device)
        perceiver = perceiver_of(network, options)
        if settings.engine == "eager":
            assert isinstance(perceiver, TopDown)
            perceiver.network = _OneByOne(perceiver.network)
        return perceiver

    return make


class _OneByOne(CropNetwork):
    """A crop network that answers one query at a time, as the original does with frames."""

    def __init__(self, network: CropNetwork) -> None:
        self._network = network
        self.name, self.reports = network.name, network.reports
        self.has_confidence, self.has_mhr = network.has_confidence, network.has_mhr
        self.has_skin = network.has_skin

    def measure(self, queries: Sequence[CropQuery]) -> list[Person]:
        return [self._network.measure([query])[0] for query in queries]


def copy_back(drawn: Any, planes: bool) -> Callable[[], Sequence[Pixels]]:
    """Return a function that waits for the pictures that the GPU's renderer has queued; planes are
    on their way before it is called."""
    return PlanesCopy(drawn.images).result if planes else drawn.pictures


class GpuPipeline:
    """The app's own parts on the GPU, one after another in one thread and on one CUDA stream."""

    # The scheduler has no limit; the networks and the fit cut a batch into parts themselves.
    at_once = 64
    depth = 1

    def __init__(self, settings: Settings) -> None:
        self.weights = weights_of(settings)
        self._planes, self._people = settings.planes, settings.people
        self._estimator = make_estimator(settings)
        self._renderer = make_renderer(settings.renderer)
        self.engine = "; ".join((*self._estimator.reports, f"drawn by {self._renderer.name}"))

    def warm_up(self, sources: int) -> None:
        self._estimator.warm_up(sources * self._people)

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
            # Only queued: `collect` waits for the pictures.
            return timer, self._queue(fitted)

    def collect(self, ticket: tuple[Timer, list[tuple[Any, int]]]) -> list[Finished]:
        timer, queued = ticket
        with timer("download"):
            copies = [copy_back(drawn, self._planes) for drawn, _ in queued]
            return [Finished(copy(), people) for copy, (_, people) in zip(copies, queued)]

    def close(self) -> None:
        self._estimator.close()
        self._renderer.close()

    def _queue(self, fitted: Sequence[FittedWindow]) -> list[tuple[Any, int]]:
        """The pending pictures of each window, and the most people in one of them."""
        scenes = [scene_of(window, self._estimator.intrinsics(window[0][0])) for window in fitted]
        drawn = self._renderer.queue(  # type: ignore[attr-defined]
            scenes, self._estimator.body.faces, ALPHA
        )
        most = [max(len(bodies) for _, bodies in window) for window in fitted]
        return list(zip(drawn, most, strict=True))


def scene_of(window: FittedWindow, intrinsics: np.ndarray) -> Scene:
    """Return a window whose frames are on the GPU, for `GpuRenderer.queue`."""
    return Scene(
        [frame.on_device for frame, _ in window],
        meshes_for_gpu([bodies for _, bodies in window]),
        [colors_of(bodies) for _, bodies in window],
        intrinsics,
    )


class HostPipeline:
    """The app's own parts on the CPU, one after another in one thread. Torch uses one thread, as in
    the live pipeline's fit; LiteRT uses two of its own."""

    at_once = 1
    depth = 1

    def __init__(self, settings: Settings) -> None:
        self.weights = weights_of(settings)
        self._estimator = make_estimator(settings)
        reports = self._estimator.reports if settings.network else ()
        self._perceiver = _TimedPerceiver(self._estimator.perceiver)
        # The wrapper times both networks, which the estimator runs in one call.
        self._estimator.perceiver = self._perceiver
        self._renderer = make_renderer(settings.renderer)
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.engine = ", ".join((*reports, "LiteRT", "torch on the CPU", self._renderer.name))

    def warm_up(self, sources: int) -> None:
        """Do nothing: a CPU captures nothing."""

    def begin(self) -> Any:
        return self._estimator.begin()

    def submit(
        self, windows: Sequence[Window], states: Sequence[Any], timer: Timer
    ) -> list[Finished]:
        self._perceiver.timer = timer
        return [self._run(window, state, timer) for window, state in zip(windows, states)]

    def collect(self, ticket: list[Finished]) -> list[Finished]:
        return ticket

    def close(self) -> None:
        self._perceiver.close()
        self._renderer.close()
        torch.set_num_threads(self._threads)

    def _run(self, window: Window, state: Any, timer: Timer) -> Finished:
        perceived = self._estimator.perceive([window], [state])[0]
        with timer("fit"):
            fitted = self._estimator.fit([perceived], [state])[0]
        with timer("draw"):
            pictures = [self._draw(frame, bodies) for frame, bodies in fitted]
        return Finished(pictures, max(len(bodies) for _, bodies in fitted))

    def _draw(self, frame: Any, bodies: Bodies) -> np.ndarray:
        return self._renderer.draw(
            frame.image,
            drawn_mesh(bodies),
            self._estimator.body.faces,
            colors_of(bodies),
            self._estimator.intrinsics(frame),
            ALPHA,
        )
