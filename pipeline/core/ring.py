"""A bounded queue between threads. Clips wait for room; live feeds drop the oldest item."""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Policy(enum.Enum):
    """What ``put`` does when the ring is full.

    Attributes:
        WAIT: It waits for room.
        DROP_OLDEST: It drops the oldest item.
    """

    WAIT = "wait"
    DROP_OLDEST = "drop_oldest"


class Closed(Exception):
    """The ring is closed: no item can be put, and none will come."""


class Ring(Generic[T]):
    """A bounded first-in, first-out queue, safe for any number of threads.

    One condition guards everything; state and notification change under its lock. After ``close``
    the items inside can still be taken, then ``get`` raises `Closed`; ``abort`` also drops the
    items inside. The counts always satisfy
    ``put_count == got_count + dropped_count + len(ring)``.

    Args:
        capacity: Most items inside, 1 or more.
        policy: What ``put`` does when the ring is full. May be changed at any time, for later puts.
        on_drop: Called as ``on_drop(item, cause)`` for every dropped item, outside the lock; the
            cause is "ring full" or "stopped".
        inherit: Called as ``inherit(dropped, next)`` when a full ring drops an item; returns the
            item that takes the place of ``next``. A break between frames, for example, must not be
            lost with the frame that carried it.

    Raises:
        ValueError: ``capacity`` is below 1.
    """

    def __init__(
        self,
        capacity: int,
        policy: Policy = Policy.WAIT,
        on_drop: Callable[[T, str], None] | None = None,
        *,
        inherit: Callable[[T, T], T] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a ring holds at least one item, not {capacity}")
        self.capacity = capacity
        self.policy = policy
        self._on_drop = on_drop
        self._inherit = inherit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.put_count = self.got_count = self.dropped_count = 0

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether ``close`` or ``abort`` was called."""
        with self._changed:
            return self._closed

    def put(self, item: T, timeout_s: float | None = None) -> None:
        """Add an item. A full ring waits for room or drops its oldest item, as its policy says.

        Args:
            item: The item.
            timeout_s: How long to wait for room, in seconds; None: without a limit.

        Raises:
            Closed: The ring is closed, or was closed during the wait.
            TimeoutError: No room came in time.
        """
        dropped: list[T] = []
        with self._changed:
            if self.policy is Policy.WAIT:
                self._wait(lambda: self._closed or len(self._items) < self.capacity, timeout_s)
            if self._closed:
                raise Closed
            # Added before the oldest is dropped, so that `inherit` finds a next item even in a ring
            # of one.
            self._items.append(item)
            if len(self._items) > self.capacity:
                dropped.append(self._items.popleft())
                self.dropped_count += 1
                if self._inherit is not None:
                    self._items[0] = self._inherit(dropped[0], self._items[0])
            self.put_count += 1
            # Putting and taking threads wait on one condition, so all of them are woken.
            self._changed.notify_all()
        self._report(dropped, "ring full")

    def put_first(self, item: T) -> None:
        """Add an item at the front, at once, even to a full ring.

        For rare items that cannot wait. No item is dropped for it.

        Raises:
            Closed: The ring is closed.
        """
        with self._changed:
            if self._closed:
                raise Closed
            self._items.appendleft(item)
            self.put_count += 1
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> T:
        """Take and return the oldest item, waiting for one.

        Args:
            timeout_s: How long to wait, in seconds; None: without a limit.

        Raises:
            Closed: The ring is closed and empty.
            TimeoutError: No item came in time.
        """
        with self._changed:
            self._wait(lambda: self._closed or bool(self._items), timeout_s)
            if not self._items:
                raise Closed
            return self._take(1)[0]

    def get_batch(self, most: int, timeout_s: float | None = None) -> list[T]:
        """Take and return the items inside, oldest first, waiting for the first one.

        Args:
            most: Most items to take, 1 or more.
            timeout_s: How long to wait for the first one, in seconds; None: without a limit.

        Raises:
            Closed: The ring is closed and empty.
            TimeoutError: No item came in time.
            ValueError: ``most`` is below 1.
        """
        if most < 1:
            raise ValueError(f"a batch has at least one item, not {most}")
        with self._changed:
            self._wait(lambda: self._closed or bool(self._items), timeout_s)
            if not self._items:
                raise Closed
            return self._take(min(most, len(self._items)))

    def close(self) -> None:
        """Refuse further puts and wake all waiting threads. Items inside can still be taken.

        Safe to repeat.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Close, and drop the items inside."""
        with self._changed:
            dropped = list(self._items)
            self._items.clear()
            self.dropped_count += len(dropped)
            self._closed = True
            self._changed.notify_all()
        self._report(dropped, "stopped")

    def _take(self, number: int) -> list[T]:
        """Take the oldest items, under the lock."""
        items = [self._items.popleft() for _ in range(number)]
        self.got_count += number
        self._changed.notify_all()
        return items

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None) -> None:
        """Wait under the lock until ``ready()``. Raises TimeoutError when it is not in time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        # A woken thread looks again, because another one may have been faster.
        while not ready():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._changed.wait(left)

    def _report(self, dropped: list[T], cause: str) -> None:
        # Outside the lock, because the listener may take locks of its own.
        if self._on_drop is not None:
            for item in dropped:
                self._on_drop(item, cause)
