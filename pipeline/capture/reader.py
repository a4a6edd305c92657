"""Read the pictures of one connection beside the thread that consumes them.

FFmpeg may block for any time in a network or a driver, and allocate what a server asks for.
Therefore the thread of a feed never calls it. `ThreadReader` calls it in a thread of this process,
`ProcessReader` in a process of its own, which can be ended and limited.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from av.video.frame import VideoFrame

from pipeline.capture.connection import Connection, Facts
from pipeline.capture.devices import StreamInput
from pipeline.capture.errors import SourceError
from pipeline.capture.hdr_tags import peak_nits
from pipeline.capture.side_data import Matrix, display_matrix
from pipeline.core.limits import MAX_PIXELS
from pipeline.core.ring import Closed, Policy, Ring


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture.

    Attributes:
        image: The picture as the decoder gave it.
        captured_ns: When it was decoded, in nanoseconds of the monotonic clock.
        aspect: A pixel's width / height; None if unknown.
        matrix: The rotation part (a, b, c, d) of its display matrix; None without one.
        peak_nits: Its peak in cd/m2, if it is HDR.
    """

    image: VideoFrame
    captured_ns: int
    aspect: Fraction | None
    matrix: Matrix | None
    peak_nits: float


class Reader(Protocol):
    """Reads a connection until it ends, is lost or is closed.

    Attributes:
        ready: Set once the first picture is available or none will come.
        pictures: A ring of one with the next picture. After the last, its ``get`` raises Closed.
        error: What ended the reading; None for the stream's own end.
        thread: The thread that fills the ring.
    """

    ready: threading.Event
    pictures: Ring[Picture]
    error: SourceError | None
    thread: threading.Thread

    @property
    def facts(self) -> Facts:
        """What the stream states; available once ``ready`` is set with a picture."""

    @property
    def damaged(self) -> int:
        """Number of packets that could not be read or decoded."""

    def memory_bytes(self) -> int:
        """Return the resident memory of its process, in bytes; 0 if it has none."""

    def close(self) -> None:
        """Stop reading, at once. From any thread."""


Connect = Callable[[StreamInput, Callable[[], int], Policy], Reader]
"""Begins to read an input: the input, the monotonic clock in nanoseconds, and what happens to a
picture that is not yet taken when the next one comes."""


class ThreadReader:
    """A `Reader` that decodes in a thread of this process.

    A thread that hangs in FFmpeg is abandoned, and frees the connection when FFmpeg returns.

    Args:
        stream_input: What to open.
        clock_ns: The monotonic clock, in nanoseconds.
        policy: What happens to a picture not yet taken when the next one comes.
        max_pixels: The largest picture that is accepted, in pixels.
    """

    def __init__(
        self,
        stream_input: StreamInput,
        clock_ns: Callable[[], int],
        policy: Policy = Policy.WAIT,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._connection = Connection(stream_input, max_pixels)
        self._clock_ns = clock_ns
        self.ready = threading.Event()
        self.pictures: Ring[Picture] = Ring(1, policy)
        self.error: SourceError | None = None
        # A daemon: a thread that hangs in a driver must not keep the process alive.
        self.thread = threading.Thread(
            target=self._run, name=f"read {stream_input.name}", daemon=True
        )
        self.thread.start()

    @property
    def facts(self) -> Facts:
        assert self._connection.facts is not None
        return self._connection.facts

    @property
    def damaged(self) -> int:
        return self._connection.damaged

    def memory_bytes(self) -> int:
        """Return 0: it has no process."""
        return 0

    def close(self) -> None:
        """Stop reading. The thread ends by itself, at once or when FFmpeg returns."""
        self.pictures.abort()

    def _run(self) -> None:
        connection = self._connection
        try:
            with closing(connection.pictures()) as pictures:
                for image in pictures:
                    now_ns, matrix = self._clock_ns(), display_matrix(image)
                    if connection.facts is not None and connection.facts.recording:
                        # It waits for its consumer, as any clip.
                        self.pictures.policy = Policy.WAIT
                    # The picture before the signal: a thread that waits for `ready` finds it.
                    self.pictures.put(
                        Picture(image, now_ns, connection.aspect, matrix, peak_nits(image))
                    )
                    self.ready.set()
        except Closed:
            pass
        except SourceError as error:
            self.error = error
        finally:
            # Closed before the signal, so that a thread that waits for `ready` finds the end.
            self.pictures.close()
            self.ready.set()
