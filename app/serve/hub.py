"""The hub of `serve`: sources that share one estimator, and the state of each."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

from app.body_renderer import BodyRenderer
from app.build import is_low_latency, source_of
from app.config import Config
from app.multi_run import names_of
from app.outputs.base import OutputError
from app.render_loop import RenderLoop, renderer_name
from app.render_loop_low_latency import make_render_loop
from app.reports.dispatcher import EventDispatcher, Sink, info_of_event
from app.serve.channel import Channel
from app.serve.event_log import EventForwarder, EventLog
from app.serve.folder import RecordingFolder
from pipeline.capture.addresses import NETWORK, TEST_PREFIX, is_address, is_camera, parse_address
from pipeline.capture.errors import CAUSES
from pipeline.capture.status import State
from pipeline.core.problem import one_line
from pipeline.core.redact import without_credentials
from pipeline.core.stats import Snapshot, Stats
from pipeline.events.detect import Detector
from pipeline.events.motion import Motion
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream

MOST_SOURCES = 32
_JOIN_S = 20.0
"""How long ending a source waits for its thread: longer than its recording needs to end."""
_FIGURES_S = 0.25
"""How long a source's figures are reused, in seconds."""
_CAMERA = re.compile(r"(?ia)\d{1,2}|/dev/video\d{1,2}|/dev/v4l/by-(id|path)/[a-z0-9][\w.:@+-]*")
"""The cameras of this machine that may be added over the network."""
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""The pauses before a live source begins again after a fault; the last one is repeated."""
_STEADY_S = 60.0
"""A source that ran for this long before a fault has the first pause again."""
_NUMBERS = count()
"""Numbers the sources of this process: a name may be used again, a number is not."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True)
class SourceView:
    """The state and the figures of a source. ``address`` and ``reason`` hold no logins.

    ``since_s`` is the time in the current ``state``. ``latency_ms`` holds p50, p95 and p99 from
    capture to output, ``stages_ms`` the median of each stage for a frame, ``dropped`` the number of
    frames by cause. ``failures`` counts the connections that failed, by their causes
    (`errors.CAUSES`); ``decoder_bytes`` is the memory of the process that decodes the source, 0 if
    this process does. ``recording`` is the name of the video that is written now.
    ``recording_wanted`` says whether the source is to be recorded, ``recording_missing`` whether it
    is and does not succeed, ``recording_cause`` why in a word or two, ``recording_failures`` how
    many recordings failed, by cause. ``not_recorded`` counts frames that are in no file though a
    recording was wanted. With low latency, ``unfitted`` counts frames that were shown with
    predicted bodies only; ``predicted_ms`` is how far ahead of the last fit they were predicted,
    and ``predicted_off_px`` the distance of a joint from where it was fitted later (each p50 and
    p95; None otherwise). ``events`` counts the events so far, ``events_lost`` those that were
    detected and not reported; None if none are detected. ``not_followed`` is the number of people
    who are seen now and not followed, since all places are taken.
    """

    name: str
    address: str
    state: str
    reason: str
    since_s: float
    fps: float
    people: int
    not_followed: int
    latency_ms: tuple[float, float, float] | None
    read: int
    drawn: int
    dropped: dict[str, int]
    stages_ms: dict[str, float]
    reconnects: int
    damaged: int
    failures: dict[str, int]
    decoder_bytes: int
    recording: str | None
    not_recorded: int
    unfitted: int
    predicted_ms: tuple[float, float] | None
    predicted_off_px: tuple[float, float] | None
    events: int | None
    events_lost: int | None
    recording_wanted: bool
    recording_missing: bool
    recording_cause: str
    recording_failures: dict[str, int]


def _check_remote(address: str) -> None:
    """Raise ValueError unless an address may be added over the network: a camera of this machine or
    a feed, no file, and nothing that opens a port to everyone. The message shows nothing of it."""
    if _CAMERA.fullmatch(address):
        return
    if not is_address(address):
        raise ValueError(
            "an address is rtsp://, rtmp://, http://, udp:// or tcp://..., or a camera: its "
            "number or /dev/video..."
        )
    if parse_address(address).opens_port:
        raise ValueError(
            "udp:// opens a port of this machine: here it takes a multicast group, such as "
            "udp://@239.0.0.1:1234; give others on the command line"
        )


class _Figures:
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
class _Events:
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


