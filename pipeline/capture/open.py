"""The one function that makes a source of what the user typed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from pipeline.capture.addresses import NETWORK, TEST_PREFIX
from pipeline.capture.base import Source, SourceOptions, StopSignal
from pipeline.capture.clip import ClipSource
from pipeline.capture.devices import camera, network
from pipeline.capture.errors import SourceNotFound
from pipeline.capture.feed import Feed
from pipeline.capture.live import LiveSource
from pipeline.capture.paced import PacedSource


def open_source(
    spec: str,
    options: SourceOptions | None = None,
    *,
    stop: threading.Event | None = None,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    wait: Callable[[float], bool] | None = None,
) -> Source:
    """The source that ``spec`` names, not yet opened.

    ``spec`` is a clip's path, an address (rtsp://... and the other schemes of ``NETWORK``), a
    camera (``0``, ``/dev/video0``, ``camera:NAME``) or FFmpeg's test pictures
    (``lavfi:testsrc2=size=640x480:rate=30``). ``stop`` ends it from outside, like ``close()``.
    ``clock_ns`` and ``wait`` (seconds -> halted?) are for tests.

    Raises SourceNotFound for what is none of these.
    """
    options = options or SourceOptions()
    halt = StopSignal(stop)
    wait = wait or halt.wait
    if not spec.strip():
        raise SourceNotFound("no source: give a clip, rtsp://..., a camera (0) or lavfi:testsrc2")
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", spec)
    if scheme and scheme[1].lower() not in NETWORK:
        raise SourceNotFound(f"{scheme[1]}:// is not read; these are: {', '.join(NETWORK)}")
    source: Source
    if scheme or re.fullmatch(r"\d+|/dev/video\d+|camera:.+", spec):
        if scheme:
            entrance = network(spec, options.rtsp_transport, decode=options.decode)
        else:
            entrance = camera(spec, options.size, options.fps)
        feed = Feed(
            entrance, options.retry_s, halt=halt, clock_ns=clock_ns, wait=wait,
            allocate=options.allocate,
        )  # fmt: skip
        source = LiveSource(feed, options, halt)
        paced = feed.download and options.live is True
    else:
        source = ClipSource(spec, options, halt=halt, clock_ns=clock_ns)
        # FFmpeg's test pictures stand in for a camera.
        paced = spec.startswith(TEST_PREFIX) if options.live is None else options.live
    return PacedSource(source, clock_ns=clock_ns, wait=wait) if paced else source
