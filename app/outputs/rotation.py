"""When a video file ends and the next one begins, and the names of the files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rotation:
    """The limits of one video file.

    A file ends at the first frame past ``seconds`` of the video's own time or ``megabytes``
    (10^6 bytes); None: no such limit. The newest ``keep`` files stay; 0: all.
    """

    seconds: float | None = None
    megabytes: float | None = None
    keep: int = 0

    @property
    def on(self) -> bool:
        """Whether there is a limit; without one there is one file."""
        return self.seconds is not None or self.megabytes is not None

    def due(self, seconds: float, size_bytes: int) -> bool:
        """Return whether a file of that length and size ends."""
        long = self.seconds is not None and seconds >= self.seconds
        return long or (self.megabytes is not None and size_bytes >= self.megabytes * 1e6)

    def path(self, path: Path, number: int) -> Path:
        """Return the file of that number, from 1: OUT_0001.mp4 of OUT.mp4; OUT.mp4 itself where
        there is one file."""
        return path.with_name(f"{path.stem}_{number:04d}{path.suffix}") if self.on else path

    def last(self, path: Path) -> int:
        """Return the highest number of a file of an earlier run, 0 without any; empty files, which
        killed runs leave, do not count."""
        if not self.on or not path.parent.is_dir():
            return 0
        there = [
            Path(other.path)
            for other in os.scandir(path.parent)
            if self.would_write(path, Path(other.path)) and _holds_something(other)
        ]
        # The highest and not the count: older files may have been deleted.
        return max((int(other.stem[len(path.stem) + 1 :]) for other in there), default=0)

    def would_write(self, path: Path, other: Path) -> bool:
        """Return whether ``other`` is, or may become, one of the files of ``path``."""
        if not self.on:
            return other.resolve() == path.resolve()
        # Four digits or more: the numbers go on past 9999.
        name = rf"{re.escape(path.stem)}_\d{{4,}}{re.escape(path.suffix)}"
        same_folder = other.parent.resolve() == path.parent.resolve()
        return same_folder and re.fullmatch(name, other.name) is not None


def _holds_something(file: os.DirEntry[str]) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False  # It was deleted meanwhile.
