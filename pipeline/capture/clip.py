"""Clips and FFmpeg's own test pictures (``lavfi:``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av

from pipeline.capture.base import (
    SourceError,
    SourceInfo,
    SourceNotFound,
    SourceNotVideo,
    SourceOptions,
)
from pipeline.capture.decode import Decoder, FrameMaker, upright_rgb
from pipeline.frame import Frame

_LAVFI = "lavfi:"


class ClipSource:
    """A recorded clip, each frame once and in order; with ``live`` played at its own pace.

    ``frame.id`` is the frame's index in the clip, also when it is entered at ``start_s``;
    ``pts_s`` counts from the stream's own start. A ``lavfi:`` source is live unless told
    otherwise, since it would run as fast as it is read, and for ever.
    """

    def __init__(
        self,
        spec: str,
        options: SourceOptions,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        stop: threading.Event | None = None,
    ) -> None:
        self._spec = spec
        self._options = options
        self._clock_ns = clock_ns
        self._stop = stop or threading.Event()
        made = spec.startswith(_LAVFI)
        self.name = spec if made else Path(spec).name
        self.live = made if options.live is None else options.live
        self.warnings: list[str] = []
        self._decoder: Decoder | None = None
        self._info: SourceInfo | None = None

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise SourceError(f"{self.name} is not open")
        return self._info

    def open(self) -> None:
        self._decoder = Decoder(self._container(), self.name, self.live, low_delay=False)
        self._info = self._decoder.info()
        length = self._info.frame_count
        if self._options.start_s > 0:
            self._decoder.seek(self._options.start_s)
        elif length and self._options.seconds:
            length = min(length, int(self._options.seconds * (self._info.fps or 30)))
        self._info = replace(self._info, frame_count=length)

    def _container(self) -> av.container.InputContainer:
        if self._spec.startswith(_LAVFI):
            graph = self._spec.removeprefix(_LAVFI)
            try:
                return av.open(graph, format="lavfi")
            except (av.error.FFmpegError, ValueError) as error:
                raise SourceNotVideo(f"FFmpeg cannot make '{graph}': {_reason(error)}") from error
        path = Path(self._spec)
        if path.is_dir():
            raise SourceNotVideo(f"{path} is a directory; give a video file")
        if not path.exists():
            raise SourceNotFound(f"there is no file {path}")
        try:
            return av.open(str(path))
        except PermissionError as error:
            raise SourceNotFound(f"{path} may not be read: permission denied") from error
        except (av.error.FFmpegError, OSError) as error:
            raise SourceNotVideo(
                f"{path} is not a video that FFmpeg can read, or it is cut short: {_reason(error)}"
            ) from error

    def frames(self) -> Iterator[Frame]:
        if self._decoder is None:
            self.open()
        decoder = self._decoder
        assert decoder is not None
        maker = FrameMaker(self.name, self._clock_ns, decoder.fps)
        start, seconds = self._options.start_s, self._options.seconds
        end = float("inf") if seconds is None else start + seconds - 1e-6
        begun: float | None = None
        read = 0
        try:
            for counted, (pts_s, picture) in enumerate(decoder.pictures()):
                if self._stop.is_set() or pts_s >= end:
                    return
                if pts_s < start - 1e-6:
                    continue
                if self.live:
                    now = self._clock_ns() / 1e9
                    begun = now - pts_s if begun is None else begun
                    self._stop.wait(max(0.0, begun + pts_s - now))
                image = upright_rgb(picture)
                read += 1
                yield maker.make(decoder.index_of(picture, counted), pts_s, image)
        except av.error.FFmpegError as error:
            self.warnings.append(
                f"{self.name} ends in damage after {read} frames: {_reason(error)}"
            )
        finally:
            self._report(read)
            self.close()

    def _report(self, read: int) -> None:
        decoder, info = self._decoder, self.info
        if decoder is not None and decoder.damaged:
            self.warnings.append(f"{self.name}: {decoder.damaged} damaged packets were skipped")
        whole = self._options.start_s == 0 and self._options.seconds is None
        if whole and not self._stop.is_set() and info.frame_count and read < info.frame_count - 1:
            self.warnings.append(
                f"{self.name} says {info.frame_count} frames; {read} could be read"
            )

    def close(self) -> None:
        self._stop.set()


def _reason(error: Exception) -> str:
    """FFmpeg's words without its call and number."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
