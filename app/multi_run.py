"""`run A B C`: several sources through one estimator, each with outputs of its own.

Clips that go to files are run one after the other, in two passes each, as each of them alone is.
Where a camera or a feed is among them, all are run side by side in one pass.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from app.build import is_low_latency, load, make_outputs, note_unread_heights, source_of
from app.clips_in_turn import can_run_in_turn, run_in_turn
from app.config import Config, ConfigError, OutputConfig
from app.garbage import leave_out_loaded
from app.outputs.base import Output
from app.outputs.catalog import entries
from app.outputs.streams import is_stream
from app.render_loop import RenderLoop
from app.render_loop_low_latency import make_render_loop
from app.run_report import Progress
from app.source_result import Result, end_of, line_of
from app.two_passes import fits_tracks, is_clip_to_files
from pipeline.core.problem import Notice
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream


def outputs_of(output: OutputConfig, name: str) -> OutputConfig:
    """Return the outputs of one of several sources: OUT.mp4 becomes OUT_NAME.mp4, DIR becomes
    DIR/NAME.

    Raises:
        ConfigError: The window, standard output or a pipe, which serve one source, are among them.
    """
    if output.window:
        raise ConfigError("--window: shows one source; `serve` shows several on a page")
    paths = {entry: getattr(output, entry.name) for entry in entries()}
    own: dict[str, Any] = {}
    for entry, path in paths.items():
        if path is None or str(path) == os.devnull:
            continue
        if is_stream(path):
            raise ConfigError(f"{entry.flag} {path}: takes one source; give a file's name")
        own[entry.name] = entry.path_of(path, name)
    return replace(output, **own)


def run_many(
    configs: Mapping[str, Config],
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_build: Callable[[str, int, int], None] | None = None,
    on_result: Callable[[Result], None] = lambda _: None,
    side_by_side: bool = False,
) -> list[Result]:
    """Run several sources to their ends, or until ``stop`` is set, in a process of its own.

    A source that fails ends alone, whether it cannot be read, estimated, drawn or written, and its
    `Result` says why. What was written is complete, whatever is raised.

    Args:
        configs: Each source's configuration, by name; the first one's describes the estimator.
        on_progress: Called with the sum of all sources' progress.
        stop: Ends all sources when it is set.
        on_build: Called with (name, done, of) while engines are built.
        on_result: Called with the result of each source that was begun, as soon as it is known.
        side_by_side: Run all at once, also where all are clips: live sources are run elsewhere.

    Raises:
        WeightsError, ValueError, RuntimeError: The run cannot be done.
    """
    # One estimator for all: its networks fill the memory once, and batches hold several sources.
    first = next(iter(configs.values()))
    with closing(load(first, on_build)) as estimator:
        leave_out_loaded()
        in_turn = fits_tracks(estimator) and all(map(can_run_in_turn, configs.values()))
        if in_turn and not side_by_side:
            return run_in_turn(configs, estimator, on_progress, stop, on_result)
        _note_one_pass(configs, estimator)
        results = _side_by_side(configs, estimator, on_progress, stop)
    for result in results:
        on_result(result)
    return results


def _side_by_side(
    configs: Mapping[str, Config],
    estimator: BodyEstimator,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> list[Result]:
    """Run all sources at once, in one pass, each with a thread that draws and writes."""
    shows: list[_SourceThread] = []
    with ExitStack() as stack:
        # After the scheduler's end: the threads still finish what was written.
        stack.callback(_join, shows)
        faults: list[BaseException] = []
        progress = ProgressSum(on_progress)
        scheduler = stack.enter_context(StreamScheduler(estimator, on_error=faults.append))
        with ExitStack() as unstarted:
            for name, config in configs.items():
                outputs = make_outputs(config)
                for output in outputs:
                    unstarted.callback(output.close)
                stream = scheduler.add(
                    name, source_of(config, stop), low_latency=is_low_latency(config)
                )  # fmt: skip
                show = make_render_loop(config, stream, outputs, progress.of(name))
                shows.append(_SourceThread(stream, show, outputs, faults))
            # From here on each thread closes its own.
            unstarted.pop_all()
        for shown in shows:
            # Only once every source is set up: an error before this leaves no thread drawing.
            shown.thread.start()
        _wait(shows, stop)
    if faults:
        raise faults[0]
    return [shown.result() for shown in shows]


def _note_one_pass(configs: Mapping[str, Config], estimator: BodyEstimator) -> None:
    """Say what a run side by side leaves out: heights, and the second pass of a clip that would
    get one without the others."""
    note_unread_heights(next(iter(configs.values())))
    if fits_tracks(estimator) and any(map(is_clip_to_files, configs.values())):
        line = "clips beside live sources take one pass; run without those, they get two"
        warnings.warn(line, Notice, stacklevel=2)


class _SourceThread:
    """Draws and writes one source's results in a thread of its own."""

    def __init__(
        self,
        stream: VideoStream,
        show: RenderLoop,
        outputs: Sequence[Output],
        faults: Sequence[BaseException],
    ) -> None:
        self.stream, self._show, self._outputs, self._faults = stream, show, outputs, faults
        self._stop = threading.Event()
        self._error: str | None = None
        self.thread = threading.Thread(target=self._run, name=f"show {stream.name}")

    def _run(self) -> None:
        with self._one_fault():
            self._show.run(self._stop)
        self.stream.stop()
        for output in self._outputs:
            # Each by itself: the others' files are completed all the same.
            with self._one_fault():
                output.close()

    @contextmanager
    def _one_fault(self) -> Iterator[None]:
        """Keep the first error of this source, which ends none of the others."""
        try:
            yield
        except BaseException as error:
            # An error of the estimator reaches every source; it is reported once.
            if self._error is None and error not in self._faults:
                self._error = line_of(self.stream.name, error)
                # The reason stands in the report's table; the line is printed as an error.
                self._show.end_because(end_of(error))

    def stop(self) -> None:
        self._stop.set()
        self.stream.stop()

    def result(self) -> Result:
        # Frames that the scheduler still holds must be counted as dropped first.
        self.stream.settle()
        return Result(self.stream.name, self._show.report(), self._error)


