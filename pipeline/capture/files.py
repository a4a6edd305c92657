"""Open a clip, or say in one line why it cannot be opened."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.capture.addresses import TEST_PREFIX
from pipeline.capture.devices import ANY_TAGS, acceleration
from pipeline.capture.errors import (
    SourceError,
    SourceNotFound,
    SourceNotVideo,
    SourceRefused,
    reason,
)
from pipeline.capture.mp4 import lacks_index
from pipeline.capture.playlist import FROM_A_FILE
from pipeline.core.redact import without_credentials

_NOT_CLIPS = ("tty", "concat")
"""Formats that FFmpeg plays but that are no clips: text drawn as pictures, lists of files."""


def open_clip(spec: str, name: str, decode: str = "software") -> InputContainer:
    """Return the open container of a file, or of FFmpeg's test pictures for ``lavfi:...``.

    Its video is decoded as `SourceOptions.decode` says.
    Raises SourceNotFound, SourceRefused, SourceNotVideo.
    """
    if spec.startswith(TEST_PREFIX):
        return _open_test(spec.removeprefix(TEST_PREFIX), name)
    path = Path(os.path.expanduser(spec))
    _check_file(path, name)
    try:
        # With "file:" a colon in the name is not read as a protocol. The whitelist keeps a playlist
        # that looks like a clip from opening anything else.
        container = av.open(
            f"file:{path}",
            options={"protocol_whitelist": "file"} | FROM_A_FILE,
            hwaccel=acceleration(decode),
            **ANY_TAGS,
        )
    except av.error.FFmpegError as error:
        if decode == "nvdec" and opens_in_software(path):
            raise SourceNotVideo(
                f"{name}: NVDEC cannot decode it here: {reason(error)}; leave --decode out"
            ) from error
        if lacks_index(path):
            raise SourceNotVideo(
                f"{name}: is cut short: its index (moov) is missing; copy or record it again"
            ) from error
        if path.suffix.lower() == ".m3u8":
            raise SourceNotVideo(
                f"{name}: a playlist whose segments are not files beside it: give its address on "
                "the network, or download it first"
            ) from error
        raise SourceNotVideo(f"{name}: is not a video FFmpeg can read: {reason(error)}") from error
    refuse_text(container, name)
    return container


def refuse_text(container: InputContainer, name: str) -> None:
    """Close the container and raise SourceNotVideo where FFmpeg draws text, or reads a list."""
    if container.format.name in _NOT_CLIPS:
        container.close()
        raise SourceNotVideo(f"{name}: is text, not a video")


def why_no_frame(container: InputContainer) -> str:
    """Return why no frame came from a container, and what to do."""
    if container.format.name == "webp_pipe":
        return (
            "is an animated WebP, which FFmpeg cannot decode, or damaged; convert it to GIF first"
        )
    return "its video is there, but no frame of it can be decoded"


def opens_in_software(path: Path) -> bool:
    """Return whether the CPU can open a file, so that the file is not what is wrong."""
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}, **ANY_TAGS):
            return True
    except av.error.FFmpegError:
        return False


def _open_test(graph: str, name: str) -> InputContainer:
    try:
        return av.open(graph, format="lavfi")
    except av.error.FFmpegError as error:
        raise SourceNotVideo(
            f"{name}: FFmpeg cannot make this: {reason(error)}; try {TEST_PREFIX}testsrc2=rate=30"
        ) from error


def _check_file(path: Path, name: str) -> None:
    try:
        if not path.exists():
            raise SourceNotFound(f"{without_credentials(str(path))}: no such file")
        if not path.is_file():
            raise SourceNotVideo(f"{name}: is not a regular file; pipe it in: - < {path}")
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceNotVideo(f"{name}: is empty (0 bytes)")
    except PermissionError as error:
        raise SourceRefused(f"{path}: this user may not read it") from error
    except SourceError:
        raise
    except OSError as error:  # such as a name that is too long
        raise SourceNotFound(f"{name[:100]}: {reason(error)}") from error


def mark_of(spec: str) -> str:
    """Return eight hex digits of a path, its size and time of change; "" if there is none.

    They differ between files of one name, and are the same each time the same file is read.
    """
    try:
        path = Path(os.path.expanduser(spec)).resolve()
        stat = path.stat()
    except (OSError, ValueError):
        return ""
    identity = f"{path} {stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def stated_duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the length of the video that the file states, in seconds; None if it does not."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    tag = re.match(r"(\d+):(\d+):(\d+(\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        # Matroska's tag is the time at which the stream ends, not its length.
        start_s = float((stream.start_time or 0) * (stream.time_base or 0))
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start_s
    # With several streams the container's length may be another stream's.
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1e6
    return None


def frame_rate(stream: VideoStream) -> float | None:
    """Return the stated average frames a second, or None if the stream states no plausible one."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0.01 <= rate <= 1000:
            return float(rate)
    return None
