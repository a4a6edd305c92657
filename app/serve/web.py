"""The web application of `serve`: the page, the API and the metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from pydantic import BaseModel, ConfigDict, Field, create_model

from app.serve.files import add_files
from app.serve.live import add_live
from app.serve.metrics import metrics_text
from app.serve.pages import PAGE, add_pages
from app.serve.poses_jobs import PosesJobs
from app.serve.security import SecurityMiddleware
from app.serve.settings import fields
from app.serve.source_hub import SourceHub
from app.serve.source_view import SourceView
from app.serve.threads import Threads
from app.serve.token_auth import TokenAuth
from app.serve.viewing import add_view

_STATUS_THREADS = 4


class NewSource(BaseModel):
    """A source to add: its address and, optionally, a name of up to 60 letters, digits, dots,
    dashes and underscores."""

    address: Annotated[str, Field(min_length=1, max_length=2048)]
    name: Annotated[str, Field(max_length=60)] | None = None


class Recording(BaseModel):
    """Whether the source is to be recorded."""

    on: bool


# None only where it is left out: null is refused.
_CHANGES: dict[str, Any] = {
    name: (kind, Field(None, **about)) for name, (kind, about) in fields().items()
}
SettingsChange = create_model(
    "SettingsChange",
    __config__=ConfigDict(extra="forbid", strict=True),
    __doc__="The settings of a source to change; those left out stay as they are.",
    **_CHANGES,
)


class Changed(BaseModel):
    """The settings of a source after a change, and whether the source has begun again for it."""

    settings: dict[str, bool | float | str]
    restarted: bool


def create_app(hub: SourceHub, jobs: PosesJobs, token: str | None = None) -> SecurityMiddleware:
    """Return the whole ASGI application, with its security around it.

    Args:
        hub: The hub whose sources are served, inside its ``with`` block.
        jobs: Makes files of poses; the caller closes it.
        token: The token that requests need; None to serve this machine without one.

    Raises:
        ValueError: The token is too short, too long, or cannot be sent in a header.
    """
    auth = None if token is None else TokenAuth(token)
    # The documentation pages load scripts from another host, which the security policy forbids.
    app = FastAPI(title="bodystream", version="1", docs_url=None, redoc_url=None)
    app.add_exception_handler(RequestValidationError, _invalid)
    add_pages(app, auth, (PAGE / "index.html").read_bytes())
    _add_status(app, hub)
    _add_api(app, hub)
    add_files(app, hub, jobs)
    add_live(app, hub)
    add_view(app)
    return SecurityMiddleware(app, auth)


def _invalid(request: Request, error: Exception) -> Response:
    """Return the errors of a request without its input, because addresses hold logins."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: fault[name] for name in ("loc", "msg", "type")} for fault in error.errors()]
    return JSONResponse({"detail": detail}, 422)


def _add_status(app: FastAPI, hub: SourceHub) -> None:
    # Threads of their own: the status is answered whatever other requests wait for.
    threads = Threads(_STATUS_THREADS)

    @app.get("/api/sources")
    async def sources() -> list[SourceView]:
        """List all sources: state and its reason, rates, people, latency, dropped frames, and how
        the recording stands."""
        return await threads.run(hub.sources)

    @app.get("/healthz", include_in_schema=False)
    async def health() -> Response:
        words, fine = _health(await threads.run(hub.sources))
        return PlainTextResponse(words, 200 if fine else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        text = await threads.run(lambda: metrics_text(hub.figures()))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _health(views: list[SourceView]) -> tuple[str, bool]:
    """Return what /healthz says, and whether that is fine. It is answered without a token, so it
    names no source and no file."""
    # A server without sources waits for its first one; that is no fault.
    if views and not any(view.state == "live" for view in views):
        return "no source is live", False
    causes = sorted({view.recording_cause for view in views if view.recording_missing})
    # Fine all the same: starting the server again would mend no disk.
    return (f"degraded: recordings fail: {', '.join(causes)}" if causes else "ok"), True


def _add_api(app: FastAPI, hub: SourceHub) -> None:
    @app.post("/api/sources", status_code=201)
    def add(new: NewSource) -> dict[str, str]:
        """Add a source. Returns the name that it got."""
        with _refused():
            return {"name": hub.add(new.address.strip(), new.name or None)}

    @app.delete("/api/sources/{name}", status_code=204)
    def remove(name: str) -> None:
        """End a source and remove it, with its stored bodies and events."""
        with _known(), _refused():
            hub.remove(name)

    @app.patch("/api/sources/{name}")
    def change(name: str, new: SettingsChange) -> Changed:  # type: ignore[valid-type]
        """Change settings of a source. The drawing and `loop` change at once, also in a recording;
        for `timing` and `rtsp_transport` the source begins again."""
        values = new.model_dump(exclude_unset=True)  # type: ignore[attr-defined]
        with _known(), _refused():
            restarted = hub.change(name, values)
            return Changed(settings=hub.settings(name), restarted=restarted)

    @app.post("/api/sources/{name}/restart", status_code=204)
    def restart(name: str) -> None:
        """Begin a source again: a clip from its start, a live source with a new connection."""
        with _known(), _refused():
            hub.restart(name)

    @app.get("/api/sources/{name}/snapshot")
    def snapshot(name: str) -> Response:
        """Return the newest picture with its bodies as JPEG, in its full size."""
        with _known(), _refused():
            jpeg = hub.snapshot(name)
        given = _attachment(f"{name}_{time.strftime('%Y%m%d-%H%M%S')}.jpg")
        return Response(jpeg, media_type="image/jpeg", headers=given)

    @app.put("/api/sources/{name}/recording")
    def record(name: str, wanted: Recording) -> dict[str, str | None]:
        """Begin or end a recording. Returns the name of its video file while it is recorded, else
        null. One that fails is begun again in a new file until it is ended."""
        with _known(), _refused():
            return {"file": hub.record(name, wanted.on)}

    @app.get("/api/sources/{name}/poses")
    def poses(name: str) -> Response:
        """Return the bodies of the last ten minutes: JSON lines, one for each frame."""
        with _known():
            lines = hub.bodies(name, -1)
        # Streamed: thousands of lines would double in memory as one text.
        text = (f"{line}\n" for _, line in lines)
        given = _attachment(f"{name}.jsonl")
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


def _attachment(name: str) -> dict[str, str]:
    """Return the header of a download. Quoted: a header is Latin-1, a name may be of any script."""
    return {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}"}


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Answer the hub's refusals: 422 to a wrong value, 409 to what cannot be done now."""
    try:
        yield
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    except (RuntimeError, OSError) as error:
        raise HTTPException(409, str(error)) from None


@contextlib.contextmanager
def _known() -> Iterator[None]:
    """Answer a KeyError of the hub, an unknown name, with 404."""
    try:
        yield
    except KeyError:
        raise HTTPException(404, "there is no such thing") from None
