"""The folder of the recordings. Its methods touch the disk, but for `new_path`."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from app.serve.recorder import SUFFIXES


@dataclass(frozen=True)
class RecordedFile:
    """A recording's file: its path, and what the system says of it."""

    path: Path
    stat: os.stat_result


class RecordingFolder:
    """Names new recordings and finds the existing ones. For any thread.

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
        found = []
        for path in self.path.iterdir():
            # Other files in the folder are not offered for download.
            if path.suffix in SUFFIXES:
                with suppress(FileNotFoundError):  # Rotation may delete a file meanwhile.
                    # Not followed: a link could lead out of the folder.
                    found.append(RecordedFile(path, path.lstat()))
        found.sort(key=lambda file: file.stat.st_mtime, reverse=True)
        # A folder or a pipe may have such a name too.
        return [file for file in found if S_ISREG(file.stat.st_mode)]

    def file(self, name: str) -> RecordedFile:
        """Return a recording's file.

        The name is looked up among the existing files and never joined to a path unchecked, so
        ``../x`` is refused.

        Raises:
            KeyError: There is no such file.
            OSError: The folder cannot be read.
        """
        for file in self.files():
            if file.path.name == name:
                return file
        raise KeyError(name)
