"""Play a source that ends again and again, as one source without an end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from pipeline.capture.base import Source, SourceDefaults, SourceInfo
from pipeline.capture.status import Status
from pipeline.core.frame import Frame

_STEP_S = 1 / 30
"""The time of a frame where a source has one frame and no rate."""


class LoopedSource(SourceDefaults):
    """A source that begins again when it has ended, for as long as that is wanted.

    ``Frame.id`` and ``Frame.pts_s`` go on rising. The first frame of each repetition is a
    discontinuity: it does not continue the last one.

    Args:
        make: Returns the source, not yet opened; called for every repetition.
        again: Returns, when the source has ended, whether to begin again.
    """

    def __init__(self, make: Callable[[], Source], again: Callable[[], bool]) -> None:
        self._make, self._again = make, again
        self._source = make()
        self.name, self.live = self._source.name, self._source.live
        self.warnings = self._source.warnings
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def info(self) -> SourceInfo:
        """What the source is; its number of frames is that of one repetition."""
        return self._source.info

    @property
    def status(self) -> Status | None:
        """The status of the repetition that is read."""
        return self._source.status

    @property
    def counts(self) -> Counter[str]:
        """The counts of the repetition that is read."""
        return self._source.counts

    @property
    def decoder_bytes(self) -> int:
        """The memory of the process that decodes the source."""
        return self._source.decoder_bytes

    @property
    def mark(self) -> str:
        """The mark of the source."""
        return self._source.mark

    def open(self) -> None:
        self._source.open()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            self._source.close()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of one repetition after another.

        Raises:
            SourceError: As the source's own; also where it cannot be opened again.
        """
        first_id, first_s = 0, 0.0
        while True:
            last, step_s = None, 1 / (self.info.fps or 1 / _STEP_S)
            for frame in self._source.frames():
                if first_id:
                    frame = replace(
                        frame,
                        id=first_id + frame.id,
                        pts_s=first_s + frame.pts_s,
                        discontinuity=frame.discontinuity or last is None,
                    )
                last = frame
                yield frame
            # A source without frames would be opened as fast as the machine can.
            if last is None or not self._again() or self._closed.wait(step_s):
                return
            first_id, first_s = last.id + 1, last.pts_s + step_s
            if not self._begin_again():
                return

    def _begin_again(self) -> bool:
        """Open the next repetition; return whether there is one. Raises SourceError."""
        self._source.close()
        following = self._make()
        with self._lock:
            # Else a source that nothing closes would be read on.
            if self._closed.is_set():
                return False
            self._source = following
        following.open()
        return True
