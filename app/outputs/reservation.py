"""The names that a run writes to: what is there already stays, and no two runs share a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Literal

from app.outputs.base import OutputError
from app.outputs.locks import fcntl, lock
from app.outputs.streams import is_stream
from app.outputs.unfinished import Unfinished, can_continue

Existing = Literal["keep", "overwrite", "refuse"]
"""What becomes of an output that is there already."""


_ATTEMPTS = 100
"""How often a file is tried that is gone again each time."""


class OutputExists(OutputError):
    """An output exists, and the command line says to refuse that."""

    exit_code = 2


class Held:
    """A file or a folder that belongs to this run until ``close``.

    It is there, empty and locked, as soon as it is taken: so the name is taken for other runs too.
    The lock ends with the process, and an empty file that no run holds is free for the next run.

    Args:
        path: The file or folder.
        descriptor: Holds the lock; None where the system has no locks.
        made: Whether this run made it.
        locked: As `lock` returns.
    """

    def __init__(self, path: Path, descriptor: int | None, made: bool, locked: bool | None) -> None:
        self.path, self.made, self.locked = path, made, locked
        self._descriptor = descriptor

    def is_there(self) -> bool:
        """Return whether the path still leads to it: another run may have deleted it."""
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        return self._descriptor is None or os.path.samestat(os.fstat(self._descriptor), there)

    def close(self) -> None:
        """Delete it if this run made it and wrote nothing, and give it free. Safe to call twice."""
        made, self.made = self.made, False
        # Before the lock ends: afterwards it may be another run's.
        if made and self.is_there():
            with suppress(OSError):
                _delete_empty(self.path)
        self.leave()

    def leave(self) -> None:
        """Give it free as it is. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def take(
    path: Path, *, folder: bool = False, replace: bool = False, command: str | None = None
) -> Held | None:
    """Return a file or folder for this run alone, None where it is not free.

    It is free where it does not exist, or is empty and no other run holds it.

    Args:
        path: The file, which is made if missing, or the folder.
        folder: Whether it is a folder.
        replace: Whether it is free with something in it too.
        command: With it, a file that a run of the same command left unfinished is free too.

    Raises:
        OutputError: It cannot be made or opened.
    """
    # A link that leads nowhere yet is made where it leads.
    real = Path(os.path.realpath(path))
    for attempt in count(1):
        try:
            # First, because what is not free may be read-only: it is not even opened.
            if not _is_free(real, folder, replace, command):
                return None
            held = _open(real, folder)
        except FileNotFoundError as error:
            if not real.parent.is_dir():
                raise OutputError(f"{path}: there is no folder {real.parent}") from None
            # Another run may have deleted it meanwhile; some folders, as /proc, never make a file.
            if attempt == _ATTEMPTS:
                raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
            continue
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
        there = held.is_there()
        # Without locks an empty file may be another run's, which has just begun.
        ours = held.locked or (held.locked is None and (held.made or replace))
        # Again, because another run may have written to it before the lock.
        if there and ours and _is_free(real, folder, replace, command):
            return held
        held.leave()
        if there:
            return None
    raise AssertionError("the attempts do not end")


def _is_free(real: Path, folder: bool, replace: bool, command: str | None) -> bool:
    """Return whether a file or folder may be written to, if no other run holds it."""
    try:
        mode = os.stat(real).st_mode
        if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
            return False
        if replace or is_empty(real):
            return True
    except FileNotFoundError:
        return True
    return command is not None and can_continue(real, command)


def _open(real: Path, folder: bool) -> Held:
    """Return a file or folder, made if missing, and locked if it can be. Raises OSError."""
    descriptor, made = None, True
    try:
        if folder:
            os.mkdir(real)
        else:
            descriptor = os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        made = False
    if fcntl is None:
        # Windows neither replaces nor deletes a file that is open.
        if descriptor is not None:
            os.close(descriptor)
        return Held(real, None, made, None)
    if descriptor is None:
        descriptor = os.open(real, os.O_RDONLY if folder else os.O_RDWR)
    return Held(real, descriptor, made, lock(descriptor))


