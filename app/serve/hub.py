"""The hub of `serve`: sources that share one estimator, and the state of each."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from app.body_renderer import BodyRenderer
from app.build import is_low_latency, source_of
from app.config import Config, ConfigError, with_changes
from app.render_loop import renderer_name
from app.render_loop_low_latency import make_render_loop
from app.reports.dispatcher import EventDispatcher, Sink, info_of_event
from app.serve.channel import Channel
from app.serve.event_log import EventForwarder, EventLog
from app.serve.folder import RecordingFolder
from app.serve.handover import (
    BEGINNING,
    Begin,
    Handover,
    SourceReport,
    pack,
    unpack,
    with_moved,
)
from app.serve.served import ServedSource, SourceEvents, is_live
from app.serve.settings import Values, by_key, needs_restart, settings_of
from app.serve.source_view import SourceView, view_of
from app.source_names import names_of
from pipeline.capture.addresses import is_address, parse_address
from pipeline.capture.base import Source
from pipeline.capture.every_nth import EveryNth
from pipeline.capture.looped import LoopedSource
from pipeline.core.problem import one_line
from pipeline.core.stats import Snapshot, Stats
from pipeline.events.detect import Detector
from pipeline.events.motion import Motion
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream

MOST_SOURCES = 32
_CAMERA = re.compile(r"(?ia)\d{1,2}|/dev/video\d{1,2}|/dev/v4l/by-(id|path)/[a-z0-9][\w.:@+-]*")
"""The cameras of this machine that may be added over the network."""
_DRAIN_S = 1.0
"""How long the frames of a source that is handed over may take to be drawn."""
_READY_S = 15.0
"""How long a source may be connected before it begins."""
_LEAVE_S = 20.0
"""How long the end of the hub waits for files of a source that was handed over."""
_JUST_AFTER_S = 1e-3
"""A clip is read on from just after the last frame that was read."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


def config_of(config: Config, address: str) -> Config:
    """Return the configuration of a served source: it is tried for ever, and a file runs at its own
    pace, as a camera would."""
    capture = replace(config.capture, retry_s=float("inf"), pace="live")
    return replace(config, source=address, capture=capture)


def check_change(before: Config, after: Config, events: bool) -> None:
    """Raise ConfigError unless a source's settings can become others; ``events`` says whether
    events are detected in it."""
    if events and is_low_latency(after):
        raise ConfigError("timing: every frame is searched for events; low-latency drops some")
    transport = before.capture.rtsp_transport != after.capture.rtsp_transport
    if transport and not before.source.lower().startswith("rtsp"):
        raise ConfigError("rtsp_transport: this source is not rtsp://")


def check_new(address: str, name: str | None, trusted: bool) -> None:
    """Raise ValueError unless a source of this address and name may be added; see `Hub.add`."""
    if not trusted:
        _check_remote(address)
    if name is not None and not _NAME.fullmatch(name):
        raise ValueError("a name is up to 60 letters, digits, dots, dashes and underscores")


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


