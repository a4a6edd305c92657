"""Locks on files, which the system drops when their process ends, however it ends."""

from __future__ import annotations

import errno

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: int) -> bool | None:
    """Return whether an open file or folder is locked for this process from now on.

    The lock ends when the descriptor is closed or the process ends.

    Args:
        file: Its descriptor.

    Returns:
        False where another process, or another descriptor of this one, holds it; None where the
        system or the file system has no locks, as some network ones do not.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True