def is_empty(path: Path) -> bool:
    """Return whether a file or folder holds nothing."""
    return not any(os.scandir(path)) if path.is_dir() else path.stat().st_size == 0


def _delete_empty(path: Path) -> None:
    if path.is_dir():
        os.rmdir(path)  # It fails where something is in it.
    elif path.stat().st_size == 0:
        path.unlink()


def numbered(path: Path, folder: bool = False) -> Iterator[Path]:
    """Yield a path and the further names of it: OUT.mp4, OUT.2.mp4, OUT.3.mp4, ..."""
    yield path
    stem, suffix = (path.name, "") if folder else (path.stem, path.suffix)
    for number in count(2):
        yield path.with_name(f"{stem}.{number}{suffix}")


class Reservation:
    """An output of a command: the path that was asked for, and the one that it writes to.

    Args:
        what: Its flag, for messages.
        asked: The path that was given.
        existing: What becomes of a file that is there.
        folder: Whether it is a folder.
        command: As for `take`; the file then has an `Unfinished` mark until ``finish``.

    Attributes:
        path: The path to write to.
        continues: Whether it holds what a killed run of the same command left.

    Raises:
        OutputExists: It is there, and ``existing`` is "refuse".
        OutputError: Another run writes it, or it cannot be made.
    """

    def __init__(
        self,
        what: str,
        asked: Path,
        existing: Existing,
        *,
        folder: bool = False,
        command: str | None = None,
    ) -> None:
        self.what, self.asked, self.path = what, asked, asked
        self.continues = False
        self._command = command
        self._held: Held | None = None
        if folder or not is_stream(asked):
            self._take(existing, folder)

    def _take(self, existing: Existing, folder: bool) -> None:
        check_existing(self.what, self.asked, existing, folder)
        if existing == "keep":
            held = self._first_free(folder)
            self.continues = self._command is not None and not is_empty(held.path)
        else:
            found = take(self.asked, folder=folder, replace=existing == "overwrite")
            if found is None:
                raise OutputError(f"{self.what} {self.asked}: another run is writing it")
            held = found
        self._held = held
        if self._command is not None and not self.continues:
            # Where the folder is read-only the file is not continued, but it can be written.
            with suppress(OSError):
                Unfinished(self._command).save(held.path)

    def _first_free(self, folder: bool) -> Held:
        """Return the first free one of the names, and set ``path``."""
        for path in numbered(self.asked, folder):
            self.path = path
            held = take(path, folder=folder, command=self._command)
            if held is not None:
                return held
        raise AssertionError("the numbers do not end")

    @property
    def notes(self) -> list[str]:
        """What the user should know before it is written, a line each."""
        lines = []
        if self.path != self.asked:
            lines.append(
                f"{self.what} {self.asked}: is there already and stays; this run writes {self.path}"
            )
        if self.continues:
            lines.append(f"{self.what} {self.path}: continues what an unfinished run left")
        if self._held is not None and not self._held.locked and fcntl is not None:
            lines.append(
                f"{self.what} {self.path}: this file system has no locks; "
                "let no other run write to the same name"
            )
        return lines

    def finish(self) -> None:
        """Note that the run has ended well: the same command begins a new file next time."""
        if self._held is not None and self._command is not None:
            Unfinished.remove(self._held.path)

    def close(self) -> None:
        """Give the name free; a file that nothing was written to is deleted. Safe to call twice."""
        if self._held is None:
            return
        held, self._held = self._held, None
        if self._command is not None and not (held.path.exists() and not is_empty(held.path)):
            Unfinished.remove(held.path)
        held.close()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.finish()
        self.close()


def check_existing(what: str, path: Path, existing: Existing, folder: bool = False) -> None:
    """Raise OutputExists where an output is there and ``existing`` is "refuse"."""
    if existing != "refuse" or (not folder and is_stream(path)):
        return
    if os.path.lexists(path) and not (folder and path.is_dir() and is_empty(path)):
        raise OutputExists(f"{what} {path}: exists, and --no-clobber keeps it")
