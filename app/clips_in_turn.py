"""`run A B C` over clips that go to files: one after the other, in two passes each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from app.build import run_loaded
from app.config import Config
from app.run_report import Progress, RunReport
from app.source_result import Result, ending_of, line_of
from app.two_passes import is_clip_to_files
from pipeline.capture.errors import SourceError
from pipeline.capture.open import check_there
from pipeline.runtime.estimator import BodyEstimator


def can_wait(config: Config) -> bool:
    """Return whether a source can be run after others: a clip to files, or one that is not there
    and ends at once."""
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
    """Run clips one after the other, in two passes each; as `multi_run.run_many`."""
    results: list[Result] = []
    for name, config in configs.items():
        done = len(results)

        def told(progress: Progress, done: int = done) -> None:
            on_progress(replace(progress, clips_done=done, clips=len(configs)))

        results.append(_run_one(name, config, estimator, told, stop))
        on_result(results[-1])
    return results


def _run_one(
    name: str,
    config: Config,
    estimator: BodyEstimator,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> Result:
    if stop.is_set():
        return Result(name, RunReport(0, 0, ended="not begun"), None)
    try:
        report = run_loaded(config, estimator, on_progress=on_progress, stop=stop)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return Result(name, RunReport(0, 0, ended=ending_of(error)), line_of(name, error))
    return Result(name, report, None)
