"""Decode the pictures of an open container; damaged packets are skipped."""

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
"""After this many errors in a row a stream counts as ended."""


def video_stream(container: InputContainer, name: str, track: int | None = None) -> VideoStream:
    """Return the stream to play: the video track of that number, else FFmpeg's best.

    Raises SourceNotVideo when there is none, when FFmpeg has no decoder for it, or when the tracks
    are the tiles of one picture.
    """
    tracks = video_tracks(container)
    # FFmpeg hands out the tiles of a HEIC or AVIF grid (ISO/IEC 23008-12, 6.6.2.3) one by one.
    tiles = sum(Disposition.dependent in stream.disposition for stream in tracks)
    if tiles > 1:
        raise SourceNotVideo(
            f"{name}: is a picture in {tiles} tiles, which FFmpeg does not join; convert it to "
            "JPEG or PNG first"
        )
    if not tracks:
        kinds = sorted({stream.type for stream in container.streams})
        raise SourceNotVideo(f"{name}: has no video in it, only {', '.join(kinds) or 'nothing'}")
    if track is not None and track > len(tracks):
        raise SourceNotVideo(f"{name}: has no video track {track}; it has {described(tracks)}")
    best = container.streams.best("video")
    # A cover picture is a video stream too, for FFmpeg.
    first = best if isinstance(best, VideoStream) and best in tracks else tracks[0]
    chosen = first if track is None else tracks[track - 1]
    if chosen.codec_context is None:
        raise SourceNotVideo(f"{name}: FFmpeg here has no decoder for its video")
    return chosen


def video_tracks(container: InputContainer) -> list[VideoStream]:
    """Return the video tracks in the order of their numbers, from 1; cover pictures are none."""
    return [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]


def described(tracks: list[VideoStream]) -> str:
    """Return a list of tracks for a message: "1 (h264, 640x360), 2 (hevc, 1280x720)"."""
    return ", ".join(f"{n} ({_kind(track)})" for n, track in enumerate(tracks, 1))


def _kind(track: VideoStream) -> str:
    context = track.codec_context
    return "no decoder" if context is None else f"{context.name}, {context.width}x{context.height}"


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Yield the packets of ``stream``, then the empty one that flushes its decoder.

    Raises av.error.FFmpegError.
    """
    try:
        yield from container.demux(stream)
    except IndexError:
        # At the end PyAV fails on streams that appeared while reading (MPEG-TS may add some). They
        # come last, so our stream has been flushed.
        return


class Decoder:
    """Decodes the pictures of one stream, in the order in which they are shown.

    ``threads`` is FFmpeg's threading: "AUTO" is fastest, "SLICE" adds no delay. ``index`` receives
    every packet's time stamp, and numbers the pictures. ``damaged`` counts packets that could not
    be read or decoded, which are skipped; ``packets`` counts all that were read.
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
        """Yield pictures until the stream ends. Raises av.error.FFmpegError when it is lost."""
        for packet in self._packets():
            flush = not packet.size
            if not flush:
                self.packets += 1
                # A packet to discard is decoded but never shown, so no frame is expected of it.
                if not packet.is_discard:
                    self.index.packet(packet.pts)
            yield from self._decode(packet, flush)

    def _packets(self) -> Iterator[Packet]:
        """All packets, then the empty one that flushes the decoder."""
        errors = 0
        while errors < _MOST_ERRORS:
            try:
                for packet in packets(self._container, self.stream):
                    errors = 0
                    yield packet
                return
            except av.error.InvalidDataError:
                # A generator has ended after an error, so reading continues with a new one.
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
                # Decoders report damage as different errors: invalid data, not permitted, memory.
                self._damage()
                # While the decoder is flushed, good pictures may still lie behind the damaged one.
                if not flush:
                    return

    def _damage(self) -> None:
        self.damaged += 1
        self.index.damage()
