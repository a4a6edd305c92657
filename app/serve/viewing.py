"""The 3D view on the web: its files and the free body, and a recording on a page of its own."""

from __future__ import annotations

import mimetypes
from functools import cache

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from app.serve.pages import add_pages
from app.serve.security import SecurityMiddleware
from app.serve.token_auth import TokenAuth
from app.view.assets import assets, packed
from app.view.body import body_file

BODY = "body.bin"
_BINARY = "application/octet-stream"


def add_view(app: FastAPI) -> None:
    """Add the files of the 3D view to an application."""

    @app.get("/view/{path:path}", include_in_schema=False)
    def file(request: Request, path: str) -> Response:
        """The files of the 3D view: scripts, and the free body as `body.bin`."""
        if path != BODY and path not in assets():
            raise HTTPException(404, "there is no such thing")
        return _compressed(request, *_file(path))


def create_view(recording: bytes, token: str | None = None) -> SecurityMiddleware:
    """Return the ASGI application of a recording's page, with its security around it.

    Args:
        recording: The recording, as `recording_file` returns it.
        token: The token that requests need; None to serve this machine without one.
    """
    auth = None if token is None else TokenAuth(token)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_pages(app, auth, assets()["view.html"])
    add_view(app)
    small = packed(recording)

    @app.get("/recording.bin")
    def data(request: Request) -> Response:
        return _compressed(request, recording, small, _BINARY)

    return SecurityMiddleware(app, auth)


def _compressed(request: Request, data: bytes, small: bytes, kind: str) -> Response:
    """Return the response of a file.

    Args:
        request: Says whether the client reads gzip.
        data: The file.
        small: The same file, compressed by gzip.
        kind: Its media type.
    """
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(data, media_type=kind)
    return Response(small, media_type=kind, headers={"content-encoding": "gzip"})


@cache
def _file(path: str) -> tuple[bytes, bytes, str]:
    """A file of the page, as it is and compressed, and its media type."""
    data = body_file() if path == BODY else assets()[path]
    # Without the machine's own tables, which may call a script plain text.
    kind = mimetypes.MimeTypes().guess_type(path)[0] or _BINARY
    return data, packed(data), kind
