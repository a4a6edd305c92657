"""Play a clip like a camera: each frame when it is due, whether the consumer is ready or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from pipeline.capture.base import Source, SourceDefaults, SourceInfo
from pipeline.capture.status import Status
from pipeline.core.frame import Frame


class PacedSource(SourceDefaults):
    """A source whose frames come at the times that their ``pts_s`` say.

    The first frame comes at once, late frames too, and a jump in time is skipped.
    ``Frame.captured_ns`` becomes the time at which the frame was handed over.

    Args:
        source: The source to pace; it must wait for its consumer.
        clock_ns: The monotonic clock, in nanoseconds.
        wait: Waits some seconds; returns True, early, when the source was stopped.
        is_clip: Returns, once the source is open, whether there is anything to pace; frames of any
            other source pass as they come.
    """

    live = True

    def __init__(
        self,
        source: Source,
        *,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
        is_clip: Callable[[], bool] = lambda: True,
    ) -> None:
        self._source = source
        self.name = source.name
        self.warnings = source.warnings
        self._clock_ns = clock_ns
        self._wait = wait
        self._is_clip = is_clip

    @property
    def info(self) -> SourceInfo:
        return replace(self._source.info, live=True)

    @property
    def status(self) -> Status | None:
        """The status of the source that is paced."""
        return self._source.status

    @property
    def counts(self) -> Counter[str]:
        """The counts of the source that is paced."""
        return self._source.counts

    @property
    def decoder_bytes(self) -> int:
        """The memory of the process of the source that is paced."""
        return self._source.decoder_bytes

    def open(self) -> None:
        self._source.open()

    def close(self) -> None:
        self._source.close()

    def frames(self) -> Iterator[Frame]:
        if not self._is_clip():
            yield from self._source.frames()
            return
        zero_ns: int | None = None
        for frame in self._source.frames():
            now = self._clock_ns()
            pts_ns = round(frame.pts_s * 1e9)
            # After a jump the clock starts anew, or the length of the jump would be waited for.
            if zero_ns is None or frame.discontinuity:
                zero_ns = now - pts_ns
            late_ns = now - (zero_ns + pts_ns)
            if late_ns < 0 and self._wait(-late_ns / 1e9):
                return
            yield replace(frame, captured_ns=self._clock_ns())
