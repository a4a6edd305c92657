"""One connection to a live source: open the input, decode its pictures, name what ended it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.capture.aspect import square_size
from pipeline.capture.decode import Decoder, video_stream
from pipeline.capture.devices import StreamInput
from pipeline.capture.errors import (
    SourceError,
    SourceLost,
    SourceTooLarge,
    SourceUnreachable,
    reason,
)
from pipeline.capture.files import frame_rate
from pipeline.capture.playlist import is_recording
from pipeline.capture.timeline import FrameIndex


@dataclass(frozen=True, slots=True)
class Facts:
    """What a stream states.

    Attributes:
        time_base_s: The unit of its time stamps, in seconds.
        fps: Its frames a second; None if it states none.
        codec: FFmpeg's name of its codec.
        recording: Whether it is a finished playlist: it waits for its consumer, and its end is no
            loss.
    """

    time_base_s: float
    fps: float | None
    codec: str
    recording: bool


class Connection:
    """A connection, used by one thread. ``pictures()`` opens it, decodes and closes it.

    Args:
        stream_input: What to open.
        max_pixels: The largest picture that is accepted, in pixels.

    Attributes:
        facts: What the stream states; None before the first picture.
        damaged: The number of packets so far that could not be read or decoded.
        aspect: A pixel's width / height; None if unknown.
    """

    def __init__(self, stream_input: StreamInput, max_pixels: int) -> None:
        self._input = stream_input
        self._max_pixels = max_pixels
        self._decoder: Decoder | None = None
        self.facts: Facts | None = None

    @property
    def damaged(self) -> int:
        return 0 if self._decoder is None else self._decoder.damaged

    @property
    def aspect(self) -> Fraction | None:
        return None if self._decoder is None else self._decoder.stream.sample_aspect_ratio

    def pictures(self) -> Generator[VideoFrame, None, None]:
        """Yield the decoded pictures until the stream ends.

        Raises:
            SourceError: It cannot be opened or read, whatever failed. Once a picture has come, the
                message is the bare reason.
        """
        try:
            with self._input.open() as container:
                yield from self._decoded(container)
        except SourceError:
            raise
        except av.error.FFmpegError as error:
            if self.facts is None and not isinstance(error, MemoryError):
                raise self._input.to_error(error) from error
            raise self._failed(error) from error
        except Exception as error:
            # A server decides what arrives here, and it may be well the next time. Therefore each
            # error that its data can cause in the libraries is a failure of this connection only.
            raise self._failed(error) from error
        if self.facts is None:
            raise SourceUnreachable(f"{self._input.name}: it ended before its first frame")

    def _decoded(self, container: InputContainer) -> Iterator[VideoFrame]:
        stream = video_stream(container, self._input.name, self._input.track)
        self._check_size(stream.width, stream.height)
        # With FFmpeg's frame threading each thread would delay the stream by a frame.
        self._decoder = decoder = Decoder(container, stream, "SLICE", FrameIndex())
        stream.codec_context.flags |= Flags.low_delay
        for image in decoder.pictures():
            # The size at which it is shown: a pixel's aspect may stretch it fourfold.
            self._check_size(*square_size(image.width, image.height, self.aspect))
            if self.facts is None:
                self.facts = _facts(stream, is_recording(container))
            yield image

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise SourceTooLarge(
                f"{self._input.name}: its pictures of {width}x{height} have more pixels than "
                f"max_pixels ({self._max_pixels}) allows"
            )

    def _failed(self, error: Exception) -> SourceError:
        why = "no memory for its pictures" if isinstance(error, MemoryError) else reason(error)
        kind = SourceTooLarge if isinstance(error, MemoryError) else SourceUnreachable
        return SourceLost(why) if self.facts is not None else kind(f"{self._input.name}: {why}")


def _facts(stream: VideoStream, recording: bool) -> Facts:
    codec = stream.codec_context.name
    return Facts(float(stream.time_base or 0), frame_rate(stream), codec, recording)
