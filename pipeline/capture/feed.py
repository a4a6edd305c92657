"""A network feed or a camera that reconnects when it is lost. Used from one thread."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from time import monotonic

import av

from pipeline.capture.base import SourceInfo, StopSignal
from pipeline.capture.devices import StreamInput
from pipeline.capture.errors import (
    SourceError,
    SourceLost,
    SourceNotThere,
    SourceRefused,
    SourceSilent,
    SourceUnreachable,
    reason,
)
from pipeline.capture.picture import Converter, upright_size
from pipeline.capture.reader import Connect, Picture, Reader, ThreadReader
from pipeline.capture.retry import FIRST_TRY_S, PAUSES_S, pause_s, pauses_s
from pipeline.capture.status import State, Status
from pipeline.capture.timeline import Timeline
from pipeline.core.frame import Frame
from pipeline.core.ring import Closed, Policy
from pipeline.core.yuv import size_of

STALLED_S = 2.0
"""Without a picture for this long, and for four of its frame periods, a source is stalled."""
LOST_S = 5.0
"""After this long, and eight of its frame periods, a source counts as lost: the connection is
closed, even if bytes still arrive. If the connection brought too few pictures to know its rate, the
next one gets twice as long, up to `_MOST_LOST_S`."""
_MOST_LOST_S = 60.0
_RATE_KNOWN_AFTER = 10
"""Pictures after which a connection's frame rate is known."""
_OPEN_S = 10.0
"""A connection without a picture after this long is closed."""
_POLL_S = 0.05
_JOIN_S = 0.5
_MOST_REMARKS = 20
_MOST_ABANDONED = 4
"""Number of abandoned threads that may hang in FFmpeg before a source waits for one of them."""


