"""What every source can do, and the one function that makes a source of what the user typed."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.capture.errors import (
    SourceEmpty,
    SourceError,
    SourceLost,
    SourceNotFound,
    SourceNotVideo,
    SourceRefused,
    SourceUnreachable,
    without_credentials,
)
from pipeline.capture.picture import Allocate, empty_image
from pipeline.frame import Frame

__all__ = [
    "NETWORK",
    "Halt",
    "Source",
    "SourceEmpty",
    "SourceError",
    "SourceInfo",
    "SourceLost",
    "SourceNotFound",
    "SourceNotVideo",
    "SourceOptions",
    "SourceRefused",
    "SourceUnreachable",
    "open_source",
    "without_credentials",
]

TEST_PREFIX = "lavfi:"
NETWORK = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""Schemes of addresses that are read as live feeds."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What an open source is. ``width`` and ``height`` are of the upright frames it delivers.

    ``frame_count`` is how many frames it will deliver, as far as can be told beforehand; ``fps``
    the average rate. Both are None where nothing says.
    """

    name: str
    live: bool
    width: int
    height: int
    fps: float | None
    frame_count: int | None
    codec: str


class Source(Protocol):
    """Frames from somewhere. Open it, iterate ``frames()`` once, close it.

    ``live`` says whether frames come at their own pace and must be dropped when nobody keeps up.
    ``warnings`` are one-line remarks on what went wrong without ending it (damaged packets, a
    file cut short, reconnections); complete once ``frames()`` has ended.
    """

    name: str
    live: bool
    warnings: list[str]

    @property
    def info(self) -> SourceInfo:
        """What it is. Raises RuntimeError before ``open()``."""

    def open(self) -> None:
        """Make ready, so that the first frame is there. Raises SourceError, in one line."""

    def frames(self) -> Iterator[Frame]:
        """The frames, in order, once. Raises SourceError when a live feed does not come back."""

    def close(self) -> None:
        """End ``frames()`` soon, from any thread, and free what is held. Safe to repeat."""


class Halt:
    """What every wait of a source listens to: its own ``close()`` and the ``stop`` it was given."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._closed = threading.Event()
        self._stop = stop

    def set(self) -> None:
        self._closed.set()

    def is_set(self) -> bool:
        return self._closed.is_set() or (self._stop is not None and self._stop.is_set())

    def wait(self, seconds: float) -> bool:
        """Wait that long, less if halted; returns whether it is."""
        end = time.monotonic() + seconds
        while not self.is_set():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._closed.wait(min(left, 0.05))
        return True


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is read.

    ``live``: None lets a clip (also one at an http address) wait for its consumer and everything
    else run at its own pace; True plays a clip at its own pace too, like a camera; False lets
    even a live feed wait.
    ``start_s`` and ``seconds`` cut a part out of the source's own time (None: to the end).
    ``retry_s``: how long a live source may be away before that is an error, at the start and
    after a loss (0: not at all; None: ten seconds at the start, for ever once it has been live).
    ``size`` (width, height) and ``fps`` are asked of a camera. ``rtsp_transport`` carries RTSP's
    media. ``decode`` "nvdec" has clips and network feeds decoded by an NVIDIA GPU. ``allocate``
    gives the memory that frames' images are put into, for whoever wants it page-locked.
    """

    live: bool | None = None
    start_s: float = 0.0
    seconds: float | None = None
    retry_s: float | None = None
    size: tuple[int, int] | None = None
    fps: float | None = None
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    decode: Literal["software", "nvdec"] = "software"
    allocate: Allocate = empty_image

    def __post_init__(self) -> None:
        least = min(self.start_s, self.retry_s or 0.0)
        if least < 0 or (self.seconds is not None and self.seconds <= 0):
            raise ValueError("start_s and retry_s are 0 or more, seconds above 0")

    @property
    def end_s(self) -> float:
        """Where the part ends in the source's own time; infinite for its end."""
        return math.inf if self.seconds is None else self.start_s + self.seconds


def open_source(
    spec: str,
    options: SourceOptions | None = None,
    *,
    stop: threading.Event | None = None,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    wait: Callable[[float], bool] | None = None,
) -> Source:
    """The source that ``spec`` names, not yet opened.

    ``spec`` is a clip's path, an address (rtsp://... and the other schemes of ``NETWORK``), a
    camera (``0``, ``/dev/video0``, ``camera:NAME``) or FFmpeg's test pictures
    (``lavfi:testsrc2=size=640x480:rate=30``). ``stop`` ends it from outside, like ``close()``.
    ``clock_ns`` and ``wait`` (seconds -> halted?) are for tests.

    Raises SourceNotFound for what is none of these.
    """
    from pipeline.capture.clip import ClipSource
    from pipeline.capture.devices import camera, network
    from pipeline.capture.feed import Feed
    from pipeline.capture.live import LiveSource
    from pipeline.capture.paced import PacedSource

    options = options or SourceOptions()
    halt = Halt(stop)
    wait = wait or halt.wait
    if not spec.strip():
        raise SourceNotFound("no source: give a clip, rtsp://..., a camera (0) or lavfi:testsrc2")
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", spec)
    if scheme and scheme[1].lower() not in NETWORK:
        raise SourceNotFound(f"{scheme[1]}:// is not read; these are: {', '.join(NETWORK)}")
    source: Source
    if scheme or re.fullmatch(r"\d+|/dev/video\d+|camera:.+", spec):
        if scheme:
            entrance = network(spec, options.rtsp_transport, decode=options.decode)
        else:
            entrance = camera(spec, options.size, options.fps)
        feed = Feed(
            entrance, options.retry_s, halt=halt, clock_ns=clock_ns, wait=wait,
            allocate=options.allocate,
        )  # fmt: skip
        source = LiveSource(feed, options, halt)
        paced = feed.download and options.live is True
    else:
        source = ClipSource(spec, options, halt=halt, clock_ns=clock_ns)
        # FFmpeg's test pictures stand in for a camera.
        paced = spec.startswith(TEST_PREFIX) if options.live is None else options.live
    return PacedSource(source, clock_ns=clock_ns, wait=wait) if paced else source
