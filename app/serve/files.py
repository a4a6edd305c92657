"""Routes of `serve` that read the recordings' folder. A disk that hangs is answered with 503."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, PlainTextResponse, Response

from app.serve.folder import RecordedFile
from app.serve.hub import Hub
from app.serve.live import Full, Places
from app.serve.threads import DiskHangs, DiskThreads

MOST_DOWNLOADS = 16
"""The most files that are downloaded at once. Each holds a thread of the web server while the disk
hangs; there are 40."""
_LOOKS = 4
_WAIT_S = 2.0
T = TypeVar("T")


def add_files(app: FastAPI, hub: Hub) -> None:
    """Add the routes of recordings' files to an application.

    Args:
        app: The application.
        hub: The hub whose recordings are listed and sent.
    """
    disk, downloads = DiskThreads(_LOOKS, _WAIT_S), Places(MOST_DOWNLOADS)

    @app.get("/api/files")
    async def files() -> list[dict[str, Any]]:
        """List the recordings' files, the newest first, with their sizes in bytes."""
        found = await _look(disk, lambda: hub.folder.files())
        return [{"name": file.path.name, "bytes": file.stat.st_size} for file in found]

    @app.get("/api/files/{name}")
    async def file(name: str) -> Response:
        """Download a recording's file."""
        return _SoFar(await _look(disk, lambda: hub.folder.file(name)), downloads)


async def _look(disk: DiskThreads, call: Callable[[], T]) -> T:
    """Return what a call finds on the disk. Raises HTTPException."""
    try:
        return await disk.run(call)
    except KeyError:
        raise HTTPException(404, "there is no such thing") from None
    except DiskHangs:
        raise HTTPException(503, "the disk of the recordings does not answer") from None
    except OSError as error:
        raise HTTPException(503, f"the recordings cannot be read: {error.strerror}") from None


class _SoFar(FileResponse):
    """A file of which no more is sent than the length that was announced.

    A recording may grow while it is downloaded, and more bytes than Content-Length are an error.
    """

    def __init__(self, file: RecordedFile, downloads: Places) -> None:
        kind = "video/mp4" if file.path.suffix == ".mp4" else "application/jsonl"
        # With its size, so that it is not looked up again.
        super().__init__(
            file.path, filename=file.path.name, media_type=kind, stat_result=file.stat
        )  # fmt: skip
        self._downloads = downloads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            # Held here and not in the route: the response runs after the route has returned.
            with self._downloads.hold():
                await self._send(scope, receive, send)
        except Full as error:
            await PlainTextResponse(f"downloads: {error}", 503)(scope, receive, send)

    async def _send(self, scope: Any, receive: Any, send: Any) -> None:
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
