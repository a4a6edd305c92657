"""Events become reports: a thread beside a run that reports each one as it is fitted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from app.body_renderer import BodyRenderer
from app.outputs.base import OutputClosed, RunInfo
from app.reports.record import Record, record_of
from pipeline.capture.base import Source
from pipeline.core.stats import Stats
from pipeline.gpu.transfer import own_stream
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.event_buffer import Event


class EventRun(Protocol):
    """The part of a run that the dispatcher needs: a `Runner` or a `VideoStream` with a watch."""

    source: Source
    estimator: BodyEstimator
    stats: Stats

    def events(self) -> Iterator[Event]: ...

    def stop(self) -> None: ...


Sink = Callable[[Record], None]


def info_of_event(name: str, run: EventRun, event: Event) -> RunInfo:
    """Return the facts of a run, by the window of one of its events.

    Args:
        name: The source's name.
        run: The run.
        event: One of its events.
    """
    frame, body = event.window.key_frame, run.estimator.body
    return RunInfo(
        source=name,
        fps=run.source.info.fps,
        width=frame.size[1],
        height=frame.size[0],
        intrinsics=run.estimator.intrinsics(frame),
        model=body.name,
        faces=body.faces,
        gender=body.gender,
        intrinsics_of=run.estimator.intrinsics,
        live=run.source.live,
        mark=run.source.mark,
    )


class EventDispatcher:
    """Hands a run's events to sinks, in order, in a thread of its own.

    Every sink gets an event, also if another one raises an error; then the first error stops the
    run and is raised by ``close``. ``reported`` counts the events.

    Args:
        run: The run.
        info_of: Returns the facts of the run, by an event.
        sinks: Each is called with every event's record.
        make_renderer: Returns what draws the pictures; called in the dispatcher's thread.
    """

    def __init__(
        self,
        run: EventRun,
        info_of: Callable[[Event], RunInfo],
        sinks: Sequence[Sink],
        make_renderer: Callable[[], BodyRenderer],
    ) -> None:
        self._run, self._info_of, self._sinks = run, info_of, sinks
        self._make_renderer = make_renderer
        self.reported = 0
        self._error: BaseException | None = None
        # Beside the run: a slow sink delays later reports, but no frame.
        self._thread = threading.Thread(target=self._work, name="events")

    def start(self) -> EventDispatcher:
        self._thread.start()
        return self

    def close(self) -> None:
        """Wait for the last event; the run must have ended or been stopped. Raises what a sink
        raised."""
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        try:
            with own_stream():
                self._report_all()
        except BaseException as error:
            self._error = error
            # Now, and not when it ends: an error is raised by `close`, after the run.
            self._run.stop()

    def _report_all(self) -> None:
        # Made in this thread and before it is needed: compiling takes longer than an event may.
        renderer = self._make_renderer()
        try:
            for event in self._run.events():
                record = record_of(
                    event.seen, event.window, event.fitted, self._info_of(event), renderer
                )
                self._run.stats.timed("event report", record.data["latency_ms"])
                self.reported += 1
                _hand_out(self._sinks, record)
        finally:
            renderer.close()


def _hand_out(sinks: Sequence[Sink], record: Record) -> None:
    errors = []
    for sink in sinks:
        try:
            sink(record)
        except Exception as error:
            # Raised later, because the other sinks get the event all the same.
            errors.append(error)
    if errors:
        # A closed output only ends the run; any other error is the one to show.
        raise next((error for error in errors if not isinstance(error, OutputClosed)), errors[0])
