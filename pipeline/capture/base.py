"""The protocol of video sources, the facts about an open one, and the options for reading one."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.capture.picture import Allocate, empty_image
from pipeline.capture.status import Status
from pipeline.core.frame import Frame
from pipeline.core.limits import MAX_PIXELS, MEMORY_MB


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """The facts about an open source.

    Attributes:
        name: The source's name, without credentials.
        live: Whether frames come at their own pace and must be dropped when the consumer is slow.
        width: Width of the upright frames that it delivers, in pixels.
        height: Their height, in pixels.
        fps: Average frames a second; None if the source does not say.
        frame_count: Number of frames it will deliver, as far as can be known beforehand; None if
            nothing says.
        codec: FFmpeg's name of the codec.
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

    A class of your own becomes a source by having these members; with `SourceDefaults` as its base
    it inherits ``status``, ``counts``, ``decoder_bytes`` and ``mark``.

    Attributes:
        name: Its name in messages and in `Frame.source`, without credentials.
        live: Whether frames come at their own pace and must be dropped when the consumer is slow.
        warnings: One-line remarks on problems that did not end it (damaged packets, a file cut
            short, reconnections). Complete once ``frames()`` has ended.
    """

    name: str
    live: bool
    warnings: list[str]

    @property
    def info(self) -> SourceInfo:
        """What the source is.

        Raises:
            RuntimeError: ``open()`` has not been called.
        """

    @property
    def status(self) -> Status | None:
        """What a source that can be lost is doing now; None for any other. From any thread."""

    @property
    def counts(self) -> Counter[str]:
        """Events of the connection so far, by name: "reconnected", "damaged", and failures by their
        causes (`errors.CAUSES`). From any thread."""

    @property
    def decoder_bytes(self) -> int:
        """Resident memory of the process that decodes it, in bytes; 0 if this process does."""

    @property
    def mark(self) -> str:
        """A few letters that tell files of one name apart, the same in each run; "" for none."""

    def open(self) -> None:
        """Get ready, so that the first frame is available.

        Raises:
            SourceError: It cannot be read. The message is one line that says what to do.
        """

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, in order, once.

        Raises:
            SourceError: A live feed was lost and does not come back, or a clip has no such part.
        """

    def close(self) -> None:
        """End ``frames()`` soon and free its resources. From any thread; safe to repeat."""


class SourceDefaults:
    """Base class with the members that most sources leave alone.

    A source has no status that could change, no counts, no process and no mark, unless it overrides
    them.
    """

    @property
    def status(self) -> Status | None:
        """None: this source cannot be lost."""
        return None

    @property
    def counts(self) -> Counter[str]:
        """An empty counter."""
        return Counter()

    @property
    def decoder_bytes(self) -> int:
        """0: this process decodes it."""
        return 0

    @property
    def mark(self) -> str:
        """No mark."""
        return ""


class WrappedSource:
    """Base class of a source that changes another one's frames: all that is not overridden is the
    other one's.

    Args:
        source: The other one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name, self.live, self.warnings = source.name, source.live, source.warnings

    @property
    def info(self) -> SourceInfo:
        """What the source is."""
        return self._source.info

    @property
    def status(self) -> Status | None:
        """Its status."""
        return self._source.status

    @property
    def counts(self) -> Counter[str]:
        """Its counts."""
        return self._source.counts

    @property
    def decoder_bytes(self) -> int:
        """The memory of the process that decodes it."""
        return self._source.decoder_bytes

    @property
    def mark(self) -> str:
        """Its mark."""
        return self._source.mark

    def open(self) -> None:
        """Get ready. Raises SourceError."""
        self._source.open()

    def close(self) -> None:
        """End it, from any thread."""
        self._source.close()


class StopSignal:
    """Ends the waits of a source: set by its own ``close()`` or by an event from outside.

    Args:
        stop: The event from outside; None for none.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._closed = threading.Event()
        self._stop = stop

    def set(self) -> None:
        """End all waits. The event from outside stays as it is."""
        self._closed.set()

    def is_set(self) -> bool:
        """Return whether either of the two has been set."""
        return self._closed.is_set() or (self._stop is not None and self._stop.is_set())

    def wait(self, seconds: float) -> bool:
        """Wait that long, or until the signal is set; return whether it is set."""
        end = time.monotonic() + seconds
        while not self.is_set():
            left = end - time.monotonic()
            if left <= 0:
                return False
            # An event cannot wait for two at once, so the outer one is looked at now and then.
            self._closed.wait(min(left, 0.05))
        return True


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is read.

    Attributes:
        live: None: a clip (also one at an HTTP address) waits for its consumer, everything else
            runs at its own pace. True: a clip plays at its own pace too, like a camera. False: a
            live feed waits too.
        start_s: Where the part to read begins, in seconds of the source's own time.
        seconds: Length of that part; None: to the end.
        retry_s: How long a live source may be away before that is an error, at the start and
            after a loss. 0: not at all. None: ten seconds at the start, without a limit once the
            source has been live.
        size: (width, height) in pixels to request from a camera; None: its own choice.
        fps: Frames a second to request from a camera; None: its own choice.
        rtsp_transport: What carries RTSP's media.
        track: The video track of a clip to read, from 1; None: the one that FFmpeg calls the best.
        max_pixels: The largest picture that a feed or a camera may send, in pixels.
        memory_mb: What the process that decodes a feed or a camera may allocate, in MB.
        decode: "nvdec" decodes clips and network feeds on an NVIDIA GPU.
        allocate: Returns the memory for a frame's pixels, for example page-locked memory.
        planes: Whether pictures that come as YUV 4:2:0 stay so, as `Converter` has it.

    Raises:
        ValueError: A time or the track is out of range.
    """

    live: bool | None = None
    start_s: float = 0.0
    seconds: float | None = None
    retry_s: float | None = None
    size: tuple[int, int] | None = None
    fps: float | None = None
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    track: int | None = None
    max_pixels: int = MAX_PIXELS
    memory_mb: int = MEMORY_MB
    decode: Literal["software", "nvdec"] = "software"
    allocate: Allocate = empty_image
    planes: bool = False

    def __post_init__(self) -> None:
        least = min(self.start_s, self.retry_s or 0.0)
        if least < 0 or (self.seconds is not None and self.seconds <= 0):
            raise ValueError("start_s and retry_s are 0 or more, seconds above 0")
        if self.track is not None and self.track < 1:
            raise ValueError("tracks are numbered from 1")

    @property
    def end_s(self) -> float:
        """End of the part in the source's own time, in seconds; infinite for the source's end."""
        return math.inf if self.seconds is None else self.start_s + self.seconds
