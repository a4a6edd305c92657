"""Files on disks that are full."""

from __future__ import annotations

import errno
import io
import os
from typing import Any


class FullDisk(io.RawIOBase):
    """A file that takes a given number of bytes, then none."""

    def __init__(self, most: int) -> None:
        self.left = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if len(data) > self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= len(data)
        return len(data)
