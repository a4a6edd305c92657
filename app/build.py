"""From a configuration to a running pipeline; the only file that knows every part."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from app.config import Config, size_of
from app.outputs.base import Output
from app.outputs.catalog import entries
from app.outputs.window import WindowOutput
from app.render_loop import RenderLoop
from app.render_loop_low_latency import make_render_loop
from app.run_report import Progress, RunReport
from pipeline.capture.base import Source, SourceOptions
from pipeline.capture.open import open_source
from pipeline.capture.picture import empty_image
from pipeline.fitting.solver import FitConfig
from pipeline.gpu.transfer import pinned_image
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.runner import Runner
from pipeline.runtime.stream import EngineOptions, choose_device, make_estimator


def make_outputs(config: Config) -> list[Output]:
    """Return the outputs of a configuration, none of them opened yet."""
    settings = config.output
    outputs: list[Output] = []
    for entry in entries():
        path = getattr(settings, entry.name)
        if path is not None:
            options = {name: getattr(settings, name) for name in entry.options}
            outputs.append(entry.load()(path, **options))
    if settings.window:
        outputs.append(WindowOutput())
    return outputs


def run(
    config: Config,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_build: Callable[[str, int, int], None] | None = None,
) -> RunReport:
    """Run a source to its end, or until ``stop`` is set, the window closed or a pipe broken.
    ``on_build`` is told of what is built before (its name, done, of).

    Call it from the main thread when a window is wanted. Raises SourceError, WeightsError,
    OutputError, WindowError, ValueError or RuntimeError; what was written before is complete.
    """
    outputs = make_outputs(config)
    window = next((out for out in outputs if isinstance(out, WindowOutput)), None)
    if window is not None:
        window.start()
    source = source_of(config, stop)
    with ExitStack() as stack:
        stack.callback(source.close)
        # A source that is not there is told before the models are loaded.
        source.open()
        estimator = load(config, on_build)
        stack.callback(estimator.perceiver.close)
        for output in outputs:
            stack.callback(output.close)
        runner = stack.enter_context(
            Runner(source, estimator, opened=True, low_latency=is_low_latency(config))
        )
        show = make_render_loop(config, runner, outputs, on_progress)
        if window is None:
            show.run(stop)
        else:
            _beside_window(show, window, stop)
    # Only now are all files complete and all frames accounted for.
    return show.report()


def is_low_latency(config: Config) -> bool:
    """Whether frames are shown before they are fitted."""
    return config.output.timing == "low-latency"


def source_of(config: Config, stop: threading.Event) -> Source:
    """The configured source, not yet opened. Raises SourceError."""
    capture = config.capture
    # What is shown at once is played at its own pace.
    pace = "live" if is_low_latency(config) else capture.pace
    return open_source(
        config.source,
        SourceOptions(
            live={"auto": None, "live": True, "every-frame": False}[pace],
            start_s=capture.start_s,
            seconds=capture.seconds,
            retry_s=capture.retry_s,
            rtsp_transport=capture.rtsp_transport,
            size=None if capture.size is None else size_of(capture.size),
            fps=capture.fps,
            decode=capture.decode,
            allocate=allocator(config),
        ),
        stop=stop,
    )


def allocator(config: Config) -> Callable[[tuple[int, ...]], np.ndarray]:
    """The memory that frames are decoded into: page-locked where a GPU takes them from there."""
    return empty_image if choose_device(config.device).type == "cpu" else pinned_image


def load(
    config: Config, on_build: Callable[[str, int, int], None] | None = None
) -> KeypointEstimator:
    """Everything between frames and bodies, as configured."""
    wanted = config.engine
    return make_estimator(
        people=config.perceive.people,
        masks=config.perceive.masks,
        depth=config.perceive.depth,
        depth_scale=config.perceive.depth_scale,
        reuse=config.perceive.reuse,
        body=config.fit.body,
        device=config.device,
        model_folder=config.perceive.weights,
        fov_deg=config.capture.fov_deg,
        focal_px=config.capture.focal_px,
        fit=FitConfig(iterations=config.fit.iterations, cold_iterations=config.fit.cold_iterations),
        engine=EngineOptions(wanted.name, wanted.half, wanted.graphs, wanted.cache),
        on_progress=on_build,
    )


def _beside_window(show: RenderLoop, window: WindowOutput, stop: threading.Event) -> None:
    """The pipeline in a thread of its own while the main thread looks after the window."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            show.run(stop)
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=work, name="show")
    worker.start()
    try:
        while worker.is_alive():
            if not window.poll():
                show.end_because("the window was closed")
                stop.set()
                break
        worker.join()
    finally:
        stop.set()
        worker.join()
        window.stop()
    if failed:
        raise failed[0]
