"""The page of a served application, its files and its login."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from app.serve.security import COOKIE
from app.serve.token_auth import SESSION_S, TokenAuth

PAGE = Path(__file__).with_name("page")


def add_pages(app: FastAPI, auth: TokenAuth | None, index: bytes) -> None:
    """Add the page at /, the files that belong to it, and the login.

    Args:
        app: The application.
        auth: Checks tokens; None where none is needed.
        index: The page itself, HTML.
    """
    # In memory, so that the page is there whatever the disk does.
    parts = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.is_file()}

    def part(name: str) -> Response:
        return Response(parts[name], media_type=mimetypes.guess_type(name)[0])

    @app.get("/", include_in_schema=False)
    async def first() -> Response:
        return Response(index, media_type="text/html")

    @app.get("/login", include_in_schema=False)
    async def login_page() -> Response:
        return part("login.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        if name not in parts:
            raise HTTPException(404, "there is no such thing")
        return part(name)

    @app.post("/login", include_in_schema=False)
    async def login(
        request: Request, given: Annotated[str, Form(alias="token", max_length=512)]
    ) -> Any:
        if auth is None or not auth.is_token(given):
            return PlainTextResponse("that is not the token", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            # httponly: no script reads it; strict: no other site's request carries it.
            COOKIE, auth.session(), max_age=SESSION_S, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response
