"""``python -m app events``, its flags parsed: one JSON object a line, as events happen."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

import cv2

from app.build import load, source_of
from app.config import Config, ConfigError
from app.events.desk import Desk, Sink
from app.events.record import Record, strip_of
from app.outputs.base import OutputClosed, OutputError, RunInfo
from app.outputs.jsonl import claim_stdout
from app.show import renderer_name
from pipeline.events.detect import Detector
from pipeline.events.motion import Motion, load_motion
from pipeline.runner import Runner
from pipeline.station import Event


def run_command(args: argparse.Namespace, config: Config, stop: threading.Event) -> int:
    """Watch a source, or one after another, to their ends or until ``stop`` is set; the exit code.

    Raises ConfigError, SourceError, WeightsError, OutputError, ValueError or RuntimeError.
    """
    if config.output.timing == "low-latency":
        raise ConfigError("--low-latency: events are seen in every frame")
    try:
        motion = load_motion(args.motion)
    except (ValueError, OSError) as error:
        raise ConfigError(f"--motion: {error}") from None
    with ExitStack() as stack:
        sinks: list[Sink] = [_Lines(claim_stdout(), "standard output")]
        if args.jsonl is not None:
            sinks.append(_opened(stack, args.jsonl))
        if args.strip is not None:
            sinks.append(_Strips(args.strip))
        if args.webhook is not None:
            from app.events.webhook import Webhook

            outbox = args.outbox or Path("webhook.sqlite")
            hook = Webhook(args.webhook, outbox, secret=args.webhook_secret)
            stack.callback(lambda: _end_hook(hook))
            sinks.append(lambda record: hook.send(record.key, record.with_pictures()))
        timelines = None
        if args.report is not None:
            from app.events.timeline import Timelines

            args.report.mkdir(parents=True, exist_ok=True)
            timelines = Timelines()
        inference = load(config)
        stack.callback(inference.perceiver.close)
        throws = []
        for source in args.source:
            if stop.is_set():
                break
            watched = _Watched(replace(config, source=source), motion, stop)
            own = sinks if timelines is None else [*sinks, timelines.event]
            watched.run(inference, own, timelines)
            if timelines is not None:
                throws += timelines.throws()
                timelines = type(timelines)()
        if args.report is not None:
            from app.events.page import write_page

            print(f"wrote {write_page(args.report, throws)}", file=sys.stderr)
    return 0


class _Watched:
    """One source, watched from its beginning to its end."""

    def __init__(self, config: Config, motion: Motion, stop: threading.Event) -> None:
        self._config, self._stop = config, stop
        self._source = source_of(config, stop)
        self._detector = Detector(motion)

    def run(self, inference, sinks: list[Sink], timelines) -> None:
        with ExitStack() as stack:
            stack.callback(self._source.close)
            self._source.open()
            runner = stack.enter_context(
                Runner(self._source, inference, opened=True, watch=self._detector)
            )
            renderer = renderer_name(self._config, inference)
            alpha = self._config.render.alpha
            desk = Desk(runner, self._info(runner), sinks, renderer, alpha).start()
            try:
                for window in _stoppable(runner, self._stop):
                    if timelines is not None:
                        timelines.fitted(window)
                    for frame, _ in window:
                        runner.stats.drew(frame.captured_ns)
            finally:
                runner.close()
                try:
                    desk.close()
                except OutputClosed:
                    self._stop.set()
        for refusal in self._detector.refused:
            print(
                f"{self._source.name}: frame {refusal.frame_id}, person {refusal.track}, "
                f"{refusal.hand} hand: not reported: {refusal.reason}",
                file=sys.stderr,
            )
        for warning in self._source.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        self._tell_summary(runner, desk.told)

    def _info(self, runner: Runner):
        body = runner.inference.fitter.body

        def of(event: Event) -> RunInfo:
            frame = event.window.key_frame
            return RunInfo(
                source=self._source.name, fps=self._source.info.fps, width=frame.size[1],
                height=frame.size[0], intrinsics=runner.inference.intrinsics(frame),
                model=body.name, faces=body.faces, gender=body.gender,
                intrinsics_of=runner.inference.intrinsics, live=self._source.live,
            )  # fmt: skip

        return of

    def _tell_summary(self, runner: Runner, told: int) -> None:
        seen = runner.stats.snapshot()
        events = "1 event" if told == 1 else f"{told} events"
        words = f"{self._source.name}: {events} in {seen.drawn} frames, {seen.fps:.1f} fps"
        report = seen.stages_ms.get("event report")
        if report is not None:
            words += f"; reported {report.p50_ms:.0f} ms after the frame that showed it"
            words += f" (p95 {report.p95_ms:.0f})"
        dropped = sum(seen.dropped.values())
        if dropped:
            words += f"; {dropped} frames dropped"
        print(words, file=sys.stderr)


def _stoppable(runner: Runner, stop: threading.Event) -> Iterator:
    """The run's windows; once ``stop`` is set, those under way."""
    asked = False
    for window in runner.windows():
        yield window
        if stop.is_set() and not asked:
            asked = True
            runner.stop()


class _Lines:
    """Events as lines of JSON."""

    def __init__(self, file: IO[str], name: str, pictures: bool = False) -> None:
        self._file, self._name, self._pictures = file, name, pictures

    def __call__(self, record: Record) -> None:
        data = record.with_pictures() if self._pictures else record.data
        try:
            self._file.write(json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n")
            self._file.flush()
        except BrokenPipeError:
            raise OutputClosed(f"{self._name} was closed") from None
        except OSError as error:
            raise OutputError(f"{self._name}: cannot write: {error.strerror}") from None


def _opened(stack: ExitStack, path: Path) -> _Lines:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    return _Lines(file, str(path), pictures=True)


class _Strips:
    """Every event's pictures side by side, a PNG each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}") from None

    def __call__(self, record: Record) -> None:
        name = "".join(c if c.isalnum() or c in "._-" else "-" for c in record.key)
        path = self._folder / f"{name}.png"
        if not cv2.imwrite(str(path), strip_of(record)[..., ::-1]):
            raise OutputError(f"{path}: cannot be written")


def _end_hook(hook) -> None:
    hook.close()
    told = hook.status
    if told.waiting or told.rejected:
        print(
            f"webhook: {told.waiting} events wait for the next run, {told.rejected} were rejected"
            f"{': ' + told.problem if told.problem else ''}",
            file=sys.stderr,
        )
