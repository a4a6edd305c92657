"""What every source promises, and how a source is chosen from what the user typed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from pipeline.frame import Frame


class SourceError(RuntimeError):
    """A source cannot be read; the message is one line and says what to do."""


class SourceNotFound(SourceError):
    """There is no such file or camera."""


class SourceNotVideo(SourceError):
    """It is there, and it is not video."""


class SourceUnreachable(SourceError):
    """A live source did not answer, or stopped answering, for longer than was allowed."""


@dataclass(frozen=True)
class SourceInfo:
    """Known once the source is open. ``width``, ``height`` are as shown (after rotation);
    ``fps`` is as declared and may lie; None where the source does not say."""

    name: str
    live: bool
    width: int
    height: int
    fps: float | None
    frame_count: int | None
    codec: str


class Source(Protocol):
    """Frames in order. ``open`` raises SourceError; ``frames`` may too, once frames stop coming.

    ``live`` sources are not waited for by the pipeline: when it is slow, frames are dropped.
    ``warnings`` are lines for the user, such as how many damaged packets were skipped.
    """

    name: str
    live: bool
    warnings: list[str]

    @property
    def info(self) -> SourceInfo: ...

    def open(self) -> None: ...

    def frames(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Stop; safe from any thread and safe to repeat. A read in flight ends at its timeout."""
        ...


@dataclass(frozen=True)
class SourceOptions:
    """``live`` None: as the kind of source has it. ``start_s``, ``seconds`` cut a clip out (a
    live source has no start). ``retry_s``: how long a live source that is not there is tried."""

    live: bool | None = None
    start_s: float = 0.0
    seconds: float | None = None
    retry_s: float = 10.0
    rtsp_transport: str = "tcp"


def open_source(
    spec: str,
    options: SourceOptions | None = None,
    *,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    stop: threading.Event | None = None,
) -> Source:
    """The source for a clip's path, ``rtsp://...``, a camera (``0``, ``/dev/video0``) or
    ``lavfi:FILTERGRAPH``. Nothing is opened yet. Raises SourceError for an empty spec."""
    from pipeline.capture.clip import ClipSource
    from pipeline.capture.live import CameraSource, NetworkSource

    options = options or SourceOptions()
    stop = stop or threading.Event()
    if not spec:
        raise SourceNotFound("no source given: a clip, rtsp://..., a camera number or lavfi:...")
    if re.match(r"(rtsps?|rtmp|http|https|udp|tcp|srt)://", spec):
        return NetworkSource(spec, options, clock_ns, stop)
    if spec.isdigit() or spec.startswith("/dev/video"):
        return CameraSource(spec, options, clock_ns, stop)
    return ClipSource(spec, options, clock_ns, stop)


def without_credentials(url: str) -> str:
    """The URL as it may be shown: no user name, no password, no query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
