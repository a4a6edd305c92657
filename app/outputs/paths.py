"""Checks of the outputs' paths, made before a run starts instead of after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from app.outputs.base import OutputError
from app.outputs.catalog import OutputEntry, entries, suffix_problem
from app.outputs.overwrite import Named, check_overwrites
from app.outputs.rotation import Rotation


class OutputPaths(Protocol):
    """The part of the settings that is read here, beside a path for each entry's name."""

    @property
    def rotation(self) -> Rotation: ...


def prepare_outputs(output: OutputPaths, inputs: Sequence[Named]) -> None:
    """Check the path of every output and make the folders above it.

    Args:
        output: The settings of ``[output]``.
        inputs: Every file that the command reads, by what it is called in messages; none of them
            may be written over.

    Raises:
        OutputError: A path's suffix promises another format, a path is a folder where a file is
            needed, lies below a file, may not be written, is an input or is used by two outputs.
    """
    wanted = {entry: getattr(output, entry.name) for entry in entries()}
    wanted = {entry: path for entry, path in wanted.items() if path is not None}
    for entry, path in wanted.items():
        if problem := suffix_problem(entry, path):
            raise OutputError(f"{entry.flag} {path}: {problem}")
    files = {
        entry.flag: _first_file(entry, path, output.rotation)
        for entry, path in wanted.items()
        if entry.kind != "folder" and not (entry.kind == "file or -" and str(path) == "-")
    }
    # First, because these checks make no folder.
    check_overwrites(inputs, files.items())
    for entry, path in wanted.items():
        if _rotates(entry):
            _check_later_files(output.rotation, entry.flag, path, [*inputs, *files.items()])
    for flag, path in files.items():
        _check_file(flag, path)
    for entry, path in wanted.items():
        if entry.kind == "folder":
            _make_folder(entry.flag, path, path)


def _rotates(entry: OutputEntry) -> bool:
    """Return whether an output goes on in further files."""
    return "rotation" in entry.options


def _first_file(entry: OutputEntry, path: Path, rotation: Rotation) -> Path:
    return rotation.path(path, 1) if _rotates(entry) else path


def _check_later_files(rotation: Rotation, flag: str, video: Path, others: Sequence[Named]) -> None:
    """Raise OutputError where a later file of the video is an input or another output."""
    for what, path in others:
        if what != flag and rotation.would_write(video, path):
            raise OutputError(f"{flag} {video}: would become {path}, which is {what} already")


def _check_file(flag: str, path: Path) -> None:
    _make_folder(flag, path.parent, path)
    if path.is_dir():
        raise OutputError(f"{flag} {path}: that is a folder; give a file's name")
    # An npz's rows are written into a folder beside it first, so its folder must be writable too.
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{flag} {path}: no permission to write it")


def _make_folder(flag: str, folder: Path, path: Path) -> None:
    # `mkdir` would name the folder that it cannot make, not the file that is in the way.
    above = next((p for p in (folder, *folder.parents) if p.exists()), None)
    if above is not None and not above.is_dir():
        raise OutputError(f"{flag} {path}: {above} is a file, not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{flag} {path}: cannot make {folder}: {error.strerror}") from None
    if folder == path and not os.access(folder, os.W_OK):
        raise OutputError(f"{flag} {path}: no permission to write in it")
