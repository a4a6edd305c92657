"""A served source: its stream, its output, its events and the thread that draws it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from app.config import Config
from app.outputs.base import OutputError
from app.render_loop import RenderLoop
from app.reports.dispatcher import EventDispatcher
from app.serve.channel import Channel
from app.serve.event_log import EventForwarder, EventLog
from pipeline.capture.addresses import NETWORK, TEST_PREFIX, is_camera
from pipeline.core.problem import one_line
from pipeline.core.redact import without_credentials
from pipeline.core.stats import Snapshot, Stats
from pipeline.runtime.video_stream import VideoStream

_JOIN_S = 20.0
"""How long ending a source waits for its thread: longer than its recording needs to end."""
_FIGURES_S = 0.25
"""How long a source's figures are reused, in seconds."""
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""The pauses before a live source begins again after a fault; the last one is repeated."""
_STEADY_S = 60.0
"""A source that ran for this long before a fault has the first pause again."""
_NUMBERS = count()
"""Numbers the sources of this process: a name may be used again, a number is not."""


class Figures:
    """A source's counters, computed at most once in ``_FIGURES_S`` for all requests: the quantiles
    take milliseconds."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._lock = threading.Lock()
        self._snapshot, self._taken_s = stats.snapshot(), -math.inf

    def now(self) -> Snapshot:
        with self._lock:
            if time.monotonic() - self._taken_s > _FIGURES_S:
                self._snapshot, self._taken_s = self._stats.snapshot(), time.monotonic()
            return self._snapshot


@dataclass(frozen=True)
class SourceEvents:
    """A source's events: what reports them, the log of the page, and the way to a webhook."""

    dispatcher: EventDispatcher
    log: EventLog
    forwarder: EventForwarder | None

    @property
    def trouble(self) -> str:
        return "" if self.forwarder is None else self.forwarder.trouble

    @property
    def lost(self) -> int:
        return 0 if self.forwarder is None else self.forwarder.lost

    def close(self) -> None:
        """Wait for the last event, the forwarder's disk for a bounded time."""
        try:
            self.dispatcher.close()
        finally:
            if self.forwarder is not None:
                self.forwarder.close()


class ServedSource:
    """A source of the hub and the thread that draws it.

    Args:
        config: The settings of the source, with its address.
        stream: The source's stream in the scheduler.
        channel: The source's output.
        show: Draws the stream.
        events: The parts of its events; None for no events.
        begin_again: Called after a fault, once the pause is over, to put another one in this one's
            place. Returns why that failed, None where nothing is left to do. None: a fault is the
            end.
        faults: The number of times that the source has begun again after faults.
        every: Only each n-th of its frames is taken.

    Attributes:
        drawn: Set once nothing more is drawn; files may be complete only later.
        config: Its settings now. They change under the hub's lock.
        restarting: Whether a request is making it begin again.
        recording_wanted: Whether its recording goes on where it begins again.
    """

    def __init__(
        self,
        config: Config,
        stream: VideoStream,
        channel: Channel,
        show: RenderLoop,
        events: SourceEvents | None,
        begin_again: Callable[[ServedSource], str | None] | None,
        faults: int = 0,
        every: int = 1,
    ) -> None:
        self.address = without_credentials(config.source)
        self.config, self.stream, self.channel, self.show = config, stream, channel, show
        self.number = next(_NUMBERS)
        self.events = events
        self.figures = Figures(stream.stats)
        self.error = ""
        self.faults, self.every = faults, every
        self.recording_wanted = False
        self.paused = self.restarting = False
        self.added_s = time.monotonic()
        self._begin_again = begin_again
        self._ending = threading.Event()
        self.drawn = threading.Event()
        # One thread a source: a slow renderer or recording of one source delays no other.
        self.thread = threading.Thread(target=self._run, name=f"show {stream.name}")
        self.thread.start()

    def _run(self) -> None:
        # Each by itself, also after an error: a recording must become a complete file.
        for step in (self._draw, self._end_stream, self._close_channel):
            try:
                step()
            except BaseException as error:
                # Shown on the page. An error of the estimator also ends the hub, through on_error.
                self.error = self.error or one_line(error)
        if time.monotonic() - self.added_s > _STEADY_S:
            self.faults = 0
        while self.error and self._begin_again is not None and not self._ending.is_set():
            pause_s = _PAUSES_S[min(self.faults, len(_PAUSES_S) - 1)]
            self.error += f"; begins again in {pause_s:g} s"
            self.faults, self.paused = self.faults + 1, True
            if not self._ending.wait(pause_s):
                self.error = self._begin_again(self) or ""

    def _close_channel(self) -> None:
        # A recording goes on, in another file, where the source begins again by itself. Elsewhere
        # the wish ends with it: a clip that is played again later is recorded only if asked.
        again = self.restarting or (bool(self.error) and self._begin_again is not None)
        self.recording_wanted = again and self.channel.recordings.state().wanted
        self.channel.close()

    def _draw(self) -> None:
        try:
            self.show.run(self._ending)
        finally:
            self.drawn.set()

    def _end_stream(self) -> None:
        """End the source whose results are drawn no more, and report its last events."""
        self.stream.abort()
        self.stream.finish()
        if self.events is not None:
            self.events.dispatcher.close()

    @property
    def over(self) -> bool:
        """Whether it has come to its end, without a fault: its last frame is shown."""
        return self.stream.ended.is_set() and not (self.error or self.stream.error)

    def leave(self) -> None:
        """Wait for its thread, which then begins nothing again. Call it once its stream is removed
        from the scheduler."""
        self._ending.set()
        # Bounded: a request that removes the source waits here.
        self.thread.join(_JOIN_S)

    def end(self) -> list[str]:
        """Wait for its threads. Call it once its stream is removed from the scheduler.

        Returns:
            A line for each thing that may be incomplete, because the disk does not answer.
        """
        self.leave()
        unfinished = self.channel.recordings.unfinished()
        if self.events is not None:
            try:
                self.events.close()
            except OutputError as error:
                unfinished.append(str(error))
            except Exception as error:
                self.error = one_line(error)
        return unfinished


def is_live(address: str) -> bool:
    """Return whether an address is of a live source. One begins again after a fault; a clip would
    fail at the same frame again."""
    scheme = address.partition("://")[0].lower()
    return is_camera(address) or scheme in NETWORK or address.startswith(TEST_PREFIX)
