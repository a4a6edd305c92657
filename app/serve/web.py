"""The page, the API and the metrics of `serve`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

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
    """A source to add: its address, and a name of up to 60 letters and digits if wanted."""

    address: Annotated[str, Field(min_length=1, max_length=2048)]
    name: Annotated[str, Field(max_length=60)] | None = None


class Recording(BaseModel):
    """Whether a source is to be recorded."""

    on: bool


def create_app(hub: Hub, token: str | None = None) -> SecurityMiddleware:
    """The whole application, behind its gate. Raises ValueError for a token that is none."""
    key = None if token is None else TokenAuth(token)
    app = FastAPI(title="bodystream", version="1", docs_url=None, redoc_url=None)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_pages(app, key)
    _add_api(app, hub)
    add_live(app, hub)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return SecurityMiddleware(app, key)


def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong with a request, without what it said: addresses hold logins."""
    assert isinstance(error, RequestValidationError)
    told = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
    return JSONResponse({"detail": told}, 422)


def _add_pages(app: FastAPI, key: TokenAuth | None) -> None:
    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/login", include_in_schema=False)
    def login_page() -> Response:
        return FileResponse(PAGE / "login.html")

    @app.post("/login", include_in_schema=False)
    def login(request: Request, given: Annotated[str, Form(alias="token", max_length=512)]) -> Any:
        if key is None or not key.is_token(given):
            return PlainTextResponse("that is not the token", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            COOKIE, key.session(), max_age=SESSION_S, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response


class _SoFar(FileResponse):
    """A file of which no more is sent than was announced: a recording may grow meanwhile."""

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
        """Every source: its state and why, rates, people, latency, drops."""
        return hub.sources()

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
        text = (f"{line}\n" for _, line in lines)
        given = {"content-disposition": f'attachment; filename="{name}.jsonl"'}
        return StreamingResponse(text, media_type="application/jsonl", headers=given)

    @app.get("/api/sources/{name}/events")
    def events(name: str) -> Response:
        """The last events, the oldest first, as `python -m app events` tells them."""
        if not hub.looks_for_events:
            raise HTTPException(404, "no events are looked for: start serve with --events")
        with _known():
            lines = [line for _, line in hub.events(name, -1)]
        return Response(f"[{','.join(lines)}]", media_type="application/json")

    @app.get("/api/sources/{name}/events/{number}/strip")
    def strip(name: str, number: int) -> Response:
        """The pictures of an event, numbered from 0, as JPEG."""
        with _known():
            return Response(hub.strip(name, number), media_type="image/jpeg")

    @app.get("/api/files")
    def files() -> list[dict[str, Any]]:
        """Recordings, the newest first."""
        return [{"name": name, "bytes": size} for name, size in hub.files()]

    @app.get("/api/files/{name}")
    def file(name: str) -> Response:
        """One recording."""
        with _known():
            path = hub.file(name)
        if path.is_symlink():
            raise HTTPException(404, "there is no such thing")
        kind = "video/mp4" if name.endswith(".mp4") else "application/jsonl"
        return _SoFar(path, filename=name, media_type=kind)

    @app.get("/healthz", include_in_schema=False)
    def health() -> Response:
        states = [view.state for view in hub.sources()]
        fine = not states or "live" in states
        return PlainTextResponse("ok" if fine else "no source is live", 200 if fine else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return PlainTextResponse(
            metrics_text(hub.figures()), media_type="text/plain; version=0.0.4"
        )


@contextlib.contextmanager
def _known() -> Iterator[None]:
    try:
        yield
    except KeyError:
        raise HTTPException(404, "there is no such thing") from None
