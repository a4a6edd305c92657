"""An open container to decoded pictures, stepping over what is damaged."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.capture.errors import SourceNotVideo
from pipeline.capture.timeline import FrameIndex

_MOST_ERRORS = 100
"""Errors in a row after which a stream counts as ended."""


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The stream to play: the best video that is no cover picture.

    Raises SourceNotVideo when there is none, or none that can be decoded.
    """
    best = container.streams.best("video")
    if not isinstance(best, VideoStream) or Disposition.attached_pic in best.disposition:
        kinds = sorted({stream.type for stream in container.streams})
        raise SourceNotVideo(f"{name}: has no video in it, only {', '.join(kinds) or 'nothing'}")
    if best.codec_context is None:
        raise SourceNotVideo(f"{name}: FFmpeg here has no decoder for its video")
    return best


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of ``stream`` and the empty one that flushes its decoder.

    Raises av.error.FFmpegError.
    """
    try:
        yield from container.demux(stream)
    except IndexError:
        # PyAV trips at the end over streams that only appeared on the way (MPEG-TS may add some);
        # those come last, so ours has been flushed.
        return


class Decoder:
    """The pictures of one stream in the order they are shown.

    ``threads`` is FFmpeg's threading: "AUTO" is quickest, "SLICE" adds no delay. ``index`` is
    told of every packet, and numbers the pictures. ``damaged`` counts packets that could not be
    read or decoded; they are stepped over. ``packets`` counts all that were read.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, threads: str, index: FrameIndex
    ) -> None:
        self._container = container
        self.stream = stream
        stream.codec_context.thread_type = threads
        self.index = index
        self.damaged = 0
        self.packets = 0

    def pictures(self) -> Generator[VideoFrame, None, None]:
        """Until the stream ends. Raises av.error.FFmpegError when it is lost."""
        for packet in self._packets():
            flush = not packet.size
            if not flush:
                self.packets += 1
                if not packet.is_discard:
                    self.index.packet(packet.pts)
            yield from self._decode(packet, flush)

    def _packets(self) -> Iterator[Packet]:
        """All packets and the empty one that flushes the decoder."""
        errors = 0
        while errors < _MOST_ERRORS:
            try:
                for packet in packets(self._container, self.stream):
                    errors = 0
                    yield packet
                return
            except av.error.InvalidDataError:
                # The generator is dead after an error; reading goes on with a new one.
                errors += 1
                self._damage()

    def _decode(self, packet: Packet, flush: bool) -> Iterator[VideoFrame]:
        for _ in range(_MOST_ERRORS):
            try:
                yield from packet.decode()
                return
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                # Decoders name damage in many ways: invalid data, not permitted, no memory.
                self._damage()
                if not flush:
                    return

    def _damage(self) -> None:
        self.damaged += 1
        self.index.damage()
