"""``events`` with its options parsed: one JSON object a line, as events happen."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from app.body_renderer import BodyRenderer
from app.build import load, source_of
from app.config import Config, ConfigError
from app.garbage import leave_out_loaded
from app.options import EventsOptions
from app.outputs.base import OutputClosed, OutputError
from app.outputs.jsonl import claim_stdout
from app.outputs.paths import reserve_file
from app.outputs.reservation import Reservation, check_existing
from app.outputs.unfinished import command_of
from app.render_loop import renderer_name
from app.reports.dispatcher import EventDispatcher, Sink, info_of_event
from app.reports.sinks import Lines, Strips, lines_to, read_motion, webhook_of
from pipeline.capture.addresses import STANDARD_INPUT
from pipeline.capture.errors import SourceError
from pipeline.core.problem import one_line
from pipeline.events.detect import Detector
from pipeline.events.motion import Motion
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.runner import Runner


def run_command(options: EventsOptions, config: Config, stop: threading.Event) -> int:
    """Watch sources one after another, to their ends or until ``stop`` is set.

    A source that fails, whether it cannot be read or estimated, is reported on standard error, and
    the next one is watched.

    Args:
        options: The command's own options.
        config: The profile with the flags over it.
        stop: Ends it; set here too where standard output was closed.

    Returns:
        The exit code: 1 where a source failed.

    Raises:
        ConfigError: Options that do not go together, or a wrong motion.
        WeightsError: A model's files are missing.
        OutputError: An output cannot be written.
        ValueError, RuntimeError: The pipeline cannot run as configured.
    """
    if config.output.timing == "low-latency":
        raise ConfigError("--low-latency: every frame is searched for events")
    if str(options.jsonl) == "-":
        raise ConfigError("--jsonl -: standard output gets the lines anyway; give a file's name")
    if options.webhook is None and (
        options.outbox is not None or options.webhook_secret is not None
    ):
        raise ConfigError("--outbox and --webhook-secret: need --webhook")
    if sum(source in STANDARD_INPUT for source in options.source) > 1:
        raise ConfigError("-: standard input is read once; give it once")
    # Before the models load: a live source would keep the ones after it waiting for ever.
    *early, _ = options.source
    if live := [source for source in early if _is_live(source, config, stop)]:
        raise ConfigError(
            f"{live[0]}: sources are watched one after another, and a live one does not end; "
            "put it last, or watch several by `serve --events`"
        )
    motion = read_motion("--motion", options.motion)
    with ExitStack() as stack:
        jsonl, page = _reserve_files(stack, options, config)
        # Standard output first, because what libraries print must not end up among the lines.
        sinks: list[Sink] = [Lines(claim_stdout(), "standard output")]
        if jsonl is not None:
            sinks.append(lines_to(stack, jsonl))
        if options.strip is not None:
            sinks.append(Strips(options.strip, config.output.existing == "overwrite"))
        if options.webhook is not None:
            sinks.append(webhook_of(stack, options))
        timelines = None
        if page is not None:
            from app.reports.timeline import Timelines

            timelines = Timelines()
        estimator = load(config)
        # Before the first frame, so that the first event is not reported late.
        estimator.warm_up(config.perceive.people, events=True)
        stack.callback(estimator.close)
        leave_out_loaded()
        events, failed = [], False
        for source in options.source:
            if stop.is_set():
                break
            own = sinks if timelines is None else [*sinks, timelines.add]
            try:
                watched = _Watched(replace(config, source=source), motion, stop)
                watched.run(estimator, own, timelines)
            except OutputError:
                raise  # It is of all sources.
            except Exception as error:
                # The other sources are watched all the same.
                if len(options.source) == 1 and not isinstance(error, SourceError):
                    raise
                named = isinstance(error, SourceError)
                line = one_line(error) if named else f"{source}: {one_line(error)}"
                print(f"error: {line}", file=sys.stderr)
                failed = True
            if timelines is not None:
                events += timelines.events()
                # Times and track numbers begin anew with each source.
                timelines = type(timelines)()
        if page is not None:
            from app.reports.page import write_page

            path = write_page(page.path.parent, events, motion, name=page.path.name)
            print(f"wrote {path}", file=sys.stderr)
        if jsonl is not None and not failed:
            jsonl.finish()
    return 1 if failed else 0


def _reserve_files(
    stack: ExitStack, options: EventsOptions, config: Config
) -> tuple[Reservation | None, Reservation | None]:
    """Return the files of the lines and of the page, reserved until ``stack`` ends."""
    existing = config.output.existing
    # The folder may hold other files, so the page has a free name in it.
    page = None if options.report is None else options.report / "index.html"
    # All of them before the first file is made.
    for flag, path in (("--jsonl", options.jsonl), ("--report", page), ("--strip", options.strip)):
        if path is not None:
            check_existing(flag, path, existing, folder=flag == "--strip")
    command = command_of(options.source, options, config)
    return (
        reserve_file(stack, "--jsonl", options.jsonl, existing, command),
        reserve_file(stack, "--report", page, existing),
    )


def _is_live(source: str, config: Config, stop: threading.Event) -> bool:
    try:
        return source_of(replace(config, source=source), stop).live
    except SourceError:
        return False  # reported when its turn comes


class _Watched:
    """One source, watched from its beginning to its end."""

    def __init__(self, config: Config, motion: Motion, stop: threading.Event) -> None:
        self._config, self._stop = config, stop
        self._source = source_of(config, stop)
        self._detector = Detector(motion)

    def run(self, estimator: BodyEstimator, sinks: list[Sink], timelines: Any) -> None:
        with ExitStack() as stack:
            stack.callback(self._source.close)
            # Opened before the runner's threads start, so that an error is raised here.
            self._source.open()
            runner = stack.enter_context(
                Runner(self._source, estimator, opened=True, watch=self._detector)
            )
            name = renderer_name(self._config, estimator)
            renderer = partial(BodyRenderer, name, self._config.render, estimator.body)
            info_of = partial(info_of_event, self._source.name, runner)
            dispatcher = EventDispatcher(runner, info_of, sinks, renderer).start()
            try:
                for window in _stoppable(runner, self._stop):
                    if timelines is not None:
                        timelines.fitted(window)
                    # There is no picture to draw; a fitted frame is done.
                    for frame, _ in window:
                        runner.stats.drew(frame.captured_ns)
            finally:
                runner.close()
                try:
                    # After the runner, whose end is what the dispatcher waits for.
                    dispatcher.close()
                except OutputClosed:
                    # The reader of standard output left, so the other sources need not be watched.
                    self._stop.set()
        for refusal in self._detector.refused:
            print(
                f"{self._source.name}: frame {refusal.frame_id}, person {refusal.track}, "
                f"{refusal.hand} hand: not reported: {refusal.reason}",
                file=sys.stderr,
            )
        for warning in (*self._source.warnings, *runner.warnings):
            print(f"warning: {warning}", file=sys.stderr)
        self._print_summary(runner, dispatcher.reported)

    def _print_summary(self, runner: Runner, count: int) -> None:
        stats = runner.stats.snapshot()
        events = "1 event" if count == 1 else f"{count} events"
        words = f"{self._source.name}: {events} in {stats.drawn} frames, {stats.fps:.1f} fps"
        report = stats.stages_ms.get("event report")
        if report is not None:
            words += f"; reported {report.p50_ms:.0f} ms after the frame that showed it"
            words += f" (p95 {report.p95_ms:.0f})"
        dropped = sum(stats.dropped.values())
        if dropped:
            words += f"; {dropped} frames dropped"
        if stats.lost_events:
            words += f"; {stats.lost_events} events lost, for their frames were gone"
        print(words, file=sys.stderr)


def _stoppable(runner: Runner, stop: threading.Event) -> Iterator:
    """Yield the run's windows; once ``stop`` is set, only those under way."""
    stopping = False
    for window in runner.windows():
        yield window
        if stop.is_set() and not stopping:
            stopping = True
            # Not `break`: frames under way are fitted, so that an event in them is still reported.
            runner.stop()
