"""Play a source that ends again and again, as one source without an end.

The source may also be one that another process has read before: its numbers and its time go on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pipeline.capture.base import Source, WrappedSource
from pipeline.capture.errors import SourceEmpty
from pipeline.core.frame import Frame

_POSITIONS = 256
_STEP_S = 1 / 30
"""The time of a frame where a source has one frame and no rate."""


@dataclass(frozen=True)
class Position:
    """How far a source was read.

    Attributes:
        id: The last frame's number.
        pts_s: Its time.
        own_s: Its time within the repetition of the source that it belongs to.
        read_s: When it was read, in seconds since 1970.
    """

    id: int
    pts_s: float
    own_s: float
    read_s: float


class LoopedSource(WrappedSource):
    """A source that begins again when it has ended, for as long as that is wanted.

    ``Frame.id`` and ``Frame.pts_s`` go on rising. Facts, status and counts are those of the
    repetition that is read. The first frame of each repetition is a
    discontinuity: it does not continue the last one.

    Args:
        make: Returns the source, not yet opened; called for every repetition.
        again: Returns, when the source has ended, whether to begin again.
        after: How far the source was read before, by another object. The frames go on from there,
            later by the time that has passed meanwhile.
        first: Makes the first repetition in the place of ``make``: the rest of a clip, whose frames
            follow those before at once.
        clock_s: Seconds since 1970.

    Attributes:
        after: Where it goes on from; set it before `frames`.
    """

    def __init__(
        self,
        make: Callable[[], Source],
        again: Callable[[], bool],
        after: Position | None = None,
        first: Callable[[], Source] | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._make, self._again = make, again
        self._clock_s = clock_s
        self._follows, self._left = first is not None, True
        self.after = after
        # More frames than a reader takes between a look at its counters and one at this.
        self._positions: deque[Position] = deque(() if after is None else (after,), _POSITIONS)
        super().__init__((first or make)())
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def open(self) -> None:
        try:
            self._source.open()
        except SourceEmpty:
            if not self._follows:
                raise
            # Nothing is left of the clip. Its facts are wanted all the same.
            self._left = False
            self._source = self._make()
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
        first_id, first_s, after = 0, 0.0, self.after
        while True:
            last, step_s = None, 1 / (self.info.fps or 1 / _STEP_S)
            repeated = first_id > 0
            for frame in self._of_repetition(repeated):
                own_s = frame.pts_s
                if after is not None:
                    gap_s = self._gap_s(after, step_s)
                    first_id = after.id + max(round(gap_s / step_s), 1) - frame.id
                    first_s = after.pts_s + gap_s - own_s
                    after = None
                if first_id or first_s:
                    frame = replace(
                        frame,
                        id=first_id + frame.id,
                        pts_s=first_s + own_s,
                        discontinuity=frame.discontinuity or (repeated and last is None),
                    )
                last = frame
                self._positions.append(Position(frame.id, frame.pts_s, own_s, self._clock_s()))
                yield frame
            # A source without frames would be opened as fast as the machine can; of a clip that is
            # read on, nothing may be left.
            nothing = last is None and (repeated or not self._follows)
            if nothing or not self._again() or self._closed.wait(step_s):
                return
            if last is None:
                assert self.after is not None
                first_id, first_s = self.after.id + 1, self.after.pts_s + step_s
                after = None
            else:
                first_id, first_s = last.id + 1, last.pts_s + step_s
            if not self._begin_again():
                return

    def _of_repetition(self, repeated: bool) -> Iterator[Frame]:
        """Yield the frames of the repetition that is read."""
        if not (repeated or self._left):
            return
        try:
            yield from self._source.frames()
        except SourceEmpty:
            if repeated or not self._follows:
                raise

    def position_of(self, id: int) -> Position | None:
        """Return where the source was at a frame that was read within the last `_POSITIONS`
        frames, by its number; ``after`` where that is no such frame."""
        return next((one for one in list(self._positions) if one.id == id), self.after)

    def _gap_s(self, after: Position, step_s: float) -> float:
        """The time from the last frame that was read before to the next one."""
        # Clocks of two machines differ a little: time never runs backward.
        return step_s if self._follows else max(self._clock_s() - after.read_s, step_s)

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
