"""What every source can do, what is known of one, and how one is read."""

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

    A class of your own becomes a source by having these members; with `SourceDefaults` as its base
    it inherits ``status``, ``counts`` and ``mark``.

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
        """Events of the connection so far, by name: "reconnected", "damaged". From any thread."""

    @property
    def mark(self) -> str:
        """Text that tells this clip from others of its name, the same in each run; "" for none."""

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

    A source has no status that could change, no counts and no mark, unless it overrides them.
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
    def mark(self) -> str:
        """No mark."""
        return ""


class StopSignal:
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
