"""When a recording's file ends and the next begins, and what the files are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from app.config import OutputConfig


@dataclass(frozen=True)
class Rotation:
    """A file ends at the first frame past ``seconds`` of the video's own time or ``megabytes``
    (10^6 bytes); None: no such limit. The newest ``keep`` files stay, all where it is 0."""

    seconds: float | None = None
    megabytes: float | None = None
    keep: int = 0

    @staticmethod
    def of(output: OutputConfig) -> Rotation:
        return Rotation(output.rotate_s, output.rotate_mb, output.rotate_keep or 0)

    @property
    def on(self) -> bool:
        """Whether there is any limit; without one there is one file."""
        return self.seconds is not None or self.megabytes is not None

    def due(self, seconds: float, size_bytes: int) -> bool:
        """Whether a file that is so long and so large ends."""
        long = self.seconds is not None and seconds >= self.seconds
        return long or (self.megabytes is not None and size_bytes >= self.megabytes * 1e6)

    def path(self, path: Path, number: int) -> Path:
        """The file of that number, from 1: OUT_0001.mp4 of OUT.mp4; OUT.mp4 itself where there is
        one file."""
        return path.with_name(f"{path.stem}_{number:04d}{path.suffix}") if self.on else path

    def last(self, path: Path) -> int:
        """The highest number that a file of an earlier run has, 0 without any."""
        if not self.on or not path.parent.is_dir():
            return 0
        there = [other for other in path.parent.iterdir() if self.would_write(path, other)]
        return max((int(other.stem[len(path.stem) + 1 :]) for other in there), default=0)

    def would_write(self, path: Path, other: Path) -> bool:
        """Whether ``other`` is, or may become, one of the files of ``path``."""
        if not self.on:
            return other.resolve() == path.resolve()
        name = rf"{re.escape(path.stem)}_\d{{4,}}{re.escape(path.suffix)}"
        same_folder = other.parent.resolve() == path.parent.resolve()
        return same_folder and re.fullmatch(name, other.name) is not None
