"""A network feed or a camera that is opened again when it is lost. Belongs to one thread."""

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
    SourceLogin,
    SourceLost,
    SourceNotFound,
    SourceNotThere,
    SourceRefused,
    SourceUnreachable,
    reason,
)
from pipeline.capture.picture import Allocate, RgbConverter, empty_image, upright_size
from pipeline.capture.reader import Picture, Reader
from pipeline.capture.status import State, Status
from pipeline.capture.timeline import Timeline
from pipeline.core.frame import Frame
from pipeline.core.ring import Closed, Policy

FIRST_TRY_S = 10.0
"""How long a source that was never seen is tried where nothing else is said; one that has been
live is tried for ever."""
STALLED_S = 2.0
"""Without a picture for so long, or four of its own frame periods, a source is stalled."""
LOST_S = 5.0
"""After so long, or eight of its periods, it counts as lost: its connection is given up, even if
bytes still come from it. A connection that brought too few pictures to know is given twice as long
the next time, up to the second of these."""
_MOST_LOST_S = 60.0
_KNOWN = 10
"""Pictures after which a connection's pace is known."""
_OPEN_S = 10.0
"""A connection that has shown no picture by then is given up."""
_PAUSES_S = (0.25, 0.5, 1.0, 2.0)
"""Between two tries; the last one again and again."""
_NOT_THERE_PAUSES_S = (2.0,)
"""As a server answers that is waiting for its camera. Who shows no login guesses at none either."""
_REFUSED_PAUSES_S = (5.0, 10.0, 20.0, 30.0)
_LOGIN_PAUSES_S = (2.0, 30.0, 300.0)
"""A camera that starts may not have its users yet; but one that is asked five times in five minutes
locks out who guesses, and its owner with them."""
_JITTER = 0.25
"""Pauses are up to so much shorter: many sources lost at once do not come back at once."""
_POLL_S = 0.05
_JOIN_S = 0.5
_MOST_REMARKS = 20
_MOST_LEFT = 4
"""Threads that may hang in FFmpeg before a source waits for one of them."""