@dataclass(frozen=True)
class _ReadySource:
    """A live source that is connected and has not begun, until a time of the monotonic clock."""

    source: LoopedSource
    config: Config
    every: int
    until_s: float


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
        make_source: Makes a source of its configuration, not yet opened; None: `source_of`.

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
        make_source: Callable[[Config, threading.Event], Source] | None = None,
    ) -> None:
        self._make_source = make_source
        self._motion, self._on_event, self._on_warning = motion, on_event, on_warning
        self._config = config
        self.folder = RecordingFolder(folder)
        self._scheduler = StreamScheduler(estimator, on_error=on_error)
        self._served: dict[str, ServedSource] = {}
        self._ready: dict[str, _ReadySource] = {}
        self._leaving: dict[ServedSource, threading.Thread] = {}
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
            remaining, leaving = list(self._served.values()), list(self._leaving.values())
            unused, self._ready = list(self._ready.values()), {}
        for ready in unused:
            ready.source.close()
        for served in remaining:
            self._end(served)
        # Sources that were handed over a moment ago: their files must become complete too.
        for thread in leaving:
            thread.join(_LEAVE_S)

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
        return [(view_of(name, source, counts), counts) for name, source, counts in found]

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
        check_new(address, name, trusted)
        config = config_of(self._config, address)
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

    def prepare(self, name: str, config: Config, every: int = 1) -> None:
        """Connect to a live source that `begin` will begin, so that it begins at once.

        One that does not begin within `_READY_S` is closed again.

        Args:
            name: Its name.
            config: Its settings.
            every: As `Begin`.

        Raises:
            SourceError: It cannot be read; also once `withdraw` was called.
        """
        source = self._looped(name, config, Begin(every=every))
        ready = _ReadySource(source, config, every, time.monotonic() + _READY_S)
        with self._lock:
            before = self._ready.get(name)
            self._ready[name] = ready
        if before is not None:
            before.source.close()
        source.open()

    def withdraw(self, name: str) -> None:
        """Close a source that `prepare` connects to or has connected to, if there is one."""
        with self._lock:
            ready = self._ready.pop(name, None)
        if ready is not None:
            ready.source.close()

    def begin(self, name: str, config: Config, how: Begin) -> None:
        """Begin a source as another hub tells: under its name, from where it was there.

        Raises:
            ValueError: The name is taken.
            SourceError: The source cannot be made.
        """
        with self._lock:
            if name in self._served:
                raise ValueError(f"there is a source named {name} already")
            self._served[name] = self._begin(name, config, how=how)

    def hand_over(self, name: str) -> Handover:
        """End a source, and return what another hub begins it with.

        Its frames that were read are drawn first, for a second at most. Its files are complete only
        after this has returned.

        Raises:
            KeyError: There is no source of that name.
            RuntimeError: It is beginning again.
        """
        with self._lock:
            served = self._served[name]
            if served.restarting:
                raise RuntimeError(f"{name} is beginning again already")
            served.restarting = True
        stream = served.stream
        stream.stop()
        # Its state belongs to the scheduler's threads until the stream has ended.
        still = stream.ended.wait(_DRAIN_S)
        served.drawn.wait(_DRAIN_S)
        # Of one moment: what is drawn after it counts as moved.
        figures = stream.stats.snapshot(quantiles=False)
        thread = threading.Thread(target=self._leave, args=(served,), name=f"leave {name}")
        with self._lock:
            del self._served[name]
            self._leaving[served] = thread
        with suppress(KeyError):
            self._scheduler.remove(stream)
        thread.start()
        source = stream.source
        assert isinstance(source, LoopedSource)
        return Handover(
            served.config,
            Begin(
                figures=with_moved(figures),
                position=source.position_of(figures.last_read),
                state=pack(stream.state) if still else None,
                events=None if served.events is None else served.events.log.stored(),
                recording=served.recording_wanted or served.channel.recordings.state().wanted,
            ),
        )

    def _leave(self, served: ServedSource) -> None:
        try:
            self._end(served)
        finally:
            with self._lock:
                del self._leaving[served]

    def reports(self) -> dict[str, SourceReport]:
        """Return how every source stands, with what it can be begun again from elsewhere."""
        now_s = time.monotonic()
        with self._lock:
            served = dict(self._served)
            late = {n: one for n, one in self._ready.items() if one.until_s < now_s}
            self._ready = {n: one for n, one in self._ready.items() if n not in late}
        for ready in late.values():
            ready.source.close()
        found = {}
        for name, source in served.items():
            looped = source.stream.source
            assert isinstance(looped, LoopedSource)
            figures = source.stream.stats.snapshot(quantiles=False)
            found[name] = SourceReport(
                figures,
                looped.position_of(figures.last_read),
                source.config,
                source.recording_wanted or source.channel.recordings.state().wanted,
                source.number,
                0 if source.events is None else source.events.log.count,
            )
        return found

    def _looped(self, name: str, config: Config, how: Begin) -> LoopedSource:
        """A source that goes on from where it was."""

        def make(start_s: float | None = None) -> Source:
            own = config
            if start_s is not None:
                own = replace(config, capture=replace(config.capture, start_s=start_s))
            source = (self._make_source or source_of)(own, threading.Event())
            return source if how.every == 1 else EveryNth(source, how.every)

        # A clip's position is in its own time; a live source is where it is.
        first = None
        if how.position is not None and not is_live(config.source):
            first = partial(make, how.position.own_s + _JUST_AFTER_S)
        return LoopedSource(make, partial(self._loops, name), how.position, first)

    def _begin(
        self,
        name: str,
        config: Config,
        before: ServedSource | None = None,
        how: Begin = BEGINNING,
    ) -> ServedSource:
        """Return a source that has begun, for the first time, in the place of the one before, or as
        another hub tells. The caller holds the lock."""
        if before is not None:
            how = replace(how, every=before.every)
        ready, opened = self._ready.pop(name, None), False
        if ready is not None and (ready.config, ready.every) == (config, how.every):
            source, opened = ready.source, True
            source.after = how.position
        else:
            # It was connected for another purpose: another address, or another rate.
            if ready is not None:
                ready.source.close()
            source = self._looped(name, config, how)
        stats = Stats(after=how.figures) if before is None else before.stream.stats
        estimator = self._scheduler.estimator
        watch = None if self._motion is None else Detector(self._motion)
        stream = self._scheduler.add(
            name,
            source,
            low_latency=is_low_latency(config),
            watch=watch,
            opened=opened,
            # Counters go on where the source begins again.
            stats=stats,
            state=None if how.state is None else unpack(how.state, estimator.device),
        )
        try:
            return self._shown(name, config, stream, before, how)
        except BaseException:
            # Else its name would be taken for every later try.
            self._scheduler.remove(stream)
            raise

    def _shown(
        self,
        name: str,
        config: Config,
        stream: VideoStream,
        before: ServedSource | None,
        how: Begin,
    ) -> ServedSource:
        """Return a source whose stream has begun, with the thread that draws it."""
        new_path = partial(self.folder.new_path, name)
        channel = Channel(
            lambda: self._reason(stream),
            new_path,
            output=config.output,
            over=lambda: self._is_over(stream),
            first=how.first_picture,
        )
        if how.recording or (before is not None and before.recording_wanted):
            channel.recordings.begin()
        show = make_render_loop(config, stream, [channel, channel.fits], None)
        return ServedSource(
            config,
            stream,
            channel,
            show,
            self._events(name, stream, config, None if before is None else before.events, how),
            partial(self._begin_again, name) if is_live(config.source) else None,
            0 if before is None else before.faults,
            how.every,
        )

    def _loops(self, name: str) -> bool:
        with self._lock:
            served = self._served.get(name)
            return served is not None and served.config.capture.loop

    def _begin_again(
        self, name: str, ended: ServedSource, *, requested: bool = False
    ) -> str | None:
        """Put a new source in the place of one that has ended; return why it cannot begin.

        Args:
            name: Its name.
            ended: The one that has ended.
            requested: Whether a request asks for it. Otherwise, the source's own thread does so
                after a fault, and leaves it to a request that has come meanwhile.
        """
        with suppress(KeyError):  # An earlier try, or a request, has removed it.
            self._scheduler.remove(ended.stream)
        ended.stream.settle()
        with self._lock:
            # A request may have removed the source meanwhile, and the hub may be closed.
            if self._closed or self._served.get(name) is not ended:
                return None
            if ended.restarting and not requested:
                return None
            try:
                self._served[name] = self._begin(name, ended.config, ended)
            except Exception as error:
                return one_line(error)
        return None

    def _events(
        self,
        name: str,
        stream: VideoStream,
        config: Config,
        before: SourceEvents | None,
        how: Begin,
    ) -> SourceEvents | None:
        """The parts of a source's events. A source that begins again goes on with its log."""
        if self._motion is None:
            return None
        log, forwarder = EventLog(how.events), None
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
        return SourceEvents(dispatcher, log, forwarder)

    def change(self, name: str, values: Values) -> bool:
        """Change settings of a source, at once where it can be.

        Args:
            name: The name of the source.
            values: New values by the names in `settings.KEYS`.

        Returns:
            Whether the source has begun again: some settings are read only then, and a clip that
            has ended is played when it is to loop.

        Raises:
            KeyError: There is no source of that name.
            ValueError: A value is wrong, or does not go with the others; the message is one line.
            RuntimeError: As for `restart`; nothing is changed then.
        """
        with self._lock:
            served = self._served[name]
            if served.restarting:
                raise RuntimeError(f"{name} is beginning again; try once more")
            before = served.config
            after = with_changes(before, by_key(values))
            check_change(before, after, self._motion is not None)
            served.config = after
            served.show.draw_as(after.render)
            again = needs_restart(before, after) or (served.over and after.capture.loop)
            # Under the same lock, or a restart that comes between would refuse half of the change.
            served.restarting = again
        if again:
            self._restart(name, served, before)
        return again

    def settings(self, name: str) -> dict[str, bool | float | str]:
        """Return the settings of a source that `change` changes.

        Raises:
            KeyError: There is no source of that name.
        """
        with self._lock:
            return settings_of(self._served[name].config)

    def restart(self, name: str) -> None:
        """Begin a source again: a clip from its start, a live source with a new connection.

        Counters, events and the wish to be recorded go on; the recording goes on in another file.

        Raises:
            KeyError: There is no source of that name.
            RuntimeError: It is beginning again already, or cannot begin.
        """
        with self._lock:
            served = self._served[name]
            if served.restarting:
                raise RuntimeError(f"{name} is beginning again already")
            served.restarting = True
        self._restart(name, served, served.config)

    def _restart(self, name: str, served: ServedSource, before: Config) -> None:
        """Begin a source again that is marked as restarting, outside the lock: ending a source
        waits for its threads. Where that fails, it gets the settings ``before`` back."""
        with suppress(KeyError):  # It was about to begin again after a fault.
            self._scheduler.remove(served.stream)
        served.leave()
        reason = self._begin_again(name, served, requested=True)
        if reason is None:
            return
        with self._lock:
            served.config, served.error = before, reason
            # Its thread, which would try again, has ended.
            served.restarting = served.paused = False
            served.show.draw_as(before.render)
        raise RuntimeError(reason)

    def remove(self, name: str) -> None:
        """End a source and forget it, with its stored bodies and events.

        Raises:
            KeyError: There is no source of that name.
        """
        with self._lock:
            served = self._served.pop(name)
        # Outside the lock: ending a source waits for its threads.
        with suppress(KeyError):  # It was about to begin again after a fault.
            self._scheduler.remove(served.stream)
        self._end(served)

    def _end(self, served: ServedSource) -> None:
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

    def snapshot(self, name: str) -> bytes:
        """Return a source's newest picture as JPEG, in its full size.

        Raises:
            KeyError: There is no source of that name.
            RuntimeError: There is no picture yet.
        """
        return self._channel(name).snapshot()

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

    def written(self) -> set[str]:
        """Return the names of the recordings that are being written, without a suffix."""
        with self._lock:
            served = [*self._served.values(), *self._leaving]
        return {path.stem for each in served for path in each.channel.recordings.written()}

    def _channel(self, name: str) -> Channel:
        with self._lock:
            return self._served[name].channel

    def _is_over(self, stream: VideoStream) -> bool:
        """Return whether a stream has come to its end, without a fault."""
        served = self._served.get(stream.name)
        return served is not None and served.stream is stream and served.over

    def _reason(self, stream: VideoStream) -> str:
        """Return why no picture comes, in a line."""
        status = stream.source.status
        served = self._served.get(stream.name)
        error = served.error if served is not None else ""
        if error or stream.ended.is_set():
            return error or "ended"
        return f"{status.state}: {status.reason}" if status and status.reason else "waiting"