class _Served:
    """A source of the hub and the thread that draws it.

    Args:
        address: The address, without a login.
        stream: The source's stream in the scheduler.
        channel: The source's output.
        show: Draws the stream.
        events: The parts of its events; None for no events.
        begin_again: Called after a fault, once the pause is over, to put another one in this one's
            place. Returns why that failed, None where nothing is left to do. None: a fault is the
            end.
        faults: The number of times that the source has begun again after faults.
    """

    def __init__(
        self,
        address: str,
        stream: VideoStream,
        channel: Channel,
        show: RenderLoop,
        events: _Events | None,
        begin_again: Callable[[_Served], str | None] | None,
        faults: int = 0,
    ) -> None:
        self.address, self.stream, self.channel, self.show = address, stream, channel, show
        self.number = next(_NUMBERS)
        self.events = events
        self.figures = _Figures(stream.stats)
        self.error = ""
        self.faults = faults
        self.recording_wanted = False
        self.paused = False
        self.added_s = time.monotonic()
        self._begin_again = begin_again
        self._ending = threading.Event()
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
        # A recording goes on, in another file, where the source begins again.
        self.recording_wanted = self.channel.recordings.state().wanted
        self.channel.close()

    def _draw(self) -> None:
        self.show.run(self._ending)

    def _end_stream(self) -> None:
        """End the source whose results are drawn no more, and report its last events."""
        self.stream.abort()
        self.stream.finish()
        if self.events is not None:
            self.events.dispatcher.close()

    def end(self) -> list[str]:
        """Wait for its threads. Call it once its stream is removed from the scheduler.

        Returns:
            A line for each thing that may be incomplete, because the disk does not answer.
        """
        self._ending.set()
        # Bounded: a request that removes the source waits here.
        self.thread.join(_JOIN_S)
        unfinished = self.channel.recordings.unfinished()
        if self.events is not None:
            try:
                self.events.close()
            except OutputError as error:
                unfinished.append(str(error))
            except Exception as error:
                self.error = one_line(error)
        return unfinished


def _is_live(address: str) -> bool:
    """Whether a source may begin again after a fault: a clip would fail at the same frame again."""
    scheme = address.partition("://")[0].lower()
    return is_camera(address) or scheme in NETWORK or address.startswith(TEST_PREFIX)


