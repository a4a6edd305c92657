"""What is served: sources through one model, and what is known of each."""

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
from pipeline.capture.errors import SourceError
from pipeline.capture.status import State
from pipeline.core.redact import without_credentials
from pipeline.core.stats import Snapshot, Stats
from pipeline.events.detect import Detector
from pipeline.events.motion import Motion
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream

MOST_SOURCES = 32
_FIGURES_S = 0.25
_ADDRESS = re.compile(r"(?i)(rtsps?|rtmp|https?|udp|tcp)://[^\s]+|\d{1,2}|/dev/video\d{1,2}")
"""What may be added over the network: no files of this machine."""
_NUMBERS = count()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True)
class SourceView:
    """A source as its watchers see it. ``address`` and ``reason`` hold no logins; ``latency_ms``
    are p50, p95 and p99 from capture to output, ``stages_ms`` medians a frame, ``dropped`` frames
    by cause; ``since_s`` is how long it has been in its ``state``, ``not_recorded`` counts frames
    that recordings left out, the disk or the encoder being too slow. With low latency ``unfitted``
    frames were shown with predicted bodies alone, ``predicted_ms`` ahead of the last fit, a joint
    ``predicted_off_px`` from where it was fitted later (p50 and p95; None without). ``events`` were
    told so far, None where none are looked for."""

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
    recording: str | None
    not_recorded: int
    unfitted: int
    predicted_ms: tuple[float, float] | None
    predicted_off_px: tuple[float, float] | None
    events: int | None


