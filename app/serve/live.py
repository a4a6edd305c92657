"""What a served source shows as it happens: pictures and bodies.

Pictures are JPEGs (docs/live.md says why): made once for all viewers, and one who cannot keep up
skips some instead of falling behind. The page gets them by WebSocket, for a browser opens only six
other connections to a host; `/video/NAME` is MJPEG for other programs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from app.serve.connection import STUCK_S
from app.serve.hub import Hub

MOST_VIEWERS = 64
"""Streams of pictures, each of one source."""
MOST_SOCKETS = 32
"""Streams of bodies."""
_ASK_S = 60.0
"""A viewer who asks for no picture for so long is let go."""
_BOUNDARY = b"frame"


class Full(Exception):
    """There is no place left; says how many are taken."""


class Places:
    """So many at once. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises Full."""
        if not self.left:
            raise Full(f"there are {self.most} already")
        self.left -= 1
        try:
            yield
        finally:
            self.left += 1


class _Waiting:
    """Threads that wait for pictures and bodies, apart from those that answer requests. What one
    asks for is a source that a name has now: another that gets the name later is not it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limiter: CapacityLimiter | None = None

    def source(self, name: str) -> int:
        """The number of the source that has the name. Raises KeyError."""
        return self._hub.number(name)

    async def picture(self, name: str, source: int, after: int) -> tuple[int, bytes]:
        """The next picture's number and JPEG. Raises KeyError."""
        while True:
            self._check(name, source)
            found = await self._run(partial(self._hub.picture, name, after, 1.0))
            if found is not None:
                return found

    async def bodies(self, name: str, source: int, after: int) -> list[tuple[int, str]]:
        """Frames' lines that came within half a second. Raises KeyError."""
        self._check(name, source)
        return await self._run(partial(self._hub.bodies, name, after, 0.5))

    async def events(self, name: str, after: int) -> list[tuple[int, str]]:
        """Events' lines since number ``after``. Raises KeyError."""
        return await self._run(partial(self._hub.events, name, after))

    def _check(self, name: str, source: int) -> None:
        if self._hub.number(name) != source:
            raise KeyError(name)

    async def _run(self, ask: Callable[[], Any]) -> Any:
        if self._limiter is None:
            self._limiter = CapacityLimiter(MOST_VIEWERS + MOST_SOCKETS)
        return await anyio.to_thread.run_sync(ask, limiter=self._limiter)


def add_live(app: FastAPI, hub: Hub) -> None:
    """Routes of pictures and bodies."""
    viewers, sockets, waiting = Places(MOST_VIEWERS), Places(MOST_SOCKETS), _Waiting(hub)

    @app.get("/video/{name}")
    async def video(name: str, request: Request) -> Response:
        """MJPEG, for ever."""
        if name not in hub.names():
            raise HTTPException(404, "there is no such source")
        return _Video(viewers, _parts(waiting, name))

    @app.websocket("/watch/{name}")
    async def watch(socket: WebSocket, name: str) -> None:
        """A JPEG for each message that asks for one."""
        await _hold(socket, viewers, partial(_tell_pictures, waiting, name))

    @app.websocket("/ws/{name}")
    async def bodies(socket: WebSocket, name: str) -> None:
        """Every frame's bodies as a message of JSON, from now on, and every event as one, under
        "event"."""
        await _hold(socket, sockets, partial(_tell_bodies, waiting, name))


class _Video(StreamingResponse):
    """A stream that holds a place."""

    def __init__(self, viewers: Places, parts: AsyncIterator[bytes]) -> None:
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        super().__init__(parts, media_type=kind)
        self._viewers = viewers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with self._viewers.one():
                await super().__call__(scope, receive, send)
        except Full as error:
            await PlainTextResponse(str(error), 503)(scope, receive, send)


async def _parts(waiting: _Waiting, name: str) -> AsyncIterator[bytes]:
    after, source = 0, None
    while True:
        try:
            source = waiting.source(name) if source is None else source
            after, jpeg = await waiting.picture(name, source, after)
        except KeyError:
            return
        length = str(len(jpeg)).encode()
        yield (
            b"--" + _BOUNDARY + b"\r\nContent-Type: image/jpeg\r\nContent-Length: "
            + length + b"\r\n\r\n" + jpeg + b"\r\n"
        )  # fmt: skip


async def _hold(socket: WebSocket, places: Places, tell: Callable[[WebSocket], Any]) -> None:
    """A socket that holds a place while it is told things, and is closed where it takes nothing."""
    try:
        with places.one():
            await socket.accept()
            await tell(socket)
    except Full as error:
        await socket.accept()
        await socket.close(1013, str(error))
    except KeyError:
        await socket.close(1001, "there is no such source")
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        pass  # It takes nothing, or is gone: nobody to tell.


async def _tell_pictures(waiting: _Waiting, name: str, socket: WebSocket) -> None:
    after, source = 0, waiting.source(name)
    while True:
        # Who asks when the last one was shown has none wait on the way.
        async with asyncio.timeout(_ASK_S):
            message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        after, jpeg = await waiting.picture(name, source, after)
        async with asyncio.timeout(STUCK_S):
            await socket.send_bytes(jpeg)


async def _tell_bodies(waiting: _Waiting, name: str, socket: WebSocket) -> None:
    after, source = None, waiting.source(name)
    # What is disconnected is noticed by reading, and nothing is to be read.
    gone = asyncio.ensure_future(socket.receive())
    named = json.dumps({"source": name})[:-1]
    events = await waiting.events(name, -1)
    last = events[-1][0] if events else -1
    try:
        while not gone.done():
            for number, line in await waiting.events(name, last):
                last = number
                async with asyncio.timeout(STUCK_S):
                    await socket.send_text(f'{named},"event":{line}}}')
            lines = await waiting.bodies(name, source, -1 if after is None else after)
            if lines:
                fresh = lines[-1:] if after is None else lines
                after = lines[-1][0]
                for _, line in fresh:
                    async with asyncio.timeout(STUCK_S):
                        await socket.send_text(f"{named},{line[1:]}")
    finally:
        gone.cancel()