class Hub:
    """Runs sources through one estimator, in a ``with`` block. Any thread may call its methods.

    Args:
        config: How each source is read and drawn.
        estimator: The estimator that all sources share.
        folder: The folder of the recordings; it is made if missing.
        on_error: Called with an error of the estimator, which ends all sources.
        motion: The motion whose events are detected in every source; None for no events.
        on_event: Called with the `Record` of every event, besides storing it; in threads that may
            wait for a disk.
        on_warning: Called with a line about what may be incomplete when a source ends.

    Attributes:
        folder: The folder of the recordings.
    """

    def __init__(
        self,
        config: Config,
        estimator: BodyEstimator,
        folder: Path,
        on_error: Callable[[BaseException], None] | None = None,
        motion: Motion | None = None,
        on_event: Sink | None = None,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._motion, self._on_event, self._on_warning = motion, on_event, on_warning
        self._config = config
        self.folder = RecordingFolder(folder)
        self._scheduler = StreamScheduler(estimator, on_error=on_error)
        self._served: dict[str, _Served] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Hub:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self._scheduler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        # The streams end first; each source's thread then finishes by itself.
        self._scheduler.close()
        with self._lock:
            remaining = list(self._served.values())
        for served in remaining:
            self._end(served)

    def names(self) -> set[str]:
        """Return the names of the sources."""
        with self._lock:
            return set(self._served)

    def sources(self) -> list[SourceView]:
        """Return the state of every source, in the order in which they were added."""
        return [view for view, _ in self.figures()]

    def figures(self) -> list[tuple[SourceView, Snapshot]]:
        """Return the state and the counters of every source."""
        with self._lock:
            served = list(self._served.items())
        # Outside the lock: quantiles take milliseconds.
        found = [(name, source, source.figures.now()) for name, source in served]
        return [(self._view(name, source, counts), counts) for name, source, counts in found]

    def add(self, address: str, name: str | None = None, *, trusted: bool = False) -> str:
        """Start a source.

        Args:
            address: An address of a feed or a camera; logins in it are never shown.
            name: Its name; None to derive one from the address.
            trusted: Whether the address may also be a file, or open a port of this machine. True
                for the command line's only.

        Returns:
            The name that the source got.

        Raises:
            ValueError: The address or the name is not allowed; the message is one line.
            RuntimeError: There are `MOST_SOURCES` already, or the hub is closed.
            SourceError: The source cannot be made.
        """
        if not trusted:
            _check_remote(address)
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("a name is up to 60 letters, digits, dots, dashes and underscores")
        # A served source is tried for ever, and a file runs at its own pace, as a camera would.
        config = replace(self._config, source=address)
        capture = replace(config.capture, retry_s=float("inf"), pace="live")
        config = replace(config, capture=capture)
        with self._lock:
            # Checked and added under one lock, or two requests at once could take the last place.
            if len(self._served) >= MOST_SOURCES:
                raise RuntimeError(f"there are {MOST_SOURCES} sources already")
            if name is None:
                name = names_of([address], taken=self._served)[0]
            if name in self._served:
                raise ValueError(f"there is a source named {name} already")
            self._served[name] = self._begin(name, config)
        return name

    def _begin(self, name: str, config: Config, before: _Served | None = None) -> _Served:
        """Return a source that has begun, for the first time or after a fault of the one before.
        The caller holds the lock."""
        source = source_of(config, threading.Event())
        watch = None if self._motion is None else Detector(self._motion)
        stream = self._scheduler.add(
            name,
            source,
            low_latency=is_low_latency(config),
            watch=watch,
            # Counters go on where the source begins again.
            stats=None if before is None else before.stream.stats,
        )
        new_path = partial(self.folder.new_path, name)
        channel = Channel(lambda: self._reason(stream), new_path, output=config.output)
        if before is not None and before.recording_wanted:
            channel.recordings.begin()
        show = make_render_loop(config, stream, [channel, channel.fits], None)
        return _Served(
            without_credentials(config.source),
            stream,
            channel,
            show,
            self._events(name, stream, config, None if before is None else before.events),
            partial(self._begin_again, name, config) if _is_live(config.source) else None,
            0 if before is None else before.faults,
        )

    def _begin_again(self, name: str, config: Config, failed: _Served) -> str | None:
        """Put a new source in the place of one that failed; return why it cannot begin."""
        with suppress(KeyError):  # An earlier try has removed it.
            self._scheduler.remove(name)
        failed.stream.settle()
        with self._lock:
            # A request may have removed the source meanwhile, and the hub may be closed.
            if self._closed or self._served.get(name) is not failed:
                return None
            try:
                self._served[name] = self._begin(name, config, failed)
            except Exception as error:
                return one_line(error)
        return None

    def _events(
        self, name: str, stream: VideoStream, config: Config, before: _Events | None
    ) -> _Events | None:
        """The parts of a source's events. A source that begins again goes on with its log."""
        if self._motion is None:
            return None
        log, forwarder = EventLog(), None
        if before is not None:
            log, forwarder = before.log, before.forwarder
        elif self._on_event is not None:
            forwarder = EventForwarder(name, self._on_event)
        # The log is first: the page shows an event even if its webhook fails.
        sinks: list[Sink] = [log] if forwarder is None else [log, forwarder]
        info_of = partial(info_of_event, name, stream)
        estimator = stream.estimator
        name = renderer_name(config, estimator)
        renderer = partial(BodyRenderer, name, config.render, estimator.body)
        dispatcher = EventDispatcher(stream, info_of, sinks, renderer).start()
        return _Events(dispatcher, log, forwarder)

    def remove(self, name: str) -> None:
        """End a source and forget it, with its stored bodies and events.

        Raises:
            KeyError: There is no source of that name.
        """
        with self._lock:
            served = self._served.pop(name)
        # Outside the lock: ending a source waits for its threads.
        with suppress(KeyError):  # It was about to begin again after a fault.
            self._scheduler.remove(name)
        self._end(served)

    def _end(self, served: _Served) -> None:
        for line in served.end():
            self._on_warning(line)

    def number(self, name: str) -> int:
        """Return the number of the source that has the name now. Numbers are never used again.

        Raises:
            KeyError: There is no source of that name.
        """
        with self._lock:
            return self._served[name].number

    def picture(self, name: str, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """Return a source's newest picture, as `Channel.picture`.

        Raises:
            KeyError: There is no source of that name.
        """
        return self._channel(name).picture(after, timeout_s)

    def bodies(self, name: str, after: int, timeout_s: float = 0.0) -> list[tuple[int, str]]:
        """Return a source's bodies, as `Channel.bodies`.

        Raises:
            KeyError: There is no source of that name.
        """
        return self._channel(name).bodies(after, timeout_s)

    def view(
        self, name: str, after: int | None, timeout_s: float
    ) -> tuple[str, list[tuple[int, bytes]]]:
        """Return a source's newer frames for the 3D view; see `ViewLog.after`.

        Raises:
            KeyError: There is no source of that name.
        """
        return self._channel(name).view.after(after, timeout_s)

    @property
    def looks_for_events(self) -> bool:
        """Whether events are detected in the sources."""
        return self._motion is not None

    def events(self, name: str, after: int) -> list[tuple[int, str]]:
        """Return a source's events, as `EventLog.after`; empty if none are detected.

        Raises:
            KeyError: There is no source of that name.
        """
        with self._lock:
            events = self._served[name].events
        return [] if events is None else events.log.after(after)

    def strip(self, name: str, number: int) -> bytes:
        """Return the pictures of an event, as `EventLog.strip`.

        Raises:
            KeyError: There is no source of that name, or no such event of it.
        """
        with self._lock:
            events = self._served[name].events
        if events is None:
            raise KeyError(number)
        return events.log.strip(number)

    def record(self, name: str, on: bool) -> str | None:
        """Begin a source's recording, or end it and wait until its files are complete.

        A disk that does not answer is waited for no longer than a few seconds.

        Args:
            name: The name of the source.
            on: Whether it is to be recorded. Beginning a second recording does nothing, but that
                one that failed is tried at once.

        Returns:
            The name of the video file while it is recorded, or None.

        Raises:
            KeyError: There is no source of that name.
            RuntimeError: The source has ended.
        """
        with self._lock:
            served = self._served[name]
        recordings = served.channel.recordings
        if not on or served.paused:
            # A source that waits to begin again has no file now.
            served.recording_wanted = on
            recordings.end()
            return None
        if served.stream.ended.is_set():
            raise RuntimeError(f"{name} has ended")
        recordings.begin()
        path = recordings.state().path
        return None if path is None else path.name

    def _channel(self, name: str) -> Channel:
        with self._lock:
            return self._served[name].channel

    def _reason(self, stream: VideoStream) -> str:
        """Return why no picture comes, in a line."""
        status = stream.source.status
        served = self._served.get(stream.name)
        error = served.error if served is not None else ""
        if error or stream.ended.is_set():
            return error or "ended"
        return f"{status.state}: {status.reason}" if status and status.reason else "waiting"

    def _view(self, name: str, served: _Served, figures: Snapshot) -> SourceView:
        stream, events = served.stream, served.events
        # Only live sources report a status; a clip's state follows from its counters.
        status = stream.source.status
        counts = stream.source.counts
        state, reason = (State.LIVE if figures.read else State.CONNECTING), ""
        since_s = time.monotonic() - served.added_s
        if status is not None:
            state, reason = status.state, status.reason
            since_s = max(time.monotonic() - status.since_ns / 1e9, 0.0)
        # Last, because it overrides what the source still reports.
        if stream.ended.is_set() or served.error:
            state = State.RECONNECTING if served.paused else State.ENDED
            reason = served.error
        latency, recording = figures.latency_ms, served.channel.recordings.state()
        predicted = served.show.prediction_error()
        return SourceView(
            name=name,
            address=served.address,
            state=str(state),
            reason=recording.trouble
            or (events.trouble if events else "")
            or reason
            or stream.faults.trouble,
            since_s=round(since_s, 1),
            fps=round(stream.stats.live_fps(), 1) if state is State.LIVE else 0.0,
            people=served.channel.people if state is State.LIVE else 0,
            not_followed=figures.unfollowed if state is State.LIVE else 0,
            latency_ms=(
                None if latency is None else (latency.p50_ms, latency.p95_ms, latency.p99_ms)
            ),
            read=figures.read,
            drawn=figures.drawn,
            dropped=dict(figures.dropped),
            stages_ms={stage: time_ms.p50_ms for stage, time_ms in figures.stages_ms.items()},
            reconnects=counts.get("reconnected", 0),
            damaged=counts.get("damaged", 0),
            failures={cause: counts[cause] for cause in CAUSES if counts[cause]},
            decoder_bytes=stream.source.decoder_bytes,
            recording=None if recording.path is None else recording.path.name,
            not_recorded=recording.dropped,
            unfitted=figures.unfitted,
            predicted_ms=(
                None if predicted is None else (predicted.ahead_p50_ms, predicted.ahead_p95_ms)
            ),
            predicted_off_px=None if predicted is None else (predicted.p50_px, predicted.p95_px),
            events=None if events is None else events.log.count,
            events_lost=None if events is None else figures.lost_events + events.lost,
            recording_wanted=recording.wanted or (served.paused and served.recording_wanted),
            recording_missing=recording.missing,
            recording_cause=recording.cause,
            recording_failures=recording.failures,
        )
