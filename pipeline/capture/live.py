"""Network streams and cameras: sources that come, go and do not wait."""

from __future__ import annotations

import random
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import av

from pipeline.capture.base import (
    SourceError,
    SourceInfo,
    SourceNotFound,
    SourceOptions,
    SourceUnreachable,
    without_credentials,
)
from pipeline.capture.decode import Decoder, FrameMaker, upright_rgb
from pipeline.frame import Frame

_READ_TIMEOUT_S = 5.0
_BACKOFF_S = (0.2, 5.0)


class LiveSource(ABC):
    """A source that is opened again when it fails, for as long as ``retry_s`` allows.

    Frame ids keep rising over a reconnect, and the first frame after it is a discontinuity.
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
        self.live = options.live is not False
        self.name = spec
        self.warnings: list[str] = []
        self._decoder: Decoder | None = None
        self._info: SourceInfo | None = None

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise SourceError(f"{self.name} is not open")
        return self._info

    @abstractmethod
    def _container(self) -> av.container.InputContainer:
        """Open it once, or raise FFmpeg's error or a SourceError."""

    @abstractmethod
    def _unreachable(self, reason: str, tried_s: float) -> SourceError:
        """What to tell the user when it did not open in ``tried_s`` seconds."""

    def open(self) -> None:
        """Connect, trying again with growing pauses until ``retry_s`` has passed."""
        begun_ns = self._clock_ns()
        pause_s = _BACKOFF_S[0]
        while True:
            try:
                decoder = Decoder(self._container(), self.name, self.live, low_delay=True)
            except (av.error.FFmpegError, OSError, SourceError) as error:
                tried_s = (self._clock_ns() - begun_ns) / 1e9
                if self._stop.is_set() or tried_s + pause_s > self._options.retry_s:
                    if isinstance(error, SourceError):
                        raise
                    raise self._unreachable(_reason(error, self._spec), tried_s) from error
                # Jitter, so that many readers do not come back in step.
                self._stop.wait(pause_s * random.uniform(0.75, 1.25))
                pause_s = min(2 * pause_s, _BACKOFF_S[1])
            else:
                self._decoder = decoder
                self._info = decoder.info()
                return

    def frames(self) -> Iterator[Frame]:
        if self._decoder is None:
            self.open()
        maker = FrameMaker(self.name, self._clock_ns, self.info.fps)
        begun_ns = self._clock_ns()
        index = 0
        while not self._stop.is_set():
            assert self._decoder is not None
            reason = "the stream ended"
            try:
                for pts_s, picture in self._decoder.pictures():
                    if self._stop.is_set() or self._is_over(begun_ns):
                        return
                    yield maker.make(index, pts_s, upright_rgb(picture))
                    index += 1
            except (av.error.FFmpegError, OSError) as error:
                reason = _reason(error, self._spec)
            finally:
                self._decoder.container.close()
                self._decoder = None
            if self._stop.is_set():
                return
            self.warnings.append(f"{self.name} was lost after {index} frames: {reason}")
            if self._options.retry_s <= 0:
                raise self._unreachable(reason, 0.0)
            self.open()
            maker.broken = True

    def _is_over(self, begun_ns: int) -> bool:
        seconds = self._options.seconds
        return seconds is not None and (self._clock_ns() - begun_ns) / 1e9 >= seconds

    def close(self) -> None:
        self._stop.set()


class NetworkSource(LiveSource):
    """RTSP and other network streams. Credentials in the URL are used and never shown."""

    def __init__(self, spec: str, *rest) -> None:
        super().__init__(spec, *rest)
        self.name = without_credentials(spec)

    def _container(self) -> av.container.InputContainer:
        # FFmpeg's own socket timeout (microseconds); PyAV's takes the GIL at every poll.
        options = {"timeout": str(int(_READ_TIMEOUT_S * 1e6)), "fflags": "nobuffer"}
        if self._spec.startswith("rtsp"):
            options["rtsp_transport"] = self._options.rtsp_transport
        return av.open(self._spec, options=options)

    def _unreachable(self, reason: str, tried_s: float) -> SourceError:
        waited = f" for {tried_s:.0f} s" if tried_s >= 1 else ""
        return SourceUnreachable(
            f"{self.name} did not answer{waited}: {reason}\n"
            "Check the address and that the server runs; --retry-s S keeps trying for S seconds."
        )


class CameraSource(LiveSource):
    """A local camera: Video4Linux2, AVFoundation or DirectShow."""

    def _container(self) -> av.container.InputContainer:
        kind, device = _camera_device(self._spec)
        if kind == "v4l2" and not Path(device).exists():
            raise SourceNotFound(
                f"there is no camera {device}\n"
                "Plug one in, or try without: bodystream run lavfi:testsrc2=size=1280x720:rate=30"
            )
        return av.open(device, format=kind)

    def _unreachable(self, reason: str, tried_s: float) -> SourceError:
        return SourceUnreachable(f"camera {self.name} cannot be read: {reason}")


def _camera_device(spec: str) -> tuple[str, str]:
    """FFmpeg's input format and device name for a camera number or path on this system."""
    if sys.platform == "darwin":
        return "avfoundation", f"{spec}:none"
    if sys.platform == "win32":
        return "dshow", f"video={spec}"
    return "v4l2", f"/dev/video{spec}" if spec.isdigit() else spec


def _reason(error: Exception, spec: str) -> str:
    """FFmpeg's words in one line, without the address and what it may carry."""
    words = str(getattr(error, "strerror", None) or error).splitlines()[0]
    return words.replace(spec, without_credentials(spec))
