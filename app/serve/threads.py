"""Threads for the calls of requests, apart by what they may wait for.

One pool for all requests would let a disk that hangs, or a few dozen viewers, keep the status from
being answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

T = TypeVar("T")


class Threads:
    """Threads of their own for calls that block for a bounded time. Belongs to one event loop.

    Args:
        most: The most calls at once; further ones wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limiter: CapacityLimiter | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call that is made in a thread."""
        if self._limiter is None:  # Made here: it needs a running event loop.
            self._limiter = CapacityLimiter(self._most)
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)


class DiskHangs(Exception):
    """The disk does not answer in time."""


class DiskThreads:
    """Threads for calls that wait for the disk, which may never answer. Belongs to one event loop.

    Args:
        most: The most calls at once; further ones are refused, so that no threads collect.
        wait_s: How long a call is waited for, in seconds.
    """

    def __init__(self, most: int, wait_s: float) -> None:
        self._wait_s = wait_s
        self._places = threading.Semaphore(most)

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call that is made in a thread.

        Raises:
            DiskHangs: It takes too long, or as many calls as are allowed are under way.
        """

        def held() -> T:
            # Held by the thread and not by the request, which may leave it behind.
            if not self._places.acquire(blocking=False):
                raise DiskHangs
            try:
                return call()
            finally:
                self._places.release()

        try:
            with anyio.fail_after(self._wait_s):
                # A limiter for each call: the places are what limits.
                return await anyio.to_thread.run_sync(
                    held, abandon_on_cancel=True, limiter=CapacityLimiter(1)
                )
        except TimeoutError:
            raise DiskHangs from None