def _join(shows: Sequence[_SourceThread]) -> None:
    for shown in shows:
        # A thread that was never started cannot be joined.
        if shown.thread.ident is not None:
            shown.thread.join()


def _wait(shows: Sequence[_SourceThread], stop: threading.Event) -> None:
    """Wait until all have ended; once ``stop`` is set, end them."""
    ending = False
    while any(shown.thread.is_alive() for shown in shows):
        if stop.is_set() and not ending:
            ending = True
            for shown in shows:
                shown.stop()
        for shown in shows:
            # Short, so that `stop` is noticed soon after a signal has set it.
            shown.thread.join(0.05)


class ProgressSum:
    """Adds up the progress of several sources.

    Args:
        on_progress: Called with the sum whenever a part has changed.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._latest: dict[str, Progress] = {}

    def of(self, name: str) -> Callable[[Progress], None]:
        """Return what takes the progress of one part, from any thread."""

        def update(progress: Progress) -> None:
            with self._lock:
                # Under the lock: the sources report from threads of their own.
                self._latest[name] = progress
                self._on_progress(self._sum())

        return update

    def _sum(self) -> Progress:
        every = list(self._latest.values())
        # One source of unknown length makes the whole unknown.
        totals = [each.total for each in every]
        return Progress(
            frames_read=sum(each.frames_read for each in every),
            frames_drawn=sum(each.frames_drawn for each in every),
            dropped=sum(each.dropped for each in every),
            total=None if None in totals else sum(total or 0 for total in totals),
            seconds=max(each.seconds for each in every),
            fps=sum(each.fps for each in every),
            people=sum(each.people for each in every),
        )
