"""The mark beside a file of lines whose run has not ended well, and how the file goes on."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Unfinished:
    """``.OUT.jsonl.unfinished``: there while OUT.jsonl is written, and after a run that was killed
    or failed.

    Attributes:
        command: What `command_of` returned for the command that writes the file.
        track: The highest track number in the file.
    """

    command: str
    track: int = 0

    @classmethod
    def read(cls, path: Path) -> Unfinished | None:
        """Return the mark of a file, None without one."""
        try:
            return cls(**json.loads(_mark_of(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            # A broken mark is none: the file then stays as it is.
            return None

    def save(self, path: Path) -> None:
        """Write the mark of a file. Raises OSError."""
        # Renamed when it is complete, so that a kill leaves the mark before or this one.
        part = _mark_of(path).with_suffix(".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(part, _mark_of(path))

    @staticmethod
    def remove(path: Path) -> None:
        """Delete the mark of a file, if there is one."""
        with suppress(OSError):
            _mark_of(path).unlink()


def _mark_of(path: Path) -> Path:
    # Beside the file itself, whichever link leads to it.
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}.unfinished")


def command_of(sources: Iterable[str], *settings: object) -> str:
    """Return a short text that is the same for the same command.

    That is one in the same folder, with the same sources, of which clips are unchanged, and the
    same settings, whether from flags or from a profile.
    """
    facts = [(source, _facts(source)) for source in sources]
    text = repr((_folder(), facts, settings))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""  # It was deleted meanwhile.


def _facts(source: str) -> tuple[int, int] | None:
    """The size and the time of a clip; None for what is no file."""
    try:
        found = os.stat(source)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def can_continue(path: Path, command: str) -> bool:
    """Return whether a file of lines is one that a run of the same command left unfinished."""
    mark = Unfinished.read(path)
    # The last line too, in case something else was written there meanwhile.
    return mark is not None and mark.command == command and _last_line(path) is not None


def cut_broken_end(path: Path) -> dict[str, Any] | None:
    """Cut a line that is not whole off the end of a file of lines.

    Returns:
        The object of its last line; None where that is no JSON object, and the file stays as it is.

    Raises:
        OSError: The file cannot be changed.
    """
    found = _last_line(path)
    if found is None:
        return None
    os.truncate(path, found[0])
    return found[1]


def _last_line(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Where the last whole line ends, and its object; None where it is not one."""
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            end = text.rfind(b"\n") + 1
            line = text[text.rfind(b"\n", 0, max(end - 1, 0)) + 1 : end]
        found = json.loads(line)
    except (OSError, ValueError):
        return None  # An empty file cannot be mapped.
    return (end, found) if isinstance(found, dict) else None
