"""Calls that wait for the disk: how many at once, for how long, and shared by those who ask."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

pytest.importorskip("anyio")
from app.serve.threads import DiskHangs, DiskThreads, SharedCall  # noqa: E402

pytestmark = pytest.mark.timeout(30)


def test_a_call_waits_for_a_place():
    async def all_of_them():
        disk = DiskThreads(2, 10.0)
        return await asyncio.gather(*(disk.run(lambda k=k: slow(k)) for k in range(6)))

    now, most = 0, 0
    lock = threading.Lock()

    def slow(k: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return k

    assert asyncio.run(all_of_them()) == list(range(6))
    assert most == 2


def test_a_disk_that_hangs_collects_no_threads_and_is_used_again():
    answers, begun = threading.Event(), []

    def hang() -> None:
        begun.append(1)
        answers.wait(20)

    async def ask() -> None:
        disk = DiskThreads(2, 0.2)
        for _ in range(3):
            tries = (disk.run(hang) for _ in range(4))
            found = await asyncio.gather(*tries, return_exceptions=True)
            assert [type(each) for each in found] == [DiskHangs] * 4
        assert len(begun) == 2
        answers.set()
        await asyncio.sleep(0.1)
        assert await disk.run(lambda: "well") == "well"

    asyncio.run(ask())


def test_a_result_is_shared_for_a_while_and_an_error_is_not():
    calls = []

    async def call() -> int:
        calls.append(1)
        await asyncio.sleep(0.05)
        if len(calls) == 2:
            raise OSError("gone")
        return len(calls)

    async def ask() -> None:
        shared = SharedCall(call, 0.2)
        left = asyncio.ensure_future(shared.result())
        await asyncio.sleep(0)
        left.cancel()
        assert await asyncio.gather(*(shared.result() for _ in range(5))) == [1] * 5
        assert await shared.result() == 1
        await asyncio.sleep(0.25)
        for found in await asyncio.gather(
            *(shared.result() for _ in range(3)), return_exceptions=True
        ):
            assert isinstance(found, OSError)
        assert await shared.result() == 3
        shared.forget()
        assert await shared.result() == 4

    asyncio.run(ask())


def test_what_is_forgotten_while_it_is_found_is_found_again():
    calls = []

    async def call() -> int:
        calls.append(1)
        number = len(calls)
        await asyncio.sleep(0.05)
        return number

    async def ask() -> None:
        shared = SharedCall(call, 60.0)
        before = asyncio.ensure_future(shared.result())
        await asyncio.sleep(0.01)
        shared.forget()
        assert await shared.result() == 2
        assert await before == 1
        assert await shared.result() == 2

    asyncio.run(ask())
