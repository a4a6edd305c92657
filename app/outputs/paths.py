"""Can the outputs be written where they are wanted? Asked before a run starts, not after it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from app.config import OutputConfig
from app.outputs.base import OutputError
from app.outputs.jsonl import STDOUT
from app.outputs.rotation import Rotation

_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov")


def prepare_outputs(output: OutputConfig, source: str) -> None:
    """Check every output's path and make the folders above it.

    Raises OutputError where a path is a folder, lies below a file, may not be written, is the
    source itself or is wanted for two outputs.
    """
    rotation = Rotation.of(output)
    video = None if output.video is None else rotation.path(output.video, 1)
    files = {
        "--video": video,
        "--poses": output.poses,
        "--jsonl": None if output.jsonl == STDOUT else output.jsonl,
    }
    if output.video is not None and output.video.suffix.lower() not in _VIDEO_SUFFIXES:
        raise OutputError(f"--video {output.video}: writes mp4, so end its name in .mp4")
    _check_distinct(files, source)
    if output.video is not None:
        _check_later_files(rotation, output.video, files, source)
    for flag, path in files.items():
        if path is not None:
            _check_file(flag, path)
    if output.amass is not None:
        _make_folder("--amass", output.amass, output.amass)


def _check_distinct(files: Mapping[str, Path | None], source: str) -> None:
    seen = {Path(source).resolve(): "the source"} if Path(source).exists() else {}
    for flag, path in files.items():
        if path is None:
            continue
        other = seen.setdefault(path.resolve(), flag)
        if other != flag:
            raise OutputError(f"{flag} {path}: that is {other} already")


def _check_later_files(
    rotation: Rotation, video: Path, files: Mapping[str, Path | None], source: str
) -> None:
    """No file that the video will go on in is the source or another output."""
    others = {"the source": Path(source), **{flag: path for flag, path in files.items() if path}}
    for what, path in others.items():
        if what != "--video" and rotation.would_write(video, path):
            raise OutputError(f"--video {video}: would become {path}, which is {what} already")


def _check_file(flag: str, path: Path) -> None:
    _make_folder(flag, path.parent, path)
    if path.is_dir():
        raise OutputError(f"{flag} {path}: that is a folder; give a file's name")
    # What is written beside it (rows on their way into an npz) needs the folder too.
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{flag} {path}: no permission to write it")


def _make_folder(flag: str, folder: Path, path: Path) -> None:
    above = next((p for p in (folder, *folder.parents) if p.exists()), None)
    if above is not None and not above.is_dir():
        raise OutputError(f"{flag} {path}: {above} is a file, not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{flag} {path}: cannot make {folder}: {error.strerror}") from None
    if folder == path and not os.access(folder, os.W_OK):
        raise OutputError(f"{flag} {path}: no permission to write in it")
