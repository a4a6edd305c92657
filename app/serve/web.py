"""The web application of `serve`: the page, the API and the metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from app.serve.hub import Hub, SourceView
from app.serve.live import add_live
from app.serve.metrics import metrics_text
from app.serve.security import COOKIE, SecurityMiddleware
from app.serve.token_auth import SESSION_S, TokenAuth

PAGE = Path(__file__).with_name("page")


class NewSource(BaseModel):
    """A source to add: its address and, optionally, a name of up to 60 letters, digits, dots,
    dashes and underscores."""

    address: Annotated[str, Field(min_length=1, max_length=2048)]
    name: Annotated[str, Field(max_length=60)] | None = None


class Recording(BaseModel):
    """Whether the source is to be recorded."""

    on: bool


def create_app(hub: Hub, token: str | None = None) -> SecurityMiddleware:
    """Return the whole ASGI application, with its security around it.

    Args:
        hub: The hub whose sources are served, inside its ``with`` block.
        token: The token that requests need; None to serve this machine without one.

    Raises:
        ValueError: The token is too short, too long, or cannot be sent in a header.
    """
    auth = None if token is None else TokenAuth(token)
    # The documentation pages load scripts from another host, which the security policy forbids.
    app = FastAPI(title="bodystream", version="1", docs_url=None, redoc_url=None)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_pages(app, auth)
    _add_api(app, hub)
    add_live(app, hub)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return SecurityMiddleware(app, auth)


def _invalid(request: Request, error: Exception) -> Response:
    """Return the errors of a request without its input, because addresses hold logins."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: fault[name] for name in ("loc", "msg", "type")} for fault in error.errors()]
    return JSONResponse({"detail": detail}, 422)


def _add_pages(app: FastAPI, auth: TokenAuth | None) -> None:
    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/login", include_in_schema=False)
    def login_page() -> Response:
        return FileResponse(PAGE / "login.html")

    @app.post("/login", include_in_schema=False)
    def login(request: Request, given: Annotated[str, Form(alias="token", max_length=512)]) -> Any:
        if auth is None or not auth.is_token(given):
            return PlainTextResponse("that is not the token", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            # httponly: no script reads it; strict: no other site's request carries it.
            COOKIE, auth.session(), max_age=SESSION_S, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response


class _SoFar(FileResponse):
    """A file of which no more is sent than the length that was announced.

    A recording may grow while it is downloaded, and more bytes than Content-Length are an error.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        left, more = 0, True

        async def bounded(message: Any) -> None:
            nonlocal left, more
            if message["type"] == "http.response.start":
                left = int(dict(message["headers"]).get(b"content-length", 0))
            elif not more:
                return
            else:
                body = message.get("body", b"")[:left]
                left -= len(body)
                more = message.get("more_body", False) and left > 0
                message = {**message, "body": body, "more_body": more}
            await send(message)

        await super().__call__(scope, receive, bounded)


def _add_api(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/sources")
    def sources() -> list[SourceView]:
        """List all sources: state and its reason, rates, people, latency and dropped frames."""
        return hub.sources()

    @app.post("/api/sources", status_code=201)
    def add(new: NewSource) -> dict[str, str]:
        """Add a source. Returns the name that it got."""
        try:
            return {"name": hub.add(new.address.strip(), new.name or None)}
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except (RuntimeError, OSError) as error:
            raise HTTPException(409, str(error)) from None

    @app.delete("/api/sources/{name}", status_code=204)
    def remove(name: str) -> None:
        """End a source and remove it, with its stored bodies and events."""
        with _known():
            hub.remove(name)

    @app.put("/api/sources/{name}/recording")
    def record(name: str, wanted: Recording) -> dict[str, str | None]:
        """Begin or end a recording. Returns the name of its video file while it is recorded, else
        null."""
        with _known():
            try:
                return {"file": hub.record(name, wanted.on)}
            except RuntimeError as error:
                raise HTTPException(409, str(error)) from None

    @app.get("/api/sources/{name}/poses")
    def poses(name: str) -> Response:
        """Return the bodies of the last ten minutes: JSON lines, one for each frame."""
        with _known():
            lines = hub.bodies(name, -1)
        # Streamed: thousands of lines would double in memory as one text.
        text = (f"{line}\n" for _, line in lines)
        # Quoted: a header is Latin-1, a name may be of any script.
        given = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}.jsonl"}
        return StreamingResponse(text, media_type="application/jsonl", headers=given)

    @app.get("/api/sources/{name}/events")
    def events(name: str) -> Response:
        """Return the last events, the oldest first, in the format of `bodystream events`."""
        if not hub.looks_for_events:
            raise HTTPException(404, "no events are looked for: start serve with --events")
        with _known():
            lines = [line for _, line in hub.events(name, -1)]
        return Response(f"[{','.join(lines)}]", media_type="application/json")

    @app.get("/api/sources/{name}/events/{number}/strip")
    def strip(name: str, number: int) -> Response:
        """Return the pictures of an event side by side, as one JPEG. Events are numbered from 0."""
        with _known():
            return Response(hub.strip(name, number), media_type="image/jpeg")

    @app.get("/api/files")
    def files() -> list[dict[str, Any]]:
        """List the recordings' files, the newest first, with their sizes in bytes."""
        return [{"name": name, "bytes": size} for name, size in hub.files()]

    @app.get("/api/files/{name}")
    def file(name: str) -> Response:
        """Download a recording's file."""
        with _known():
            path = hub.file(name)
        if path.is_symlink():  # It could lead out of the folder.
            raise HTTPException(404, "there is no such thing")
        kind = "video/mp4" if name.endswith(".mp4") else "application/jsonl"
        return _SoFar(path, filename=name, media_type=kind)

    @app.get("/healthz", include_in_schema=False)
    def health() -> Response:
        states = [view.state for view in hub.sources()]
        # A server without sources waits for its first one; that is no fault.
        fine = not states or "live" in states
        return PlainTextResponse("ok" if fine else "no source is live", 200 if fine else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return PlainTextResponse(
            metrics_text(hub.figures()), media_type="text/plain; version=0.0.4"
        )


@contextlib.contextmanager
def _known() -> Iterator[None]:
    """Answer a KeyError of the hub, an unknown name, with 404."""
    try:
        yield
    except KeyError:
        raise HTTPException(404, "there is no such thing") from None