class _Figures:
    """A source's counters, looked through at most so often however many ask: their quantiles
    cost milliseconds."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._lock = threading.Lock()
        self._seen, self._at_s = stats.snapshot(), -math.inf

    def now(self) -> Snapshot:
        with self._lock:
            if time.monotonic() - self._at_s > _FIGURES_S:
                self._seen, self._at_s = self._stats.snapshot(), time.monotonic()
            return self._seen


class _Served:
    def __init__(
        self,
        address: str,
        stream: VideoStream,
        channel: Channel,
        show: RenderLoop,
        dispatcher: tuple[EventDispatcher, EventLog] | None,
    ) -> None:
        self.address, self.stream, self.channel, self.show = address, stream, channel, show
        self.number = next(_NUMBERS)
        self.told = None if dispatcher is None else dispatcher[1]
        self._dispatcher = None if dispatcher is None else dispatcher[0]
        self.figures = _Figures(stream.stats)
        self.error = ""
        self.added_s = time.monotonic()
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"show {stream.name}")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.show.run(self._stop)
        except SourceError as error:
            self.error = str(error)
        except Exception as error:
            # Told on the page; the model's own faults also end the hub.
            self.error = f"{type(error).__name__}: {without_credentials(str(error))}"
        finally:
            self.channel.close()

    def end(self) -> None:
        """Wait for its threads, once its lane is removed."""
        self.thread.join(10)
        if self._dispatcher is not None:
            try:
                self._dispatcher.close()
            except Exception as error:
                self.error = f"{type(error).__name__}: {without_credentials(str(error))}"


class Hub:
    """Serves sources through one ``estimator``, in a ``with`` block. ``config`` says how each is
    read and drawn; recordings go into ``folder``. ``on_error`` hears of a fault of the model.

    With a ``motion`` its events are looked for in every source; each is kept for whoever asks, and
    told to ``on_event`` too.
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

    def __enter__(self) -> Hub:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scheduler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._scheduler.close()
        for served in self._served.values():
            served.end()

    def names(self) -> set[str]:
        with self._lock:
            return set(self._served)

    def sources(self) -> list[SourceView]:
        return [view for view, _ in self.figures()]

    def figures(self) -> list[tuple[SourceView, Snapshot]]:
        """Every source as it is seen, and what its counters say."""
        with self._lock:
            served = list(self._served.items())
        found = [(name, each, each.figures.now()) for name, each in served]
        return [(self._view(name, each, seen), seen) for name, each, seen in found]

    def add(self, address: str, name: str | None = None, *, trusted: bool = False) -> str:
        """Start a source; the name it got. ``trusted`` addresses (the command line's) may be
        files. Raises ValueError in one line for a bad address or name, RuntimeError where there
        are too many, SourceError."""
        if not trusted and not _ADDRESS.fullmatch(address):
            raise ValueError(
                "an address is rtsp://, rtmp://, http://, udp:// or tcp://..., or a camera: its "
                "number or /dev/video..."
            )
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("a name is up to 60 letters, digits, dots, dashes and underscores")
        config = replace(self._config, source=address)
        capture = replace(config.capture, retry_s=float("inf"), pace="live")
        source = source_of(replace(config, capture=capture), threading.Event())
        with self._lock:
            if len(self._served) >= MOST_SOURCES:
                raise RuntimeError(f"there are {MOST_SOURCES} sources already")
            if name is None:
                name = names_of([address], taken=self._served)[0]
            if name in self._served:
                raise ValueError(f"there is a source named {name} already")
            watch = None if self._motion is None else Detector(self._motion)
            stream = self._scheduler.add(
                name, source, low_latency=is_low_latency(config), watch=watch
            )  # fmt: skip
            channel = Channel(lambda: self._reason(stream), output=config.output)
            show = make_render_loop(config, stream, [channel, channel.fits], None)
            self._served[name] = _Served(
                without_credentials(address),
                stream,
                channel,
                show,
                self._dispatcher(name, stream, config),
            )
        return name

    def _dispatcher(
        self, name: str, stream: VideoStream, config: Config
    ) -> tuple[EventDispatcher, EventLog] | None:
        if self._motion is None:
            return None
        told = EventLog()
        sinks: list[Sink] = [told]
        if self._on_event is not None:
            sinks.append(told.unharmed_by(self._on_event))
        info_of = partial(info_of_event, name, stream)
        return EventDispatcher(
            stream, info_of, sinks, renderer_name(config, stream.estimator), config.render.alpha
        ).start(), told

    def remove(self, name: str) -> None:
        """End a source and forget it. Raises KeyError."""
        with self._lock:
            served = self._served.pop(name)
        self._scheduler.remove(name)
        served.end()

    def number(self, name: str) -> int:
        """Of the source that has this name now: no other had or gets it. Raises KeyError."""
        with self._lock:
            return self._served[name].number

    def picture(self, name: str, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """As `Channel.picture`. Raises KeyError."""
        return self._channel(name).picture(after, timeout_s)

    def bodies(self, name: str, after: int, timeout_s: float = 0.0) -> list[tuple[int, str]]:
        """As `Channel.bodies`. Raises KeyError."""
        return self._channel(name).bodies(after, timeout_s)

    @property
    def looks_for_events(self) -> bool:
        return self._motion is not None

    def events(self, name: str, after: int) -> list[tuple[int, str]]:
        """As `EventLog.after`; none where none are looked for. Raises KeyError."""
        with self._lock:
            told = self._served[name].told
        return [] if told is None else told.after(after)

    def strip(self, name: str, number: int) -> bytes:
        """As `EventLog.strip`. Raises KeyError."""
        with self._lock:
            told = self._served[name].told
        if told is None:
            raise KeyError(number)
        return told.strip(number)

    def record(self, name: str, on: bool) -> str | None:
        """Begin or end a recording; its file's name while it goes on. Raises KeyError, and
        RuntimeError for a source that has ended."""
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
        """Recordings, videos and bodies, by name, with their sizes in bytes, the newest first."""
        found = []
        for path in self._folder.iterdir():
            if path.suffix in SUFFIXES:
                with suppress(FileNotFoundError):  # Rotation deletes some.
                    found.append((path.stat(), path))
        found.sort(key=lambda each: each[0].st_mtime, reverse=True)
        return [(path.name, stat.st_size) for stat, path in found if S_ISREG(stat.st_mode)]

    def file(self, name: str) -> Path:
        """The recording of that name. Raises KeyError for anything else: a name is looked up, no
        path is made of it."""
        if name not in {known for known, _ in self.files()}:
            raise KeyError(name)
        return self._folder / name

    def _free(self, stem: str) -> Path:
        """A video's path of that name, or one like it where a recording has that."""
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
        """Why no picture comes, in a line."""
        status = stream.source.status
        served = self._served.get(stream.name)
        told = served.error if served is not None else ""
        if told or stream.ended.is_set():
            return told or "ended"
        return f"{status.state}: {status.reason}" if status and status.reason else "waiting"

    def _view(self, name: str, served: _Served, seen: Snapshot) -> SourceView:
        stream = served.stream
        status = stream.source.status
        counts = stream.source.counts
        state, reason = (State.LIVE if seen.read else State.CONNECTING), ""
        since_s = time.monotonic() - served.added_s
        if status is not None:
            state, reason = status.state, status.reason
            since_s = max(time.monotonic() - status.since_ns / 1e9, 0.0)
        if stream.ended.is_set() or served.error:
            state, reason = State.ENDED, served.error
        latency, recordings = seen.latency_ms, served.channel.recordings
        told = served.show.prediction_error()
        return SourceView(
            name=name,
            address=served.address,
            state=str(state),
            reason=recordings.trouble or (served.told.trouble if served.told else "") or reason,
            since_s=round(since_s, 1),
            fps=round(stream.stats.live_fps(), 1) if state is State.LIVE else 0.0,
            people=served.channel.people if state is State.LIVE else 0,
            latency_ms=(
                None if latency is None else (latency.p50_ms, latency.p95_ms, latency.p99_ms)
            ),
            read=seen.read,
            drawn=seen.drawn,
            dropped=dict(seen.dropped),
            stages_ms={name: each.p50_ms for name, each in seen.stages_ms.items()},
            reconnects=counts.get("reconnected", 0),
            damaged=counts.get("damaged", 0),
            recording=recordings.path.name if recordings.path else None,
            not_recorded=recordings.dropped,
            unfitted=seen.unfitted,
            predicted_ms=None if told is None else (told.ahead_p50_ms, told.ahead_p95_ms),
            predicted_off_px=None if told is None else (told.p50_px, told.p95_px),
            events=None if served.told is None else served.told.count,
        )
