"""Live routes of `serve`: pictures and bodies as they come.

Pictures are JPEGs (docs/results/live.md explains why). Each is encoded once for all viewers, and a
slow viewer skips pictures instead of falling behind. The page gets them by WebSocket, because a
browser opens only six HTTP connections to a host; `/video/NAME` is MJPEG for other programs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from app.serve.connection import STUCK_S
from app.serve.source_hub import SourceHub
from app.serve.threads import Threads

MOST_VIEWERS = 64
"""The most streams of pictures, each of one source."""
MOST_SOCKETS = 32
"""The most streams of bodies."""
_ASK_S = 60.0
"""A viewer that asks for no picture for this time is disconnected."""
_BOUNDARY = b"frame"


class Full(Exception):
    """All places are taken; the message says how many there are."""


class Places:
    """A limited number of places for streams. Belongs to one event loop, so it needs no lock."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a place within a ``with`` block. Raises Full."""
        if not self.left:
            raise Full(f"there are {self.most} already")
        self.left -= 1
        try:
            yield
        finally:
            self.left += 1


class _Waiting:
    """Waits for pictures and bodies in threads of its own.

    A hub's calls block for up to a second. In the threads that answer requests, a few dozen viewers
    would leave none for the others.

    A stream belongs to the source that has the name at its start, known by its number: a source
    that is added later under the same name is another one.
    """

    def __init__(self, hub: SourceHub) -> None:
        self._hub = hub
        # A thread for every place, so that no viewer waits for another.
        self._threads = Threads(MOST_VIEWERS + MOST_SOCKETS)

    def source(self, name: str) -> int:
        """Return the number of the source that has the name. Raises KeyError."""
        return self._hub.number(name)

    async def picture(self, name: str, source: int, after: int) -> tuple[int, bytes]:
        """Return the next picture's number and JPEG. Raises KeyError once the source is gone."""
        while True:
            self._check(name, source)
            # Short waits in a loop: a thread cannot be cancelled, so it would outlive its viewer.
            found = await self._threads.run(partial(self._hub.picture, name, after, 1.0))
            if found is not None:
                return found

    async def bodies(self, name: str, source: int, after: int) -> list[tuple[int, str]]:
        """Return the lines of new frames, waiting up to half a second. Raises KeyError."""
        self._check(name, source)
        return await self._threads.run(partial(self._hub.bodies, name, after, 0.5))

    async def view(
        self, name: str, source: int, after: int | None
    ) -> tuple[str, list[tuple[int, bytes]]]:
        """Return the scene and the messages of new frames for the 3D view, waiting up to half a
        second. Raises KeyError."""
        self._check(name, source)
        return await self._threads.run(partial(self._hub.view, name, after, 0.5))

    async def events(self, name: str, after: int) -> list[tuple[int, str]]:
        """Return the lines of the events after number ``after``. Raises KeyError."""
        return await self._threads.run(partial(self._hub.events, name, after))

    def _check(self, name: str, source: int) -> None:
        # The name may belong to a new source now; its frame numbers begin anew.
        if self._hub.number(name) != source:
            raise KeyError(name)


def add_live(app: FastAPI, hub: SourceHub) -> None:
    """Add the routes of live pictures and bodies to an application.

    Args:
        app: The application.
        hub: The hub whose sources are shown.
    """
    viewers, sockets, waiting = Places(MOST_VIEWERS), Places(MOST_SOCKETS), _Waiting(hub)

    @app.get("/video/{name}")
    async def video(name: str, request: Request) -> Response:
        """Stream the pictures of a source as MJPEG until it is removed."""
        if name not in hub.names():
            raise HTTPException(404, "there is no such source")
        return _Video(viewers, _parts(waiting, name))

    @app.websocket("/watch/{name}")
    async def watch(socket: WebSocket, name: str) -> None:
        """Send a JPEG for each message that the viewer sends."""
        await _hold(socket, viewers, partial(_send_pictures, waiting, name))

    @app.websocket("/ws/{name}")
    async def bodies(socket: WebSocket, name: str) -> None:
        """Send a JSON message for every new frame, with its bodies, and one for every event, under
        the key "event"."""
        await _hold(socket, sockets, partial(_send_bodies, waiting, name))

    @app.websocket("/ws/{name}/view")
    async def view(socket: WebSocket, name: str) -> None:
        """Send the scene as JSON, first and when it changes, and a binary message for every new
        frame (`app.view.frames`)."""
        await _hold(socket, sockets, partial(_send_view, waiting, name))


class _Video(StreamingResponse):
    """A stream of pictures that holds a place while it runs."""

    def __init__(self, viewers: Places, parts: AsyncIterator[bytes]) -> None:
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        super().__init__(parts, media_type=kind)
        self._viewers = viewers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            # Held here and not in the route: the response runs after the route has returned.
            with self._viewers.hold():
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


async def _hold(socket: WebSocket, places: Places, send: Callable[[WebSocket], Any]) -> None:
    """Run ``send`` on a WebSocket that holds a place; close it if the client reads nothing."""
    try:
        with places.hold():
            await socket.accept()
            await send(socket)
    except Full as error:
        # Accepted first: only a socket that was open has a close code and a reason.
        await socket.accept()
        await socket.close(1013, str(error))
    except KeyError:
        await socket.close(1001, "there is no such source")
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        pass  # The client reads nothing or is gone, so no close message would arrive.


async def _send_pictures(waiting: _Waiting, name: str, socket: WebSocket) -> None:
    after, source = 0, waiting.source(name)
    while True:
        # The viewer asks once it has shown the last picture, so none pile up on a slow network.
        async with asyncio.timeout(_ASK_S):
            message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        after, jpeg = await waiting.picture(name, source, after)
        async with asyncio.timeout(STUCK_S):
            await socket.send_bytes(jpeg)


async def _send_bodies(waiting: _Waiting, name: str, socket: WebSocket) -> None:
    after, source = None, waiting.source(name)
    # A disconnect is noticed only by reading. Clients send nothing, so anything read ends it.
    gone = asyncio.ensure_future(socket.receive())
    prefix = json.dumps({"source": name})[:-1]  # Lines are JSON already: text is joined to text.
    events = await waiting.events(name, -1)
    # A client that connects gets new events only; older ones are at /api/sources/NAME/events.
    last = events[-1][0] if events else -1
    try:
        while not gone.done():
            for number, line in await waiting.events(name, last):
                last = number
                async with asyncio.timeout(STUCK_S):
                    await socket.send_text(f'{prefix},"event":{line}}}')
            lines = await waiting.bodies(name, source, -1 if after is None else after)
            if lines:
                # A new client starts at the newest frame, not with the ten minutes that are stored.
                fresh = lines[-1:] if after is None else lines
                after = lines[-1][0]
                for _, line in fresh:
                    async with asyncio.timeout(STUCK_S):
                        await socket.send_text(f"{prefix},{line[1:]}")
    finally:
        gone.cancel()


async def _send_view(waiting: _Waiting, name: str, socket: WebSocket) -> None:
    after, sent, source = None, "", waiting.source(name)
    gone = asyncio.ensure_future(socket.receive())
    try:
        while not gone.done():
            scene, frames = await waiting.view(name, source, after)
            for number, message in frames:
                after = number
                async with asyncio.timeout(STUCK_S):
                    if scene != sent:
                        sent = scene
                        await socket.send_text(scene)
                    await socket.send_bytes(message)
    finally:
        gone.cancel()
