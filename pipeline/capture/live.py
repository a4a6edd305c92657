"""Network feeds and cameras: sources that come, go and do not wait."""

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
    """A feed with the part of it that is wanted. Nobody waits for FFmpeg who wants to stop:
    ``open()``, ``frames()`` and ``close()`` end within a tenth of a second or so.

    Until ``frames()`` is called the newest picture takes the place of the one before it, so that
    what was opened long ago does not begin in the past; from then on each is waited for. Id and
    time count from the first frame handed out.
    """

    def __init__(self, feed: Feed, options: SourceOptions, halt: StopSignal) -> None:
        self._feed = feed
        self._options = options
        self._halt = halt
        self.name = feed.name
        self.live = not feed.download if options.live is None else options.live
        self.warnings = feed.warnings
        # A file that is fetched waits for us; whoever wants it live has it paced.
        feed.policy = Policy.DROP_OLDEST if self.live and not feed.download else Policy.WAIT
        self._reading = self._opened = False

    @property
    def info(self) -> SourceInfo:
        return replace(self._feed.info, live=self.live)

    @property
    def status(self) -> Status:
        """What it is doing; from any thread."""
        return self._feed.status

    def on_status(self, tell: Callable[[Status], None]) -> None:
        """Have every change of it told, from the thread that reads."""
        self._feed.on_status = tell

    @property
    def counts(self) -> Counter[str]:
        """What happened to it (`Feed`)."""
        return self._feed.counts

    def open(self) -> None:
        """Connect and decode the first frame, trying again until it may no more."""
        try:
            self._feed.open()
        except BaseException:
            self._feed.close()
            raise
        self._opened = True

    def close(self) -> None:
        self._halt.set()
        if not self._reading:
            self._feed.close()

    def frames(self) -> Iterator[Frame]:
        """The frames, once. Raises SourceLost when it is lost and does not come back in time."""
        if not self._opened or self._reading:
            raise RuntimeError(f"{self.name} is not open, or was read already")
        self._reading = True
        self._feed.wait_for_all()
        first: Frame | None = None
        try:
            for frame in self._feed.frames():
                if first is None:
                    first, frame = frame, replace(frame, discontinuity=False)
                pts_s = frame.pts_s - first.pts_s
                if pts_s >= self._options.end_s:
                    return
                if pts_s >= self._options.start_s:
                    yield replace(frame, id=frame.id - first.id, pts_s=pts_s)
        finally:
            self._halt.set()
            self._feed.close()
