"""Checks of the outputs' paths, made before a run starts instead of after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from app.outputs.base import OutputError
from app.outputs.catalog import OutputEntry, entries, suffix_problem
from app.outputs.overwrite import Named, check_overwrites
from app.outputs.reservation import Existing, Reservation, check_existing, is_empty
from app.outputs.rotation import Rotation
from app.outputs.streams import is_stream


class OutputPaths(Protocol):
    """The part of the settings that is read here, beside a path for each entry's name."""

    @property
    def rotation(self) -> Rotation: ...

    @property
    def existing(self) -> Existing: ...


def prepare_outputs(output: OutputPaths, inputs: Sequence[Named]) -> None:
    """Check the path of every output and make the folders above it.

    Args:
        output: The settings of ``[output]``.
        inputs: Every file that the command reads, by what it is called in messages; none of them
            may be written over.

    Raises:
        OutputExists: A path exists, and ``output.existing`` is "refuse".
        OutputError: A path's suffix promises another format, a path is a folder where a file is
            needed, lies below a file, may not be written, is an input or is used by two outputs.
    """
    wanted = _wanted(output)
    for entry, path in wanted.items():
        problem = suffix_problem(entry, path)
        if entry.strict and is_stream(path) and str(path) != "-":
            problem = f"{entry.format} needs a file, no pipe or device"
        if problem:
            raise OutputError(f"{entry.flag} {path}: {problem}")
    files = {
        entry.flag: _first_file(entry, path, output.rotation)
        for entry, path in wanted.items()
        if entry.kind != "folder" and not is_stream(path)
    }
    # First, because these checks make no folder.
    check_overwrites(inputs, files.items())
    _check_shared(wanted)
    for entry, path in wanted.items():
        if _rotates(entry):
            _check_later_files(output.rotation, entry.flag, path, [*inputs, *files.items()])
    for entry, path in _reserved(output).items():
        check_existing(entry.flag, path, output.existing, entry.kind == "folder")
    for flag, path in files.items():
        _check_file(flag, path, output.existing)
    for entry, path in wanted.items():
        if entry.kind == "folder":
            _check_folder(entry.flag, path)


def _wanted(output: OutputPaths) -> dict[OutputEntry, Path]:
    """Return the path of every output that is asked for."""
    paths = {entry: getattr(output, entry.name) for entry in entries()}
    return {entry: path for entry, path in paths.items() if path is not None}


def _reserved(output: OutputPaths) -> dict[OutputEntry, Path]:
    """Return the outputs whose names are reserved: rotation finds free names by itself."""
    wanted = _wanted(output)
    return {e: path for e, path in wanted.items() if not (_rotates(e) and output.rotation.on)}


def reserve_outputs(output: OutputPaths, command: str) -> Reservations:
    """Return the names of all outputs, reserved for this run alone.

    Args:
        output: The settings of ``[output]``, after `prepare_outputs`.
        command: What `app.outputs.unfinished.command_of` returned for this command.

    Raises:
        OutputExists: A path exists, and ``output.existing`` is "refuse".
        OutputError: Another run writes to it, or a file cannot be made.
    """
    reserved = Reservations()
    try:
        for entry, path in _reserved(output).items():
            reserved.add(
                entry.name,
                Reservation(
                    entry.flag,
                    path,
                    output.existing,
                    folder=entry.kind == "folder",
                    command=command if entry.continues else None,
                ),
            )
    except BaseException:
        reserved.close()
        raise
    return reserved


def reserve_file(
    stack: ExitStack, flag: str, path: Path | None, existing: Existing, command: str | None = None
) -> Reservation | None:
    """Return the reservation of a file, None without a path; print its notes.

    Args:
        stack: Gives it free when it closes.
        flag: The flag of the file.
        path: The path that was given; the folder above it is made.
        existing: What becomes of a file that exists.
        command: As for `Reservation`.

    Raises:
        OutputExists, OutputError: As `Reservation`.
    """
    if path is None:
        return None
    if not is_stream(path):
        _make_folder(flag, path.parent, path)
        if path.is_dir():
            raise OutputError(f"{flag} {path}: that is a folder; give a file's name")
    reservation = Reservation(flag, path, existing, command=command)
    stack.callback(reservation.close)
    print_notes(reservation.notes)
    return reservation


def print_notes(notes: Sequence[str]) -> None:
    """Print the notes of reservations; with ``--quiet`` too, or a script would read an old file."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


class Reservations:
    """The reserved outputs of a run, given free at the end of a ``with`` block."""

    def __init__(self) -> None:
        self._all: dict[str, Reservation] = {}

    def add(self, name: str, reservation: Reservation) -> None:
        """Add the reservation of an output, by its name in the catalog."""
        self._all[name] = reservation

    @property
    def paths(self) -> dict[str, Any]:
        """The path that each output writes to, by its name."""
        return {name: each.path for name, each in self._all.items()}

    @property
    def renamed(self) -> dict[Path, Path]:
        """The path that was asked for, by the one that is written instead."""
        return {each.path: each.asked for each in self._all.values() if each.path != each.asked}

    @property
    def notes(self) -> list[str]:
        """What the user should know before the run, a line each."""
        return [note for each in self._all.values() for note in each.notes]

    def finish(self) -> None:
        """Note that the run has ended well."""
        for each in self._all.values():
            each.finish()

    def close(self) -> None:
        """Give all names free; files that nothing was written to are deleted."""
        for each in self._all.values():
            each.close()

    def __enter__(self) -> Reservations:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def _check_file(flag: str, path: Path, existing: Existing) -> None:
    _make_folder(flag, path.parent, path)
    if path.is_dir():
        raise OutputError(f"{flag} {path}: that is a folder; give a file's name")
    # A file that stays gets another one beside it.
    used = path.exists() and (existing == "overwrite" or is_empty(path))
    if not os.access(path if used else path.parent, os.W_OK):
        raise OutputError(f"{flag} {path}: no permission to write it")


def _check_folder(flag: str, path: Path) -> None:
    _make_folder(flag, path.parent, path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{flag} {path}: {path} is a file, not a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{flag} {path}: no permission to write in it")


def _check_shared(wanted: dict[OutputEntry, Path]) -> None:
    """Raise OutputError where two outputs name the same folder: each reserves its own."""
    users: dict[str, str] = {}
    for entry, path in wanted.items():
        if entry.kind == "folder":
            other = users.setdefault(os.path.realpath(path), entry.flag)
            if other != entry.flag:
                raise OutputError(
                    f"{other} and {entry.flag} name the same folder, {path}: give each its own"
                )


def _make_folder(flag: str, folder: Path, path: Path) -> None:
    # `mkdir` would name the folder that it cannot make, not the file that is in the way.
    above = next((p for p in (folder, *folder.parents) if p.exists()), None)
    if above is not None and not above.is_dir():
        raise OutputError(f"{flag} {path}: {above} is a file, not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{flag} {path}: cannot make {folder}: {error.strerror}") from None
