"""Writing in a thread of its own, so that nothing waits for a slow disk or encoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from app.outputs.base import OutputError
from pipeline.core.ring import Closed, Policy, Ring

T = TypeVar("T")
_LIVE_S = 10.0
"""How long a live source's waiting items may take to be written when it ends."""
_LIVE_STUCK_S, _STUCK_S = 5.0, 60.0
"""A thread that is busy with one item for this long, of a live source and of a clip, is taken as
stuck when the output ends."""
_LOOK_S = 0.1


class BackgroundWriter(Generic[T]):
    """A thread that does ``work`` with each item in order, then ``end``, behind a bounded ring.

    ``put`` waits while the ring is full; with ``live`` the ring drops its oldest item instead,
    counted in ``dropped``, and ``put`` returns at once. The number lost is the same whichever
    items go. Dropping the oldest keeps the recording nearest to now when it is ended or the
    process is killed.

    An error of ``work`` or ``end`` ends the work; the next ``put`` or ``close`` raises it, once,
    and later items are discarded. ``put`` and ``close`` are for one thread.

    Args:
        name: The name of the output, for errors.
        work: Called with each item.
        end: Called after the last item, after an error too; it must allow a second call.
        capacity: The length of the ring.
        live: Whether to drop items instead of waiting.
        inherit: As for `Ring`.
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
        self._raised = self._given_up = False
        self._busy_since_s: float | None = None
        policy = Policy.DROP_OLDEST if live else Policy.WAIT
        self._ring: Ring[T] = Ring(capacity, policy, self._count, inherit=inherit)
        # A disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"write {name}", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """How long the thread has been busy with its current item, in seconds; 0 while it waits.
        For any thread."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    @property
    def ended(self) -> bool:
        """Whether the thread has finished everything. For any thread."""
        return not self._thread.is_alive()

    def put(self, item: T) -> None:
        """Hand an item to the thread. Raises the thread's error."""
        try:
            self._ring.put(item)
        except Closed:
            assert self._error is not None, "put() after close()"
            self._raise_error()

    def stop(self) -> None:
        """Take no more items; the thread finishes by itself. Never waits."""
        self._ring.close()

    def close(self) -> None:
        """Finish the items that were put; safe to call twice.

        A live source's items have ten seconds, then the rest is dropped. A thread that is busy with
        one item for a minute, with ``live`` for five seconds, is abandoned, with an error. Raises
        the thread's error.
        """
        self._ring.close()
        late_s = time.monotonic() + _LIVE_S
        while self._thread.is_alive() and not self._given_up:
            self._thread.join(_LOOK_S)
            if self._live and time.monotonic() > late_s:
                self._ring.abort()
            # By the item and not by the time since: a slow disk is not a stuck one.
            if self.busy_s > (_LIVE_STUCK_S if self._live else _STUCK_S):
                self._give_up()
        self._raise_error()

    def wait(self) -> None:
        """Wait for a thread that ``close`` abandoned, without a limit."""
        self._thread.join()

    def _give_up(self) -> None:
        self._given_up = True
        self._ring.abort()
        lost = f"{self.name}: not finished: the disk or the encoder does not answer"
        self._error = self._error or OutputError(lost)

    def _run(self) -> None:
        try:
            with suppress(Closed):
                while True:
                    item = self._ring.get()
                    with self._busy():
                        self._work(item)
            with self._busy():
                self._end()
        except BaseException as error:
            self._error = self._error or error
            self._ring.abort()
            # Finish the part that was written as far as possible; the first error is raised later.
            with suppress(OutputError), self._busy():
                self._end()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._busy_since_s = time.monotonic()
        try:
            yield
        finally:
            self._busy_since_s = None

    def _count(self, item: T, cause: str) -> None:
        # After an error nothing is recorded any more; the error says that, not the count.
        if self._error is None:
            self.dropped += 1

    def _raise_error(self) -> None:
        """Raise the thread's error, unless it was raised before."""
        if self._error is not None and not self._raised:
            self._raised = True
            raise self._error
