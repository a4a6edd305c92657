"""Makes a running pipeline of a configuration; the only file of the app that knows every part."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from app.config import Config, size_of
from app.garbage import leave_out_loaded
from app.outputs.base import Output
from app.outputs.catalog import entries
from app.outputs.window import WindowOutput
from app.render_loop import RenderLoop
from app.render_loop_low_latency import make_render_loop
from app.run_report import Progress, RunReport
from app.two_passes import Until, first_pass, takes_two_passes
from pipeline.capture.base import Source, SourceOptions
from pipeline.capture.open import open_source
from pipeline.capture.picture import empty_image
from pipeline.core.problem import Notice
from pipeline.fitting.solver import FitConfig
from pipeline.gpu.device import EngineOptions, choose_device
from pipeline.gpu.transfer import pinned_image
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.make import make_estimator
from pipeline.runtime.runner import Runner
from pipeline.sam3d.options import Sam3dOptions

_GPU_PERCEIVERS = ("blazepose", "sam3d")
"""The perceivers that cut their crops from frames on the GPU; the others do it on the host."""
_GPU_STYLES = ("mannequin", "anatomical")


def make_outputs(config: Config) -> list[Output]:
    """Return the outputs of a configuration, none of them opened yet."""
    settings = config.output
    outputs: list[Output] = []
    for entry in entries():
        path = getattr(settings, entry.name)
        if path is not None:
            outputs.append(entry.make(path, settings))
    if settings.window:
        outputs.append(WindowOutput())
    return outputs


def run(
    config: Config,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_build: Callable[[str, int, int], None] | None = None,
    own_process: bool = False,
) -> RunReport:
    """Run a source to its end, or until ``stop`` is set, the window is closed or a pipe breaks.

    Call it from the main thread when a window is wanted. All files are complete, also after an
    error.

    Args:
        config: Everything about the run.
        on_progress: Called about ten times a second with the progress of the run.
        stop: Ends the run when it is set.
        on_build: Called with (name, done, of) while engines are built.
        own_process: Whether this process ends with the run; as `leave_out_loaded`.

    Raises:
        SourceError: The source cannot be read, or is lost.
        WeightsError: A model file is missing or is not the right one.
        OutputError, WindowError: An output cannot be written or shown.
        ValueError, RuntimeError: The estimator cannot be made.
    """
    # First, because `--jsonl -` takes standard output before anything else can print to it.
    outputs = make_outputs(config)
    window = next((out for out in outputs if isinstance(out, WindowOutput)), None)
    if window is not None:
        # First: a missing display is reported at once, and before any file is opened.
        window.start()
    source = source_of(config, stop)
    with ExitStack() as stack:
        # The stack closes in reverse: the runner, the outputs, the estimator, the source.
        stack.callback(source.close)
        # A source that is not there is reported before the models are loaded.
        source.open()
        estimator = load(config, on_build)
        stack.callback(estimator.close)
        if own_process:
            leave_out_loaded()
        return _run_opened(config, source, estimator, outputs, on_progress, stop)


def run_loaded(
    config: Config,
    estimator: BodyEstimator,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> RunReport:
    """Run a source to files, as `run`, with an estimator that is there already."""
    outputs = make_outputs(config)
    source = source_of(config, stop)
    with ExitStack() as stack:
        stack.callback(source.close)
        source.open()
        return _run_opened(config, source, estimator, outputs, on_progress, stop)


def _run_opened(
    config: Config,
    source: Source,
    estimator: BodyEstimator,
    outputs: list[Output],
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> RunReport:
    """Run an opened source; the outputs are closed in the end, whatever happens."""
    with ExitStack() as stack:
        for output in outputs:
            stack.callback(output.close)
        if isinstance(estimator, KeypointEstimator) and takes_two_passes(config, source, estimator):
            return _in_two_passes(config, source, estimator, outputs, on_progress, stop)
        note_unread_heights(config)
        runner = stack.enter_context(
            Runner(source, estimator, opened=True, low_latency=is_low_latency(config))
        )
        show = make_render_loop(config, runner, outputs, on_progress)
        window = next((out for out in outputs if isinstance(out, WindowOutput)), None)
        if window is None:
            show.run(stop)
        else:
            _beside_window(show, window, stop)
    # Only now are all files complete and all frames accounted for.
    return show.report()


def _in_two_passes(
    config: Config,
    source: Source,
    estimator: KeypointEstimator,
    outputs: list[Output],
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> RunReport:
    """Run an opened clip in two passes; the outputs are closed before what they need is deleted."""
    with first_pass(config, source, estimator, on_progress, stop) as first, ExitStack() as stack:
        stopped = stop.is_set()
        # After a stop, what was seen is still written: by a signal of its own.
        stop = threading.Event() if stopped else stop
        again: Source = Until(source_of(config, stop), first.last)
        stack.callback(again.close)
        for output in outputs:
            stack.callback(output.close)
        runner = stack.enter_context(Runner(again, first.estimator))
        show = make_render_loop(config, runner, outputs, on_progress)
        show.run(stop)
        stack.close()
        return first.report(show.report(), stopped)


def note_unread_heights(config: Config) -> None:
    """Say that given heights are not read, for a run in one pass."""
    if config.fit.given_heights:
        line = "--height and --heights act in the second of two passes alone, and this run has one"
        warnings.warn(line, Notice, stacklevel=2)


def is_low_latency(config: Config) -> bool:
    """Return whether frames are shown before they are fitted."""
    return config.output.timing == "low-latency"


def source_of(config: Config, stop: threading.Event) -> Source:
    """Return the configured source, not yet opened. Raises SourceError."""
    capture = config.capture
    # With low latency a clip is played at its own pace, as a camera's pictures come.
    pace = "live" if is_low_latency(config) else capture.pace
    return open_source(
        config.source,
        SourceOptions(
            live={"auto": None, "live": True, "every-frame": False}[pace],
            start_s=capture.start_s,
            seconds=capture.seconds,
            retry_s=capture.retry_s,
            rtsp_transport=capture.rtsp_transport,
            track=capture.track,
            size=None if capture.size is None else size_of(capture.size),
            fps=capture.fps,
            max_pixels=capture.max_pixels,
            memory_mb=capture.feed_memory_mb,
            decode=capture.decode,
            allocate=allocator(config),
            planes=reads_on_gpu(config),
        ),
        stop=stop,
    )


def allocator(config: Config) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Return the function that allocates the frames' memory: page-locked where a GPU copies
    them from there."""
    # Only copies to a GPU gain from page-locked memory.
    return empty_image if choose_device(config.device).type == "cpu" else pinned_image


