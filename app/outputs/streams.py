"""Outputs that are no files of their own: standard output, pipes, devices."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_DESCRIPTOR = re.compile(r"(/proc/[^/]+|/dev)/fd/")


def is_stream(path: Path) -> bool:
    """Return whether a path is no file of its own: standard output, a pipe, a device, or what
    ``/dev/fd`` names."""
    # `/dev/stdout` leads to a file where it is redirected, which is the shell's to name.
    links = (str(path), *_links(path))
    if str(path) == "-" or any(_DESCRIPTOR.match(link) for link in links):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _links(path: Path) -> Iterator[str]:
    """What a path leads to, link by link, and not further than into ``/proc``."""
    for _ in range(40):
        # The folder first: /dev/fd is a link itself.
        path = Path(os.path.realpath(path.parent)) / path.name
        yield str(path)
        try:
            target = os.readlink(path)
        except (OSError, ValueError):
            return
        path = path.parent / target


def open_text(path: Path, *, append: bool = False) -> TextIO:
    """Return a text file to write to; a stream gets the text after what was written to it before.

    Raises:
        OSError: It cannot be opened.
    """
    return open(path, "a" if append or is_stream(path) else "w", encoding="utf-8")  # noqa: SIM115