class Feed:
    """A feed that reconnects when it is lost.

    ``Frame.pts_s`` is 0 at the first frame and continues by the clock over a loss. Frame ids rise
    by one, and the first frame after a loss is a discontinuity. Every failure is tried again while
    the time for tries lasts. One that time alone does not cure (no such camera, no video, a refused
    login) is final if that time has a limit, and is tried less and less often if it has none.

    ``status`` may be read from any thread; ``on_status`` is called with every new one. ``counts``
    are "reconnected", "damaged" (packets that were skipped), and connections that failed, by cause
    (`errors.CAUSES`).

    Args:
        stream_input: What to open.
        retry_s: How long the source may be away, in seconds, at the start and after a loss. None:
            ten seconds at the start, without a limit once it has been live.
        stop_signal: Ends all waits.
        clock_ns: The monotonic clock, in nanoseconds.
        wait: Waits some seconds; returns True, early, when the feed was stopped.
        convert: Makes a frame's pixels of a decoded picture; None makes RGB.
        on_status: Called with every new status, from the reading thread.
        jitter: Returns random numbers from 0 to 1, for the pauses between tries.
        connect: Begins to read the input.
    """

    def __init__(
        self,
        stream_input: StreamInput,
        retry_s: float | None = None,
        *,
        stop_signal: StopSignal,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
        convert: Converter | None = None,
        on_status: Callable[[Status], None] | None = None,
        jitter: Callable[[], float] = random.random,
        connect: Connect = ThreadReader,
    ) -> None:
        self._input = stream_input
        self._connect_input = connect
        self._retry_s = retry_s
        self.name = stream_input.name
        self.download = stream_input.download
        self.warnings: list[str] = []
        self._counts: Counter[str] = Counter()
        self.policy = Policy.WAIT
        self._stop = stop_signal
        self._clock_ns = clock_ns
        self._wait = wait
        self.on_status = on_status
        self._jitter = jitter
        self._reader: Reader | None = None
        self._first: Picture | None = None
        self._abandoned: list[Reader] = []
        self._lost_after_s = LOST_S
        self._timed_out = False
        self._unusable = ""
        self._thread: threading.Thread | None = None
        self._info: SourceInfo | None = None
        self._convert = convert or Converter()
        self.status = Status(State.CONNECTING, "", clock_ns())

    @property
    def thread(self) -> threading.Thread | None:
        """The thread of the connection, or of the last one."""
        return self._thread

    @property
    def counts(self) -> Counter[str]:
        """The counts so far, the open connection's included."""
        # Read once: the reading thread may set it to None between two looks.
        reader = self._reader
        return self._counts + Counter(damaged=0 if reader is None else reader.damaged)

    @property
    def decoder_bytes(self) -> int:
        """Resident memory of the connection's process, in bytes; 0 for none."""
        reader = self._reader
        return 0 if reader is None else reader.memory_bytes()

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._info

    def open(self) -> None:
        """Connect and decode the first picture, trying again as long as ``retry_s`` allows."""
        self._connect(FIRST_TRY_S if self._retry_s is None else self._retry_s)

    def close(self) -> None:
        """Close the connection. A thread that hangs in it is abandoned."""
        if self._reader is not None:
            self._release(self._reader)
        self._set_status(State.ENDED, self.status.reason)

    def stop_dropping(self) -> None:
        """Deliver every picture from now on, beginning with the newest one."""
        if self._reader is not None and self.policy is Policy.DROP_OLDEST:
            # The picture of the opening may be old by now; one that waits in the ring replaces it.
            with suppress(TimeoutError, Closed):
                self._first = self._reader.pictures.get(0)
            self._reader.pictures.policy = Policy.WAIT
        self.policy = Policy.WAIT

    def frames(self) -> Iterator[Frame]:
        """Yield the frames. Raises SourceLost when the feed is lost and not back in time."""
        ids = count()
        last: Frame | None = None
        while self._reader is not None and not self._stop.is_set():
            for frame in self._play(self._reader, ids, last):
                last = frame
                yield frame
            error = self._reader.error
            ended = error is None and not self._timed_out and not self._unusable
            if self._stop.is_set() or (self.download and ended):
                return
            if self._unusable:
                why, cause = self._unusable, "lost"
            elif self._timed_out:
                # The connection hung: it has reported no error.
                why, cause = self.status.reason, "stalled"
            elif error is not None:
                why, cause = str(error), error.cause
            else:
                why, cause = "the stream ended", "ended"
            self._counts[cause] += 1
            if self.download:
                # A download starts at its beginning when it is opened again.
                at_s = 0.0 if last is None else last.pts_s
                raise SourceLost(f"{self.name}: cut off after {at_s:.1f} s ({why})")
            self._reconnect(why)

    def _play(self, reader: Reader, ids: Iterator[int], last: Frame | None) -> Iterator[Frame]:
        """The frames of one connection, until it ends or stalls for too long.

        ``last`` is the last frame of the connection before it.
        """
        facts = reader.facts
        away_s = 0.0 if last is None else (self._clock_ns() - last.captured_ns) / 1e9
        begun_s = 0.0 if last is None else last.pts_s + away_s
        timeline = Timeline(facts.time_base_s, facts.fps, offset_s=begun_s)
        broken = last is not None
        for picture in self._pictures(reader):
            pts_s, jump = timeline.place(picture.image.pts)
            try:
                pixels = self._convert(
                    picture.image, picture.aspect, picture.matrix, picture.peak_nits
                )
            except (av.error.FFmpegError, MemoryError) as error:
                self._unusable = f"its pictures cannot be converted: {reason(error)}"
                return
            if last is not None:
                broken = broken or jump or size_of(pixels) != last.size
            last = Frame(next(ids), self.name, picture.captured_ns, pts_s, pixels, broken)
            broken = False
            yield last

    def _pictures(self, reader: Reader) -> Iterator[Picture]:
        """The pictures of a connection, until it ends or stalls, or the feed is stopped."""
        first, self._first = self._first, None
        assert first is not None, "connected without a picture"
        self._timed_out, self._unusable = False, ""
        yield first
        # The stated rate is only a first guess.
        period_s, pictures, since_s = 1.0 / (reader.facts.fps or 30.0), 1, monotonic()
        while not self._stop.is_set():
            try:
                picture = reader.pictures.get(_POLL_S)
            except Closed:
                return
            except TimeoutError:
                waited_s = monotonic() - since_s
                stalled_s = max(STALLED_S, 4 * period_s)
                if waited_s > stalled_s:
                    self._set_status(State.STALLED, f"no picture for {stalled_s:.0f} s")
                if waited_s > max(self._lost_after_s, 8 * period_s):
                    if pictures < _RATE_KNOWN_AFTER:
                        self._lost_after_s = min(2 * self._lost_after_s, _MOST_LOST_S)
                    self._timed_out = True
                    return
                continue
            pictures += 1
            if pictures >= _RATE_KNOWN_AFTER:
                self._lost_after_s = LOST_S
            # Measured, because a feed may state another rate than it has (3 fps declared as 30).
            period_s = 0.8 * period_s + 0.2 * (monotonic() - since_s)
            self._set_status(State.LIVE)
            yield picture
            # The consumer has been at work since the yield. That time is not the source's.
            since_s = monotonic()

    def _reconnect(self, why: str) -> None:
        """Connect again after a loss. Raises SourceLost; returns unconnected when stopped."""
        assert self._reader is not None
        self._release(self._reader)
        begun_ns = self._clock_ns()
        self._set_status(State.RECONNECTING, f"lost ({why})")
        limit_s = math.inf if self._retry_s is None else self._retry_s
        try:
            self._connect(limit_s)
        except SourceError as error:
            if self._stop.is_set():
                return
            tried = f" and did not come back in {limit_s:g} s" if 0 < limit_s < math.inf else ""
            raise SourceLost(f"{self.name}: lost ({why}){tried}") from error
        self._counts["reconnected"] += 1
        away_s = (self._clock_ns() - begun_ns) / 1e9
        if len(self.warnings) < _MOST_REMARKS:
            self.warnings.append(f"{self.name}: lost ({why}), back after {away_s:.1f} s")

    def _connect(self, retry_s: float) -> None:
        """Try until it works, ``retry_s`` has passed, or another try cannot help."""
        begun_ns, tries = self._clock_ns(), 0
        pauses = PAUSES_S
        while True:
            try:
                self._try_once()
                return
            except SourceError as error:
                self._counts[error.cause] += 1
                left_s = retry_s - (self._clock_ns() - begun_ns) / 1e9
                # A camera may be plugged in later, a refusal may be lifted, and a server may show
                # video later: such errors are final only if the time for tries has a limit.
                final = not isinstance(error, SourceUnreachable) and math.isfinite(retry_s)
                if left_s <= 0 or final or self._stop.is_set():
                    raise
                before, pauses = pauses, PAUSES_S
                refused = False
                if left_s == math.inf:
                    pauses = pauses_s(error, self.name)
                    refused = isinstance(error, SourceRefused | SourceNotThere)
                # A server that was away in between may have changed, so its pauses start again.
                tries = tries if pauses is before else 0
                self._set_status(State.REFUSED if refused else self._disconnected(), str(error))
                wait_s = min(pause_s(pauses, tries, self._jitter()), left_s)
            tries += 1
            if self._wait(wait_s):
                raise SourceUnreachable(f"{self.name}: stopped before its first frame came")

    def _disconnected(self) -> State:
        return State.CONNECTING if self._info is None else State.RECONNECTING

    def _try_once(self) -> None:
        """Open one connection and wait for its first picture. Raises SourceError."""
        self._abandoned = [reader for reader in self._abandoned if reader.thread.is_alive()]
        if len(self._abandoned) >= _MOST_ABANDONED:
            raise SourceUnreachable(
                f"{self.name}: {_MOST_ABANDONED} connections hang in its driver"
            )
        reader = self._connect_input(self._input, self._clock_ns, self.policy)
        self._thread, waited_s = reader.thread, 0.0
        # Short waits, so that a stop is noticed soon.
        while not reader.ready.wait(_POLL_S):
            waited_s += _POLL_S
            if self._stop.is_set() or waited_s > _OPEN_S:
                self._release(reader)
                if self._stop.is_set():
                    raise SourceUnreachable(f"{self.name}: stopped before its first frame came")
                raise SourceSilent(
                    f"{self.name}: no picture within {_OPEN_S:.0f} s: check the address and that "
                    "it is on"
                )
        try:
            self._first = reader.pictures.get()
        except Closed:
            raise reader.error or SourceUnreachable(f"{self.name}: no picture came") from None
        self._reader = reader
        if reader.facts.recording:
            self.download, self.policy = True, Policy.WAIT
        self._info = self._describe(reader)
        self._set_status(State.LIVE)

    def _release(self, reader: Reader) -> None:
        self._reader = None
        self._counts["damaged"] += reader.damaged
        reader.close()
        # A camera must be closed before it is opened again.
        reader.thread.join(_JOIN_S)
        if reader.thread.is_alive():
            self._abandoned.append(reader)

    def _set_status(self, state: State, why: str = "") -> None:
        # Listeners get changes only, and `since_ns` stays the beginning of the state.
        if (self.status.state, self.status.reason) == (state, why):
            return
        self.status = Status(state, why, self._clock_ns())
        if self.on_status is not None:
            self.on_status(self.status)

    def _describe(self, reader: Reader) -> SourceInfo:
        assert self._first is not None
        first = self._first
        width, height = upright_size(first.image, first.aspect, first.matrix)
        return SourceInfo(
            name=self.name,
            live=True,
            width=width,
            height=height,
            fps=reader.facts.fps,
            frame_count=None,
            codec=reader.facts.codec,
        )
