"""`run` over a clip in two passes: the second one knows the future."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.config import Config
from app.outputs.base import OutputError
from app.outputs.catalog import entries
from app.outputs.streams import is_stream
from app.run_report import Progress, RunReport
from pipeline.capture.base import Source
from pipeline.capture.errors import SourceError
from pipeline.capture.open import local_path
from pipeline.capture.pictures import is_pictures
from pipeline.core.frame import Frame
from pipeline.core.stats import Stats
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.refine import height_warnings, refine
from pipeline.runtime.runner import Runner
from pipeline.runtime.track_store import StoreError, TrackStore
from pipeline.runtime.two_passes import FirstPass, SecondPass

_PROGRESS_S = 0.1
_FIRST = "first of two passes"
STOPPED = "stopped: what was seen is fitted and written; stop again to end at once"
"""Printed when a run is stopped before its second pass."""


def takes_two_passes(config: Config, source: Source, estimator: BodyEstimator) -> bool:
    """Return whether a run over an opened source is made in two passes."""
    return is_clip_to_files(config) and fits_tracks(estimator) and not source.live


def is_clip_to_files(config: Config) -> bool:
    """Return whether a source is a clip that goes to files, and is not to be played as a live one.

    What is seen or read while the run goes on, as a window or a pipe, cannot wait for the end of
    the clip.
    """
    output = config.output
    paths = [getattr(output, entry.name) for entry in entries()]
    to_files = not output.window and not any(is_stream(p) for p in paths if p is not None)
    path = os.path.expanduser(local_path(config.source))
    local = os.path.isfile(path) or is_pictures(path)
    later = output.timing != "low-latency" and config.capture.pace != "live"
    return not config.fit.one_pass and to_files and local and later


def fits_tracks(estimator: BodyEstimator) -> bool:
    """Return whether tracks can be fitted as a whole to what an estimator sees."""
    # A network that reports bodies of its own is fitted frame by frame to those.
    return isinstance(estimator, KeypointEstimator) and not estimator.perceiver.has_skin


@dataclass(frozen=True, eq=False)
class Refined:
    """A first pass that is done, with its tracks fitted again.

    Attributes:
        estimator: Gives the bodies of the second pass.
        last: The number of the last frame that was fitted, -1 if none was.
        stats: The counts and times of the first pass.
        seconds: What it took.
        warnings: The errors that did not end it, a line each.
    """

    estimator: SecondPass
    last: int
    stats: Stats
    seconds: float
    warnings: tuple[str, ...]

    def report(self, second: RunReport, stopped: bool) -> RunReport:
        """Return the report of both passes, by that of the second one."""
        first = self.stats.snapshot()
        seconds = self.seconds + second.seconds
        mine = {n: first.stages_ms[n] for n in ("perceive", "fit", "refit") if n in first.stages_ms}
        later = {n: times for n, times in second.stages.items() if n not in ("perceive", "fit")}
        return replace(
            second,
            stages={n: (times.p50_ms, times.p95_ms) for n, times in mine.items()} | later,
            seconds=seconds,
            fps=second.frames_drawn / seconds if seconds else 0.0,
            # From a frame's second reading, which says nothing.
            latency_ms=None,
            most_unfollowed=first.most_unfollowed,
            frames_unfollowed=first.frames_unfollowed,
            warnings=tuple(dict.fromkeys((*self.warnings, *second.warnings))),
            ended="stopped" if stopped and second.ended == "end of the source" else second.ended,
        )


@contextmanager
def first_pass(
    config: Config,
    source: Source,
    estimator: KeypointEstimator,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> Iterator[Refined]:
    """Run the first pass over an opened source; what it keeps on disk is deleted after the block.

    When ``stop`` is set the pass ends early, and what it has seen is fitted again all the same.

    Raises:
        SourceError: The source is lost.
        OutputError: The disk is full.
    """
    begun_s = time.monotonic()
    stats, file = Stats(), _facts(config.source)
    with _store_of(config) as store:
        first = FirstPass(estimator, store)
        show = _Steps(source, stats, on_progress, begun_s)
        last = -1
        with Runner(source, first, stats=stats, opened=True) as runner:
            for window in runner.windows():
                last = window[-1][0].id
                for frame, bodies in window:
                    stats.drew(frame.captured_ns)
                    show.frame(len(bodies))
                if stop.is_set():
                    runner.stop()
        warnings = (*source.warnings, *runner.warnings)
        # In a worker's process it is its parent's to say.
        if stop.is_set() and multiprocessing.parent_process() is None:
            print(STOPPED, file=sys.stderr, flush=True)
        store.finish()
        pose, heights = config.capture.camera_pose, config.fit.given_heights
        refine(store, estimator, first.interval_s, show.track, stats, pose, first.camera, heights)
        warnings += height_warnings(store, estimator, heights)
        if first.camera.warning:
            warnings = (*warnings, f"{source.name}: {first.camera.warning}")
        if _facts(config.source) != file:
            raise SourceError(
                f"{source.name}: changed while it was fitted, and its second pass needs it as it "
                "was; run again, or with --one-pass"
            )
        made = SecondPass(estimator, store, first.camera)
        yield Refined(made, last, stats, time.monotonic() - begun_s, warnings)


def _facts(source: str) -> tuple[int, int] | None:
    """Return a file's size and time of change; None of a folder, or of a file that is gone."""
    path = os.path.expanduser(local_path(source))
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


@contextmanager
def _store_of(config: Config) -> Iterator[TrackStore]:
    """A store beside the first output, for the length of the block."""
    try:
        store = TrackStore(_folder(config))
        try:
            yield store
        finally:
            store.close()
    except StoreError as error:
        raise OutputError(f"{error}; --one-pass keeps nothing there") from None


def _folder(config: Config) -> Path:
    """Return the folder of the first output: a folder for temporary files may be in memory."""
    paths = (getattr(config.output, entry.name) for entry in entries())
    files = (Path(path) for path in paths if path is not None and str(path) != os.devnull)
    return next((file.absolute().parent for file in files), Path(tempfile.gettempdir()))


class _Steps:
    """Reports the progress of the first pass, about ten times a second."""

    def __init__(
        self, source: Source, stats: Stats, on_progress: Callable[[Progress], None], begun_s: float
    ) -> None:
        self._source, self._stats, self._on_progress = source, stats, on_progress
        self._begun_s, self._next_s, self._frames = begun_s, 0.0, 0

    def frame(self, people: int) -> None:
        self._frames += 1
        self._report(self._source.info.frame_count, self._frames, people, _FIRST)

    def track(self, done: int, of: int) -> None:
        half = of // 2
        if half:
            words = f"fitting track {done % half + 1} of {half} again, {done // half + 1} of 2"
            self._report(of, done, 0, words)

    def _report(self, total: int | None, done: int, people: int, stage: str) -> None:
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + _PROGRESS_S
        # Tracks are no frames.
        fps = self._stats.live_fps() if stage == _FIRST else 0.0
        spent_s = now - self._begun_s
        self._on_progress(Progress(done, done, 0, total, spent_s, fps, people, stage))


class Until:
    """A source up to a frame, for a second pass over what the first one saw.

    Args:
        source: Not yet opened.
        last: The number of its last frame.
    """

    def __init__(self, source: Source, last: int) -> None:
        self._source, self._last = source, last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order."""
        for frame in self._source.frames():
            if frame.id > self._last:
                return
            yield frame
            if frame.id == self._last:
                return
