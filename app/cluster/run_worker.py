"""A worker of `run --cluster`, in its own process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.build import load
from app.clips_in_turn import run_clip
from app.config import Config
from app.garbage import leave_out_loaded
from app.multi_run import run_many
from app.run_report import Progress
from app.run_workers import Share
from app.source_result import Result
from pipeline.core.problem import Notice
from pipeline.runtime.estimator import BodyEstimator


class RunWorker:
    """Runs sources; made by Ray, in a process of its own."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._progress: tuple[str, Progress] | None = None
        self._estimator: BodyEstimator | None = None

    def load(self, config: Config) -> list[str]:
        """Load the estimator for clips that come one at a time; return its notices."""
        with _noticing() as notices:
            self._estimator = load(config)
        leave_out_loaded()
        return notices

    def run_clip(self, name: str, config: Config) -> tuple[Result, list[str]]:
        """Run one clip, after `load`, to its end or until `stop` is called; return its result, and
        the notices of the run."""
        assert self._estimator is not None
        with _noticing() as notices:
            result = run_clip(name, config, self._estimator, self._taker(name), self._stop)
        return result, notices

    def run(self, configs: Share) -> tuple[list[Result], list[str]]:
        """Run a share of all sources side by side, to their ends or until `stop` is called; return
        their results, and the notices of the run."""
        with _noticing() as notices:
            results = run_many(
                configs, on_progress=self._taker(""), stop=self._stop, side_by_side=True
            )
        return results, notices

    def progress(self) -> tuple[str, Progress] | None:
        """Return the name of the clip that is run, "" for a share, and its progress; None before
        the first frame."""
        return self._progress

    def stop(self) -> None:
        """End the sources; what was read is still written."""
        self._stop.set()

    def _taker(self, name: str) -> Callable[[Progress], None]:
        def take(progress: Progress) -> None:
            self._progress = name, progress

        return take


@contextmanager
def _noticing() -> Iterator[list[str]]:
    """Give the lines that the block says of its settings, once it has ended."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Notice)
        yield said
    said += [str(one.message) for one in caught if issubclass(one.category, Notice)]
