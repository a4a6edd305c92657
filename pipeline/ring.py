"""A bounded ring between two threads: clips wait for room, live feeds drop the oldest."""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Policy(enum.Enum):
    """What ``put`` does when the ring is full."""

    WAIT = "wait"
    DROP_OLDEST = "drop_oldest"


class Closed(Exception):
    """The ring is closed: nothing can be put, and nothing more will come."""


class Ring(Generic[T]):
    """A first-in first-out buffer of ``capacity`` items, safe between any number of threads.

    One condition guards everything; state and notification change under its lock. After
    ``close`` what is inside can still be taken, then ``get`` raises ``Closed``; ``abort`` also
    throws away what is inside. Counts (``put_count``, ``got_count``, ``dropped_count``) always
    satisfy put = got + dropped + len. Raises ValueError when the capacity is below 1.
    """

    def __init__(
        self,
        capacity: int,
        policy: Policy = Policy.WAIT,
        on_drop: Callable[[T, str], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a ring holds at least one item, not {capacity}")
        self.capacity = capacity
        self.policy = policy
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.put_count = self.got_count = self.dropped_count = 0

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    @property
    def closed(self) -> bool:
        with self._changed:
            return self._closed

    def put(self, item: T, timeout_s: float | None = None) -> None:
        """Add an item. A full ring waits for room or drops its oldest item, as its policy says.

        Raises Closed when the ring is or gets closed, TimeoutError when no room came in time.
        """
        dropped: list[T] = []
        with self._changed:
            if self.policy is Policy.WAIT:
                self._wait(lambda: self._closed or len(self._items) < self.capacity, timeout_s)
            if self._closed:
                raise Closed
            if len(self._items) >= self.capacity:
                dropped.append(self._items.popleft())
                self.dropped_count += 1
            self._items.append(item)
            self.put_count += 1
            self._changed.notify_all()
        self._report(dropped, "ring full")

    def get(self, timeout_s: float | None = None) -> T:
        """Take the oldest item, waiting for one.

        Raises Closed when the ring is closed and empty, TimeoutError when nothing came in time.
        """
        with self._changed:
            self._wait(lambda: self._closed or bool(self._items), timeout_s)
            if not self._items:
                raise Closed
            item = self._items.popleft()
            self.got_count += 1
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """No more puts; what is inside can still be taken. Wakes everyone. Safe to repeat."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Close and throw away what is inside, counted as dropped."""
        with self._changed:
            dropped = list(self._items)
            self._items.clear()
            self.dropped_count += len(dropped)
            self._closed = True
            self._changed.notify_all()
        self._report(dropped, "stopped")

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None) -> None:
        """Wait under the lock until ``ready``; TimeoutError when it is not in time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not ready():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._changed.wait(left)

    def _report(self, dropped: list[T], cause: str) -> None:
        # Outside the lock: the listener may take locks of its own.
        if self._on_drop is not None:
            for item in dropped:
                self._on_drop(item, cause)
