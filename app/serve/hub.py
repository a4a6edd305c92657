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
from stat import S_ISREG

from app.build import is_low_latency, source_of
from app.config import Config
from app.multi_run import names_of
from app.render_loop import RenderLoop, renderer_name
from app.render_loop_low_latency import make_render_loop
from app.reports.dispatcher import EventDispatcher, Sink, info_of_event
from app.serve.channel import Channel
from app.serve.event_log import EventLog
from app.serve.recorder import SUFFIXES
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
    frames by cause. ``not_recorded`` counts frames that recordings dropped because the disk or the
    encoder was too slow. ``failures`` counts the connections that failed, by their causes
    (`errors.CAUSES`); ``decoder_bytes`` is the memory of the process that decodes the source, 0 if
    this process does. With low latency, ``unfitted`` counts frames that were shown with
    predicted bodies only; ``predicted_ms`` is how far ahead of the last fit they were predicted,
    and ``predicted_off_px`` the distance of a joint from where it was fitted later (each p50 and
    p95; None otherwise). ``events`` counts the events so far; None if none are detected.
    """

    name: str
    address: str
    state: str
    reason: str
    since_s: float
    fps: float
    people: int
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


class _Served:
    """A source of the hub and the thread that draws it.

    Args:
        address: The address, without a login.
        stream: The source's stream in the scheduler.
        channel: The source's output.
        show: Draws the stream.
        dispatcher: Reports the events, and where they are stored; None for no events.
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
        dispatcher: tuple[EventDispatcher, EventLog] | None,
        begin_again: Callable[[_Served], str | None] | None,
        faults: int = 0,
    ) -> None:
        self.address, self.stream, self.channel, self.show = address, stream, channel, show
        self.number = next(_NUMBERS)
        self._dispatcher: EventDispatcher | None = None
        self.event_log: EventLog | None = None
        if dispatcher is not None:
            self._dispatcher, self.event_log = dispatcher
        self.figures = _Figures(stream.stats)
        self.error = ""
        self.faults = faults
        self.paused = False
        self.added_s = time.monotonic()
        self._begin_again = begin_again
        self._ending = threading.Event()
        # One thread a source: a slow renderer or recording of one source delays no other.
        self.thread = threading.Thread(target=self._run, name=f"show {stream.name}")
        self.thread.start()

    def _run(self) -> None:
        # Each by itself, also after an error: a recording must become a complete file.
        for step in (self._draw, self._end_stream, self.channel.close):
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

    def _draw(self) -> None:
        self.show.run(self._ending)

    def _end_stream(self) -> None:
        """End the source whose results are drawn no more, and report its last events."""
        self.stream.abort()
        self.stream.finish()
        if self._dispatcher is not None:
            self._dispatcher.close()

    def end(self) -> None:
        """Wait for its thread. Call it once its stream is removed from the scheduler."""
        self._ending.set()
        # Bounded: a request that removes the source waits here.
        self.thread.join(10)


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
        on_event: Called with the `Record` of every event, besides storing it.
    """

    def __init__(
        self,
        config: Config,
        estimator: BodyEstimator,
        folder: Path,
        on_error: Callable[[BaseException], None] | None = None,
        motion: Motion | None = None,
        on_event: Sink | None = None,
    ) -> None:
        self._motion, self._on_event = motion, on_event
        self._config = config
        self._folder = folder
        self._scheduler = StreamScheduler(estimator, on_error=on_error)
        self._served: dict[str, _Served] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Hub:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scheduler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        # The streams end first; each source's thread then finishes by itself.
        self._scheduler.close()
        with self._lock:
            remaining = list(self._served.values())
        for served in remaining:
            served.end()

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
        channel = Channel(lambda: self._reason(stream), output=config.output)
        show = make_render_loop(config, stream, [channel, channel.fits], None)
        return _Served(
            without_credentials(config.source),
            stream,
            channel,
            show,
            self._dispatcher(name, stream, config, None if before is None else before.event_log),
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

    def _dispatcher(
        self, name: str, stream: VideoStream, config: Config, event_log: EventLog | None
    ) -> tuple[EventDispatcher, EventLog] | None:
        if self._motion is None:
            return None
        event_log = event_log or EventLog()
        sinks: list[Sink] = [event_log]
        if self._on_event is not None:
            # The log is first: the page shows an event even if its webhook fails.
            sinks.append(event_log.guarded(self._on_event))
        info_of = partial(info_of_event, name, stream)
        return EventDispatcher(
            stream, info_of, sinks, renderer_name(config, stream.estimator), config.render.alpha
        ).start(), event_log

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
        served.end()

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
            event_log = self._served[name].event_log
        return [] if event_log is None else event_log.after(after)

    def strip(self, name: str, number: int) -> bytes:
        """Return the pictures of an event, as `EventLog.strip`.

        Raises:
            KeyError: There is no source of that name, or no such event of it.
        """
        with self._lock:
            event_log = self._served[name].event_log
        if event_log is None:
            raise KeyError(number)
        return event_log.strip(number)

    def record(self, name: str, on: bool) -> str | None:
        """Begin a source's recording, or end it and wait until its files are complete.

        Args:
            name: The name of the source.
            on: Whether it is to be recorded. Beginning a second recording does nothing.

        Returns:
            The name of the video file while it is recorded, or None.

        Raises:
            KeyError: There is no source of that name.
            RuntimeError: The source has ended.
        """
        channel = self._channel(name)
        if on and self._served[name].stream.ended.is_set():
            raise RuntimeError(f"{name} has ended")
        if not on:
            channel.recordings.record(None)
            return None
        if channel.recordings.path is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            channel.recordings.record(self._free(f"{name}_{stamp}"))
        return channel.recordings.path.name if channel.recordings.path else None

    def files(self) -> list[tuple[str, int]]:
        """Return the names of all recordings' files, the newest first, with their sizes in bytes.

        Videos and bodies are separate files.
        """
        found = []
        for path in self._folder.iterdir():
            # Other files in the folder are not offered for download.
            if path.suffix in SUFFIXES:
                with suppress(FileNotFoundError):  # Rotation may delete a file meanwhile.
                    found.append((path.stat(), path))
        found.sort(key=lambda item: item[0].st_mtime, reverse=True)
        # A folder or a pipe may have such a name too.
        return [(path.name, stat.st_size) for stat, path in found if S_ISREG(stat.st_mode)]

    def file(self, name: str) -> Path:
        """Return the path of a recording's file.

        The name is looked up among the existing files and never joined to a path unchecked, so
        ``../x`` is refused.

        Raises:
            KeyError: There is no such file.
        """
        if name not in {known for known, _ in self.files()}:
            raise KeyError(name)
        return self._folder / name

    def _free(self, stem: str) -> Path:
        """Return a path for a video of that name, with a number appended if a recording has it."""
        # Two recordings may begin within a second. Names with an underscore count as taken, because
        # rotation writes NAME_0001.mp4.
        number, free = 2, stem
        while any(
            path.name.startswith((f"{free}.", f"{free}_")) for path in self._folder.iterdir()
        ):
            free, number = f"{stem}-{number}", number + 1
        return self._folder / f"{free}.mp4"

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
        stream, event_log = served.stream, served.event_log
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
        latency, recordings = figures.latency_ms, served.channel.recordings
        predicted = served.show.prediction_error()
        return SourceView(
            name=name,
            address=served.address,
            state=str(state),
            reason=recordings.trouble
            or (event_log.trouble if event_log else "")
            or reason
            or stream.faults.trouble,
            since_s=round(since_s, 1),
            fps=round(stream.stats.live_fps(), 1) if state is State.LIVE else 0.0,
            people=served.channel.people if state is State.LIVE else 0,
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
            recording=recordings.path.name if recordings.path else None,
            not_recorded=recordings.dropped,
            unfitted=figures.unfitted,
            predicted_ms=(
                None if predicted is None else (predicted.ahead_p50_ms, predicted.ahead_p95_ms)
            ),
            predicted_off_px=None if predicted is None else (predicted.p50_px, predicted.p95_px),
            events=None if event_log is None else event_log.count,
        )
