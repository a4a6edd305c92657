"""Clips (any file FFmpeg reads) and FFmpeg's generated test pictures, every frame in order."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from pipeline.capture.addresses import TEST_PREFIX
from pipeline.capture.base import SourceDefaults, SourceInfo, SourceOptions, StopSignal
from pipeline.capture.errors import SourceEmpty, SourceNotVideo, reason
from pipeline.capture.files import frame_rate, stated_duration_s
from pipeline.capture.picture import RgbConverter, upright_size
from pipeline.capture.seek import Start, find_start
from pipeline.capture.session import Session, begin, begin_at
from pipeline.capture.timeline import Timeline
from pipeline.core.frame import Frame

_EPSILON_S = 1e-6


class ClipSource(SourceDefaults):
    """A clip, as fast as it is read; frames wait for their consumer.

    ``pts_s`` is 0 at the clip's first frame. ``Frame.id`` is the frame's place in the whole clip,
    also when only a part is read. With ``start_s`` the clip is indexed first (read, not decoded),
    then decoding begins at the last key frame before it. ``live`` is False: PacedSource plays a
    clip like a camera.
    """

    live = False

    def __init__(
        self,
        spec: str,
        options: SourceOptions,
        *,
        halt: StopSignal | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._spec = spec
        self.name = spec if spec.startswith(TEST_PREFIX) else Path(spec).name
        self._start_s, self._end_s = options.start_s, options.end_s
        self._halt = halt or StopSignal()
        self._clock_ns = clock_ns
        self._using = threading.Lock()
        self._session: Session | None = None
        self._origin: int | None = None
        self._info: SourceInfo | None = None
        self._to_rgb = RgbConverter(options.allocate)
        self._decode = options.decode
        self.warnings: list[str] = []

    @property
    def mark(self) -> str:
        """Tells it from other files of its name, and is its own again the next time."""
        try:
            path = Path(self._spec).resolve()
            about = path.stat()
        except OSError:
            return ""
        words = f"{path} {about.st_size} {about.st_mtime_ns}"
        return hashlib.sha256(words.encode()).hexdigest()[:8]

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._info

    def open(self) -> None:
        """Decode the first frame, of the clip and of the part to be read. Raises SourceError."""
        with self._using:
            self._session = session = begin(self._spec, self.name, self._decode)
            self._origin = session.first.pts
            start = None if session.first.interlaced_frame else self._find_start()
            self._info = self._describe(session, start)
            if start is not None and start.number > 0:
                there = begin_at(self._spec, self.name, start, self._decode)
                # None: the file cannot be sought in. Then all that comes before is decoded.
                if there is not None:
                    session.end()
                    self._session = there

    def close(self) -> None:
        self._halt.set()
        # While frames() runs the container is its thread's, which closes it on the way out.
        if self._using.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._using.release()

    def frames(self) -> Iterator[Frame]:
        """The frames, once. Raises SourceEmpty when none lies in the part asked for."""
        with self._using:
            session = self._session
            if session is None:
                raise RuntimeError(f"{self.name} is not open, or was read already")
            try:
                yield from self._read(session)
            finally:
                self._end()

    def _find_start(self) -> Start | None:
        if self._start_s == 0 or self._origin is None or self._spec.startswith(TEST_PREFIX):
            return None
        return find_start(self._spec, self.name, self._origin, self._start_s)

    def _read(self, session: Session) -> Iterator[Frame]:
        stream, index = session.decoder.stream, session.decoder.index
        timeline = Timeline(float(stream.time_base or 0), self.info.fps, self._origin)
        pts_s, size, whole = 0.0, None, True
        for picture in self._pictures(session):
            captured_ns = self._clock_ns()
            number = index.number(picture.pts)
            if number is None:
                continue
            pts_s, jump = timeline.place(picture.pts)
            if self._halt.is_set() or pts_s >= self._end_s - _EPSILON_S:
                whole = False
                break
            if pts_s < self._start_s - _EPSILON_S:
                continue
            image = self._convert(picture, stream.sample_aspect_ratio)
            broken = jump or size not in (None, image.shape)
            size = image.shape
            yield Frame(number, self.name, captured_ns, pts_s, image, broken)
        if size is None and not self._halt.is_set():
            raise SourceEmpty(f"{self.name}: ends at {pts_s:.2f} s, before {self._start_s:g} s")
        self._remark(session, pts_s, whole)

    def _pictures(self, session: Session) -> Iterator[VideoFrame]:
        """Up to where nothing more can be read."""
        try:
            yield from session.pictures()
        except av.error.FFmpegError as error:
            self.warnings.append(f"{self.name}: cannot be read to its end: {reason(error)}")

    def _convert(self, picture: VideoFrame, aspect: Fraction | None) -> np.ndarray:
        try:
            return self._to_rgb(picture, aspect)
        except av.error.FFmpegError as error:
            raise SourceNotVideo(
                f"{self.name}: its {picture.format.name} pictures cannot be shown: {reason(error)}"
            ) from error

    def _describe(self, session: Session, start: Start | None) -> SourceInfo:
        stream = session.decoder.stream
        width, height = upright_size(session.first, stream.sample_aspect_ratio)
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

    def _frame_count(self, session: Session, start: Start | None, fps: float | None) -> int | None:
        if start is not None:
            return sum(time_s < self._end_s - _EPSILON_S for time_s in start.times_s)
        stream = session.decoder.stream
        stated_s = stated_duration_s(session.container, stream)
        count = stream.frames or (round(stated_s * fps) if stated_s and fps else None)
        if fps is None or (self._start_s == 0 and self._end_s == math.inf):
            return count
        length_s = math.inf if count is None else count / fps
        wanted_s = min(self._end_s, length_s) - self._start_s
        return max(0, round(wanted_s * fps)) if math.isfinite(wanted_s) else None

    def _remark(self, session: Session, last_s: float, whole: bool) -> None:
        """Note what was wrong with the clip; what it lacks only if it was read to its end."""
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

    def _end(self) -> None:
        if self._session is not None:
            self._session.end()
            self._session = None
