"""`run A B C` over clips that go to files: one after the other, in two passes each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from app.build import run_loaded
from app.config import Config
from app.outputs.base import OutputError
from app.run_report import Progress, RunReport
from app.source_result import Result, end_of, failed, line_of, not_begun
from app.two_passes import is_clip_to_files
from pipeline.capture.errors import SourceError
from pipeline.capture.open import check_there
from pipeline.core.problem import one_line
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.faults import fit_blank, perceive_blank


def can_run_in_turn(config: Config) -> bool:
    """Return whether a source can wait for others: a clip to files, or one that is not there and
    ends at once."""
    try:
        check_there(config.source)
    except SourceError:
        return True
    return is_clip_to_files(config)


def run_in_turn(
    configs: Mapping[str, Config],
    estimator: BodyEstimator,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_result: Callable[[Result], None],
) -> list[Result]:
    """Run clips one after the other; as `multi_run.run_many`."""
    results: list[Result] = []
    broken = ""
    for name, config in configs.items():
        if stop.is_set() or broken:
            results.append(not_begun(name, broken))
            continue
        done = len(results)

        def show(progress: Progress, done: int = done) -> None:
            on_progress(replace(progress, clips_done=done, clips=len(configs)))

        try:
            results.append(run_clip(name, config, estimator, show, stop))
        except EstimatorBroken as error:
            broken = str(error)
            results.append(failed(name, broken))
        on_result(results[-1])
    return results


class EstimatorBroken(RuntimeError):
    """The estimator fails on a blank picture too: no other clip can be run with it."""


def run_clip(
    name: str,
    config: Config,
    estimator: BodyEstimator,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> Result:
    """Run one of several clips; an error of it is its result.

    Raises:
        EstimatorBroken: The error was the estimator's, which cannot go on.
    """
    try:
        report = run_loaded(config, estimator, on_progress=on_progress, stop=stop)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if not isinstance(error, SourceError | OutputError):
            _check_works(estimator, error)
        return Result(name, RunReport(0, 0, ended=end_of(error)), line_of(name, error))
    return Result(name, report, None)


def _check_works(estimator: BodyEstimator, error: BaseException) -> None:
    """Check that an estimator still works after an error. Raises EstimatorBroken."""
    try:
        perceive_blank(estimator)
        fit_blank(estimator)
    except Exception:
        line = f"the estimator has failed, on a blank picture too: {one_line(error)}"
        raise EstimatorBroken(line) from error


class Turns:
    """The clips that are still to be run, for several workers that take one at a time.

    Args:
        configs: Each clip's configuration, by name.
        stop: No more clips are given once it is set.
    """

    def __init__(self, configs: Mapping[str, Config], stop: threading.Event) -> None:
        self._waiting, self._stop = deque(configs.items()), stop
        self._running: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Whether `next` will give no more clips: those that are run may come again."""
        return self._stop.is_set() or not (self._waiting or self._running)

    def next(self) -> tuple[str, Config] | None:
        """Return the next clip's name and configuration, None if there is none."""
        if self._stop.is_set() or not self._waiting:
            return None
        name, config = self._waiting.popleft()
        self._running.add(name)
        return name, config

    def ended(self, name: str) -> None:
        """Take note that a clip has ended, in whatever way."""
        self._running.discard(name)

    def again(self, name: str, config: Config) -> None:
        """Put a clip back, as the next one."""
        self._running.discard(name)
        self._waiting.appendleft((name, config))


class TurnProgress:
    """Adds up the progress of workers that run one clip each at a time.

    Frames are those that were drawn; those of a clip that fails or begins again are left out.

    Args:
        clips: The number of all clips.
        on_progress: Called with the sum, from one thread.
        clock_s: A monotonic clock in seconds.
    """

    def __init__(
        self,
        clips: int,
        on_progress: Callable[[Progress], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clips, self._on_progress, self._clock_s = clips, on_progress, clock_s
        self._begun_s = clock_s()
        self._done = self._frames = 0
        self._latest: dict[str, Progress] = {}

    def of(self, worker: str) -> Callable[[Progress], None]:
        """Return what takes the progress of a worker's clip."""

        def update(progress: Progress) -> None:
            self._latest[worker] = progress
            self._show()

        return update

    def begins_again(self, worker: str) -> None:
        """Take note that a worker's clip begins again, with it or with another worker."""
        self._latest.pop(worker, None)
        self._show()

    def ended(self, worker: str, result: Result) -> None:
        """Take the result of a worker's clip."""
        self._latest.pop(worker, None)
        self._done += 1
        self._frames += result.report.frames_drawn
        self._show()

    def _show(self) -> None:
        now = list(self._latest.values())
        frames = self._frames + sum(each.frames_drawn for each in now if not each.stage)
        self._on_progress(
            Progress(
                frames_read=frames,
                frames_drawn=frames,
                dropped=sum(each.dropped for each in now),
                total=None,
                seconds=self._clock_s() - self._begun_s,
                fps=sum(each.fps for each in now),
                people=sum(each.people for each in now),
                clips_done=self._done,
                clips=self._clips,
            )
        )
