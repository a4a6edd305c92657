"""The folder of the recordings. Its methods touch the disk, but for `new_path`."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from app.serve.recorder import FACTS, SCHEMA, SUFFIXES
from pipeline.core.user_file import read_text

_GIVEN = r".+_\d{8}-\d{6}(?:-\d+)?"
_NAME = re.compile(f"(?as){_GIVEN}")
"""The names that `RecordingFolder.new_path` gives."""
_PART = re.compile(rf"(?as)({_GIVEN})_\d{{4,}}")
"""The name of one of several videos of a recording: its own name, and the video's number."""

_NO_SUCH = (errno.ENOENT, errno.ENAMETOOLONG)
"""A file of such a name cannot be there."""


@dataclass(frozen=True)
class RecordedFile:
    """A recording's file: its path, and what the system says of it."""

    path: Path
    stat: os.stat_result


@dataclass(frozen=True)
class Recorded:
    """A recording.

    Attributes:
        name: Its files' name without suffixes and numbers.
        files: Its videos, in order, and its bodies.
        facts: Whether it is known what its bodies were fitted with: a `Recorder` wrote it.
    """

    name: str
    files: tuple[RecordedFile, ...]
    facts: bool

    @property
    def ours(self) -> bool:
        """Whether its name is one that `RecordingFolder.new_path` gives: others are not deleted."""
        return _NAME.fullmatch(self.name) is not None

    @property
    def videos(self) -> list[RecordedFile]:
        """Its videos, in order."""
        return [file for file in self.files if file.path.suffix == ".mp4"]

    @property
    def lines(self) -> RecordedFile | None:
        """The file of its bodies, if it has one."""
        return next((file for file in self.files if file.path.suffix == ".jsonl"), None)

    @property
    def changed_s(self) -> float:
        """When it was last written to, in seconds since 1970."""
        return max(file.stat.st_mtime for file in self.files)


class Busy(Exception):
    """A recording is being written."""


class Foreign(Exception):
    """What is no recording of `serve` is not deleted."""


class RecordingFolder:
    """Names new recordings, finds the existing ones and deletes them. For any thread.

    Names are never joined to a path unchecked, so ``../x`` is refused. Links are not followed,
    because they could lead out of the folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp = ""
        self._given: set[str] = set()

    def new_path(self, source: str) -> Path:
        """Return NAME_DATE-TIME.mp4 for a source, never the same path twice. Touches no disk.

        A file that another process made in the same second may have that name.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        with self._lock:
            if stamp != self._stamp:
                self._stamp, self._given = stamp, set()
            stem, number = f"{source}_{stamp}", 2
            while stem in self._given:
                stem, number = f"{source}_{stamp}-{number}", number + 1
            self._given.add(stem)
        return self.path / f"{stem}.mp4"

    def files(self) -> list[RecordedFile]:
        """Return all recordings' files, the newest first. Videos and bodies are separate files.

        Raises:
            OSError: The folder cannot be read.
        """
        # Other files in the folder are not offered for download.
        found = [file for file in self._all() if file.path.suffix in SUFFIXES]
        return sorted(found, key=lambda file: file.stat.st_mtime, reverse=True)

    def file(self, name: str) -> RecordedFile:
        """Return a recording's file.

        Raises:
            KeyError: There is no such file.
            OSError: The folder cannot be read.
        """
        # Looked up by itself: a player asks for a part of a file many times.
        if Path(name).name != name or not _is_text(name) or "\0" in name:
            raise KeyError(name)
        path = self.path / name
        if path.suffix not in SUFFIXES:
            raise KeyError(name)
        try:
            found = RecordedFile(path, path.lstat())
        except OSError as error:
            if error.errno in _NO_SUCH:
                raise KeyError(name) from None
            raise
        if not S_ISREG(found.stat.st_mode):
            raise KeyError(name)
        return found

    def recordings(self) -> list[Recorded]:
        """Return all recordings, the newest first.

        Raises:
            OSError: The folder cannot be read.
        """
        files: dict[str, list[RecordedFile]] = {}
        facts = set()
        for file in self._all():
            if file.path.suffix == FACTS:
                facts.add(file.path.stem)
            else:
                files.setdefault(_stem_of(file.path), []).append(file)
        found = [
            Recorded(stem, tuple(sorted(each, key=_place)), stem in facts)
            for stem, each in files.items()
        ]
        return sorted(found, key=lambda each: each.changed_s, reverse=True)

    def recording(self, name: str) -> Recorded:
        """Return a recording.

        Raises:
            KeyError: There is none of that name.
            OSError: The folder cannot be read.
        """
        for found in self.recordings():
            if found.name == name:
                return found
        raise KeyError(name)

    def delete(self, name: str, written: Set[str]) -> None:
        """Delete all files of a recording, and no others of its name.

        Args:
            name: Its name.
            written: The names of the recordings that are being written now.

        Raises:
            KeyError: There is none of that name.
            Busy: It is being written.
            Foreign: Its name is none that `new_path` gives.
            OSError: A file cannot be deleted.
        """
        found = self.recording(name)
        if not found.ours:
            raise Foreign
        if name in written:
            raise Busy
        for file in found.files:
            file.path.unlink(missing_ok=True)
        facts = self.path / (name + FACTS)
        if found.facts and _are_facts(facts):
            facts.unlink(missing_ok=True)

    def _all(self) -> list[RecordedFile]:
        """Return the files that a `Recorder` may have written."""
        found = []
        for path in self.path.iterdir():
            # A name that is no UTF-8 cannot be sent, nor asked for.
            if path.suffix in (*SUFFIXES, FACTS) and _is_text(path.name):
                with suppress(FileNotFoundError):  # Rotation may delete a file meanwhile.
                    found.append(RecordedFile(path, path.lstat()))
        # A folder, a link or a pipe may have such a name too.
        return [file for file in found if S_ISREG(file.stat.st_mode)]


def _are_facts(path: Path) -> bool:
    """Return whether a file is one that a `Recorder` writes beside its lines. Raises OSError."""
    try:
        facts = json.loads(read_text(path))
    except (FileNotFoundError, ValueError, RecursionError):
        # Another program's file may hold anything.
        return False
    return isinstance(facts, dict) and facts.get("schema") == SCHEMA


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stem_of(path: Path) -> str:
    """Return the name of a file's recording."""
    numbered = _PART.fullmatch(path.stem) if path.suffix == ".mp4" else None
    return path.stem if numbered is None else numbered[1]


def _place(file: RecordedFile) -> tuple[bool, int, str]:
    """Return a key that sorts videos before bodies, by their numbers."""
    return file.path.suffix != ".mp4", len(file.path.stem), file.path.stem
