"""A file that never holds part of a piece."""

from __future__ import annotations

import io
from pathlib import Path


class AtomicFile:
    """A file that takes each piece whole or not at all.

    After a piece that does not fit (a full disk) it takes no more, so that its content stays
    playable. ``end`` is its size in bytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (see `close`)
        self._failed: OSError | None = None
        self.end = 0
        self.seek = self._file.seek
        self.tell = self._file.tell
        self.close = self._file.close

    def write(self, data: bytes) -> int:
        """Write a piece and return its length. Raises OSError, the same one from then on."""
        if self._failed is not None:
            raise self._failed
        start, rest = self._file.tell(), memoryview(data)
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(start)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._failed = error
            self._file.truncate(end)
            raise
        self.end = max(end, start + len(data))
        return len(data)