def reads_on_gpu(config: Config) -> bool:
    """Return whether all that reads whole frames does so on a GPU, where planes become RGB for
    less than on the host."""
    there = choose_device(config.device).type == "cuda"
    drawn = config.render.renderer in ("auto", "gpu") and config.render.style in _GPU_STYLES
    return there and drawn and config.perceive.perceiver in _GPU_PERCEIVERS


def load(config: Config, on_build: Callable[[str, int, int], None] | None = None) -> BodyEstimator:
    """Return the configured estimator, loaded and ready. Raises as `make_estimator`."""
    for line in _not_read(config):
        warnings.warn(line, Notice, stacklevel=2)
    made = make_estimator(config.estimator, **estimator_settings(config), on_progress=on_build)
    if is_low_latency(config):
        made.warm_up(config.perceive.people, low_latency=True)
    return made


def _not_read(config: Config) -> Iterator[str]:
    """Say which settings the chosen estimator does not read."""
    chosen = {config.estimator, config.perceive.perceiver}
    if config.perceive.sam3d != Sam3dOptions() and "sam3d" not in chosen:
        yield "settings of SAM 3D Body are read with --estimator sam3d alone"
    if config.perceive.sam3d.every > 1 and config.perceive.sam3d.reuse != "landmarks":
        yield "--sam3d-every is read with --sam3d-reuse landmarks alone"
    if config.perceive.model_file is not None and chosen == {"keypoints", "blazepose"}:
        yield "--model is not read by BlazePose; name --estimator sam3d, instanthmr or onnx"


def estimator_settings(config: Config) -> dict[str, Any]:
    """Return the configured fields of `EstimatorOptions`, by name."""
    engine = config.engine
    return {
        "people": config.perceive.people,
        "areas": config.perceive.areas,
        "perceiver": config.perceive.perceiver,
        "masks": config.perceive.masks,
        "depth": config.perceive.depth,
        "depth_scale": config.perceive.depth_scale,
        "reuse": config.perceive.reuse,
        "body": config.fit.body,
        "device": config.device,
        "model_folder": config.perceive.weights,
        "model": config.perceive.model_file,
        "keypoints": config.perceive.keypoints,
        "sam3d": config.perceive.sam3d,
        "mhr_mesh": config.render.draw == "mhr" or config.output.mhr_vertices,
        "fov_deg": config.capture.fov_deg,
        "focal_px": config.capture.focal_px,
        "fit": FitConfig(
            iterations=config.fit.iterations, cold_iterations=config.fit.cold_iterations
        ),
        "engine": EngineOptions(engine.name, engine.half, engine.graphs, engine.cache, engine.fp8),
    }


def _beside_window(show: RenderLoop, window: WindowOutput, stop: threading.Event) -> None:
    """Run the loop in a thread of its own while the main thread serves the window's events."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            show.run(stop)
        except BaseException as error:
            failed.append(error)

    # Window systems allow only the main thread.
    worker = threading.Thread(target=work, name="show")
    worker.start()
    try:
        while worker.is_alive():
            if not window.poll():
                # Before `stop`, or the report would say "stopped".
                show.end_because("the window was closed")
                stop.set()
                break
        worker.join()
    finally:
        stop.set()
        worker.join()
        window.stop()
    # In the main thread, where the command reports it.
    if failed:
        raise failed[0]
