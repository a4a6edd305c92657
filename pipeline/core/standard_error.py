"""Standard error without what libraries write to it from C++."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()
"""Held in a block: of two that overlap, the second would keep the first one's nothing."""


@contextmanager
def without_standard_error() -> Iterator[None]:
    """Discard all that this process, all threads of it, writes to standard error in the block.

    One thread has such a block at a time; another one waits for its end.
    """
    if sys.stderr is None:  # no standard error to keep clean
        yield
        return
    with _LOCK:
        # What was written before must not be discarded with the library's lines.
        sys.stderr.flush()
        saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)
