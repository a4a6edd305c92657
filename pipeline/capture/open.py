"""Open a source from the text that the user typed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.capture.addresses import NETWORK, TEST_PREFIX, is_camera
from pipeline.capture.base import Source, SourceOptions, StopSignal
from pipeline.capture.clip import ClipSource
from pipeline.capture.devices import camera, network
from pipeline.capture.errors import SourceNotFound
from pipeline.capture.feed import Feed
from pipeline.capture.live import LiveSource
from pipeline.capture.paced import PacedSource
from pipeline.capture.playlist import dash_hint

_VIDEO_PAGES = re.compile(
    r"https?://(www\.|m\.)?(youtube\.com|youtu\.be|vimeo\.com|twitch\.tv)/", re.I
)


def _path_of(address: str) -> str:
    """The path of a file:// address of this machine (RFC 8089)."""
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise SourceNotFound(f"file://{parts.netloc}/...: a file of another machine; mount it here")
    return unquote(parts.path)


def _hint(spec: str) -> str:
    """What to do instead of giving a source that people try and that is not read; else nothing."""
    if spec == "-":
        return "standard input is not read; write it to a file, or send it with FFmpeg to udp://"
    if _VIDEO_PAGES.match(spec):
        return "is a page, not a video; download the video first (yt-dlp does) and give the file"
    plain = "://" not in spec and not spec.startswith((TEST_PREFIX, "camera:"))
    if plain and re.search("[%*]", Path(spec).name) and not Path(spec).exists():
        return (
            "is a pattern of pictures; make a clip of them first: ffmpeg -framerate 30 -i PATTERN "
            "clip.mp4"
        )
    return dash_hint(spec)


def open_source(
    spec: str,
    options: SourceOptions | None = None,
    *,
    stop: threading.Event | None = None,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    wait: Callable[[float], bool] | None = None,
) -> Source:
    """Return the source that ``spec`` names, not yet opened.

    Args:
        spec: A clip's path, an address (``rtsp://...`` and the other schemes of
            `addresses.NETWORK`), a camera (``0``, ``/dev/video0``, ``camera:NAME``) or FFmpeg's
            test pictures (``lavfi:testsrc2=size=640x480:rate=30``).
        options: How to read it; the defaults if None.
        stop: Ends the source from outside when it is set, like ``close()``.
        clock_ns: The monotonic clock, in nanoseconds. For tests.
        wait: Waits some seconds and returns whether the source was stopped. For tests.

    Raises:
        SourceNotFound: ``spec`` is none of these.
    """
    options = options or SourceOptions()
    # One signal for all parts of the source, so that close() or `stop` ends every wait in them.
    stop_signal = StopSignal(stop)
    wait = wait or stop_signal.wait
    if not spec.strip():
        raise SourceNotFound("no source: give a clip, rtsp://..., a camera (0) or lavfi:testsrc2")
    if spec.lower().startswith("file://"):
        spec = _path_of(spec)
    if hint := _hint(spec):
        raise SourceNotFound(f"{spec}: {hint}")
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", spec)
    if scheme and scheme[1].lower() not in NETWORK:
        raise SourceNotFound(f"{scheme[1]}:// is not read; these are: {', '.join(NETWORK)}")
    source: Source
    if scheme or is_camera(spec):
        if scheme:
            stream_input = network(spec, options.rtsp_transport, decode=options.decode)
        else:
            stream_input = camera(spec, options.size, options.fps)
        feed = Feed(
            stream_input, options.retry_s, stop_signal=stop_signal, clock_ns=clock_ns, wait=wait,
            allocate=options.allocate,
        )  # fmt: skip
        source = LiveSource(feed, options, stop_signal)
        paced = feed.download and options.live is True
    else:
        source = ClipSource(spec, options, stop_signal=stop_signal, clock_ns=clock_ns)
        # FFmpeg's test pictures stand in for a camera.
        paced = spec.startswith(TEST_PREFIX) if options.live is None else options.live
    return PacedSource(source, clock_ns=clock_ns, wait=wait) if paced else source