class Feed:
    """A feed that is opened again when it is lost.

    ``retry_s`` is how long it may be away, at the start and after a loss; None is ten seconds at
    the start and for ever once it has been live. Who refuses us, or has nothing there, is asked
    again only where tries go on for ever; who refuses us seldom. ``pts_s`` is 0 at the first
    frame; over a loss it goes on by the clock. Frame ids rise by one, and the first frame after a
    loss is a discontinuity.

    ``status`` may be read from any thread; ``on_status`` is told of every change. ``counts`` are
    "reconnected" and "damaged" (packets stepped over).
    """

    def __init__(
        self,
        entrance: StreamInput,
        retry_s: float | None = None,
        *,
        halt: StopSignal,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
        allocate: Allocate = empty_image,
        on_status: Callable[[Status], None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._entrance = entrance
        self._retry_s = retry_s
        self.name = entrance.name
        self.download = entrance.download
        self.warnings: list[str] = []
        self._counts: Counter[str] = Counter()
        self.policy = Policy.WAIT
        self._halt = halt
        self._clock_ns = clock_ns
        self._wait = wait
        self.on_status = on_status
        self._jitter = jitter
        self._reader: Reader | None = None
        self._first: Picture | None = None
        self._left: list[Reader] = []
        self._patience_s = LOST_S
        self._gave_up = False
        self._thread: threading.Thread | None = None
        self._info: SourceInfo | None = None
        self._to_rgb = RgbConverter(allocate)
        self.status = Status(State.CONNECTING, "", clock_ns())

    @property
    def thread(self) -> threading.Thread | None:
        """The one that reads, or read last."""
        return self._thread

    @property
    def counts(self) -> Counter[str]:
        """What happened so far, the connection there is included."""
        reader = self._reader
        return self._counts + Counter(damaged=0 if reader is None else reader.damaged)

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._info

    def open(self) -> None:
        """Connect and decode the first picture, trying again until it may no more."""
        self._connect(FIRST_TRY_S if self._retry_s is None else self._retry_s)

    def close(self) -> None:
        """Let go of the connection; a thread that hangs in it is left behind."""
        if self._reader is not None:
            self._leave(self._reader)
        self._tell(State.ENDED, self.status.reason)

    def wait_for_all(self) -> None:
        """From now on every picture waits to be taken; the newest one is the first."""
        if self._reader is not None and self.policy is Policy.DROP_OLDEST:
            with suppress(TimeoutError, Closed):
                self._first = self._reader.pictures.get(0)
            self._reader.pictures.policy = Policy.WAIT
        self.policy = Policy.WAIT

    def frames(self) -> Iterator[Frame]:
        """The frames. Raises SourceLost when it is lost and does not come back in time."""
        ids = count()
        last: Frame | None = None
        while self._reader is not None and not self._halt.is_set():
            why = "the stream ended"
            for frame in self._play(self._reader, ids, last):
                last = frame
                yield frame
            error = self._reader.error
            if isinstance(error, av.error.FFmpegError):
                why = reason(error)
            elif error is not None:
                raise error
            elif self._gave_up:
                why = self.status.reason
            elif self.download:
                return
            if self._halt.is_set():
                return
            if self.download:
                # Opened again it would begin anew.
                at_s = 0.0 if last is None else last.pts_s
                raise SourceLost(f"{self.name}: cut off after {at_s:.1f} s ({why})")
            self._come_back(why)

    def _play(self, reader: Reader, ids: Iterator[int], last: Frame | None) -> Iterator[Frame]:
        """The frames of one connection until it ends or stalls for too long; ``last`` is the last
        one of the connection before."""
        facts = reader.facts
        away_s = 0.0 if last is None else (self._clock_ns() - last.captured_ns) / 1e9
        begun_s = 0.0 if last is None else last.pts_s + away_s
        timeline = Timeline(facts.time_base_s, facts.fps, offset_s=begun_s)
        broken = last is not None
        for picture in self._pictures(reader):
            pts_s, jump = timeline.place(picture.image.pts)
            image = self._to_rgb(picture.image, picture.aspect)
            if last is not None:
                broken = broken or jump or image.shape != last.image.shape
            last = Frame(next(ids), self.name, picture.captured_ns, pts_s, image, broken)
            broken = False
            yield last

    def _pictures(self, reader: Reader) -> Iterator[Picture]:
        """One after another; ends with the connection, when halted, or when none came for too
        long."""
        first, self._first = self._first, None
        assert first is not None, "connected without a picture"
        self._gave_up = False
        yield first
        period_s, pictures, since_s = 1.0 / (reader.facts.fps or 30.0), 1, monotonic()
        while not self._halt.is_set():
            try:
                picture = reader.pictures.get(_POLL_S)
            except Closed:
                return
            except TimeoutError:
                waited_s = monotonic() - since_s
                stalled_s = max(STALLED_S, 4 * period_s)
                if waited_s > stalled_s:
                    self._tell(State.STALLED, f"no picture for {stalled_s:.0f} s")
                if waited_s > max(self._patience_s, 8 * period_s):
                    if pictures < _KNOWN:
                        self._patience_s = min(2 * self._patience_s, _MOST_LOST_S)
                    self._gave_up = True
                    return
                continue
            pictures += 1
            if pictures >= _KNOWN:
                self._patience_s = LOST_S
            period_s = 0.8 * period_s + 0.2 * (monotonic() - since_s)
            self._tell(State.LIVE)
            yield picture
            # How long whoever takes them is busy is none of the source's doing.
            since_s = monotonic()

    def _come_back(self, why: str) -> None:
        """Connect again after a loss. Raises SourceLost; returns unconnected when halted."""
        assert self._reader is not None
        self._leave(self._reader)
        begun_ns = self._clock_ns()
        self._tell(State.RECONNECTING, f"lost ({why})")
        limit_s = math.inf if self._retry_s is None else self._retry_s
        try:
            self._connect(limit_s)
        except SourceError as error:
            if self._halt.is_set():
                return
            tried = f" and did not come back in {limit_s:g} s" if 0 < limit_s < math.inf else ""
            raise SourceLost(f"{self.name}: lost ({why}){tried}") from error
        self._counts["reconnected"] += 1
        away_s = (self._clock_ns() - begun_ns) / 1e9
        if len(self.warnings) < _MOST_REMARKS:
            self.warnings.append(f"{self.name}: lost ({why}), back after {away_s:.1f} s")

    def _connect(self, retry_s: float) -> None:
        """Try until it works, ``retry_s`` has passed, or trying again cannot help."""
        begun_ns, tries = self._clock_ns(), 0
        pauses_s: tuple[float, ...] = _PAUSES_S
        while True:
            try:
                self._try_once()
                return
            except (SourceNotFound, SourceRefused, SourceUnreachable) as error:
                left_s = retry_s - (self._clock_ns() - begun_ns) / 1e9
                # A camera that is not plugged in may be, and who refuses us may change their mind:
                # for who waits for ever.
                final = not isinstance(error, SourceUnreachable) and math.isfinite(retry_s)
                if left_s <= 0 or final or self._halt.is_set():
                    raise
                before, pauses_s = pauses_s, _PAUSES_S
                if left_s == math.inf:
                    pauses_s = _pauses_s(error, self.name)
                # A server that was away in between is another one: it is asked afresh.
                tries = tries if pauses_s is before else 0
                self._tell(self._away() if pauses_s is _PAUSES_S else State.REFUSED, str(error))
                pause_s = min(pauses_s[min(tries, len(pauses_s) - 1)], left_s)
            tries += 1
            if self._wait(pause_s * (1 - _JITTER * self._jitter())):
                raise SourceUnreachable(f"{self.name}: stopped before its first frame came")

    def _away(self) -> State:
        return State.CONNECTING if self._info is None else State.RECONNECTING

    def _try_once(self) -> None:
        """One connection and its first picture. Raises SourceError."""
        self._left = [reader for reader in self._left if reader.thread.is_alive()]
        if len(self._left) >= _MOST_LEFT:
            raise SourceUnreachable(f"{self.name}: {_MOST_LEFT} connections hang in its driver")
        reader = Reader(self._entrance, self._clock_ns, self.policy)
        self._thread, waited_s = reader.thread, 0.0
        while not reader.ready.wait(_POLL_S):
            waited_s += _POLL_S
            if self._halt.is_set() or waited_s > _OPEN_S:
                self._leave(reader)
                stopped = "stopped before its first frame came"
                hangs = f"no picture within {_OPEN_S:.0f} s: check the address and that it is on"
                raise SourceUnreachable(f"{self.name}: {stopped if self._halt.is_set() else hangs}")
        try:
            self._first = reader.pictures.get()
        except Closed:
            assert reader.error is not None, "a reader ends before its first picture by an error"
            raise reader.error from None
        self._reader = reader
        self._info = self._describe(reader)
        self._tell(State.LIVE)

    def _leave(self, reader: Reader) -> None:
        self._reader = None
        self._counts["damaged"] += reader.damaged
        reader.close()
        # A camera must be let go of before it is opened again.
        reader.thread.join(_JOIN_S)
        if reader.thread.is_alive():
            self._left.append(reader)

    def _tell(self, state: State, why: str = "") -> None:
        if (self.status.state, self.status.reason) == (state, why):
            return
        self.status = Status(state, why, self._clock_ns())
        if self.on_status is not None:
            self.on_status(self.status)

    def _describe(self, reader: Reader) -> SourceInfo:
        assert self._first is not None
        width, height = upright_size(self._first.image, self._first.aspect)
        return SourceInfo(
            name=self.name,
            live=True,
            width=width,
            height=height,
            fps=reader.facts.fps,
            frame_count=None,
            codec=reader.facts.codec,
        )


def _pauses_s(error: SourceError, name: str) -> tuple[float, ...]:
    """How long who waits for ever waits after an ``error``, the first time, the second and so on;
    ``name`` is without credentials but says whether there are any."""
    if isinstance(error, SourceLogin) and "***@" in name:
        return _LOGIN_PAUSES_S
    if isinstance(error, SourceNotThere | SourceLogin):
        return _NOT_THERE_PAUSES_S
    return _REFUSED_PAUSES_S if isinstance(error, SourceRefused) else _PAUSES_S
