"""One connection to a live source, opened and read by its own thread.

FFmpeg may block for any time in a network or a driver. Therefore only this thread calls it. Its
pictures wait in a ring of one; a thread that hangs is abandoned, and frees the container when
FFmpeg returns.
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
    """A decoded picture.

    ``captured_ns`` is when it was decoded, in nanoseconds of the monotonic clock; ``aspect`` a
    pixel's width / height, None if unknown.
    """

    image: VideoFrame
    captured_ns: int
    aspect: Fraction | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a stream states: the unit of its time stamps, its frame rate and its codec."""

    time_base_s: float
    fps: float | None
    codec: str


class Reader:
    """Opens an input and reads its pictures until it ends, is lost or is closed.

    ``ready`` is set once the first picture is available or none will come. ``pictures`` holds the
    next one; after the last, its ``get`` raises Closed, and ``error`` is what ended the reading
    (None: the stream's own end). ``policy`` is the ring's: what happens to a picture not yet taken
    when the next one comes.
    """

    def __init__(
        self, stream_input: StreamInput, clock_ns: Callable[[], int], policy: Policy = Policy.WAIT
    ) -> None:
        self._input = stream_input
        self._clock_ns = clock_ns
        self._closed = threading.Event()
        self._decoder: Decoder | None = None
        # Read by the thread alone: it may close the container at any time.
        self._facts: Facts | None = None
        self.ready = threading.Event()
        self.pictures: Ring[Picture] = Ring(1, policy)
        self.error: BaseException | None = None
        # A daemon: a thread that hangs in a driver must not keep the process alive.
        self.thread = threading.Thread(
            target=self._run, name=f"read {stream_input.name}", daemon=True
        )
        self.thread.start()

    @property
    def facts(self) -> Facts:
        """What the stream states; available once ``ready`` is set with a picture."""
        assert self._facts is not None
        return self._facts

    @property
    def damaged(self) -> int:
        """Number of packets that could not be read or decoded."""
        return 0 if self._decoder is None else self._decoder.damaged

    def close(self) -> None:
        """Stop reading. The thread ends by itself, at once or when FFmpeg returns."""
        self._closed.set()
        self.pictures.abort()

    def _run(self) -> None:
        try:
            with self._input.open() as container:
                stream = video_stream(container, self._input.name)
                # With FFmpeg's frame threading each thread would delay the stream by a frame.
                decoder = Decoder(container, stream, "SLICE", FrameIndex())
                stream.codec_context.flags |= Flags.low_delay
                for image in decoder.pictures():
                    if self._facts is None:
                        self._decoder, self._facts = decoder, _facts(stream)
                    aspect = stream.sample_aspect_ratio
                    # The picture before the signal: a thread that waits for `ready` finds it.
                    self.pictures.put(Picture(image, self._clock_ns(), aspect))
                    self.ready.set()
            if self._decoder is None:
                name = self._input.name
                raise SourceUnreachable(f"{name}: it ended before its first frame")
        except Closed:
            pass
        except av.error.FFmpegError as error:
            # The feed distinguishes a connection that broke from one that never opened.
            self.error = error if self._decoder is not None else self._input.to_error(error)
        except BaseException as error:
            self.error = error
        finally:
            # Closed before the signal, so that a thread that waits for `ready` finds the end.
            self.pictures.close()
            self.ready.set()


def _facts(stream: VideoStream) -> Facts:
    codec = stream.codec_context.name
    return Facts(float(stream.time_base or 0), frame_rate(stream), codec)
