"""A camera's picture over HTTP, asked for again and again: a live source."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic

from av.video.frame import VideoFrame

from pipeline.capture.addresses import Address
from pipeline.capture.base import SourceDefaults, SourceInfo, SourceOptions, StopSignal
from pipeline.capture.errors import (
    SourceError,
    SourceLost,
    SourceRefused,
    SourceUnreachable,
)
from pipeline.capture.hdr_tags import peak_nits
from pipeline.capture.http_picture import PictureRequest, PictureServer
from pipeline.capture.picture import Converter, upright_size
from pipeline.capture.retry import FIRST_TRY_S, pause_s, pauses_s
from pipeline.capture.side_data import display_matrix
from pipeline.capture.status import State, Status
from pipeline.capture.still import SUFFIXES, NoPicture, decode_still
from pipeline.core.frame import Frame
from pipeline.core.yuv import size_of

DEFAULT_FPS = 5.0
"""Requests a second, where `SourceOptions.fps` does not say: what cameras' web servers bear."""

_SLOWEST_S = 1.0
"""The pause between requests doubles up to this while the picture stays the same."""
_DEADLINE_S = 10.0
"""A request that is not over after this long is cut."""
_STALLED_S = 2.0
_POLL_S = 0.05
_MOST_REMARKS = 20

_PATH = re.compile(
    r"(?i).*(?:\.(?:{})|/(?:snapshot|snap|still|picture|image|capture|latest)[^/.]*"
    r"(?:\.(?:cgi|fcgi|php|asp))?)".format("|".join(suffix[1:] for suffix in SUFFIXES))
)
_QUERY = re.compile(r"(?i)[?&](?:action|cmd)=snap")


def is_snapshot(address: Address) -> bool:
    """Return whether an address is that of one picture a request, as cameras spell it."""
    if address.scheme not in ("http", "https"):
        return False
    return bool(_PATH.fullmatch(address.path) or _QUERY.search(address.rest))


