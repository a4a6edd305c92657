"""Read clips (any file that FFmpeg reads) and FFmpeg's test pictures, every frame in order."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame

from pipeline.capture.addresses import TEST_PREFIX
from pipeline.capture.base import SourceDefaults, SourceInfo, SourceOptions, StopSignal
from pipeline.capture.decode import described, video_tracks
from pipeline.capture.errors import SourceEmpty, SourceNotVideo, reason
from pipeline.capture.files import frame_rate, mark_of, stated_duration_s
from pipeline.capture.hdr_tags import peak_nits
from pipeline.capture.picture import Converter, upright_size
from pipeline.capture.seek import StartFrame, find_start_frame
from pipeline.capture.session import Session, start_session, start_session_at
from pipeline.capture.side_data import display_matrix
from pipeline.capture.timeline import Timeline
from pipeline.core.frame import Frame
from pipeline.core.yuv import Pixels, size_of

# Times are sums of floats; a frame just at the edge of the part must not be lost to rounding.
_EPSILON_S = 1e-6


class ClipSource(SourceDefaults):
    """A clip, read as fast as the consumer takes its frames.

    ``Frame.pts_s`` is 0 at the clip's first frame. ``Frame.id`` is the frame's index in the whole
    clip, also when only a part of it is read. With ``start_s`` the clip is indexed first (its
    packets are read, not decoded); decoding then starts at the last key frame before the part.
    ``live`` is False; `PacedSource` plays a clip like a camera.

    Args:
        spec: Path of the file, or ``lavfi:...`` for FFmpeg's test pictures.
        options: ``start_s``, ``seconds``, ``decode``, ``track``, ``allocate`` and ``planes`` count
            here.
        stop_signal: Ends ``frames()`` from outside.
        clock_ns: The clock of `Frame.captured_ns`.
    """

    live = False

    def __init__(
        self,
        spec: str,
        options: SourceOptions,
        *,
        stop_signal: StopSignal | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._spec = spec
        self.name = spec if spec.startswith(TEST_PREFIX) else Path(spec).name
        self._start_s, self._end_s = options.start_s, options.end_s
        self._stop = stop_signal or StopSignal()
        self._clock_ns = clock_ns
        self._using = threading.Lock()
        self._session: Session | None = None
        self._origin: int | None = None
        self._info: SourceInfo | None = None
        self._to_pixels = Converter(options.allocate, options.planes)
        self._decode, self._track = options.decode, options.track
        self.warnings: list[str] = []

    @property
    def mark(self) -> str:
        """Eight hex digits of the file's path, size and time of change; "" if it is no file.

        They differ between files of one name, and are the same each time the same file is read.
        """
        return mark_of(self._spec)

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._info

    def open(self) -> None:
        """Decode the first frame of the clip, and of the part to be read.

        Raises:
            SourceError: It cannot be opened or decoded, or ends before the part.
        """
        with self._using:
            self._session = session = self._start()
            self._origin = session.first.pts
            self._remark_tracks(session)
            # Each field of an interlaced frame may have a packet, so packets do not count frames.
            start = None if session.first.interlaced_frame else self._find_start()
            self._info = self._describe(session, start)
            if start is not None and start.number > 0:
                at_start = start_session_at(self._spec, self.name, start, self._decode, self._track)
                # None: seeking does not work in this file. Then all frames before are decoded too.
                if at_start is not None:
                    session.close()
                    self._session = at_start

    def close(self) -> None:
        self._stop.set()
        # While frames() runs, the container belongs to its thread, which closes it at the end.
        if self._using.acquire(blocking=False):
            try:
                self._close_session()
            finally:
                self._using.release()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, once.

        Raises:
            SourceEmpty: The part to read has no frame.
            SourceNotVideo: A picture cannot be converted.
        """
        with self._using:
            session = self._session
            if session is None:
                raise RuntimeError(f"{self.name} is not open, or was read already")
            try:
                yield from self._read(session)
            finally:
                self._close_session()

    def _start(self) -> Session:
        """Open the clip at its first picture. Raises SourceError."""
        return start_session(self._spec, self.name, self._decode, self._track)

    def _remark_tracks(self, session: Session) -> None:
        """Say which of several tracks is read, unless the user has chosen it."""
        tracks = video_tracks(session.container)
        if self._track is None and len(tracks) > 1:
            number = tracks.index(session.decoder.stream) + 1
            self.warnings.append(
                f"{self.name}: has the video tracks {described(tracks)}; track {number} is read "
                "(--track N reads another)"
            )

    def _find_start(self) -> StartFrame | None:
        if self._start_s == 0 or self._origin is None or self._spec.startswith(TEST_PREFIX):
            return None
        return find_start_frame(self._spec, self.name, self._origin, self._start_s, self._track)

    def _read(self, session: Session) -> Iterator[Frame]:
        stream, index = session.decoder.stream, session.decoder.index
        timeline = Timeline(float(stream.time_base or 0), self.info.fps, self._origin)
        pts_s, size, whole = 0.0, None, True
        for picture in self._pictures(session):
            # The clock is read before the conversion to RGB, which is part of the frame's delay.
            captured_ns = self._clock_ns()
            number = index.number(picture.pts)
            # The frame came too late: frames behind it have been delivered.
            if number is None:
                continue
            pts_s, jump = timeline.place(picture.pts)
            if self._stop.is_set() or pts_s >= self._end_s - _EPSILON_S:
                whole = False
                break
            if pts_s < self._start_s - _EPSILON_S:
                continue
            pixels = self._convert(picture, stream.sample_aspect_ratio)
            # Only the first frame after a change of size breaks off.
            broken = jump or size not in (None, size_of(pixels))
            size = size_of(pixels)
            yield Frame(number, self.name, captured_ns, pts_s, pixels, broken)
        if size is None and not self._stop.is_set():
            raise SourceEmpty(f"{self.name}: ends at {pts_s:.2f} s, before {self._start_s:g} s")
        self._add_warnings(session, pts_s, whole)

    def _pictures(self, session: Session) -> Iterator[VideoFrame]:
        """The pictures up to the end, or up to an error, which becomes a warning."""
        try:
            yield from session.pictures()
        except av.error.FFmpegError as error:
            self.warnings.append(f"{self.name}: cannot be read to its end: {reason(error)}")

    def _convert(self, picture: VideoFrame, aspect: Fraction | None) -> Pixels:
        try:
            return self._to_pixels(picture, aspect, display_matrix(picture), peak_nits(picture))
        except av.error.FFmpegError as error:
            raise SourceNotVideo(
                f"{self.name}: its {picture.format.name} pictures cannot be shown: {reason(error)}"
            ) from error

    def _describe(self, session: Session, start: StartFrame | None) -> SourceInfo:
        stream = session.decoder.stream
        width, height = upright_size(
            session.first, stream.sample_aspect_ratio, display_matrix(session.first)
        )
        fps = frame_rate(stream)
        return SourceInfo(
            name=self.name,
            live=False,
            width=width,
            height=height,
            fps=fps,
            frame_count=self._frame_count(session, start, fps),
            codec=stream.codec_context.name,
        )

    def _frame_count(
        self, session: Session, start: StartFrame | None, fps: float | None
    ) -> int | None:
        if start is not None:
            return sum(time_s < self._end_s - _EPSILON_S for time_s in start.times_s)
        stream = session.decoder.stream
        stated_s = stated_duration_s(session.container, stream)
        # Many containers state no count; length and rate give one.
        count = stream.frames or (round(stated_s * fps) if stated_s and fps else None)
        if fps is None or (self._start_s == 0 and self._end_s == math.inf):
            return count
        length_s = math.inf if count is None else count / fps
        wanted_s = min(self._end_s, length_s) - self._start_s
        return max(0, round(wanted_s * fps)) if math.isfinite(wanted_s) else None

    def _add_warnings(self, session: Session, last_s: float, whole: bool) -> None:
        """Add warnings about damage, and about missing frames if the clip was read to its end."""
        decoder, stream = session.decoder, session.decoder.stream
        if decoder.damaged:
            self.warnings.append(f"{self.name}: {decoder.damaged} damaged packets skipped")
        if not whole:
            return
        stated_s = stated_duration_s(session.container, stream)
        if self._start_s == 0 and decoder.packets < stream.frames:
            self.warnings.append(
                f"{self.name}: is cut short: {decoder.packets} of {stream.frames} frames are there"
            )
        elif stated_s and not stream.frames and last_s < 0.95 * stated_s - 1.0:
            self.warnings.append(
                f"{self.name}: is cut short: it says {stated_s:.1f} s and ends at {last_s:.1f} s"
            )

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
