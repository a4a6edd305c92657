"""Writing in a thread of its own, so that a slow disk or encoder is not waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from app.outputs.base import OutputError
from pipeline.core.ring import Closed, Policy, Ring

T = TypeVar("T")
_LIVE_S = 10.0
"""What waits of a live source when it ends is given so long."""
_STUCK_S = 60.0
"""Whoever gets nothing done for so long will not."""


class BackgroundWriter(Generic[T]):
    """A thread that does ``work`` with each item in order, then ``end``, behind a bounded ring.

    A full ring is waited for; with ``live`` it drops its oldest item instead, counted in
    ``dropped``, and ``put`` returns at once. As many are lost whichever go, evenly spread where
    the work is too slow for long; without the oldest, the recording reaches nearest to now, when
    it is ended or the process killed. ``inherit`` is as for `Ring`.

    What ``work`` or ``end`` raises ends the work; the next ``put`` or ``close`` raises it, once,
    and what is put later goes nowhere. ``end`` is called then too, and must bear being called
    again. ``name`` is told in errors. ``put`` and ``close`` are for one thread.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], None],
        end: Callable[[], None],
        capacity: int,
        *,
        live: bool = False,
        inherit: Callable[[T, T], T] | None = None,
    ) -> None:
        self.name = name
        self.dropped = 0
        self._work, self._end, self._live = work, end, live
        self._error: BaseException | None = None
        self._told = self._given_up = False
        policy = Policy.DROP_OLDEST if live else Policy.WAIT
        self._ring: Ring[T] = Ring(capacity, policy, self._count, inherit=inherit)
        # A disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"write {name}", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand on an item. Raises what the thread met."""
        try:
            self._ring.put(item)
        except Closed:
            assert self._error is not None, "put() after close()"
            self._tell()

    def stop(self) -> None:
        """No more items; the thread finishes by itself. Never waits."""
        self._ring.close()

    def close(self) -> None:
        """Finish what was put; safe to call twice. A live source's is given ten seconds, then
        what is left is dropped; a thread that gets nothing done for a minute is left behind, with
        an error. Raises what the thread met."""
        self._ring.close()
        while self._thread.is_alive() and not self._given_up:
            done = self._ring.got_count
            self._thread.join(_LIVE_S if self._live else _STUCK_S)
            if self._thread.is_alive() and (self._live or self._ring.got_count == done):
                self._give_up()
        self._tell()

    def _give_up(self) -> None:
        self._ring.abort()
        self._thread.join(_STUCK_S)
        if self._thread.is_alive():
            self._given_up = True
            lost = f"{self.name}: not finished: the disk or the encoder does not answer"
            self._error = self._error or OutputError(lost)

    def _run(self) -> None:
        try:
            with suppress(Closed):
                while True:
                    self._work(self._ring.get())
            self._end()
        except BaseException as error:
            self._error = self._error or error
            self._ring.abort()
            # What fitted is finished as far as it can be; that the rest does not fit is told.
            with suppress(OutputError):
                self._end()

    def _count(self, item: T, cause: str) -> None:
        if self._error is None:
            self.dropped += 1

    def _tell(self) -> None:
        """Raise what the thread met, if nobody was told yet."""
        if self._error is not None and not self._told:
            self._told = True
            raise self._error
