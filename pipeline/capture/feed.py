"""A network feed or a camera that is opened again when it is lost. Belongs to one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.capture.base import Halt, SourceInfo
from pipeline.capture.decode import Decoder, video_stream
from pipeline.capture.devices import Entrance
from pipeline.capture.errors import SourceError, SourceLost, SourceUnreachable, reason
from pipeline.capture.files import frame_rate
from pipeline.capture.picture import Allocate, RgbConverter, empty_image, upright_size
from pipeline.capture.timeline import FrameIndex, Timeline
from pipeline.frame import Frame

_PAUSE_S = (0.25, 2.0)
"""The first and the longest pause between two tries."""

_MOST_REMARKS = 20


@dataclass
class _Connection:
    container: InputContainer
    decoder: Decoder
    pictures: Iterator[VideoFrame]


class Feed:
    """A feed that is opened again when it is lost, for as long as ``retry_s`` allows.

    ``pts_s`` is 0 at the first frame; over a loss it goes on by the clock. Frame ids rise by one,
    and the first frame after a loss is a discontinuity. All calls may block for as long as
    FFmpeg does, and all but ``info`` come from one thread.
    """

    def __init__(
        self,
        entrance: Entrance,
        retry_s: float,
        *,
        halt: Halt,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
        allocate: Allocate = empty_image,
    ) -> None:
        self._entrance = entrance
        self._retry_s = retry_s
        self.name = entrance.name
        self.download = entrance.download
        self.warnings: list[str] = []
        self._halt = halt
        self._clock_ns = clock_ns
        self._wait = wait
        self._connection: _Connection | None = None
        self._info: SourceInfo | None = None
        self._to_rgb = RgbConverter(allocate)

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._info

    def open(self) -> None:
        """Connect and decode the first frame, trying again until ``retry_s`` has passed."""
        self._connection = self._connect()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.container.close()
            self._connection = None

    def frames(self) -> Iterator[Frame]:
        """The frames. Raises SourceLost when it is lost and does not come back in time."""
        ids = count()
        last: Frame | None = None
        while self._connection is not None:
            why = "the stream ended"
            try:
                for frame in self._play(self._connection, ids, last):
                    last = frame
                    yield frame
            except av.error.FFmpegError as error:
                why = reason(error)
            else:
                if self.download:
                    return
            if self._halt.is_set():
                return
            self._come_back(why)

    def _play(
        self, connection: _Connection, ids: Iterator[int], last: Frame | None
    ) -> Iterator[Frame]:
        """The frames of one connection; ``last`` is the last one of the connection before."""
        stream = connection.decoder.stream
        away_s = 0.0 if last is None else (self._clock_ns() - last.captured_ns) / 1e9
        begun_s = 0.0 if last is None else last.pts_s + away_s
        timeline = Timeline(float(stream.time_base or 0), frame_rate(stream), offset_s=begun_s)
        broken = last is not None
        for picture in connection.pictures:
            if self._halt.is_set():
                return
            captured_ns = self._clock_ns()
            pts_s, jump = timeline.place(picture.pts)
            image = self._to_rgb(picture, stream.sample_aspect_ratio)
            if last is not None:
                broken = broken or jump or image.shape != last.image.shape
            last = Frame(next(ids), self.name, captured_ns, pts_s, image, broken)
            broken = False
            yield last

    def _come_back(self, why: str) -> None:
        """Connect again after a loss. Raises SourceLost; returns unconnected when halted."""
        self.close()
        begun_ns = self._clock_ns()
        try:
            self._connection = self._connect()
        except SourceError as error:
            if self._halt.is_set():
                return
            tried = f" and did not come back in {self._retry_s:g} s"
            raise SourceLost(
                f"{self.name}: lost ({why}){tried if self._retry_s else ''}"
            ) from error
        away_s = (self._clock_ns() - begun_ns) / 1e9
        if len(self.warnings) < _MOST_REMARKS:
            self.warnings.append(f"{self.name}: lost ({why}), back after {away_s:.1f} s")

    def _connect(self) -> _Connection:
        """Try until it works, ``retry_s`` has passed, or trying again cannot help."""
        deadline_ns = self._clock_ns() + round(self._retry_s * 1e9)
        pause_s = _PAUSE_S[0]
        while True:
            try:
                return self._try_once()
            except SourceUnreachable:
                left_s = (deadline_ns - self._clock_ns()) / 1e9
                if left_s <= 0 or self._wait(min(pause_s, left_s)):
                    raise
                pause_s = min(2 * pause_s, _PAUSE_S[1])

    def _try_once(self) -> _Connection:
        try:
            container = self._entrance.open()
        except av.error.FFmpegError as error:
            raise self._entrance.explain(error) from error
        try:
            stream = video_stream(container, self.name)
            # Frame threads would hold back one frame each.
            decoder = Decoder(container, stream, "SLICE", FrameIndex())
            stream.codec_context.flags |= Flags.low_delay
            pictures = decoder.pictures()
            first = next(pictures, None)
            if first is None:
                raise SourceUnreachable(f"{self.name}: it ended before its first frame")
        except av.error.FFmpegError as error:
            container.close()
            raise self._entrance.explain(error) from error
        except BaseException:
            container.close()
            raise
        self._info = self._describe(stream, first)
        return _Connection(container, decoder, chain((first,), pictures))

    def _describe(self, stream: VideoStream, first: VideoFrame) -> SourceInfo:
        width, height = upright_size(first, stream.sample_aspect_ratio)
        return SourceInfo(
            name=self.name,
            live=True,
            width=width,
            height=height,
            fps=frame_rate(stream),
            frame_count=None,
            codec=stream.codec_context.name,
        )
