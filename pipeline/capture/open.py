"""Open a source from the text that the user typed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import unquote, urlsplit

from pipeline.capture.addresses import (
    STANDARD_INPUT,
    TEST_PREFIX,
    is_address,
    is_camera,
    parse_address,
)
from pipeline.capture.base import Source, SourceOptions, StopSignal
from pipeline.capture.clip import ClipSource
from pipeline.capture.decoder_pool import SUPPORTED
from pipeline.capture.devices import StreamInput, camera, network
from pipeline.capture.errors import SourceNotFound
from pipeline.capture.feed import Feed
from pipeline.capture.hints import hint
from pipeline.capture.live import LiveSource
from pipeline.capture.paced import PacedSource
from pipeline.capture.picture import Converter
from pipeline.capture.pictures import PicturesSource, is_pictures, picture_files
from pipeline.capture.reader import Connect, ThreadReader
from pipeline.capture.snapshot import SnapshotSource, is_snapshot
from pipeline.capture.standard_input import StandardInputSource
from pipeline.core.redact import without_credentials


def local_path(spec: str) -> str:
    """Return the path of a ``file://`` address of this machine (RFC 8089), and any other source as
    it is.

    Raises:
        SourceNotFound: It is a file of another machine.
    """
    if not spec.lower().startswith("file://"):
        return spec
    parts = urlsplit(spec)
    if parts.netloc not in ("", "localhost"):
        raise SourceNotFound("file://HOST/...: a file of another machine; mount it here")
    return unquote(parts.path)


def _connect(options: SourceOptions) -> Connect:
    """How feeds and cameras are read: in a process of their own, where that can be done.

    NVDEC stays in this process: each further one would take hundreds of MB on the GPU.
    """
    if not SUPPORTED or options.decode == "nvdec":
        return partial(ThreadReader, max_pixels=options.max_pixels)
    # The modules that it needs exist on Linux only.
    from pipeline.capture.process_reader import ProcessReader

    return partial(ProcessReader, max_pixels=options.max_pixels, memory_mb=options.memory_mb)


def check_there(spec: str) -> None:
    """Do nothing where a clip, a folder or a pattern names something, or the source is of another
    kind, which only opening it can tell.

    Raises:
        SourceNotFound: There is no such file, or no such picture.
    """
    spec = local_path(spec)
    if is_address(spec) or spec.startswith(TEST_PREFIX) or is_camera(spec):
        return
    if spec in STANDARD_INPUT:
        return
    if is_pictures(spec):
        picture_files(spec)
    elif not os.path.exists(os.path.expanduser(spec)):
        raise SourceNotFound(f"{without_credentials(spec)}: no such file")


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
        spec: A clip's path or ``file://`` address, a folder or a pattern of pictures, an address
            (``rtsp://...`` and the other schemes of `addresses.NETWORK`), a camera (``0``,
            ``/dev/video0``, ``camera:NAME``), ``-`` for standard input, or FFmpeg's test pictures
            (``lavfi:testsrc2=size=640x480:rate=30``).
        options: How to read it; the defaults if None.
        stop: Ends the source from outside when it is set, like ``close()``.
        clock_ns: The monotonic clock, in nanoseconds. For tests.
        wait: Waits some seconds and returns whether the source was stopped. For tests.

    Raises:
        SourceNotFound: ``spec`` is none of these. The message says what to do and holds no secret.
    """
    options = options or SourceOptions()
    # One signal for all parts of the source, so that close() or `stop` ends every wait in them.
    stop_signal = StopSignal(stop)
    wait = wait or stop_signal.wait
    spec = local_path(spec)
    if words := hint(spec):
        raise SourceNotFound(f"{without_credentials(spec)}: {words}" if spec.strip() else words)

    def live(stream_input: StreamInput) -> Source:
        feed = Feed(
            stream_input, options.retry_s, stop_signal=stop_signal, clock_ns=clock_ns, wait=wait,
            convert=Converter(options.allocate, options.planes), connect=_connect(options),
        )  # fmt: skip
        found = LiveSource(feed, options, stop_signal)
        if options.live is not True:
            return found
        # A download is a clip, which can be paced. Of a playlist only its opening tells.
        return PacedSource(found, clock_ns=clock_ns, wait=wait, is_clip=lambda: feed.download)

    source: Source
    paced = options.live is True
    if is_address(spec):
        try:
            address = parse_address(spec)
        except ValueError as error:
            raise SourceNotFound(str(error)) from None
        if is_snapshot(address):
            return SnapshotSource(
                address, options, stop_signal=stop_signal, clock_ns=clock_ns, wait=wait
            )
        return live(
            network(address.url, options.rtsp_transport, decode=options.decode, track=options.track)
        )
    if spec.startswith(TEST_PREFIX):
        source = ClipSource(spec, options, stop_signal=stop_signal, clock_ns=clock_ns)
        # FFmpeg's test pictures stand in for a camera.
        paced = options.live is not False
    elif spec in STANDARD_INPUT:
        source = StandardInputSource(options, stop_signal=stop_signal, clock_ns=clock_ns)
    elif is_camera(spec):
        return live(camera(spec, options.size, options.fps))
    elif is_pictures(spec):
        source = PicturesSource(spec, options, stop_signal=stop_signal, clock_ns=clock_ns)
    else:
        source = ClipSource(spec, options, stop_signal=stop_signal, clock_ns=clock_ns)
    return PacedSource(source, clock_ns=clock_ns, wait=wait) if paced else source
