"""Threads for the calls of requests, apart by what they may wait for.

One pool for all requests would let a disk that hangs, or a few dozen viewers, keep the status from
being answered.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

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
        most: The most calls at once. Further ones wait for a place, so that no threads collect.
        wait_s: How long a call is waited for, its place included, in seconds.
    """

    def __init__(self, most: int, wait_s: float) -> None:
        self._wait_s = wait_s
        self._places = asyncio.Semaphore(most)

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call that is made in a thread.

        Raises:
            DiskHangs: It takes too long, or no place has become free in time.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
                # A task of its own holds the place: the request may leave it behind.
                return await asyncio.shield(asyncio.create_task(self._held(call)))
        except TimeoutError:
            raise DiskHangs from None

    async def _held(self, call: Callable[[], T]) -> T:
        try:
            # A limiter for each call: the places are what limits.
            return await anyio.to_thread.run_sync(
                call, abandon_on_cancel=True, limiter=CapacityLimiter(1)
            )
        finally:
            self._places.release()


class SharedCall(Generic[T]):
    """A call whose result is shared by all who ask while it is made, and for a while after that.
    Belongs to one event loop.

    Args:
        call: The call. Its errors are shared by those who wait for them, and then forgotten.
        keep_s: How long a result is used, in seconds.
    """

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]], keep_s: float) -> None:
        self._call, self._keep_s = call, keep_s
        self._task: asyncio.Task[T] | None = None
        self._until_s = math.inf

    async def result(self) -> T:
        """Return the call's result. Raises what it raises."""
        if self._task is None or time.monotonic() > self._until_s:
            self._until_s = math.inf
            self._task = asyncio.create_task(self._call())
            self._task.add_done_callback(self._done)
        # A client that leaves must not end the call of the others.
        return await asyncio.shield(self._task)

    def forget(self) -> None:
        """Have the next one who asks get a new result: what was found has changed."""
        self._task = None

    def _done(self, task: asyncio.Task[T]) -> None:
        if task is not self._task:
            return
        failed = task.cancelled() or task.exception() is not None
        self._until_s = -math.inf if failed else time.monotonic() + self._keep_s
