"""Files that are whole: piece by piece, or at once."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a hidden path beside a file to write to. It becomes the file at the end of the block,
    and is removed after an error."""
    # A link stays one: what it leads to is replaced.
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        # The first error is the one to report.
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


class AtomicFile:
    """A file that takes each piece whole or not at all.

    After a piece that does not fit (a full disk) it takes no more, so that its content stays
    playable. ``end`` is its size in bytes.

    Args:
        path: The file; it is made if missing.
        replace: Whether what is in it is deleted.

    Raises:
        FileExistsError: There is something in it, and it is not to be replaced.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, replace: bool = False) -> None:
        # Not "w", which would empty it before the check.
        mode = "r+b" if path.exists() else "xb"
        # Unbuffered: what `write` took is out of this process, also if it is killed then.
        self._file = open(path, mode, buffering=0)  # noqa: SIM115 (see `close`)
        if self._file.seek(0, io.SEEK_END):
            if not replace:
                self._file.close()
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            self._file.truncate(0)
            self._file.seek(0)
        # A file in memory has no name from its beginning.
        self._named = self._links() > 0
        self._failed: OSError | None = None
        self.end = 0
        self.seek = self._file.seek
        self.tell = self._file.tell
        self.close = self._file.close

    def write(self, data: bytes) -> int:
        """Write a piece and return its length. Raises OSError, the same one from then on."""
        if self._failed is not None:
            raise self._failed
        # The system would take every byte and keep none.
        if self._named and not self._links():
            self._failed = FileNotFoundError(errno.ENOENT, "the file was deleted")
            raise self._failed
        # FFmpeg may seek back, so a piece may lie inside the file.
        start, rest = self._file.tell(), memoryview(data)
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(start)
        try:
            # The system may take only part of a piece, as a disk that is nearly full does.
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._failed = error
            # Takes back the part that fitted, or players would meet half a fragment.
            self._file.truncate(end)
            raise
        self.end = max(end, start + len(data))
        return len(data)

    def _links(self) -> int:
        """Return how many names the file has; 0 once it is deleted."""
        return os.fstat(self._file.fileno()).st_nlink
