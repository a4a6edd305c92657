"""Routes of `serve` that read and delete recordings. A disk that hangs is answered with 503."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.datastructures import Headers

from app.serve.folder import Busy, Foreign, Recorded, RecordedFile
from app.serve.live import Full, Places
from app.serve.poses_file import SUFFIX_OF, Kind, Stopped, TooLong
from app.serve.poses_jobs import PosesJobs
from app.serve.source_hub import SourceHub
from app.serve.threads import DiskHangs, DiskThreads, SharedCall

MOST_DOWNLOADS = 16
"""The most files that are downloaded at once. Each holds a thread of the web server while the disk
hangs; there are 40."""
_LOOKS = 4
_WAIT_S = 2.0
_KEEP_S = 1.0
"""How long a list is used."""
_DELETIONS = 2
_DELETE_S = 10.0
"""Deleting hours of video takes a file system longer than a look."""
_RANGE = re.compile(r"(?a)bytes\s*=\s*(?:(\d{1,18})\s*-\s*(\d{0,18})|-\s*(\d{1,18}))")
T = TypeVar("T")


@dataclass(frozen=True)
class RecordedFileView:
    """A file of a recording, with its size in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class RecordingView:
    """A recording: its videos in order, and the file of its bodies, if there is one.

    ``bytes`` is the size of all, ``changed_s`` the time of the last change in seconds since 1970.
    ``being_written`` says whether it is being written now. ``has_poses`` says whether its bodies
    can be had as other files, at ``/api/recordings/NAME/poses``. ``deletable`` is false for files
    of another name in the folder, which `serve` did not write.
    """

    name: str
    videos: list[RecordedFileView]
    lines: str | None
    bytes: int
    changed_s: float
    being_written: bool
    has_poses: bool
    deletable: bool


def add_files(app: FastAPI, hub: SourceHub, jobs: PosesJobs) -> None:
    """Add the routes of recordings' files to an application.

    Args:
        app: The application.
        hub: The hub whose recordings are listed, sent and deleted.
        jobs: Makes the files of poses.
    """
    disk, downloads = DiskThreads(_LOOKS, _WAIT_S), Places(MOST_DOWNLOADS)
    deletions = DiskThreads(_DELETIONS, _DELETE_S)
    # Shared: a page asks again and again, and a long list takes most of a second.
    all_files = SharedCall(lambda: disk.run(hub.folder.files), _KEEP_S)
    all_recordings = SharedCall(lambda: disk.run(hub.folder.recordings), _KEEP_S)

    @app.get("/api/files")
    async def files() -> list[dict[str, Any]]:
        """List the recordings' files, the newest first, with their sizes in bytes, as they were up
        to a second ago."""
        found = await answered(all_files.result())
        return [{"name": file.path.name, "bytes": file.stat.st_size} for file in found]

    @app.get("/api/files/{name}")
    async def file(name: str) -> Response:
        """Download a recording's file, or the part of it that the header Range names."""
        return _SoFar(await look(disk, lambda: hub.folder.file(name)), downloads)

    @app.get("/api/recordings")
    async def recordings() -> list[RecordingView]:
        """List the recordings, the newest first, each with its files as they were up to a second
        ago."""
        found = await answered(all_recordings.result())
        written = hub.written()
        return [_view(each, written) for each in found]

    @app.get("/api/recordings/{name}/poses")
    async def poses(name: str, kind: Kind = "npz") -> Response:
        """Return the bodies of a recording in another format, as `bodystream export` writes them:
        npz; glb; or bvh, an archive with a file for each person. Made on request, which takes
        seconds for each minute."""
        found = await look(disk, lambda: hub.folder.recording(name))
        if found.lines is None or not found.facts:
            raise HTTPException(409, f"{name}: what its bodies were fitted with is not known")
        return _Poses(jobs, found.lines, kind, name)

    @app.delete("/api/recordings/{name}", status_code=204)
    async def delete(name: str) -> None:
        """Delete a recording: its videos and its bodies. One that is being written is refused, and
        so are files whose name is not NAME_DATE-TIME."""
        try:
            await look(deletions, partial(hub.folder.delete, name, hub.written()))
        except Busy:
            raise HTTPException(409, f"{name} is being recorded; stop it first") from None
        except Foreign:
            raise HTTPException(
                409, f"{name}: not a recording of serve; delete it by hand"
            ) from None
        finally:
            all_files.forget()
            all_recordings.forget()


