"""Play a clip like a camera: each frame when it is due, whether the consumer is ready or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from pipeline.capture.base import Source, SourceInfo, WrappedSource
from pipeline.core.frame import Frame


class PacedSource(WrappedSource):
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

    def __init__(
        self,
        source: Source,
        *,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
        is_clip: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(source)
        self.live = True
        self._clock_ns = clock_ns
        self._wait = wait
        self._is_clip = is_clip

    @property
    def info(self) -> SourceInfo:
        return replace(self._source.info, live=True)

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