class SnapshotSource(SourceDefaults):
    """Pictures of a camera, one request each.

    Every answer is a frame, also one with the same picture; then requests come more seldom.
    ``Frame.pts_s`` is 0 at the first frame and goes by the clock. Ids rise by one. The first frame
    after a loss and one of another size are discontinuities. ``counts`` are "reconnected",
    "damaged" for answers that are no picture, and failures by cause (`errors.CAUSES`).

    Args:
        address: The address of the picture.
        options: ``live``, ``start_s``, ``seconds``, ``retry_s``, ``fps``, ``max_pixels``,
            ``allocate`` and ``planes`` count.
        stop_signal: Ends all waits.
        clock_ns: The monotonic clock, in nanoseconds.
        wait: Waits some seconds; returns True, early, when the source was stopped.
    """

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        stop_signal: StopSignal,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
    ) -> None:
        self._server = PictureServer(address)
        self.name = self._server.name
        self.live = True if options.live is None else options.live
        self.warnings: list[str] = []
        self._options = options
        self._period_s = 1.0 / (options.fps or DEFAULT_FPS)
        self._stop = stop_signal
        self._clock_ns = clock_ns
        self._wait = wait
        self._convert = Converter(options.allocate, options.planes)
        self._counts: Counter[str] = Counter()
        self._status = Status(State.CONNECTING, "", clock_ns())
        self._info: SourceInfo | None = None
        self._reading = False
        self._data, self._codec = b"", ""
        self._picture: VideoFrame | None = None

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._info

    @property
    def status(self) -> Status:
        """What the source is doing now. From any thread."""
        return self._status

    @property
    def counts(self) -> Counter[str]:
        """The counts so far."""
        return Counter(self._counts)

    def open(self) -> None:
        """Get the first picture, trying again as long as ``retry_s`` allows.

        Raises:
            SourceError: There is none, or it was stopped.
        """
        limit_s = FIRST_TRY_S if self._options.retry_s is None else self._options.retry_s
        try:
            self._connect(limit_s)
        except BaseException:
            self.close()
            raise
        assert self._picture is not None, "connected with a picture"
        width, height = upright_size(self._picture, None, display_matrix(self._picture))
        self._info = SourceInfo(
            name=self.name, live=self.live, width=width, height=height, fps=None,
            frame_count=None, codec=self._codec,
        )  # fmt: skip

    def close(self) -> None:
        self._stop.set()
        self._set_status(State.ENDED, self._status.reason)

    def frames(self) -> Iterator[Frame]:
        """Yield a frame for every answer.

        Raises:
            SourceLost: The camera was lost and did not come back in the time allowed.
        """
        if self._info is None or self._reading:
            raise RuntimeError(f"{self.name} is not open, or was read already")
        self._reading = True
        begun_ns, number, size = None, 0, None
        try:
            for picture, broken in self._pictures():
                captured_ns = self._clock_ns()
                begun_ns = captured_ns if begun_ns is None else begun_ns
                pts_s = (captured_ns - begun_ns) / 1e9
                if pts_s >= self._options.end_s:
                    return
                pixels = self._convert(picture, None, display_matrix(picture), peak_nits(picture))
                broken = broken or size not in (None, size_of(pixels))
                size = size_of(pixels)
                if pts_s >= self._options.start_s:
                    yield Frame(number, self.name, captured_ns, pts_s, pixels, broken)
                number += 1
        finally:
            self.close()

    def _pictures(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Each picture, and whether the camera was lost before it, until the source is stopped."""
        poll_s, broken = self._period_s, False
        while not self._stop.is_set():
            asked_s = monotonic()
            try:
                is_new = self._ask()
            except SourceError as error:
                if self._stop.is_set():
                    return
                self._reconnect(error)
                is_new = broken = True
            if self._stop.is_set():
                return
            assert self._picture is not None, "each answer leaves a picture"
            yield self._picture, broken
            broken = False
            poll_s = self._period_s if is_new else min(2 * poll_s, _SLOWEST_S)
            # A slow answer is part of the pause.
            self._wait(max(0.0, poll_s - (monotonic() - asked_s)))

    def _ask(self) -> bool:
        """Get the picture once; return whether it is another than before. Raises SourceError."""
        request, begun_s = PictureRequest(self._server), monotonic()
        # Short waits, so that a stop is noticed soon.
        while not request.done.wait(_POLL_S):
            waited_s = monotonic() - begun_s
            if self._status.state is State.LIVE and waited_s > _STALLED_S:
                self._set_status(State.STALLED, f"no picture for {_STALLED_S:.0f} s")
            if self._stop.is_set() or waited_s > _DEADLINE_S:
                request.cut()
                what = (
                    "stopped" if self._stop.is_set() else f"no picture within {_DEADLINE_S:.0f} s"
                )
                # The thread may go on for a moment; a new try must share nothing with it.
                self._server = PictureServer(self._server.address)
                raise SourceUnreachable(f"{self.name}: {what}")
        is_new, problem = self._take(request.result())
        if problem:
            self._counts["damaged"] += 1
            raise SourceUnreachable(f"{self.name}: no picture comes from there: {problem}")
        self._set_status(State.LIVE)
        return is_new

    def _take(self, data: bytes | None) -> tuple[bool, str]:
        """Decode an answer; return whether it is another picture, and why it is none."""
        if data is None or data == self._data:
            return False, ""
        try:
            self._picture, self._codec = decode_still(data, self._options.max_pixels)
        except NoPicture as error:
            return False, str(error)
        self._data = data
        return True, ""

    def _reconnect(self, why: SourceError) -> None:
        """Try until it works again. Raises SourceLost; returns when stopped."""
        begun_s = monotonic()
        text = str(why).removeprefix(f"{self.name}: ")
        limit_s = math.inf if self._options.retry_s is None else self._options.retry_s
        try:
            self._connect(limit_s, why)
        except SourceError as error:
            if self._stop.is_set():
                return
            tried = f" and did not come back in {limit_s:g} s" if limit_s > 0 else ""
            raise SourceLost(f"{self.name}: lost ({text}){tried}") from error
        self._counts["reconnected"] += 1
        if len(self.warnings) < _MOST_REMARKS:
            self.warnings.append(
                f"{self.name}: lost ({text}), back after {monotonic() - begun_s:.1f} s"
            )

    def _connect(self, retry_s: float, error: SourceError | None = None) -> None:
        """Ask until it works, ``retry_s`` has passed, or another try cannot help.

        ``error`` is that of a try that has just failed. Raises SourceError.
        """
        begun_ns, tries = self._clock_ns(), 0
        while True:
            if error is not None:
                left_s = retry_s - (self._clock_ns() - begun_ns) / 1e9
                # A refusal may be lifted: it is final only if the time for tries has a limit.
                final = isinstance(error, SourceRefused) and math.isfinite(retry_s)
                if left_s <= 0 or final or self._stop.is_set():
                    raise error
                self._counts[error.cause] += 1
                self._set_status(self._away(error), str(error))
                wait_s = pause_s(pauses_s(error, self.name), tries, random.random())
                tries += 1
                if self._wait(min(wait_s, left_s)):
                    raise SourceUnreachable(f"{self.name}: stopped before its first frame came")
            try:
                self._ask()
                return
            except SourceError as failed:
                # Without the frames that hold the answer.
                error = failed.with_traceback(None)

    def _away(self, error: SourceError) -> State:
        if isinstance(error, SourceRefused):
            return State.REFUSED
        return State.CONNECTING if self._info is None else State.RECONNECTING

    def _set_status(self, state: State, why: str = "") -> None:
        # `since_ns` stays the beginning of the state.
        if (self._status.state, self._status.reason) != (state, why):
            self._status = Status(state, why, self._clock_ns())