class _Poses(Response):
    """A recording's bodies as a file that is made for it, and that is there until it was sent."""

    def __init__(self, jobs: PosesJobs, lines: RecordedFile, kind: Kind, name: str) -> None:
        super().__init__()
        self._jobs, self._lines, self._kind, self._name = jobs, lines, kind, name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            # Held here and not in the route: the response runs after the route has returned.
            with self._jobs.file(self._lines, self._kind) as file:
                path = await self._made(asyncio.wrap_future(file), receive)
                if path is not None:
                    name = self._name + SUFFIX_OF[self._kind]
                    kind = "application/octet-stream"
                    sent = FileResponse(path, filename=name, media_type=kind)
                    await sent(scope, receive, send)
        except Full as error:
            raise HTTPException(503, str(error)) from None

    async def _made(self, file: asyncio.Future[Path], receive: Any) -> Path | None:
        """Return the file once it is made; None where the client leaves before. Raises
        HTTPException."""
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((file, left), return_when=asyncio.FIRST_COMPLETED)
            return await file if file.done() else None
        except TooLong:
            raise HTTPException(
                409,
                f"{self._name}: too long for this format on request; its JSON lines have it all",
            ) from None
        except Stopped:
            raise HTTPException(503, "the server is ending") from None
        except OSError as error:
            raise HTTPException(409, str(error)) from None
        finally:
            left.cancel()
            file.cancel()


async def _left(receive: Any) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _view(found: Recorded, written: set[str]) -> RecordingView:
    return RecordingView(
        name=found.name,
        videos=[RecordedFileView(file.path.name, file.stat.st_size) for file in found.videos],
        lines=None if found.lines is None else found.lines.path.name,
        bytes=sum(file.stat.st_size for file in found.files),
        changed_s=found.changed_s,
        being_written=found.name in written,
        has_poses=found.facts and found.lines is not None,
        deletable=found.ours,
    )


async def look(disk: DiskThreads, call: Callable[[], T]) -> T:
    """Return what a call finds on the disk. Raises HTTPException."""
    return await answered(disk.run(call))


async def answered(found: Awaitable[T]) -> T:
    """Return what is found on the disk. Raises HTTPException."""
    try:
        return await found
    except KeyError:
        raise HTTPException(404, "there is no such thing") from None
    except DiskHangs:
        raise HTTPException(503, "the disk of the recordings does not answer") from None
    except OSError as error:
        raise HTTPException(503, f"the recordings: {error.strerror}") from None


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
        self._downloads, self._size = downloads, file.stat.st_size

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        wanted = _range(Headers(scope=scope), self.headers, self._size)
        if wanted == _NOT_SATISFIABLE:
            given = {"content-range": f"bytes */{self._size}"}
            await PlainTextResponse("no such range", 416, given)(scope, receive, send)
            return
        headers = [each for each in scope["headers"] if each[0] not in (b"range", b"if-range")]
        if wanted:
            headers.append((b"range", wanted.encode()))
        try:
            # Held here and not in the route: the response runs after the route has returned.
            with self._downloads.hold():
                await self._send({**scope, "headers": headers}, receive, send)
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


_NOT_SATISFIABLE = "416"


def _range(asked: Headers, file: Headers, size: int) -> str:
    """Return the range that a request is answered with, "" for the whole file (RFC 9110, 14.2).

    Other units than bytes are ignored, as they must be; of several ranges the whole is sent, which
    is allowed.

    Args:
        asked: The headers of the request.
        file: Those of the file, with ``etag`` and ``last-modified``.
        size: Its size in bytes.
    """
    text = asked.get("range", "").strip().lower()
    only_if = asked.get("if-range")
    # A changed file is sent whole, or a player would join parts of two files.
    changed = only_if is not None and only_if not in (file["etag"], file["last-modified"])
    if changed or text.partition("=")[0].rstrip() != "bytes" or "," in text:
        return ""
    found = _RANGE.fullmatch(text)
    if found is None:
        return _NOT_SATISFIABLE
    first, last, suffix = found.groups()
    start = max(size - int(suffix), 0) if suffix else int(first)
    end = min(int(last), size - 1) if last else size - 1
    # Of an empty file, and of the last 0 bytes, there is no byte to send.
    if start > end or start >= size:
        return _NOT_SATISFIABLE
    return f"bytes={start}-{end}"
