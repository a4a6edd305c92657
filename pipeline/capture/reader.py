"""One connection to a live source, opened and read by a thread of its own.

FFmpeg may block for as long as a network or a driver likes. So nobody else calls it: what a
thread has read waits in a ring of one, and a thread that hangs is left behind and frees what it
holds when FFmpeg lets go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
from av.codec.context import Flags
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.capture.decode import Decoder, video_stream
from pipeline.capture.devices import StreamInput
from pipeline.capture.errors import SourceUnreachable
from pipeline.capture.files import frame_rate
from pipeline.capture.timeline import FrameIndex
from pipeline.core.ring import Closed, Policy, Ring


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture, when it came (monotonic nanoseconds), and a pixel's width over its
    height (None: unknown)."""

    image: VideoFrame
    captured_ns: int
    aspect: Fraction | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a stream says of itself: its clock's unit, its frame rate and its codec."""

    time_base_s: float
    fps: float | None
    codec: str


class Reader:
    """Opens an ``entrance`` and reads its pictures until it ends, is lost or closed.

    ``ready`` is set once the first picture is there or nothing will come. ``pictures`` holds the
    next ones; after the last, ``get`` raises Closed, and ``error`` says what ended it (None: the
    stream's own end). ``policy`` says what becomes of a picture that nobody takes.
    """

    def __init__(
        self, entrance: StreamInput, clock_ns: Callable[[], int], policy: Policy = Policy.WAIT
    ) -> None:
        self._entrance = entrance
        self._clock_ns = clock_ns
        self._closed = threading.Event()
        self._decoder: Decoder | None = None
        # Only the thread may ask a container that it may close at any time.
        self._facts: Facts | None = None
        self.ready = threading.Event()
        self.pictures: Ring[Picture] = Ring(1, policy)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"read {entrance.name}", daemon=True)
        self.thread.start()

    @property
    def facts(self) -> Facts:
        """Of what is read; once ``ready`` with a picture."""
        assert self._facts is not None
        return self._facts

    @property
    def damaged(self) -> int:
        """Packets that could not be read or decoded."""
        return 0 if self._decoder is None else self._decoder.damaged

    def close(self) -> None:
        """Read no more. The thread ends by itself, at once or when FFmpeg lets go."""
        self._closed.set()
        self.pictures.abort()

    def _run(self) -> None:
        try:
            with self._entrance.open() as container:
                stream = video_stream(container, self._entrance.name)
                # Frame threads would hold back one frame each.
                decoder = Decoder(container, stream, "SLICE", FrameIndex())
                stream.codec_context.flags |= Flags.low_delay
                for image in decoder.pictures():
                    if self._facts is None:
                        self._decoder, self._facts = decoder, _facts(stream)
                    aspect = stream.sample_aspect_ratio
                    self.pictures.put(Picture(image, self._clock_ns(), aspect))
                    self.ready.set()
            if self._decoder is None:
                name = self._entrance.name
                raise SourceUnreachable(f"{name}: it ended before its first frame")
        except Closed:
            pass
        except av.error.FFmpegError as error:
            # An open connection that breaks is told from one that never was.
            self.error = error if self._decoder is not None else self._entrance.explain(error)
        except BaseException as error:
            self.error = error
        finally:
            self.pictures.close()
            self.ready.set()


def _facts(stream: VideoStream) -> Facts:
    codec = stream.codec_context.name
    return Facts(float(stream.time_base or 0), frame_rate(stream), codec)
