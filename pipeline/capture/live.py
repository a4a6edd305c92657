"""Network feeds and cameras: sources that may be lost, come back and do not wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from pipeline.capture.base import SourceDefaults, SourceInfo, SourceOptions, StopSignal
from pipeline.capture.feed import Feed
from pipeline.capture.status import Status
from pipeline.core.frame import Frame
from pipeline.core.ring import Policy


class LiveSource(SourceDefaults):
    """The wanted part of a feed.

    Stopping never waits for FFmpeg: ``open()``, ``frames()`` and ``close()`` end within about a
    tenth of a second. Until ``frames()`` is called, each picture replaces the one before it, so
    that a source opened long ago does not begin in the past. From then on no picture is dropped
    here. ``Frame.id`` and ``Frame.pts_s`` count from the first frame delivered.

    Args:
        feed: The feed, which reconnects by itself.
        options: ``live``, ``start_s`` and ``seconds`` count here.
        stop_signal: The signal that the feed listens to.
    """

    def __init__(self, feed: Feed, options: SourceOptions, stop_signal: StopSignal) -> None:
        self._feed = feed
        self._options = options
        self._stop = stop_signal
        self.name = feed.name
        self.live = not feed.download if options.live is None else options.live
        self.warnings = feed.warnings
        # The server of a download waits for us. To play one live, `open_source` paces it.
        feed.policy = Policy.DROP_OLDEST if self.live and not feed.download else Policy.WAIT
        self._reading = self._opened = False

    @property
    def info(self) -> SourceInfo:
        return replace(self._feed.info, live=self.live)

    @property
    def status(self) -> Status:
        """What the feed is doing now. From any thread."""
        return self._feed.status

    def on_status(self, listener: Callable[[Status], None]) -> None:
        """Call ``listener`` with every new status, from the thread that reads."""
        self._feed.on_status = listener

    @property
    def counts(self) -> Counter[str]:
        """The feed's counts: "reconnected", "damaged" packets, and failures by cause."""
        return self._feed.counts

    @property
    def decoder_bytes(self) -> int:
        """Resident memory of the feed's decoder process, in bytes."""
        return self._feed.decoder_bytes

    def open(self) -> None:
        """Connect and decode the first frame, trying again as long as ``retry_s`` allows.

        Raises:
            SourceError: It cannot be reached or decoded, or it was stopped.
        """
        try:
            self._feed.open()
        except BaseException:
            self._feed.close()
            raise
        if self._options.live is None:
            # Whether a playlist is a recording shows only now.
            self.live = not self._feed.download
        self._opened = True

    def close(self) -> None:
        self._stop.set()
        # While frames() runs, its own thread closes the feed.
        if not self._reading:
            self._feed.close()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, once.

        Raises:
            SourceLost: The feed was lost and did not come back in the time allowed.
        """
        if not self._opened or self._reading:
            raise RuntimeError(f"{self.name} is not open, or was read already")
        self._reading = True
        self._feed.stop_dropping()
        first: Frame | None = None
        try:
            for frame in self._feed.frames():
                if first is None:
                    # What this consumer sees first continues nothing, and so cannot break off.
                    first, frame = frame, replace(frame, discontinuity=False)
                pts_s = frame.pts_s - first.pts_s
                if pts_s >= self._options.end_s:
                    return
                if pts_s >= self._options.start_s:
                    yield replace(frame, id=frame.id - first.id, pts_s=pts_s)
        finally:
            self._stop.set()
            self._feed.close()
