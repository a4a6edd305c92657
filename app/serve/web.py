"""The page, the API and the metrics of `serve`.

Pictures go out as MJPEG: every browser shows it, it needs no codec, no negotiation and no second
connection, a viewer costs one copy of a JPEG that is made once for all, and one who cannot keep up
skips pictures instead of queueing them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI, Form, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import (
    FileResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from app.serve.guard import COOKIE, Guard
from app.serve.hub import Hub
from app.serve.metrics import metrics_text

PAGE = Path(__file__).with_name("page")
MOST_VIEWERS = 32
MOST_SOCKETS = 32
_STUCK_S = 10.0
"""A viewer whose connection takes nothing for so long is cut."""
_BOUNDARY = b"frame"


class NewSource(BaseModel):
    """A source to add: its address, and a name of up to 60 letters and digits if wanted."""

    address: Annotated[str, Field(min_length=1, max_length=2048)]
    name: Annotated[str, Field(max_length=60)] | None = None


class Recording(BaseModel):
    """Whether a source is to be recorded."""

    on: bool


def create_app(hub: Hub, token: str | None = None) -> Guard:
    """The whole application, behind its gate. Raises ValueError for a token that is too short."""
    app = FastAPI(title="bodystream", version="1", docs_url=None, redoc_url=None)
    viewers, sockets = CapacityLimiter(MOST_VIEWERS), CapacityLimiter(MOST_SOCKETS)
    _add_pages(app, token)
    _add_api(app, hub)
    _add_live(app, hub, viewers, sockets)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return Guard(app, token)


def _add_pages(app: FastAPI, token: str | None) -> None:
    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/login", include_in_schema=False)
    def login_page() -> Response:
        return FileResponse(PAGE / "login.html")

    @app.post("/login", include_in_schema=False)
    def login(given: Annotated[str, Form(alias="token", max_length=512)]) -> Response:
        if token is None or not hmac.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("that is not the token", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86400)
        return response


def _add_api(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/sources")
    def sources() -> list[dict[str, Any]]:
        """Every source: its state and why, rates, people, latency, drops."""
        return [asdict(view) for view in hub.sources()]

    @app.post("/api/sources", status_code=201)
    def add(new: NewSource) -> dict[str, str]:
        """Add a source; the name it got."""
        try:
            return {"name": hub.add(new.address.strip(), new.name or None)}
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except (RuntimeError, OSError) as error:
            raise HTTPException(409, str(error)) from None

    @app.delete("/api/sources/{name}", status_code=204)
    def remove(name: str) -> None:
        """End a source and forget it."""
        with _known():
            hub.remove(name)

    @app.put("/api/sources/{name}/recording")
    def record(name: str, wanted: Recording) -> dict[str, str | None]:
        """Begin or end a recording; its file's name while it goes on."""
        with _known():
            try:
                return {"file": hub.record(name, wanted.on)}
            except RuntimeError as error:
                raise HTTPException(409, str(error)) from None

    @app.get("/api/sources/{name}/poses")
    def poses(name: str) -> Response:
        """The bodies of the last ten minutes as lines of JSON."""
        with _known():
            lines = hub.bodies(name, -1)
        text = "".join(f"{line}\n" for _, line in lines)
        given = {"content-disposition": f'attachment; filename="{name}.jsonl"'}
        return Response(text, media_type="application/jsonl", headers=given)

    @app.get("/api/files")
    def files() -> list[dict[str, Any]]:
        """Recordings, the newest first."""
        return [{"name": name, "bytes": size} for name, size in hub.files()]

    @app.get("/api/files/{name}")
    def file(name: str) -> Response:
        """One recording."""
        with _known():
            kind = "video/mp4" if name.endswith(".mp4") else "application/jsonl"
            return FileResponse(hub.file(name), filename=name, media_type=kind)

    @app.get("/healthz", include_in_schema=False)
    def health() -> Response:
        states = [view.state for view in hub.sources()]
        fine = not states or "live" in states
        return PlainTextResponse("ok" if fine else "no source is live", 200 if fine else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return PlainTextResponse(
            metrics_text(hub.sources()), media_type="text/plain; version=0.0.4"
        )


def _add_live(app: FastAPI, hub: Hub, viewers: CapacityLimiter, sockets: CapacityLimiter) -> None:
    @app.get("/video/{name}", include_in_schema=False)
    async def video(name: str, request: Request) -> Response:
        if name not in {view.name for view in hub.sources()}:
            raise HTTPException(404, "there is no such source")
        if viewers.available_tokens < 1:
            raise HTTPException(503, f"{MOST_VIEWERS} watch already")
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        return _Unstuck(_pictures(hub, name, viewers), media_type=kind)

    @app.websocket("/ws/{name}")
    async def bodies(socket: WebSocket, name: str) -> None:
        """Every frame's bodies as a message of JSON, from now on."""
        try:
            sockets.acquire_nowait()
        except anyio.WouldBlock:
            await socket.close(1013, f"{MOST_SOCKETS} listen already")
            return
        try:
            await socket.accept()
            await _tell_bodies(hub, name, socket)
        finally:
            sockets.release()


async def _pictures(hub: Hub, name: str, viewers: CapacityLimiter) -> AsyncIterator[bytes]:
    """The newest picture again and again; whoever is slow misses some."""
    after = 0
    async with viewers:
        while True:
            ask = partial(hub.picture, name, after, 1.0)
            try:
                found = await anyio.to_thread.run_sync(ask, limiter=_waiting())
            except KeyError:
                return
            if found is None:
                continue
            after, jpeg = found
            length = str(len(jpeg)).encode()
            yield (
                b"--" + _BOUNDARY + b"\r\nContent-Type: image/jpeg\r\nContent-Length: "
                + length + b"\r\n\r\n" + jpeg + b"\r\n"
            )  # fmt: skip


async def _tell_bodies(hub: Hub, name: str, socket: WebSocket) -> None:
    after = None
    # What is disconnected is noticed by reading, and nothing is to be read.
    gone = asyncio.ensure_future(socket.receive())
    try:
        while not gone.done():
            try:
                ask = partial(hub.bodies, name, -1 if after is None else after, 0.5)
                lines = await anyio.to_thread.run_sync(ask, limiter=_waiting())
            except KeyError:
                await socket.close(1001, "there is no such source")
                return
            if lines:
                fresh = lines[-1:] if after is None else lines
                after = lines[-1][0]
                for _, line in fresh:
                    with anyio.fail_after(_STUCK_S):
                        await socket.send_text(json.dumps({"source": name})[:-1] + "," + line[1:])
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        pass  # It takes nothing, or is gone: nobody to tell.
    finally:
        gone.cancel()


_WAITING: list[CapacityLimiter] = []


def _waiting() -> CapacityLimiter:
    """Threads that wait for pictures and bodies, apart from those that answer requests."""
    if not _WAITING:
        _WAITING.append(CapacityLimiter(MOST_VIEWERS + MOST_SOCKETS))
    return _WAITING[0]


class _Unstuck(StreamingResponse):
    """A stream that is cut where its reader takes nothing."""

    async def stream_response(self, send: Any) -> None:
        async def sending(message: Any) -> None:
            with anyio.fail_after(_STUCK_S):
                await send(message)

        with contextlib.suppress(TimeoutError):
            await super().stream_response(sending)


@contextlib.contextmanager
def _known() -> Any:
    try:
        yield
    except KeyError:
        raise HTTPException(404, "there is no such thing") from None
