"""No output overwrites an input of the same command, or another output."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from app.outputs.base import OutputError

Named = tuple[str, Path]
"""What a file is called in a message, such as "the source" or "--video", and its path."""


def check_overwrites(inputs: Iterable[Named], outputs: Iterable[Named]) -> None:
    """Do nothing where every output is a file of its own.

    Two paths are one file where the system says so: by device and inode, so that links of either
    kind and other spellings are found; a file that does not exist yet by its folder and name.

    Args:
        inputs: Every file that the command reads. Paths that are no files are ignored.
        outputs: Every file that it writes.

    Raises:
        OutputError: An output is an input, or another output; one line that names both.
    """
    users: dict[object, str] = {}
    for what, path in inputs:
        if (key := _existing(path)) is not None:
            users.setdefault(key, what)
    for flag, path in outputs:
        key = _existing(path) if os.path.exists(path) else _to_be_made(path)
        if key is not None and (other := users.setdefault(key, flag)) != flag:
            raise OutputError(f"{flag} {path}: that is {other} already")


def _existing(path: Path) -> object:
    """What tells a regular file from every other one; None for a device or a pipe, which many may
    use, and for a path that leads nowhere."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _to_be_made(path: Path) -> object:
    """What tells a file that does not exist yet from every other one."""
    try:
        # A link that leads nowhere yet is where the output will be made.
        target = Path(os.path.realpath(path))
        folder = target.parent.stat()
    except (OSError, ValueError):
        # The folder is not there yet either: its spelling has to do.
        return str(path)
    # Some file systems take two spellings of a name for one.
    name = unicodedata.normalize("NFC", target.name.casefold())
    return folder.st_dev, folder.st_ino, name
